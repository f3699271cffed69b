"""A child as the queue starts it: `job_child.py HOME JOB_ID`. What it does stands in the job's title."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from dspyui.adapters.dbos_jobs.child import die_with_parent
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.domain.jobs import ChildOutcome, JobFailure
from tests.waiting import wait_until

TICKER = "import sys, time\nwhile True: open(sys.argv[1], 'a').write('.'); time.sleep(0.02)"


def main(home: Path, job_id: str) -> int:
    """Do as the title says: `sleep SECONDS`, `until NAME` (of a file in HOME), `forever`, `fail` and so on: `act`."""
    die_with_parent()
    store = FileJobStore(home)
    job = store.get(job_id)
    folder = store.folder(job_id)
    mark(folder, f"up {job.attempt}")
    with store.lock_job(job_id, seconds=60):
        mark(folder, f"start {job.attempt} {os.getpid()} {time.time()}")
        outcome = act(job.title.split(), folder)
        mark(folder, f"end {job.attempt} {os.getpid()} {time.time()}")
    print(outcome.model_dump_json(), flush=True)  # noqa: T201 - how a child answers
    return 0 if outcome.status == "done" else 1


def act(words: list[str], folder: Path) -> ChildOutcome:
    """One of the deeds."""
    match words:
        case ["sleep", seconds]:
            time.sleep(float(seconds))
        case ["until", name]:
            wait_until((folder.parents[1] / name).exists)
        case ["forever"]:
            spawn(folder)
            time.sleep(600)
        case ["fail"]:
            return ChildOutcome(status="failed", failure=JobFailure(code="data.empty", detail="why"))
        case ["crash"]:
            sys.stderr.write(f"about to break with {os.environ['TEST_API_KEY']}\n")
            sys.exit(3)
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["noise"]:
            os.write(1, b"x" * 100_000 + b"\n{}\n\n")
        case ["leave"]:
            # A daemon that has left the session and keeps the pipes open.
            daemon = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True
            )
            mark(folder, f"daemon {daemon.pid}")
        case ["environment"]:
            mark(folder, f"environment {os.environ['PREPARED']} {os.environ['LITELLM_LOCAL_MODEL_COST_MAP']}")
    return ChildOutcome(status="done")


def spawn(folder: Path) -> None:
    """Start a grandchild that writes for ever, and note both process ids."""
    ticker = subprocess.Popen(
        [sys.executable, "-c", TICKER, str(folder / "ticks")], stdout=subprocess.DEVNULL
    )
    mark(folder, f"grandchild {ticker.pid}")


def mark(folder: Path, line: str) -> None:
    """Write down what happened, for the test to read."""
    with (folder / "marks").open("a") as file:
        file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
