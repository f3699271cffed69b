"""What a batch here costs beside the same calls in bare DSPy: without tracking, and with every call traced in MLflow.

    python benchmarks/batch.py [--json] [--rows N]

A fake language model on loopback answers each call after 200 ms; sixteen calls at once, 2,000 rows, a local MLflow
server on SQLite, every side with an empty cache and in processes of its own:

- `bare`: DSPy in a pool of threads, nothing kept.
- `untracked`: `dspyui batch` with tracking off, from the first row it asks to the finished output file.
- `traced`: the same with every call traced, until the Run and the last trace are in MLflow.
- `mlflow`: bare DSPy with MLflow's own autologging in a Run, until its exporter has been flushed.

Then 64 calls at once and 20 ms, traced: how many traces are stored in a second, beside what the server takes when the
same number of finished traces is posted over OTLP and nothing else happens, before and after. What is stored is counted
through MLflow's own client: every output's trace id exactly once, with spans, tokens and the link to its Run. All sides
must make as many calls as there are rows. Start and imports are not counted. Progress goes to stderr; the last line on
stdout is one JSON object. Exit code 1: target missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

from common import FakeLM, say
from compile_overhead import Tracking

TARGETS = {"untracked": 0.95, "traced": 0.90, "stored": 0.6}
LONG, SHORT = (16, 0.2), (64, 0.02)


def messages(rows: int) -> list[str]:
    """The data."""
    return [f"My thing{number} broke on Monday." for number in range(rows)]


def program(address: str) -> str:
    """The program as a file holds it: a plain Predict, as the bare side has it."""
    from dspyui.domain.lms import LMSpec
    from dspyui.domain.optimizers import OptimizerSpec
    from dspyui.domain.programs import CompiledProgram, ProgramSpec
    from dspyui.domain.signatures import FieldSpec, SignatureSpec

    signature = SignatureSpec(
        instructions="Name the product.",
        inputs=(FieldSpec(name="message"),),
        outputs=(FieldSpec(name="product"),),
    )
    fields = [
        {"prefix": f"{field.name.capitalize()}:", "description": f"${{{field.name}}}"}
        for field in signature.fields
    ]
    state = {
        "traces": [], "train": [], "demos": [], "lm": None,
        "signature": {"instructions": signature.instructions, "fields": fields},
    }  # fmt: skip
    return CompiledProgram(
        spec=ProgramSpec(name="benchmark", signature=signature),
        lm=LMSpec(model="openai/fake", api_base=address),
        optimizer=OptimizerSpec(kind="none"),
        state=state,
        signature_digest=signature.digest(),
    ).to_json()


# The bare sides run in a process of their own, which times itself and prints one line.


def bare(request: dict[str, Any]) -> dict[str, Any]:
    """DSPy in a pool of threads."""
    import dspy

    dspy.configure_cache(disk_cache_dir=str(Path.cwd() / "cache"), restrict_pickle=True)
    lm = dspy.LM("openai/fake", api_base=request["lm"], api_key="none", num_retries=3)
    dspy.configure(lm=lm)
    predict = dspy.Predict(dspy.Signature("message -> product", "Name the product."))
    begin = time.perf_counter()
    with ThreadPoolExecutor(request["calls"]) as pool:
        said = list(pool.map(lambda message: predict(message=message).product, messages(request["rows"])))
    return {"seconds": time.perf_counter() - begin, "right": right(said)}


def mlflow_own(request: dict[str, Any]) -> dict[str, Any]:
    """The same with MLflow's own tracing, in a Run, until it has been flushed."""
    import mlflow

    mlflow.set_tracking_uri(request["tracking"])
    mlflow.set_experiment("own")
    mlflow.dspy.autolog()
    with mlflow.start_run() as run:
        begin = time.perf_counter()
        found = bare(request)
        mlflow.flush_trace_async_logging()
    return {**found, "seconds": time.perf_counter() - begin, "run_id": run.info.run_id, "experiment": "own"}


def right(said: list[str]) -> int:
    """How many answers are as they must be."""
    return sum(word == f"thing{number}" for number, word in enumerate(said))


SIDES = {"bare": bare, "mlflow": mlflow_own}


