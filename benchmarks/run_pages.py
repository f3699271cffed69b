"""How long a page of Runs takes at the server with 10,000 Runs in the experiment and 1,000 versions in the registry.

    python benchmarks/run_pages.py [--json] [--runs N] [--versions N] [--repeats N]

A real `dspyui ui` with its own MLflow server on SQLite; the Runs are written into MLflow's database before it starts,
each with 60 params, 25 metrics and 12 tags, which is what a compile records. Asked are every order, filters, a page far
back and one Run; each figure is the median of several requests to `/api/runs`, which does what the pages do. Progress
goes to stderr; the last line on stdout is one JSON object. Exit code 1: target missed.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from common import free_port, say

TARGET_SECONDS = 1.0
START_SECONDS = 180.0
EXPERIMENT = "Scale"
SORTS = (
    "started", "name", "program", "module", "optimizer", "lm", "baseline", "score", "difference", "cost", "duration",
)  # fmt: skip


def seed(database: str, runs: int, versions: int) -> str:
    """Write the Runs and the versions into MLflow's database; gives the id of one Run."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import MetaData

    store = SqlAlchemyStore(database, "mlflow-artifacts:/")
    Registry(database)
    experiment = store.create_experiment(EXPERIMENT)
    tables = MetaData()
    tables.reflect(store.engine)
    chance = random.Random(7)  # noqa: S311 - figures for a benchmark
    numbers = range(runs)
    ids = [f"{number:032x}" for number in numbers]
    start = 1_700_000_000_000
    with store.engine.begin() as connection:
        write(connection, tables, "runs", (run_row(n, ids[n], int(experiment), start) for n in numbers))
        write(connection, tables, "params", (row for n in numbers for row in params(ids[n], n)))
        write(connection, tables, "tags", (row for n in numbers for row in tags(ids[n], n)))
        metrics = [row for n in numbers for row in metric_rows(ids[n], start, chance)]
        write(connection, tables, "metrics", iter(metrics))
        write(connection, tables, "latest_metrics", iter(metrics))
        models = [f"model-{number}" for number in range(max(1, versions // 10))]
        write(connection, tables, "registered_models", (model_row(name, start) for name in models))
        write(
            connection,
            tables,
            "model_versions",
            (
                version_row(models[n % len(models)], 1 + n // len(models), ids[n % runs], start)
                for n in range(versions)
            ),
        )
    store.engine.dispose()
    return ids[-1]


def write(connection: Any, tables: Any, name: str, rows: Iterator[dict[str, Any]]) -> None:
    """Insert rows, 20,000 at a time; columns that a row does not name get nothing."""
    from itertools import islice

    table = tables.tables[name]
    count = 0
    while batch := list(islice(rows, 20_000)):
        given = [{key: value for key, value in row.items() if key in table.c} for row in batch]
        connection.execute(table.insert(), given)
        count += len(batch)
    say(f"{name}: {count:,} rows")


def run_row(number: int, run_id: str, experiment: int, start: int) -> dict[str, Any]:
    """A Run; one in fifty failed."""
    # MLflow keeps the state as a number.
    status = "FAILED" if number % 50 == 0 else "FINISHED"
    return {
        "run_uuid": run_id, "name": f"extraction-{number}", "source_type": "LOCAL", "source_name": "dspyui",
        "entry_point_name": "", "user_id": "bench", "status": status, "start_time": start + number * 60_000,
        "end_time": start + number * 60_000 + 30_000, "source_version": "", "lifecycle_stage": "active",
        "artifact_uri": f"mlflow-artifacts:/1/{run_id}/artifacts", "experiment_id": experiment,
    }  # fmt: skip


def params(run_id: str, number: int) -> Iterator[dict[str, Any]]:
    """60 of them."""
    known = {
        "module": ("Predict", "ChainOfThought", "Refine")[number % 3],
        "optimizer": ("LabeledFewShot", "MIPROv2", "GEPA", "SIMBA")[number % 4],
        "lm.task.model": f"openai/model-{number % 7}",
        "metric": "exact_match",
        "signature.instructions": "Find the product that the customer writes about. " * 6,
    }
    known |= {f"optimizer.setting_{index}": str(index * number) for index in range(60 - len(known))}
    return ({"key": name, "value": value, "run_uuid": run_id} for name, value in known.items())


def tags(run_id: str, number: int) -> Iterator[dict[str, Any]]:
    """12 of them."""
    known = {
        "dspyui.job_id": f"20260101-000000-{number:08x}",
        "dspyui.program": f"program {number % 40}",
        "dspyui.data_digest": "d" * 64,
        "mlflow.runName": f"extraction-{number}",
        "mlflow.user": "bench",
    }
    known |= {f"dspyui.more_{index}": "x" * 40 for index in range(12 - len(known))}
    return ({"key": name, "value": value, "run_uuid": run_id} for name, value in known.items())


def metric_rows(run_id: str, start: int, chance: random.Random) -> Iterator[dict[str, Any]]:
    """25 of them."""
    before, after = chance.random(), chance.random()
    known = {
        "baseline_score": before,
        "evaluation_score": after,
        "score_improvement": after - before,
        "cost": chance.random(),
        "duration_seconds": chance.random() * 1000,
    }
    known |= {f"more_{index}": chance.random() for index in range(25 - len(known))}
    return (
        {"key": name, "value": value, "timestamp": start, "run_uuid": run_id, "step": 0, "is_nan": False}
        for name, value in known.items()
    )


def model_row(name: str, start: int) -> dict[str, Any]:
    """A registered model."""
    return {
        "name": name,
        "creation_time": start,
        "last_updated_time": start,
        "description": "",
        "workspace": "default",
    }


def version_row(name: str, version: int, run_id: str, start: int) -> dict[str, Any]:
    """A version of one."""
    return {
        "name": name, "version": version, "creation_time": start + version, "last_updated_time": start,
        "description": "", "user_id": "bench", "current_stage": "None", "source": "models:/m-1", "run_id": run_id,
        "run_link": "", "status": "READY", "status_message": "", "workspace": "default", "storage_location": "",
    }  # fmt: skip


@contextmanager
def serving(folder: Path, port: int) -> Iterator[None]:
    """`dspyui ui` with its own MLflow server on the database in the folder."""
    environment = {
        "DSPYUI_HOME": str(folder / "data"), "DSPYUI_LOCAL_LM": "false", "MLFLOW_EXPERIMENT_NAME": EXPERIMENT,
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder}/mlflow.db",
        "MLFLOW_ARTIFACT_ROOT": str(folder / "artifacts"),
    }  # fmt: skip
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dspyui", "ui", "--mlflow", "--port", str(port)],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def questions(run_id: str) -> dict[str, str]:
    """What is asked, by what it is called."""
    asked = {f"sorted by {sort}": f"/api/runs?sort={sort}" for sort in SORTS}
    asked["filtered by name"] = "/api/runs?name=extraction-99"
    asked["filtered by program, module and optimizer"] = (
        "/api/runs?program=program%207&module=Predict&optimizer=GEPA"
    )
    asked["filtered by a model that nobody used"] = "/api/runs?lm=nobody"
    asked["failed, by score"] = "/api/runs?state=FAILED&sort=score"
    asked["one Run"] = f"/api/runs/{run_id}"
    return asked


def measure(runs: int, versions: int, repeats: int) -> dict[str, Any]:
    """Start everything and ask."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_id = seed(f"sqlite:///{folder}/mlflow.db", runs, versions)
        port = free_port()
        with serving(folder, port):
            figures = ask(f"http://127.0.0.1:{port}", run_id, repeats)
    return {"runs": runs, "versions": versions, **figures}


def ask(address: str, run_id: str, repeats: int) -> dict[str, Any]:
    """The median seconds of every question."""
    found: dict[str, float] = {}
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        wait(client)
        asked = questions(run_id)
        asked["page 100"] = f"/api/runs?page_token={far_token(client)}"
        for what, path in asked.items():
            found[what] = statistics.median(seconds(client, path) for _ in range(repeats))
            say(f"{what}: {found[what]:.3f} s")
    slowest = max(found, key=lambda what: found[what])
    return {
        "seconds": {what: round(value, 3) for what, value in found.items()},
        "slowest": slowest,
        "slowest_seconds": round(found[slowest], 3),
        "target_seconds": TARGET_SECONDS,
        "met": found[slowest] < TARGET_SECONDS,
    }


def wait(client: httpx.Client) -> None:
    """Until there are Runs to be had. Raises RuntimeError."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        try:
            if client.get("/api/runs?size=1").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise RuntimeError("the server did not start")


def far_token(client: httpx.Client) -> str:
    """The token of page 100, fetched with pages of 990 Runs and one of 40."""
    token = None
    for size in (990, 990, 990, 990, 990):
        asked = {"size": size} | ({"page_token": token} if token else {})
        answer = client.get("/api/runs", params=asked)
        if answer.status_code != 200:
            raise RuntimeError(f"a long page: {answer.status_code} {answer.text[:300]}")
        token = answer.json()["next_page_token"]
        if token is None:
            raise RuntimeError("there are too few Runs for a page far back")
    return str(httpx.QueryParams({"t": token})).partition("=")[2]


def seconds(client: httpx.Client, path: str) -> float:
    """How long an answer takes. Raises RuntimeError for one that is none."""
    begin = time.perf_counter()
    answer = client.get(path)
    taken = time.perf_counter() - begin
    if answer.status_code != 200:
        raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:300]}")
    return taken


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="leave the lines for people out")
    parser.add_argument(
        "--runs", type=int, default=10_000, help="how many Runs (default 10000, at least 5000)"
    )
    parser.add_argument("--versions", type=int, default=1_000, help="how many versions (default 1000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often each is asked (default 5)")
    arguments = parser.parse_args()
    figures = measure(arguments.runs, arguments.versions, arguments.repeats)
    if not arguments.json:
        print(
            f"{figures['runs']:,} Runs, {figures['versions']:,} versions: the slowest answer, {figures['slowest']}, "
            f"took {figures['slowest_seconds']} s (target below {TARGET_SECONDS:g} s)"
        )
    print(json.dumps(figures))
    return 0 if figures["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
