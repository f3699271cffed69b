"""Several real processes in one queue: kills, take-overs, restarts."""

import shutil
from contextlib import ExitStack

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from tests.job_world import (
    is_alive,
    kinds,
    make_queue,
    marks,
    new_job,
    running_tree,
    wait_ended,
    wait_for,
    worker_process,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def home(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def store(home):
    return FileJobStore(home)


def give_deed(store, job_id, deed):
    """What the job's next attempt will do."""
    store.update(job_id, lambda job: job.model_copy(update={"title": deed}))


def kill(process):
    process.kill()
    process.wait()


def all_gone(tree):
    return not any(is_alive(pid) for pid in tree)


def closed_seconds(worker):
    """Tell the process to leave; how long that took it."""
    worker.terminate()
    word, seconds = worker.stdout.readline().split()
    assert word == "closed"
    assert worker.wait(60) == 0
    return float(seconds)


def test_a_killed_server_leaves_no_process_and_the_next_start_resumes(home, store):
    job_id = new_job(store, "forever")
    with worker_process(home, "worker", job_id) as worker:
        tree = running_tree(store, job_id)
        kill(worker)
        wait_for(lambda: all_gone(tree))
    started_at = store.get(job_id).started_at
    assert store.get(job_id).status == "running"
    give_deed(store, job_id, "sleep 0")
    with worker_process(home, "worker"):
        job = wait_ended(store, job_id)
    assert (job.status, job.attempt, job.started_at) == ("done", 2, started_at)
    assert kinds(store, job_id) == ["job.queued", "job.started", "job.resumed", "job.done"]


def test_a_new_attempt_waits_for_the_one_that_is_dying(home, store):
    job_id = new_job(store, "forever")
    with worker_process(home, "worker", job_id) as worker:
        running_tree(store, job_id)
        kill(worker)
    give_deed(store, job_id, "sleep 0")
    # This test stands for a child that takes its time to die: it holds the lock that the child held.
    with ExitStack() as held, ExitStack() as started:
        held.enter_context(store.lock_job(job_id, seconds=60))
        started.enter_context(worker_process(home, "worker"))
        wait_for(lambda: len(marks(store, job_id, "up")) == 2)
        assert store.get(job_id).attempt == 2
        assert len(marks(store, job_id, "start")) == 1
        held.close()
        assert wait_ended(store, job_id).status == "done"


def test_a_living_worker_takes_over_from_a_killed_one(home, store):
    jobs = [new_job(store, "until go") for _ in range(4)]
    with worker_process(home, "worker", *jobs) as victim, worker_process(home, "worker"):
        # Two each: neither may take more, and none of them ends yet.
        wait_for(lambda: all(marks(store, job_id, "start") for job_id in jobs))
        kill(victim)
        (home / "go").touch()
        ended = [wait_ended(store, job_id) for job_id in jobs]
    assert {job.status for job in ended} == {"done"}
    assert sorted(job.attempt for job in ended) == [1, 1, 2, 2]
    assert all(len(marks(store, job.id, "end")) == 1 for job in ended)
    assert len({job.executor for job in ended}) == 1


def test_the_command_line_and_a_server_run_each_job_once(home, store):
    queued = [new_job(store, "sleep 0.5") for _ in range(3)]
    with worker_process(home, "worker", *queued):
        own = [new_job(store, "sleep 0.5") for _ in range(2)]
        with worker_process(home, "cli", *own) as command:
            assert command.wait(60) == 0
        for job_id in queued + own:
            job = wait_ended(store, job_id)
            assert (job.status, job.attempt) == ("done", 1)
            assert len(marks(store, job_id, "start")) == 1
    assert all(store.get(job_id).executor.startswith("cli-") for job_id in own)
    assert all(store.get(job_id).executor.startswith("ui-") for job_id in queued)
    assert all("job.queued" not in kinds(store, job_id) for job_id in own)


def test_a_killed_command_lines_job_goes_to_a_server_and_to_no_other_command_line(home, store):
    job_id, other = new_job(store, "forever"), new_job(store, "until go")
    with worker_process(home, "cli", job_id) as command, worker_process(home, "cli", other) as bystander:
        running_tree(store, job_id)
        kill(command)
        give_deed(store, job_id, "sleep 0")
        with worker_process(home, "worker", workers=1):
            job = wait_ended(store, job_id)
        (home / "go").touch()
        assert bystander.wait(60) == 0
    assert (job.status, job.attempt) == ("done", 2)
    assert job.executor.startswith("ui-")


def test_cancelled_from_another_process(home, store):
    job_id = new_job(store, "forever")
    with worker_process(home, "cli", job_id):
        tree = running_tree(store, job_id)
        _, queue = make_queue(home)
        queue.start(works=False)
        queue.cancel(job_id)
        assert wait_ended(store, job_id).status == "cancelled"
        wait_for(lambda: all_gone(tree))
        queue.close()


def test_cancelled_while_nobody_runs_it(home, store):
    job_id = new_job(store, "forever")
    with worker_process(home, "worker", job_id) as worker:
        running_tree(store, job_id)
        kill(worker)
    store.update(job_id, lambda job: job.model_copy(update={"cancel_requested": True}))
    with worker_process(home, "worker"):
        assert wait_ended(store, job_id).status == "cancelled"
    assert len(marks(store, job_id, "start")) == 1


def test_closing_is_quick_and_counts_as_no_failed_attempt(home, store):
    job_id = new_job(store, "forever")
    for attempt in range(1, 7):
        given = (job_id,) if attempt == 1 else ()
        with worker_process(home, "worker", *given) as worker:
            wait_for(lambda attempt=attempt: len(marks(store, job_id, "grandchild")) == attempt)
            tree = running_tree(store, job_id)
            # Far less than the ten minutes the child would take, with a margin for a busy machine.
            assert closed_seconds(worker) < 15
            wait_for(lambda tree=tree: all_gone(tree))
        assert store.get(job_id).status == "running"
        assert list((home / "executors").iterdir()) == []
    give_deed(store, job_id, "sleep 0")
    with worker_process(home, "worker"):
        job = wait_ended(store, job_id)
    assert (job.status, job.attempt) == ("done", 7)


def test_a_job_whose_server_dies_each_time_is_given_up(home, store):
    job_id = new_job(store, "forever")
    for attempt in range(1, 5):
        given = (job_id,) if attempt == 1 else ()
        with worker_process(home, "worker", *given) as worker:
            wait_for(lambda attempt=attempt: len(marks(store, job_id, "grandchild")) == attempt)
            kill(worker)
    with worker_process(home, "worker"):
        job = wait_ended(store, job_id)
    assert (job.status, job.failure.code, job.failure.values) == ("failed", "job.gave_up", {"attempts": 4})


def test_a_lost_database_loses_no_job(home, store):
    running, waiting = new_job(store, "forever"), new_job(store, "sleep 0")
    with worker_process(home, "worker", running, waiting, workers=1) as worker:
        running_tree(store, running)
        kill(worker)
    for path in home.glob("jobs.db*"):
        path.unlink()
    give_deed(store, running, "sleep 0")
    with worker_process(home, "worker"):
        assert wait_ended(store, running).status == "done"
        assert wait_ended(store, waiting).status == "done"


def test_a_worker_whose_lease_is_taken_away_stops_its_jobs(home, store):
    job_id = new_job(store, "forever")
    with worker_process(home, "worker", job_id):
        tree = running_tree(store, job_id)
        shutil.rmtree(home / "executors")
        wait_for(lambda: all_gone(tree))
        give_deed(store, job_id, "sleep 0")
        # The process that lost its lease still lives, and must take none of these out of the queue.
        others = [new_job(store, "sleep 0") for _ in range(10)]
        with worker_process(home, "worker", *others):
            job = wait_ended(store, job_id)
            assert {wait_ended(store, other).status for other in others} == {"done"}
    assert (job.status, job.attempt) == ("done", 2)


def test_a_process_can_leave_and_join_again(home, store):
    for _ in range(2):
        _, queue = make_queue(home)
        queue.start(works=True)
        job_id = new_job(store, "sleep 0")
        queue.submit(job_id)
        assert wait_ended(store, job_id).status == "done"
        queue.close()
        queue.close()
