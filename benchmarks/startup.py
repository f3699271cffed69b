"""How long a second start takes to its first page, beside importing NiceGUI and FastAPI alone.

    python benchmarks/startup.py [--json] [--runs N]

Each figure is the median of several runs, taken in turns so that a busy machine slows both alike. A first start
warms the data folder. Another start notes when DSPy, MLflow and DBOS are imported: after the first page, or the
target is missed. Progress goes to stderr; the last line on stdout is one JSON object. Exit code 1: target missed.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import free_port, say

TARGET_RATIO = 2.0
HEAVY = ("dspy", "mlflow", "dbos")
START_SECONDS = 60.0
# MLflow and the bundled model are left out: nothing they do comes before the page, and they would cost each run time.
ENVIRONMENT = {"MLFLOW_ENABLED": "false", "DSPYUI_LOCAL_LM": "false", "DSPYUI_LANGUAGE": "en_US"}
# Runs `dspyui` like `python -m dspyui`, and writes down when a heavy library is first asked for.
WATCHED = """
import runpy, sys, time
heavy, path = set({heavy!r}), {path!r}
def hook(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] in heavy:
        name = arguments[0].partition(".")[0]
        heavy.discard(name)
        with open(path, "a") as file:
            file.write(f"{{name}} {{time.time()}}\\n")
sys.addaudithook(hook)
runpy.run_module("dspyui", run_name="__main__", alter_sys=True)
"""


def page_answers(port: int) -> bool:
    """Whether the first page is there."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/", timeout=10) as reply:
            return reply.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@contextmanager
def started(folder: Path, program: list[str]) -> Iterator[float]:
    """Start the program on the folder, wait for its page, give the seconds that took, and stop it."""
    port = free_port()
    environment = {**os.environ, **ENVIRONMENT, "DSPYUI_HOME": str(folder / "data")}
    with (folder / "ui.log").open("ab") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *program, "ui", "--port", str(port)],
            env=environment, cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        while not page_answers(port):
            if process.poll() is not None or time.perf_counter() - begin > START_SECONDS:
                raise SystemExit(f"no page came up:\n{(folder / 'ui.log').read_text()[-3000:]}")
            time.sleep(0.005)
        yield time.perf_counter() - begin
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def import_seconds() -> float:
    """A bare Python that imports NiceGUI and FastAPI."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import nicegui, fastapi"], check=True, cwd=tempfile.gettempdir())
    return time.perf_counter() - begin


def imported_before_page(folder: Path) -> list[str]:
    """The heavy libraries that were asked for before the page was there."""
    noted = folder / "imports.txt"
    noted.write_text("")
    code = WATCHED.format(heavy=HEAVY, path=str(noted))
    with started(folder, ["-c", code]):
        page_at = time.time()
        # DBOS always comes in the end: when it has been seen, the watching is known to work.
        end = time.monotonic() + START_SECONDS
        while "dbos" not in noted.read_text() and time.monotonic() < end:
            time.sleep(0.05)
    seen = {name: float(at) for name, at in (line.split() for line in noted.read_text().splitlines())}
    if "dbos" not in seen:
        raise SystemExit("the import of DBOS was never seen, so the watching does not work")
    return [name for name, at in seen.items() if at < page_at]


def measure(runs: int) -> dict[str, object]:
    """All figures, and whether the target is met."""
    pages: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory(prefix="dspyui-startup-") as name:
        folder = Path(name)
        with started(folder, ["-m", "dspyui"]) as first:
            say(f"first start: {first:.2f} s")
        import_seconds()
        for number in range(1, runs + 1):
            bare.append(import_seconds())
            with started(folder, ["-m", "dspyui"]) as seconds:
                pages.append(seconds)
            say(f"{number}/{runs}: page {pages[-1]:.2f} s, imports alone {bare[-1]:.2f} s")
        early = imported_before_page(folder)
    ratio = statistics.median(pages) / statistics.median(bare)
    return {
        "first_page_seconds": round(statistics.median(pages), 3),
        "import_seconds": round(statistics.median(bare), 3),
        "ratio": round(ratio, 2),
        "target_ratio": TARGET_RATIO,
        "imported_before_page": early,
        "runs": runs,
        "met": ratio <= TARGET_RATIO and not early,
    }


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="leave the lines for people out")
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured (default 5)")
    arguments = parser.parse_args()
    figures = measure(arguments.runs)
    if not arguments.json:
        print(
            f"Second start to first page: {figures['first_page_seconds']} s; importing NiceGUI and FastAPI alone: "
            f"{figures['import_seconds']} s; ratio {figures['ratio']} (target ≤ {TARGET_RATIO:g})"
        )
    print(json.dumps(figures))
    return 0 if figures["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
