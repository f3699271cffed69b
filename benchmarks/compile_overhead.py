"""What a compile here costs beside the same compile in bare DSPy: BootstrapFewShot and MIPROv2, tracking on.

    python benchmarks/compile_overhead.py [--json] [--runs N] [--rows N]

A fake language model on loopback answers each call after 50 ms; eight threads, 200 rows, every run with an empty
cache. Both sides score the program on the same rows before and after, and on the validation rows, as a compile here
does; the bare side does it with `dspy.Evaluate`. Ours runs as it does in a job: the events and results go to the
job's folder and every trace to its spool. When the job is done, its record goes to a local MLflow server on SQLite, in
the background as always; how long that takes is told apart (`record_seconds`), and a record that does not arrive is a
failure. Both sides must make the same number of LM calls and reach the same scores, or the comparison means nothing.
The start of processes and of the server is not counted. Each figure is the median of several runs, taken in turns.
Progress goes to stderr; the last line on stdout is one JSON object. Exit code 1: target missed.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from common import FakeLM, free_port, say

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

TARGET_RATIO = 1.15
LM_SECONDS = 0.05
THREADS = 8
SERVER_SECONDS = 120.0
LESSON = "Answer with the SECOND WORD of the message."
SPLIT = {"train": 0.5, "validation": 0.2, "test": 0.3}
OPTIMIZERS: dict[str, dict[str, Any]] = {"bootstrap_few_shot": {}, "miprov2": {}}


def answer(messages: list[dict[str, str]]) -> str:
    """The reply: the product of a message, or the one sentence that helps."""
    listed = messages[0]["content"].split("Your output fields are:", 1)[1].split("All interactions", 1)[0]
    names = re.findall(r"^\d+\. `(\w+)`", listed, flags=re.MULTILINE)
    values = dict.fromkeys(names, LESSON)
    if "product" in values:
        asked = messages[-1]["content"].split("[[ ## message ## ]]", 1)[1]
        word = asked.split()[1]
        taught = len(messages) > 2 or "SECOND WORD" in messages[0]["content"]
        values["product"] = word if taught or int(word.removeprefix("thing")) % 2 else "something"
    return (
        "".join(f"[[ ## {name} ## ]]\n{value}\n\n" for name, value in values.items())
        + "[[ ## completed ## ]]"
    )


def make_rows(count: int) -> list[dict[str, str]]:
    """The data."""
    return [{"message": f"My thing{i} broke on Monday.", "product": f"thing{i}"} for i in range(count)]


class Tracking:
    """A local MLflow server on SQLite in a folder."""

    def __init__(self, folder: Path) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self._log = (folder / "mlflow.log").open("ab")
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
                "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--serve-artifacts",
                "--artifacts-destination", str(folder / "artifacts"), "--workers", "1",
            ],
            cwd=folder, stdout=self._log, stderr=self._log, start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
        end = time.monotonic() + SERVER_SECONDS
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                with opener.open(f"{self.address}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(
                        f"MLflow did not start:\n{(folder / 'mlflow.log').read_text()[-3000:]}"
                    ) from None
                time.sleep(0.2)

    def close(self) -> None:
        """End it with its workers."""
        os.killpg(self._process.pid, 15)
        self._process.wait(30)
        self._log.close()


def document(kind: str, lm: FakeLM, rows: int) -> dict[str, Any]:
    """The compile as a spec."""
    return {
        "program": {
            "name": "benchmark",
            "signature": {
                "instructions": "Name the product.",
                "inputs": [{"name": "message"}],
                "outputs": [{"name": "product"}],
            },
        },
        "lms": {"task": {"model": "openai/fake", "api_base": lm.address}},
        "optimizer": {"kind": kind, "params": OPTIMIZERS[kind]},
        "data": {"rows": make_rows(rows), "split": SPLIT},
        "threads": THREADS,
    }


# Each side runs in a process of its own, which times itself and prints one line.


def ours(request: dict[str, Any]) -> dict[str, Any]:
    """The compile as a job's child runs it, then its record sent to MLflow."""
    import dspy  # noqa: F401 - its import is no part of the compile, on either side
    import mlflow  # noqa: F401

    from dspyui import bootstrap
    from dspyui.adapters.dspy_engine import engine  # noqa: F401
    from dspyui.services.documents import spec_of
    from dspyui.settings import Settings

    folder = Path(request["folder"])
    environment = {
        **os.environ,
        "DSPYUI_HOME": str(folder / "data"),
        "MLFLOW_TRACKING_URI": request["tracking"],
        "DSPYUI_LOCAL_LM": "false",
    }
    os.environ.update(environment)
    app = bootstrap.make_app(Settings.load())
    app.services.tracking.start()
    end = time.monotonic() + SERVER_SECONDS
    while app.services.tracking.state().status != "ready" and time.monotonic() < end:
        time.sleep(0.05)
    job = app.services.jobs.create(spec_of(request["spec"]), who="benchmark")
    begin = time.perf_counter()
    with Path(os.devnull).open("w", encoding="utf-8") as out:
        code = bootstrap.job_child("compile", job.id, out)
    seconds = time.perf_counter() - begin
    link = app.services.record.ensure_run(job.id)
    record = time.perf_counter() - begin - seconds
    if code:
        raise SystemExit(f"the compile failed; its log: {(folder / 'side.log').read_text()[-3000:]}")
    result = app.services.job_store.find_result(job.id)
    app.close()
    if result is None or not link.run_id:
        raise SystemExit("the compile left no result or no Run")
    scores = [result.baseline.score, result.optimised.score]
    return {"seconds": seconds, "record": record, "scores": [round(score, 4) for score in scores]}


