"""A process in the queue: `job_worker.py HOME ROLE WORKERS [JOB_ID...]`. It leaves on SIGTERM.

The role `worker` works and queues the jobs it is given; `cli` runs them itself and leaves when they have ended.
Prints `ready` when it has joined and `closed SECONDS` when it has left.
"""

import signal
import sys
import threading
import time
from pathlib import Path

from tests.job_world import make_queue


def main(home: Path, role: str, workers: int, job_ids: list[str]) -> None:
    """Join, do as the role says, and leave."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: told.set())
    store, queue = make_queue(home, workers=workers)
    queue.start(works=role == "worker")
    for job_id in job_ids:
        (queue.submit if role == "worker" else queue.run_here)(job_id)
    print("ready", flush=True)  # noqa: T201 - what the test waits for
    while not told.wait(0.05):
        if role == "cli" and all(store.get(job_id).is_terminal for job_id in job_ids):
            break
    began = time.monotonic()
    queue.close()
    print(f"closed {time.monotonic() - began:.2f}", flush=True)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
