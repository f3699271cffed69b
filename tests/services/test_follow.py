"""Standing by a job, summing it up, and the demo's steps, on real job folders."""

import threading
from datetime import UTC, datetime

import pytest

from dspyui.domain.compiles import Progress
from dspyui.domain.jobs import JobEvent
from dspyui.domain.runs import TrackingState
from dspyui.errors import BadRequestError, CancelledError, FailedError, NotFoundError, UnavailableError
from dspyui.services.demo import DemoService, check_done
from dspyui.services.examples import DEMO_MODEL_NAME
from dspyui.services.follow import Nobody, follow
from dspyui.services.summary import summarise
from tests.api.world import World, spec


class Noting:
    def __init__(self):
        self.events = []
        self.phases = []

    def on_event(self, event):
        self.events.append(event.kind)

    def on_progress(self, progress):
        self.phases.append(progress.phase)


@pytest.fixture
def world(settings):
    return World(settings)


def event(kind):
    return JobEvent(at=datetime.now(UTC), kind=kind)


def test_every_event_is_told_once_and_the_last_ones_too(world):
    job_id = world.submitted()
    watcher = Noting()
    world.jobs.append_event(job_id, event("job.started"))

    def work():
        for number in range(50):
            world.jobs.append_event(job_id, event(f"step.{number}"))
            world.jobs.write_progress(job_id, Progress(phase="baseline", done=number, total=50))
        world.jobs.append_event(job_id, event("job.done"))
        world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "done"}))

    thread = threading.Thread(target=work)
    thread.start()
    job = follow(world.services.jobs, job_id, watcher, interval=0.01)
    thread.join()
    assert job.status == "done"
    assert [kind for kind in watcher.events if kind.startswith("step")] == [f"step.{n}" for n in range(50)]
    assert (watcher.events.count("job.started"), watcher.events[-1]) == (1, "job.done")
    assert watcher.phases[-1] == "baseline"


def test_following_has_a_bound(world):
    assert (
        follow(world.services.jobs, world.submitted(), Nobody(), seconds=0.05, interval=0.01).status
        == "queued"
    )


def test_an_unknown_job_cannot_be_followed(world):
    with pytest.raises(NotFoundError):
        follow(world.services.jobs, "20260101-000000-00000000", Nobody())


def test_the_summary_of_a_job_that_has_not_begun(world):
    view = world.services.jobs.view(world.submitted())
    summary = summarise(view, world.programs)
    assert (summary.status, summary.baseline_score, summary.program_path) == ("queued", None, None)
    assert (summary.duration_seconds, summary.total_tokens) == (None, 0)


def test_how_a_job_ended_is_raised(world):
    check_done(world.jobs.get(world.done()))
    with pytest.raises(FailedError) as failed:
        check_done(world.jobs.get(world.failed()))
    assert failed.value.code == "job.unexpected"
    with pytest.raises(CancelledError):
        check_done(world.jobs.get(world.submitted()))


def demo_of(world):
    services = world.services
    return DemoService(services.jobs, services.register, services.predict, services.tracking)


def test_the_demo_registers_to_staging_and_asks_the_version(world):
    outcome = demo_of(world).finish(world.done(), {"message": "hello"}, who="me")
    assert (outcome.version.name, outcome.version.stage) == (DEMO_MODEL_NAME, "Staging")
    assert outcome.prediction == {"product": "HELLO"}
    assert world.registry.who == ["me"]


def test_the_demo_starts_nothing_when_it_could_not_register(world):
    world.tracking.now = TrackingState(status="off")
    with pytest.raises(UnavailableError):
        demo_of(world).start(spec(), who="me")
    assert world.queue.submitted == []


def test_the_demo_wants_a_job_that_is_done(world):
    with pytest.raises(BadRequestError):
        demo_of(world).finish(world.submitted(), {"message": "hello"}, who="me")
