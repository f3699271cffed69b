"""How long the pages of Runs and of models take at the server, with 10,000 Runs and a model of 1,000 versions.

    python benchmarks/run_pages.py [--json] [--runs N] [--versions N] [--repeats N]

A real `dspyui ui` with its own MLflow server on SQLite; the Runs are written into MLflow's database before it starts,
each with 60 params, 25 metrics and 12 tags, which is what a compile records; the models are those of `model_seed.py`.
Asked of Runs are every order, filters, a page far back and one Run; of models the list, the first and the last page of
the one with 1,000 versions, a version with its gate and traces, models of other tools. Each figure is the
median of several requests to the API, which does what the pages do, and to the pages themselves (`page …`, without what
they then load). `first` holds what is slower the first time, looking into a page of versions that another tool logged,
`promotion` the seconds of one in the long model; the target is for the others.
Progress goes to stderr; the last line on stdout is one JSON object. Exit code 1: target missed.
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

from common import free_port, say, write
from model_seed import FOREIGN, LOST, OURS, production, seed_models, write_files

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
        seed_models(connection, tables, versions, ids, start)
    store.engine.dispose()
    return ids[-1]


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


def model_questions(client: httpx.Client, versions: int) -> dict[str, str]:
    """The same of models."""
    asked = {f"models by {sort}": f"/api/models?sort={sort}" for sort in ("updated", "name")}
    asked["models filtered by name"] = "/api/models?name=el-9"
    asked["model, first page"] = f"/api/models/{OURS}"
    token = far_versions(client, versions)
    asked["model, last page"] = f"/api/models/{OURS}?{httpx.QueryParams({'page_token': token})}"
    version = f"/api/models/{OURS}/versions/{versions // 2}"
    asked |= {"version": version, "version, gate": f"{version}/gate", "version, traces": f"{version}/traces"}
    for name in (FOREIGN, LOST):
        asked[f"model of another tool ({name})"] = f"/api/models/{name}?look=false"
        asked[f"model of another tool ({name}), looked into"] = f"/api/models/{name}"
    return asked


def far_versions(client: httpx.Client, versions: int) -> str:
    """The token of the last 50 versions."""
    answer = client.get(f"/api/models/{OURS}", params={"size": versions - 50})
    if answer.status_code != 200:
        raise RuntimeError(f"a long page of versions: {answer.status_code} {answer.text[:300]}")
    return answer.json()["next_token"]


def pages(run_id: str, versions: int) -> dict[str, str]:
    """The pages themselves."""
    paths = ("/runs", f"/runs/{run_id}", "/models", f"/models/{OURS}", f"/models/{OURS}/{versions // 2}",
             f"/models/{FOREIGN}")  # fmt: skip
    return {f"page {path}": path for path in paths}


def promote(client: httpx.Client, versions: int) -> float:
    """The seconds of a promotion to Production; each time of another version."""
    holder = production(versions)
    body = {"stage": "Production", "why": "It is measured.", "confirm": OURS}

    def move(version: int) -> float:
        begin = time.perf_counter()
        answer = client.post(f"/api/models/{OURS}/versions/{version}/stage", json=body)
        if answer.status_code != 200:
            raise RuntimeError(f"a promotion: {answer.status_code} {answer.text[:300]}")
        return time.perf_counter() - begin

    return statistics.median([move(holder - 7), move(holder), move(holder - 5)])


def measure(runs: int, versions: int, repeats: int) -> dict[str, Any]:
    """Start everything and ask."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_id = seed(f"sqlite:///{folder}/mlflow.db", runs, versions)
        write_files(folder / "artifacts")
        port = free_port()
        with serving(folder, port):
            figures = ask(f"http://127.0.0.1:{port}", run_id, versions, repeats)
    return {"runs": runs, "versions": versions, **figures}


def ask(address: str, run_id: str, versions: int, repeats: int) -> dict[str, Any]:
    """The median seconds of every question."""
    found: dict[str, float] = {}
    with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
        wait(client)
        asked = questions(run_id)
        asked["page 100"] = f"/api/runs?page_token={far_token(client)}"
        asked |= model_questions(client, versions) | pages(run_id, versions)
        first = {name: round(seconds(client, f"/api/models/{name}"), 3) for name in (FOREIGN, LOST)}
        say(f"looking into versions of another tool for the first time: {first}")
        for what, path in asked.items():
            found[what] = statistics.median(seconds(client, path) for _ in range(repeats))
            say(f"{what}: {found[what]:.3f} s")
        promotion = round(promote(client, versions), 3)
        say(f"promotion: {promotion} s")
    slowest = max(found, key=lambda what: found[what])
    return {
        "seconds": {what: round(value, 3) for what, value in found.items()},
        "first": first,
        "promotion": promotion,
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
    parser.add_argument(
        "--versions",
        type=int,
        default=1_000,
        help="how many versions a model has (default 1000, at least 100)",
    )
    parser.add_argument("--repeats", type=int, default=5, help="how often each is asked (default 5)")
    arguments = parser.parse_args()
    figures = measure(arguments.runs, arguments.versions, arguments.repeats)
    if not arguments.json:
        print(
            f"{figures['runs']:,} Runs, a model of {figures['versions']:,} versions: "
            f"the slowest answer, {figures['slowest']}, took {figures['slowest_seconds']} s "
            f"(target below {TARGET_SECONDS:g} s)"
        )
    print(json.dumps(figures))
    return 0 if figures["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
