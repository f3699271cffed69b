"""What grows and what must not: memory with the rows of a batch, pages with the Runs and versions in MLflow.

    python benchmarks/scale.py [--json] [--rows N,N,…] [--runs N] [--versions N] [--repeats N] [--traced] [--only PART]

Memory: `dspyui batch` as a person starts it, over JSONL files of 10,000, 100,000 and 1,000,000 rows, the model a fake
one on loopback that answers at once. Everything is real: reader, job, child process, journal, results, output. The
figure is the most memory that the command and all its children held at one moment (resident, looked at ten times a
second; the fake model is not among them). The largest file may need at most 1.5 times the memory of the smallest.
Every row must be answered, or the figures mean nothing. With `--traced` every call is traced too, into a local MLflow.

Pages: `benchmarks/run_pages.py`, whose answers must take less than a second with 10,000 Runs and 1,000 versions.

A million rows take long, half an hour to an hour on two cores; `--rows 10000,100000` leaves them out. Progress
goes to stderr; the last line on stdout is one JSON object with figures and targets. Exit code 1: target missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

import run_pages
from batch import program
from common import InstantLM, say
from compile_overhead import Tracking

ROWS = (10_000, 100_000, 1_000_000)
TARGET_RATIO = 1.5
LOOK_SECONDS = 0.1
CALLS = 16


def write_rows(path: Path, count: int) -> None:
    """A file of so many rows, each with some columns that are only carried along."""
    with path.open("w", encoding="utf-8") as out:
        for number in range(count):
            row = {"id": number, "message": f"My thing{number} broke on Monday.", "note": "x" * 200}
            out.write(f"{json.dumps(row)}\n")


def memory(rows: tuple[int, ...], *, traced: bool) -> dict[str, Any]:
    """The peak for each size."""
    with tempfile.TemporaryDirectory(prefix="dspyui-scale-", ignore_cleanup_errors=True) as name:
        parent = Path(name)
        lm = InstantLM()
        try:
            with tracking(parent, wanted=traced) as address:
                peaks = {str(count): run(parent, count, lm.address, address) for count in rows}
        finally:
            lm.close()
    ratio = peaks[str(max(rows))]["peak_mb"] / peaks[str(min(rows))]["peak_mb"]
    whole = all(found["answered"] == int(count) for count, found in peaks.items())
    return {
        "rows": peaks,
        "ratio": round(ratio, 3),
        "target_ratio": TARGET_RATIO,
        "traced": traced,
        "every_row_answered": whole,
        "met": whole and ratio <= TARGET_RATIO,
    }


@contextmanager
def tracking(parent: Path, *, wanted: bool) -> Iterator[str | None]:
    """A local MLflow server's address, if one is wanted."""
    if not wanted:
        yield None
        return
    server = Tracking(parent)
    try:
        yield server.address
    finally:
        server.close()


def run(parent: Path, count: int, lm: str, mlflow: str | None) -> dict[str, Any]:
    """One batch in a folder of its own. Raises SystemExit when it fails."""
    folder = Path(tempfile.mkdtemp(prefix=f"{count}-", dir=parent))
    # Every row is asked for real: replies kept on disk are another matter.
    document = json.loads(program(lm))
    document["lm"]["cache"] = False
    (folder / "program.json").write_text(json.dumps(document), encoding="utf-8")
    write_rows(folder / "rows.jsonl", count)
    environment = {
        **os.environ,
        "DSPYUI_HOME": str(folder / "data"),
        "DSPYUI_LOCAL_LM": "false",
        "MLFLOW_ENABLED": "true" if mlflow else "false",
        "MLFLOW_TRACKING_URI": mlflow or "",
        "MLFLOW_EXPERIMENT_NAME": f"scale-{count}",
    }
    begin = time.monotonic()
    with (folder / "log.txt").open("wb") as log, (folder / "answer.json").open("wb") as out:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "dspyui", "batch", "--json", "--concurrency", str(CALLS),
                "--model", "program.json", "--input", "rows.jsonl", "--output", "out.jsonl",
            ],
            cwd=folder, env=environment, stdout=out, stderr=log,
        )  # fmt: skip
        peak = watch(process)
    seconds = time.monotonic() - begin
    if process.returncode:
        raise SystemExit(f"dspyui batch failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    told = json.loads((folder / "answer.json").read_text(encoding="utf-8").splitlines()[-1])
    with (folder / "out.jsonl").open(encoding="utf-8") as lines:
        right = sum(f'"product": "thing{number}"' in line for number, line in enumerate(lines))
    found = {
        "peak_mb": round(peak / 1e6, 1),
        "seconds": round(seconds, 1),
        "answered": right,
        "rows_per_second": told["rows_per_second"],
        "traces_logged": told["traces_logged"],
    }
    say(f"{count:,} rows: {found}")
    return found


def watch(process: "subprocess.Popen[bytes]") -> int:
    """The most bytes that a process and all below it held at one moment, until it ends."""
    most, root = 0, psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        with suppress(psutil.Error):
            for one in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    held += one.memory_info().rss
        most = max(most, held)
        time.sleep(LOOK_SECONDS)
    return most


def sizes(text: str) -> tuple[int, ...]:
    """The numbers of rows of `--rows`: two at least, or there is nothing to compare."""
    found = tuple(int(part.replace("_", "")) for part in text.split(","))
    if len(set(found)) < 2 or min(found) < 1:
        raise argparse.ArgumentTypeError("give at least two different numbers, such as 1000,10000")
    return found


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="leave the lines for people out")
    parser.add_argument("--rows", type=sizes, default=ROWS, help="sizes (default 10000,100000,1000000)")
    parser.add_argument("--traced", action="store_true", help="trace every call into a local MLflow")
    parser.add_argument(
        "--runs", type=int, default=10_000, help="how many Runs (default 10000, at least 5000)"
    )
    parser.add_argument("--versions", type=int, default=1_000, help="how many versions (default 1000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often each page is asked (default 5)")
    parser.add_argument("--only", choices=("memory", "pages"), help="measure one part alone")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    if arguments.only != "pages":
        figures["memory"] = memory(arguments.rows, traced=arguments.traced)
    if arguments.only != "memory":
        figures["pages"] = run_pages.measure(arguments.runs, arguments.versions, arguments.repeats)
    figures["met"] = all(part["met"] for part in figures.values())
    if not arguments.json:
        tell(figures)
    print(json.dumps(figures))
    return 0 if figures["met"] else 1


def tell(figures: dict[str, Any]) -> None:
    """The lines for people."""
    if found := figures.get("memory"):
        for count, one in found["rows"].items():
            print(f"{int(count):,} rows: {one['peak_mb']:,} MB at most, {one['seconds']:,} s")
        print(f"the largest needs {found['ratio']} times the memory of the smallest (target {TARGET_RATIO})")
    if found := figures.get("pages"):
        print(
            f"{found['runs']:,} Runs, {found['versions']:,} versions: the slowest answer, {found['slowest']}, "
            f"took {found['slowest_seconds']} s (target below {found['target_seconds']:g} s)"
        )


if __name__ == "__main__":
    sys.exit(main())
