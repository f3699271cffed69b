"""A disk that is full: said with where, how much and what to do; what was written stays, and a job still gets its end.

`/dev/full`, a limit on the size of files (`ulimit -f`) and a tiny file system are real everywhere they are used here.
"""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dspyui.adapters.dbos_jobs.states import JobStates
from dspyui.adapters.files import atomic
from dspyui.adapters.files.atomic import append_line, find_no_room
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.mlflow_store.spool import FileTraceSink, read_frames
from dspyui.domain.compiles import Progress
from dspyui.domain.jobs import JobEvent
from dspyui.errors import FailedError
from tests.api.world import DOCUMENT, spec
from tests.mlflow_world import make_trace
from tests.sentences import told

ROWS = DOCUMENT["data"]["rows"]
LIMITED = """
import resource, sys
from pathlib import Path
from dspyui.adapters.files.atomic import write_atomic
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.errors import FailedError
from tests.api.world import spec
folder = Path(sys.argv[1])
kept = folder / "kept.txt"
write_atomic(kept, "before", durable=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = FileJobStore(folder)
for write in (
    lambda: write_atomic(kept, "x" * 300_000, durable=True),
    lambda: store.create(spec(), [{"message": "m" * 300_000, "product": "p"}], title="t", who="w"),
):
    try:
        write()
    except FailedError as exc:
        print(exc.code, exc.values["problem"])
print(kept.read_text(), sorted(p.name for p in folder.iterdir()), list(store.search()))
"""


def test_no_room_for_a_line_is_said_in_both_languages(tmp_path):
    log = tmp_path / "events.jsonl"
    log.symlink_to("/dev/full")
    with pytest.raises(FailedError) as caught:
        append_line(log, "a line")
    assert caught.value.code == "storage.full"
    told(caught.value, str(tmp_path), "No space left on device")
    for language in ("zh_CN", "en_US"):
        said = caught.value.text(language)
        assert f"{shutil.disk_usage(tmp_path).free / 1e6:,.0f}"[:2] in said


def test_a_file_that_may_not_grow_leaves_the_old_one_and_no_half_job(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "storage.full File too large",
        "storage.full File too large",
        "before ['jobs', 'kept.txt'] []",
    ]


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ENOSPC, "No space left on device", "/data/x"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sqlite3.OperationalError("database or disk is full"),
    ],
)
def test_the_cause_is_found_behind_other_errors(tmp_path, cause):
    try:
        raise RuntimeError("the optimizer gave up") from cause
    except RuntimeError as exc:
        found = find_no_room(exc, tmp_path)
    assert found is not None
    assert found.code == "storage.full"
    assert find_no_room(OSError(errno.EACCES, "no"), tmp_path) is None


class TinyDisk:
    """A file system of 400 kB: a real one where this user may mount it, else this program's view of one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        mounted = shutil.which("mount") and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)],
            capture_output=True, check=False,
        ).returncode == 0  # fmt: skip
        self.is_mounted = bool(mounted)
        if not self.is_mounted:
            monkeypatch.setattr(atomic.os, "fdopen", self._checked(os.fdopen))

    def _checked(self, opened):
        def fdopen(descriptor, mode):
            file = opened(descriptor, mode)
            write = file.write

            class Full:
                """Refuses what would not fit."""

                def __enter__(self):
                    return self

                def __exit__(self, *_):
                    file.close()

                def write(_self, data):  # noqa: N805 - `self` is the disk
                    if self.used() + len(data) > 400_000:
                        raise OSError(errno.ENOSPC, "No space left on device")
                    return write(data)

                def __getattr__(self, name):
                    return getattr(file, name)

            return Full()

        return fdopen

    def used(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    def fill(self) -> None:
        """Leave nothing free."""
        with (self.folder / "filler").open("wb", buffering=0) as file, suppress(OSError):
            for _ in range(400_000 // 1000 - self.used() // 1000 + 1):
                file.write(b"x" * 1000)

    def close(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    made = TinyDisk(tmp_path / "disk", monkeypatch)
    yield made
    made.close()


def test_on_a_full_disk_a_job_still_gets_its_end_and_loses_nothing(disk):
    store = FileJobStore(disk.folder)
    states = JobStates(store, lambda _job_id: None)
    job = store.create(spec(), ROWS, title="t", who="w")
    assert states.begin(job.id, "ui-1")
    store.write_progress(job.id, Progress(phase="baseline", done=3, total=10))
    store.append_event(job.id, JobEvent(at=datetime.now(UTC), kind="compile.split", values={}))
    disk.fill()
    with pytest.raises(FailedError) as caught:
        store.write_progress(job.id, Progress(phase="saving", baseline_curve=(0.5,) * 2000))
    assert caught.value.code == "storage.full"
    told(caught.value, str(disk.folder))
    with pytest.raises(FailedError) as caught:
        store.create(spec(), ROWS, title="another", who="w")
    told(caught.value, str(disk.folder))
    states.end(job.id, "failed")
    ended = FileJobStore(disk.folder).get(job.id)
    assert ended.status == "failed"
    assert [found.id for found in store.search()] == [job.id]
    assert store.progress(job.id).done == 3
    assert len(store.rows(job.id)) == len(ROWS)
    assert store.spec(job.id) == spec()
    assert not list((disk.folder / "jobs").glob(".new-*"))


def test_the_reserve_goes_when_a_job_has_ended(tmp_path):
    store = FileJobStore(tmp_path)
    states = JobStates(store, lambda _job_id: None)
    job = store.create(spec(), ROWS, title="t", who="w")
    assert (store.folder(job.id) / "reserve").stat().st_size == 65536
    states.begin(job.id, "ui-1")
    states.end(job.id, "done")
    assert not (store.folder(job.id) / "reserve").exists()


def test_a_log_that_takes_no_line_keeps_no_job_from_its_end(tmp_path, caplog):
    store = FileJobStore(tmp_path)
    states = JobStates(store, lambda _job_id: None)
    job = store.create(spec(), ROWS, title="t", who="w")
    (store.folder(job.id) / "events.jsonl").symlink_to("/dev/full")
    assert states.begin(job.id, "ui-1")
    states.end(job.id, "failed")
    assert store.get(job.id).status == "failed"
    assert "lacks a line" in caplog.text


def test_traces_are_written_whole_or_said(tmp_path):
    sink = FileTraceSink(tmp_path)
    sink.write(make_trace())
    (part,) = tmp_path.glob("*.part")
    sink._open._file.close()
    sink._open._file = open("/dev/full", "wb", buffering=0)  # noqa: SIM115, PTH123 - closed by the sink
    with pytest.raises(OSError, match="No space left"):
        sink.write(make_trace())
    sink.close()
    (segment,) = tmp_path.glob("*.otlp")
    assert len(list(read_frames(segment.read_bytes()))) == 1
    assert not part.exists()