def run_side(side: str, request: dict[str, Any], parent: Path) -> dict[str, Any]:
    """One bare side in a fresh process and folder."""
    folder = Path(tempfile.mkdtemp(prefix=f"{side}-", dir=parent))
    with (folder / "side.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, __file__, "--side", side],
            input=json.dumps(request).encode(), stdout=subprocess.PIPE, stderr=log, cwd=folder, check=False,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "MLFLOW_DISABLE_TELEMETRY": "true"},
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{(folder / 'side.log').read_text()[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def run_ours(request: dict[str, Any], parent: Path, *, traced: bool) -> dict[str, Any]:
    """`dspyui batch` as a person starts it; its times are those its job has written down."""
    folder = Path(tempfile.mkdtemp(prefix="ours-", dir=parent))
    (folder / "program.json").write_text(program(request["lm"]), encoding="utf-8")
    lines = (json.dumps({"message": message}) + "\n" for message in messages(request["rows"]))
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    arguments = ["--model", "program.json", "--input", "rows.jsonl", "--output", "out.jsonl"]
    environment = {
        **os.environ,
        "DSPYUI_HOME": str(folder / "data"),
        "DSPYUI_LOCAL_LM": "false",
        "MLFLOW_ENABLED": "true" if traced else "false",
        "MLFLOW_TRACKING_URI": request["tracking"],
        "MLFLOW_EXPERIMENT_NAME": f"ours-{folder.name}",
    }
    with (folder / "side.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "dspyui", "batch", *arguments, "--concurrency", str(request["calls"]), "--json"],
            stdout=subprocess.PIPE, stderr=log, cwd=folder, env=environment, check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"dspyui batch failed:\n{(folder / 'side.log').read_text()[-3000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    job = folder / "data" / "jobs" / answer["job_id"]
    outputs = [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    begin = at(job, "running")
    ended = (job / "record.json").stat().st_mtime if traced else (folder / "out.jsonl").stat().st_mtime
    return {
        "seconds": ended - begin,
        "right": right([line["product"] for line in outputs]),
        "ids": [line["_trace_id"] for line in outputs],
        "run_id": answer["run_id"],
        "experiment": f"ours-{folder.name}",
        "lost": answer["traces_lost"],
        "waiting": answer["traces_waiting"],
    }


def at(job: Path, phase: str) -> float:
    """When a phase began, in seconds since the epoch."""
    events = map(json.loads, (job / "events.jsonl").read_text(encoding="utf-8").splitlines())
    found = next(event for event in events if event["values"].get("phase") == phase)
    return datetime.fromisoformat(found["at"]).timestamp()


def stored(tracking: Tracking, side: dict[str, Any]) -> dict[str, Any]:
    """What MLflow's own client finds of a side's traces: all of them, those of its Run, and those that are whole."""
    import mlflow

    # MLflow's client looks for some traces' spans at its global address, whatever its own is.
    mlflow.set_tracking_uri(tracking.address)
    client = mlflow.MlflowClient(tracking_uri=tracking.address)
    experiment = client.get_experiment_by_name(side["experiment"]).experiment_id
    found = search(client, experiment, None, spans=False)
    linked = search(client, experiment, side["run_id"])
    whole = [
        trace
        for trace in linked
        if len(trace.data.spans) >= 2 and (trace.info.token_usage or {}).get("total_tokens") == 110
    ]
    ids = Counter(trace.info.trace_id for trace in whole)
    wanted = side.get("ids")
    return {
        "found": len(found),
        "linked": len(linked),
        "whole": len(whole),
        "exact": wanted is not None and ids == Counter(wanted),
    }


def search(client: Any, experiment: str, run_id: str | None, *, spans: bool = True) -> list[Any]:
    """All traces of an experiment, or of a Run."""
    traces: list[Any] = []
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment], run_id=run_id, include_spans=spans, max_results=500, page_token=token
        )
        traces += page
        token = page.token
        if not token:
            return traces


def otlp_alone(tracking: Tracking, rows: int, parent: Path) -> float:
    """Traces a second that the server takes when finished ones are posted and nothing else happens."""
    from dspyui.adapters.mlflow_store.client import Connection, prepare_environment
    from dspyui.adapters.mlflow_store.spool import FileTraceSink
    from dspyui.adapters.mlflow_store.traces import send_segments
    from dspyui.domain.runs import RunLink
    from dspyui.settings import Settings

    folder = Path(tempfile.mkdtemp(prefix="alone-", dir=parent))
    sink = FileTraceSink(folder)
    for number in range(rows):
        sink.write(a_trace(number))
    sink.close()
    settings = Settings.load(parent / "no.env", {**os.environ, "MLFLOW_TRACKING_URI": tracking.address})
    prepare_environment(settings)
    connection = Connection(tracking.address, settings)
    experiment = connection.client.create_experiment(folder.name)
    run = connection.client.create_run(experiment)
    link = RunLink(run_id=run.info.run_id, experiment_id=experiment, url="")
    begin = time.perf_counter()
    sent, _refused = send_segments(connection, folder, link)
    return sent / (time.perf_counter() - begin)


def a_trace(number: int) -> Any:
    """One as the batch makes it: a call of Predict with an LM call inside."""
    import secrets

    from dspyui.domain.compiles import Usage
    from dspyui.domain.traces import Span, Trace

    root, child = secrets.token_hex(8), secrets.token_hex(8)
    start = time.time_ns()
    message = messages(number + 1)[-1]
    prompt = [{"role": "system", "content": "x" * 700}, {"role": "user", "content": message}]
    spans = (
        Span(span_id=root, parent_id=None, name="Predict", kind="CHAIN", start_ns=start, end_ns=start + 10**7,
             inputs={"message": message}, outputs={"product": "thing"}),
        Span(span_id=child, parent_id=root, name="LM", kind="LLM", start_ns=start, end_ns=start + 10**7,
             inputs={"messages": prompt}, outputs=["thing"], attributes={"model": "openai/fake"},
             usage=Usage(lm_calls=1, input_tokens=100, output_tokens=10)),
    )  # fmt: skip
    return Trace(trace_id=secrets.token_hex(16), spans=spans, tags={"dspyui.row": str(number)})


def measure(rows: int) -> dict[str, Any]:
    """All figures, and whether the targets are met."""
    with tempfile.TemporaryDirectory(prefix="dspyui-batch-", ignore_cleanup_errors=True) as name:
        parent, lm = Path(name), FakeLM()
        tracking = Tracking(parent)
        try:
            long = sides(lm, tracking, rows, LONG, parent)
            short = many(lm, tracking, rows, parent)
        finally:
            tracking.close()
    ratios = {side: round(long["bare"]["seconds"] / long[side]["seconds"], 3) for side in long}
    # The same calls, and only right answers, on every side; else the comparison means nothing.
    equal = all((one["calls"], one["right"]) == (rows, rows) for one in long.values())
    met = (
        equal
        and all(ratios[side] >= TARGETS[side] for side in ("untracked", "traced"))
        and long["traced"]["exact"]
        and short["exact"]
        and short["share"] >= TARGETS["stored"]
    )
    return {
        "rows": rows,
        "targets": TARGETS,
        "ratios": ratios,
        "long": long,
        "short": short,
        "equal": equal,
        "met": met,
    }


def sides(
    lm: FakeLM, tracking: Tracking, rows: int, shape: tuple[int, float], parent: Path
) -> dict[str, dict[str, Any]]:
    """Every side once."""
    calls, lm.seconds = shape
    request = {"lm": lm.address, "tracking": tracking.address, "rows": rows, "calls": calls}
    runs = {
        "bare": lambda: run_side("bare", request, parent),
        "untracked": lambda: run_ours(request, parent, traced=False),
        "traced": lambda: run_ours(request, parent, traced=True),
        "mlflow": lambda: run_side("mlflow", request, parent),
    }
    found: dict[str, dict[str, Any]] = {}
    for side, run in runs.items():
        before = lm.calls
        made = run()
        told = {"seconds": round(made["seconds"], 2), "calls": lm.calls - before, "right": made["right"]}
        if side in {"traced", "mlflow"}:
            told |= stored(tracking, made)
        found[side] = told
        say(f"{side}: {told}")
    return found


def many(lm: FakeLM, tracking: Tracking, rows: int, parent: Path) -> dict[str, Any]:
    """Many short calls: traces stored in a second, beside what the server takes at all."""
    calls, lm.seconds = SHORT
    request = {"lm": lm.address, "tracking": tracking.address, "rows": rows, "calls": calls}
    # Before and after: a busy machine slows what it is compared with as much.
    before = otlp_alone(tracking, rows, parent)
    made = run_ours(request, parent, traced=True)
    after = otlp_alone(tracking, rows, parent)
    rate, alone = rows / made["seconds"], 2 / (1 / before + 1 / after)
    told = {
        "stored_per_second": round(rate, 1),
        "otlp_alone_per_second": round(alone, 1),
        "otlp_alone_each": [round(before, 1), round(after, 1)],
        "share": round(rate / alone, 3),
        **stored(tracking, made),
    }
    say(f"64 calls at once: {told}")
    return told


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="leave the lines for people out")
    parser.add_argument("--rows", type=int, default=2000, help="how many rows (default 2000)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        request = json.loads(sys.stdin.readline())
        with redirect_stdout(sys.stderr):
            found = SIDES[arguments.side](request)
        print(json.dumps(found))
        return 0
    figures = measure(arguments.rows)
    if not arguments.json:
        for side, ratio in figures["ratios"].items():
            print(f"{side}: {figures['long'][side]['seconds']} s, {ratio} of bare DSPy's rate")
        short = figures["short"]
        print(f"64 calls at once: {short['stored_per_second']} traces/s, {short['share']} of OTLP alone")
    print(json.dumps(figures))
    return 0 if figures["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
