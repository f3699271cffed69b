"""What an MLflow server that neither answers nor refuses costs the start and a compile, beside tracking switched off.

    python benchmarks/unreachable.py [--json] [--runs N]

A second start of `dspyui ui` to its first page, and a compile by its API (BootstrapFewShot, 100 rows, a fake language
model of 50 ms on loopback), once with `MLFLOW_ENABLED=false` and once with `MLFLOW_TRACKING_URI` at an address of
loopback whose queue of connections is full, as behind a firewall that drops what it gets. Taken in turns, each with a
data folder of its own; each figure is the median of several runs. `told_seconds` is from the first page until the
program says that the server cannot be reached. Progress goes to stderr; the last line on stdout is one JSON object.
Exit code 1: target missed.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from common import FakeLM, free_port, say
from compile_overhead import LM_SECONDS, answer

TARGETS = {"start_extra_seconds": 3.0, "told_seconds": 3.0, "compile_ratio": 1.1}
WAIT_SECONDS = 120.0
ENDED = {"done", "failed", "cancelled"}


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that neither answers nor refuses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers: list[socket.socket] = []
        for _ in range(100):
            fillers.append(socket.socket())
            fillers[-1].settimeout(0.3)
            try:
                fillers[-1].connect(address)
            except TimeoutError:
                break
        else:
            raise SystemExit("a queue of connections could not be filled")
        try:
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            for filler in fillers:
                filler.close()


def wait(condition: Callable[[], Any], what: str) -> Any:
    """What the condition gives, once it gives something."""
    end = time.monotonic() + WAIT_SECONDS
    while not (found := condition()):
        if time.monotonic() > end:
            raise SystemExit(f"not within {WAIT_SECONDS:g} s: {what}")
        time.sleep(0.02)
    return found


@contextmanager
def program(folder: Path, tracking: dict[str, str]) -> Iterator[tuple[httpx.Client, float]]:
    """The running program, and the seconds to its first page."""
    port = free_port()
    settings = {"DSPYUI_LOCAL_LM": "false", "DSPYUI_LANGUAGE": "en_US", "DSPYUI_HOME": str(folder / "data")}
    with (folder / "ui.log").open("ab") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "dspyui", "ui", "--port", str(port)],
            env={**os.environ, **settings, **tracking}, cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:

        def answers() -> bool:
            if process.poll() is not None:
                raise SystemExit(f"the program ended:\n{(folder / 'ui.log').read_text()[-3000:]}")
            try:
                return client.get("/").status_code == 200
            except httpx.TransportError:
                return False

        try:
            wait(answers, "the first page")
            yield client, time.perf_counter() - begin
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def spec(address: str) -> dict[str, Any]:
    """The compile."""
    words = [f"thing{number}" for number in range(100)]
    return {
        "program": {
            "name": "unreachable",
            "signature": {
                "instructions": "Name the product.",
                "inputs": [{"name": "message"}],
                "outputs": [{"name": "product"}],
            },
        },
        "lms": {"task": {"model": "openai/fake", "api_base": address}},
        "optimizer": {"kind": "bootstrap_few_shot"},
        "data": {"rows": [{"message": f"My {word} broke on Monday.", "product": word} for word in words]},
        "threads": 8,
    }


def compile_seconds(client: httpx.Client, address: str) -> float:
    """How long the job took, from its start to its end."""
    answer = client.post("/api/compile", json=spec(address))
    answer.raise_for_status()
    job_id = answer.json()["job_id"]

    def ended() -> dict[str, Any] | None:
        job = client.get(f"/api/jobs/{job_id}").json()["job"]
        return job if job["status"] in ENDED else None

    job = wait(ended, "the compile")
    if job["status"] != "done":
        raise SystemExit(f"the compile {job['status']}: {job}")
    started, finished = (datetime.fromisoformat(job[name]) for name in ("started_at", "ended_at"))
    return (finished - started).total_seconds()


def one(folder: Path, tracking: dict[str, str], state: str, lm: FakeLM) -> dict[str, float]:
    """The figures of one second start and the compile after it."""
    folder.mkdir()
    with program(folder, tracking):
        pass
    with program(folder, tracking) as (client, seconds):
        begin = time.perf_counter()
        wait(lambda: client.get("/api/health").json()["tracking"] == state, f"tracking: {state}")
        told = time.perf_counter() - begin
        before = lm.calls
        compiled = compile_seconds(client, lm.address)
        return {"start": seconds, "told": told, "compile": compiled, "calls": lm.calls - before}


def measure(runs: int) -> dict[str, Any]:
    """All figures, and whether the targets are met."""
    lm = FakeLM(answer, LM_SECONDS)
    sides: dict[str, list[dict[str, float]]] = {"off": [], "away": []}
    with tempfile.TemporaryDirectory(prefix="dspyui-unreachable-") as name, black_hole() as address:
        for number in range(runs):
            off, away = {"MLFLOW_ENABLED": "false"}, {"MLFLOW_TRACKING_URI": address}
            sides["off"].append(one(Path(name) / f"off{number}", off, "off", lm))
            sides["away"].append(one(Path(name) / f"away{number}", away, "unreachable", lm))
            say(f"{number + 1}/{runs}: off {sides['off'][-1]}, away {sides['away'][-1]}")
    if len({figures["calls"] for side in sides.values() for figures in side}) != 1:
        raise SystemExit("the compiles made different numbers of calls, so they cannot be compared")

    def median(side: str, figure: str) -> float:
        return statistics.median(found[figure] for found in sides[side])

    found = {
        "start_extra_seconds": median("away", "start") - median("off", "start"),
        "told_seconds": median("away", "told"),
        "compile_ratio": median("away", "compile") / median("off", "compile"),
    }
    return {
        **{figure: round(value, 3) for figure, value in found.items()},
        "start_seconds_off": round(median("off", "start"), 3),
        "compile_seconds_off": round(median("off", "compile"), 3),
        "targets": TARGETS,
        "runs": runs,
        "met": all(found[figure] <= target for figure, target in TARGETS.items()),
    }


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="leave the lines for people out")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (default 3)")
    arguments = parser.parse_args()
    figures = measure(arguments.runs)
    if not arguments.json:
        for figure, target in TARGETS.items():
            print(f"{figure}: {figures[figure]} (target ≤ {target:g})")
    print(json.dumps(figures))
    return 0 if figures["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