def bare(request: dict[str, Any]) -> dict[str, Any]:
    """The same in DSPy alone."""
    import random

    import dspy

    from dspyui.domain.splits import split_rows
    from dspyui.services.documents import spec_of

    spec = spec_of(request["spec"])
    splits = split_rows(spec.data.rows or (), ["message"], spec.data.split)

    def metric(example: Any, prediction: Any, _trace: object = None) -> float:
        return float(example.product == prediction.product)

    def examples(rows: Any) -> list[Any]:
        return [dspy.Example(**row).with_inputs("message") for row in rows]

    begin = time.perf_counter()
    dspy.configure_cache(disk_cache_dir=str(Path(request["folder"]) / "cache"), restrict_pickle=True)
    lm = dspy.LM("openai/fake", api_base=spec.lms.task.api_base, api_key="none", num_retries=3)
    signature = dspy.Signature("message -> product", "Name the product.")
    program = dspy.Predict(signature)
    train = list(splits.train)
    random.Random(spec.seed).shuffle(train)  # noqa: S311 - as ours
    train, validation, test = examples(train), examples(splits.validation), examples(splits.test)
    evaluate = dspy.Evaluate(devset=test, metric=metric, num_threads=THREADS, display_progress=False)
    with dspy.context(lm=lm):
        before = evaluate(program).score
        evaluate(program, devset=validation)
        if spec.optimizer.kind == "miprov2":
            optimizer = dspy.MIPROv2(metric=metric, num_threads=THREADS, seed=spec.seed)
            compiled = optimizer.compile(program, trainset=train, valset=validation)
        else:
            compiled = dspy.BootstrapFewShot(metric=metric).compile(program, trainset=train)
        evaluate(compiled, devset=validation)
        after = evaluate(compiled).score
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "scores": [round(before / 100, 4), round(after / 100, 4)]}


SIDES = {"ours": ours, "bare": bare}


def run_side(side: str, kind: str, lm: FakeLM, tracking: Tracking, rows: int, parent: Path) -> dict[str, Any]:
    """One run in a fresh process and a fresh folder; gives its seconds, scores and LM calls."""
    folder = Path(tempfile.mkdtemp(prefix=f"{side}-", dir=parent))
    before = lm.calls
    request = {"folder": str(folder), "tracking": tracking.address, "spec": document(kind, lm, rows)}
    with (folder / "side.log").open("wb") as log:
        done = subprocess.Popen(
            [sys.executable, __file__, "--side", side],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=folder, start_new_session=True,
        )  # fmt: skip
        if done.stdin is None or done.stdout is None:
            raise SystemExit("no pipes")
        # Open until the end: a job's child takes its closing for the death of its parent.
        done.stdin.write(json.dumps(request).encode() + b"\n")
        done.stdin.flush()
        said = done.stdout.read()
        done.wait()
        done.stdin.close()
    if done.returncode:
        raise SystemExit(f"{side} {kind} failed:\n{(folder / 'side.log').read_text()[-3000:]}")
    found = {**json.loads(said.splitlines()[-1]), "calls": lm.calls - before}
    shutil.rmtree(folder)
    return found


def measure(runs: int, rows: int) -> dict[str, Any]:
    """All figures, and whether the target is met."""
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="dspyui-compile-", ignore_cleanup_errors=True) as name:
        lm, tracking = FakeLM(answer, LM_SECONDS), Tracking(Path(name))
        try:
            for kind in OPTIMIZERS:
                figures[kind] = compare(kind, lm, tracking, runs, rows, Path(name))
        finally:
            tracking.close()
    met = all(found["equal"] and found["ratio"] <= TARGET_RATIO for found in figures.values())
    return {
        **figures,
        "target_ratio": TARGET_RATIO,
        "rows": rows,
        "threads": THREADS,
        "runs": runs,
        "met": met,
    }


def compare(kind: str, lm: FakeLM, tracking: Tracking, runs: int, rows: int, folder: Path) -> dict[str, Any]:
    """Both sides in turns."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "bare": []}
    for number in range(1, runs + 1):
        for side, taken in found.items():
            taken.append(run_side(side, kind, lm, tracking, rows, folder))
            last = taken[-1]
            say(
                f"{kind} {number}/{runs} {side}: {last['seconds']:.2f} s, {last['calls']} calls, {last['scores']}"
            )
    seconds = {side: statistics.median(one["seconds"] for one in taken) for side, taken in found.items()}
    told = {(one["calls"], tuple(one["scores"])) for taken in found.values() for one in taken}
    first = found["ours"][0]
    return {
        "ours_seconds": round(seconds["ours"], 3),
        "bare_seconds": round(seconds["bare"], 3),
        "ratio": round(seconds["ours"] / seconds["bare"], 3),
        "record_seconds": round(statistics.median(one["record"] for one in found["ours"]), 3),
        "lm_calls": first["calls"],
        "scores": first["scores"],
        # The same calls and the same scores in every run of either side.
        "equal": len(told) == 1,
    }


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="leave the lines for people out")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--rows", type=int, default=200, help="how many rows (default 200)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        request = json.loads(sys.stdin.readline())
        with redirect_stdout(sys.stderr):
            found = SIDES[arguments.side](request)
        print(json.dumps(found))
        return 0
    figures = measure(arguments.runs, arguments.rows)
    if not arguments.json:
        for kind in OPTIMIZERS:
            found = figures[kind]
            print(
                f"{kind}: {found['ours_seconds']} s here, {found['bare_seconds']} s in bare DSPy; ratio "
                f"{found['ratio']} (target ≤ {TARGET_RATIO:g}); {found['lm_calls']} LM calls and scores "
                f"{found['scores']} on both sides: {'yes' if found['equal'] else 'NO'}"
            )
    print(json.dumps(figures))
    return 0 if figures["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
