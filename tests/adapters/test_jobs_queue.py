"""The job queue on real SQLite with real child processes."""

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from dspyui.domain.jobs import JobFailure
from dspyui.errors import FailedError, NotFoundError, UnavailableError
from tests.job_world import (
    SECRET,
    environment,
    is_alive,
    kinds,
    make_queue,
    marks,
    new_job,
    running_tree,
    wait_ended,
    wait_for,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    changes: list[str] = []
    store, queue = make_queue(
        tmp_path_factory.mktemp("home"),
        workers=2,
        prepare=lambda job_id: prepare(store, job_id),
        on_change=changes.append,
    )
    queue.start(works=True)
    yield store, queue, changes
    queue.close()


def prepare(store, job_id):
    match store.get(job_id).title.split():
        case ["unprepared"]:
            raise UnavailableError("data.columns", missing="x", found="y")
        case ["broken"]:
            raise ZeroDivisionError(SECRET)
        case ["slow-prepare"]:
            BLOCK.wait(200)
    return {"PREPARED": "yes"}


BLOCK = threading.Event()


@pytest.fixture
def store(world):
    return world[0]


@pytest.fixture
def queue(world):
    return world[1]


def submit(store, queue, deed):
    job_id = new_job(store, deed)
    queue.submit(job_id)
    return job_id


def test_a_job_is_done_and_says_so(store, queue, world):
    job_id = submit(store, queue, "sleep 0")
    job = wait_ended(store, job_id)
    assert (job.status, job.attempt, job.failure) == ("done", 1, None)
    assert job.created_at <= job.started_at <= job.ended_at
    assert job.executor.startswith("ui-")
    assert kinds(store, job_id) == ["job.queued", "job.started", "job.done"]
    wait_for(lambda: world[2].count(job_id) == 3)


def test_events_and_failures_have_sentences_in_both_languages(store, queue):
    job_id = submit(store, queue, "crash")
    failure = wait_ended(store, job_id).failure
    for language in ("zh_CN", "en_US"):
        assert failure.sentence(language)
        assert all(event.sentence(language) for event in store.events(job_id)[0])


def test_submitting_twice_runs_once(store, queue):
    job_id = submit(store, queue, "sleep 0.2")
    queue.submit(job_id)
    wait_ended(store, job_id)
    queue.submit(job_id)
    assert len(marks(store, job_id, "start")) == 1
    assert kinds(store, job_id).count("job.queued") == 1


def test_a_failure_is_the_childs_own(store, queue):
    job = wait_ended(store, submit(store, queue, "fail"))
    assert job.status == "failed"
    assert job.failure == JobFailure(code="data.empty", detail="why")


def test_a_crash_tells_the_exit_code_and_the_log_without_secrets(store, queue):
    job_id = submit(store, queue, "crash")
    job = wait_ended(store, job_id)
    assert (job.failure.code, job.failure.values) == ("job.child_died", {"how": "exit 3"})
    assert "about to break with ***" in job.failure.detail
    assert SECRET not in job.failure.detail
    assert kinds(store, job_id)[-1] == "job.failed"


def test_a_killed_child_tells_the_signal(store, queue):
    job = wait_ended(store, submit(store, queue, "die"))
    assert job.failure.values == {"how": "SIGKILL"}


def test_only_the_last_line_counts(store, queue):
    assert wait_ended(store, submit(store, queue, "noise")).status == "done"


def test_a_daemon_that_keeps_the_pipe_does_not_keep_the_job(store, queue):
    job_id = submit(store, queue, "leave")
    try:
        assert wait_ended(store, job_id).status == "done"
    finally:
        ((daemon,),) = marks(store, job_id, "daemon")
        os.kill(int(daemon), signal.SIGKILL)


def test_the_child_gets_what_was_prepared_and_no_look_ups(store, queue):
    job_id = submit(store, queue, "environment")
    wait_ended(store, job_id)
    assert marks(store, job_id, "environment") == [["yes", "True"]]


def test_what_prepare_raises_is_the_failure(store, queue):
    job = wait_ended(store, submit(store, queue, "unprepared"))
    assert job.failure == JobFailure(code="data.columns", values={"missing": "x", "found": "y"})
    assert marks(store, job.id, "start") == []


def test_an_unexpected_error_fails_the_job_and_hides_secrets(store, queue):
    job = wait_ended(store, submit(store, queue, "broken"))
    assert job.failure.code == "job.unexpected"
    assert "ZeroDivisionError" in job.failure.values["problem"]
    assert SECRET not in job.failure.model_dump_json()


def test_cancel_leaves_no_process(store, queue):
    job_id = submit(store, queue, "forever")
    tree = running_tree(store, job_id)
    queue.cancel(job_id)
    job = wait_ended(store, job_id)
    assert (job.status, job.failure) == ("cancelled", None)
    wait_for(lambda: not any(is_alive(pid) for pid in tree))
    assert kinds(store, job_id)[-1] == "job.cancelled"


def test_a_request_in_the_folder_alone_cancels(store, queue):
    job_id = submit(store, queue, "forever")
    tree = running_tree(store, job_id)
    store.update(job_id, lambda job: job.model_copy(update={"cancel_requested": True}))
    assert wait_ended(store, job_id).status == "cancelled"
    wait_for(lambda: not any(is_alive(pid) for pid in tree))


def test_cancel_does_not_wait_for_prepare(store, queue):
    job_id = submit(store, queue, "slow-prepare")
    wait_for(lambda: store.get(job_id).status == "running")
    queue.cancel(job_id)
    assert wait_ended(store, job_id).status == "cancelled"
    BLOCK.set()
    after = wait_ended(store, submit(store, queue, "sleep 0"))
    assert after.status == "done"
    assert marks(store, job_id, "start") == []


def test_cancelling_what_waits_is_at_once_and_what_has_ended_is_nothing(store, queue):
    blockers = [submit(store, queue, "forever") for _ in range(2)]
    wait_for(lambda: all(store.get(job_id).status == "running" for job_id in blockers))
    job_id = submit(store, queue, "sleep 0")
    queue.cancel(job_id)
    assert store.get(job_id).status == "cancelled"
    for blocker in blockers:
        queue.cancel(blocker)
        wait_ended(store, blocker)
    done = wait_ended(store, submit(store, queue, "sleep 0"))
    queue.cancel(done.id)
    assert store.get(done.id) == done
    assert marks(store, job_id, "start") == []


def test_no_more_than_the_workers_run_at_a_time(store, queue):
    jobs = [submit(store, queue, "until go") for _ in range(4)]
    wait_for(lambda: len([job_id for job_id in jobs if marks(store, job_id, "start")]) == 2)
    assert sorted(store.get(job_id).status for job_id in jobs) == ["queued", "queued", "running", "running"]
    (store.folder(jobs[0]).parents[1] / "go").touch()
    for job_id in jobs:
        wait_ended(store, job_id)
    moments = sorted(
        (float(mark[2]), step)
        for job_id in jobs
        for word, step in (("start", 1), ("end", -1))
        for mark in marks(store, job_id, word)
    )
    running = [sum(step for _, step in moments[: index + 1]) for index in range(len(moments))]
    assert max(running) == 2


def test_a_job_that_was_never_submitted_is_found(store, queue):
    job_id = new_job(store, "sleep 0")
    store.update(
        job_id,
        lambda job: job.model_copy(update={"created_at": datetime.now(UTC) - timedelta(seconds=6)}),
    )
    assert wait_ended(store, job_id).status == "done"


def test_a_job_that_a_living_process_is_about_to_start_is_left_to_it(store, queue):
    job_id = new_job(store, "sleep 0")
    old = datetime.now(UTC) - timedelta(seconds=60)
    mine = wait_ended(store, submit(store, queue, "sleep 0")).executor
    store.update(job_id, lambda job: job.model_copy(update={"created_at": old, "executor": mine}))
    control = new_job(store, "sleep 0")
    store.update(control, lambda job: job.model_copy(update={"created_at": old, "executor": "cli-gone"}))
    wait_ended(store, control)
    assert store.get(job_id).status == "queued"
    queue.run_here(job_id)
    assert wait_ended(store, job_id).status == "done"


def test_what_a_dead_process_left_cancelled_is_cancelled(store, queue):
    by_sweep, at_once = (new_job(store, "sleep 0") for _ in range(2))
    left = {"status": "running", "executor": "ui-gone", "attempt": 1}
    store.update(by_sweep, lambda job: job.model_copy(update={**left, "cancel_requested": True}))
    assert wait_ended(store, by_sweep).status == "cancelled"
    store.update(at_once, lambda job: job.model_copy(update=left))
    queue.cancel(at_once)
    assert store.get(at_once).status == "cancelled"


def test_run_here_passes_the_queue(store, queue):
    blockers = [submit(store, queue, "forever") for _ in range(2)]
    wait_for(lambda: all(store.get(job_id).status == "running" for job_id in blockers))
    job_id = new_job(store, "sleep 0")
    queue.run_here(job_id)
    assert wait_ended(store, job_id).status == "done"
    for blocker in blockers:
        queue.cancel(blocker)
        wait_ended(store, blocker)


def test_unknown_jobs_are_refused(queue):
    for call in (queue.submit, queue.cancel, queue.run_here):
        with pytest.raises(NotFoundError):
            call("20260101-000000-00000000")
        with pytest.raises(NotFoundError):
            call("../../x")


def test_a_deleted_job_is_dropped(store, queue):
    job_id = submit(store, queue, "forever")
    tree = running_tree(store, job_id)
    store.folder(job_id).rename(store.folder(job_id).with_name(".gone"))
    wait_for(lambda: not any(is_alive(pid) for pid in tree))


def test_before_the_start_jobs_wait_and_run_here_says_why(tmp_path):
    store, queue = make_queue(tmp_path)
    job_id = new_job(store, "sleep 0")
    with pytest.raises(FailedError) as caught:
        queue.run_here(job_id)
    assert caught.value.code == "queue.not_started"
    queue.submit(job_id)
    queue.cancel(job_id)
    assert store.get(job_id).status == "cancelled"
    queue.close()


def test_nothing_heavy_is_imported_with_the_queue():
    code = (
        "import sys; import dspyui.adapters.dbos_jobs.queue, dspyui.adapters.dbos_jobs.child;"
        "print([name for name in ('dbos', 'dspy', 'mlflow', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
