"""Job folders on disk."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.domain.compiles import CompileResult, Evaluation, Progress, Usage
from dspyui.domain.jobs import JobEvent, RecordState
from dspyui.errors import ConflictError, FailedError, NotFoundError
from tests.job_world import ROWS, SPEC, environment, is_alive, new_job, wait_for

NOBODY = "20260101-000000-00000000"


@pytest.fixture
def store(tmp_path):
    return FileJobStore(tmp_path / "data")


def end(store, job_id):
    store.update(job_id, lambda job: job.model_copy(update={"status": "done"}))
    store.write_record(job_id, RecordState(status="sent", run_id="r"))


def result():
    evaluation = Evaluation(score=0.5, rows=())
    return CompileResult(
        baseline=evaluation,
        optimised=evaluation,
        trials=(),
        usage=Usage(lm_calls=3),
        splits={},
        data_digest="d",
        versions={},
    )


def test_a_new_job_holds_its_spec_and_rows(store):
    job = store.create(SPEC, ROWS, title="T", who="me")
    assert store.get(job.id) == job
    assert (job.status, job.title, job.who, job.attempt) == ("queued", "T", "me", 0)
    assert store.spec(job.id) == SPEC
    assert store.rows(job.id) == ROWS
    assert store.progress(job.id) == Progress()
    assert store.find_result(job.id) is None
    assert store.record(job.id) == RecordState()
    assert store.events(job.id) == ([], 0)


def test_what_is_written_is_read_by_another_store(store, tmp_path):
    job_id = new_job(store, "x")
    store.write_progress(job_id, Progress(phase="baseline", done=1, total=2))
    store.write_result(job_id, result())
    store.write_record(job_id, RecordState(status="sent"))
    other = FileJobStore(tmp_path / "data")
    assert other.progress(job_id).done == 1
    assert other.find_result(job_id) == result()
    assert other.record(job_id).status == "sent"


def test_rows_keep_their_types_and_text(store):
    rows = [{"a": "中文\u2028line\n", "b": 1, "c": 1.5, "d": True, "e": ["x", "y"]}]
    assert store.rows(store.create(SPEC, rows, title="T", who="me").id) == tuple(rows)


@pytest.mark.parametrize("job_id", ["", "..", "../../etc", "x/y", NOBODY + "\n", ".trash-" + NOBODY, NOBODY])
def test_what_is_no_job_is_not_found(store, job_id):
    new_job(store, "x")
    for call in (store.get, store.folder, store.spec, store.rows, store.progress, store.record, store.delete):
        with pytest.raises(NotFoundError):
            call(job_id)
    with pytest.raises(NotFoundError):
        store.update(job_id, lambda job: job)


def test_the_list_is_newest_first_and_leaves_out_what_it_cannot_read(store, caplog):
    assert store.search() == []
    made = [store.create(SPEC, ROWS, title=str(number), who="me") for number in range(3)]
    (store.folder(made[1].id) / "job.json").write_text("{")
    (store.folder(made[0].id).parent / "notes.txt").write_text("not a job")
    for _ in range(2):
        expected = sorted((made[0].id, made[2].id), reverse=True)
        assert [job.id for job in store.search()] == expected
    assert sum(made[1].id in message for message in caplog.messages) == 1
    with pytest.raises(FailedError) as caught:
        store.get(made[1].id)
    assert caught.value.code == "storage.unreadable"


def test_a_change_by_another_process_is_seen(store, tmp_path):
    job_id = new_job(store, "x")
    assert store.search()[0].status == "queued"
    end(FileJobStore(tmp_path / "data"), job_id)
    assert store.search()[0].status == "done"
    assert store.get(job_id).status == "done"


def test_a_list_reads_again_only_what_has_changed(store, caplog):
    jobs = [new_job(store, str(number)) for number in range(3)]
    assert len(store.search()) == 3
    file = store.folder(jobs[0]) / "job.json"
    before = file.stat()
    # The same file by all that `stat` tells, with nothing readable in it: whoever opened it would complain.
    file.write_bytes(b"x" * before.st_size)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(store.search()) == 3
    file.touch()
    assert len(store.search()) == 2
    assert jobs[0] in caplog.text


def test_updates_from_many_threads_are_all_kept(store):
    job_id = new_job(store, "x")

    def count():
        for _ in range(5):
            store.update(job_id, lambda job: job.model_copy(update={"attempt": job.attempt + 1}))

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(job_id).attempt == 40


def test_a_change_that_raises_changes_nothing(store):
    job_id = new_job(store, "x")
    with pytest.raises(ZeroDivisionError):
        store.update(job_id, lambda job: job.model_copy(update={"attempt": 1 // 0}))
    store.update(job_id, lambda job: job.model_copy(update={"attempt": 7}))
    assert store.get(job_id).attempt == 7


def event(kind, **values):
    return JobEvent(at=datetime.now(UTC), kind=kind, values=values)


def test_events_are_read_on_from_where_one_was(store):
    job_id = new_job(store, "x")
    store.append_event(job_id, event("job.started", attempt=1))
    first, place = store.events(job_id)
    assert [found.kind for found in first] == ["job.started"]
    assert store.events(job_id, after=place) == ([], place)
    store.append_event(job_id, event("job.done"))
    more, end_place = store.events(job_id, after=place)
    assert [found.kind for found in more] == ["job.done"]
    assert store.events(job_id, after=end_place) == ([], end_place)


def test_half_a_line_is_left_for_later_and_a_torn_one_is_left_out(store):
    job_id = new_job(store, "x")
    log = store.folder(job_id) / "events.jsonl"
    store.append_event(job_id, event("one"))
    line = event("two").model_dump_json() + "\n"
    with log.open("a") as file:
        file.write(line[:20])
    found, place = store.events(job_id)
    assert [one.kind for one in found] == ["one"]
    with log.open("a") as file:
        file.write(line[20:])
    assert [one.kind for one in store.events(job_id, after=place)[0]] == ["two"]
    with log.open("a") as file:
        file.write('{"torn')
    store.append_event(job_id, event("three"))
    assert [one.kind for one in store.events(job_id)[0]] == ["one", "two", "three"]


def test_events_of_many_writers_stay_whole(store):
    job_id = new_job(store, "x")
    threads = [
        threading.Thread(
            target=lambda: [store.append_event(job_id, event("e", text="x" * 3000)) for _ in range(20)]
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.events(job_id)[0]) == 80


def test_delete_waits_for_the_end_and_for_the_record(store):
    job_id = new_job(store, "x")
    with pytest.raises(ConflictError) as running:
        store.delete(job_id)
    assert running.value.code == "job.delete_running"
    store.update(job_id, lambda job: job.model_copy(update={"status": "done"}))
    with pytest.raises(ConflictError) as pending:
        store.delete(job_id)
    assert pending.value.code == "job.delete_pending"
    end(store, job_id)
    with store.lock_record(job_id), pytest.raises(ConflictError):
        store.delete(job_id)
    store.delete(job_id)
    assert store.search() == []
    assert list((store._root).iterdir()) == []
    with pytest.raises(NotFoundError):
        store.get(job_id)


def test_a_job_whose_record_waits_is_deleted_when_that_is_meant(store):
    job_id = new_job(store, "x")
    with pytest.raises(ConflictError):
        store.delete(job_id, even_unsent=True)
    store.update(job_id, lambda job: job.model_copy(update={"status": "done"}))
    with store.lock_record(job_id), pytest.raises(ConflictError) as caught:
        store.delete(job_id, even_unsent=True)
    assert caught.value.code == "job.delete_sending"
    store.delete(job_id, even_unsent=True)
    assert store.search() == []


def test_pending_records_are_those_still_to_be_sent(store):
    assert list(store.pending_records()) == []
    jobs = sorted(new_job(store, "x") for _ in range(3))
    store.write_record(jobs[0], RecordState(status="off"))
    store.write_record(jobs[1], RecordState(status="pending", tries=3))
    assert list(store.pending_records()) == jobs[1:]


def test_the_record_is_sent_by_one_at_a_time(store, tmp_path):
    job_id = new_job(store, "x")
    other = FileJobStore(tmp_path / "data")
    with store.lock_record(job_id) as mine, other.lock_record(job_id) as theirs:
        assert (mine, theirs) == (True, False)
    with other.lock_record(job_id) as theirs:
        assert theirs


def test_the_job_lock_waits_and_then_refuses(store, tmp_path):
    job_id = new_job(store, "x")
    other = FileJobStore(tmp_path / "data")
    with store.lock_job(job_id, seconds=0):
        began = time.monotonic()
        with pytest.raises(ConflictError) as caught, other.lock_job(job_id, seconds=0.2):
            pass
        assert time.monotonic() - began >= 0.2
        assert caught.value.code == "job.locked"
    with other.lock_job(job_id, seconds=0):
        pass


def test_the_job_lock_is_freed_when_its_process_is_killed(store, tmp_path):
    job_id = new_job(store, "x")
    code = (
        "import sys, time, pathlib; from dspyui.adapters.files.jobs import FileJobStore;"
        "held = FileJobStore(pathlib.Path(sys.argv[1])).lock_job(sys.argv[2], seconds=0); held.__enter__();"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "data"), job_id],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(ConflictError), store.lock_job(job_id, seconds=0):
            pass
        process.kill()
        with store.lock_job(job_id, seconds=5):
            pass
        wait_for(lambda: not is_alive(process.pid))


def test_nobody_else_may_look(store):
    store.append_event(new_job(store, "x"), event("e"))
    home = store._root.parent
    paths = [home, *home.rglob("*")]
    assert {path.stat().st_mode & 0o077 for path in paths} == {0}


def test_a_reader_never_sees_half_a_state(store):
    job_id = new_job(store, "x")
    # Each is longer than what a file system writes in one piece, and each write waits for the disk: few are enough,
    # because the reader looks all the time while one is on its way.
    titles = [letter * 200_000 for letter in "abcdefghijkl"]

    def write():
        for title in titles:
            store.update(job_id, lambda job, t=title: job.model_copy(update={"title": t}))

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        reader = FileJobStore(store._root.parent)
        while not writing.done():
            assert reader.get(job_id).title in {"x", *titles}
            # On a busy machine a reader that never waits would starve the writer.
            time.sleep(0.001)
        writing.result()
    assert reader.get(job_id).title == titles[-1]
    leftovers = [path.name for path in store.folder(job_id).iterdir() if path.name.startswith(".")]
    assert leftovers == []
