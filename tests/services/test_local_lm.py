"""A job that waits for the bundled model says so."""

from functools import partial

import pytest

from dspyui.domain.batches import BatchProgress, BatchSpec
from dspyui.domain.compiles import Progress, Usage
from dspyui.domain.lms import LocalLMState
from dspyui.errors import UnavailableError
from dspyui.services.local_lm import ensure_for_job, show_waiting_batch, show_waiting_compile
from tests.api.world import NoLocalLM, World
from tests.batch_world import Batches, program, write_rows

URL = "http://127.0.0.1:9/v1"


class LM:
    """Stands as told, and is ready once it was asked for. `seen` is the job's phase at that moment."""

    def __init__(self, world: World, status) -> None:
        self._world = world
        self._status = status
        self.seen = ""

    def state(self) -> LocalLMState:
        return LocalLMState(status=self._status)

    def ensure(self) -> str:
        self.seen = self._world.services.jobs.progress(self._world.job_id).phase
        return URL

    def close(self) -> None: ...


@pytest.fixture
def world(settings):
    world = World(settings)
    world.job_id = world.submitted()
    return world


def wait_for(world, lm):
    return ensure_for_job(
        world.job_id, world.jobs, lm, show_waiting=partial(show_waiting_compile, world.jobs)
    )


@pytest.mark.parametrize("status", ["stopped", "starting", "failed"])
def test_while_it_starts_log_and_progress_say_so(world, status):
    world.jobs.write_progress(
        world.job_id, Progress(phase="baseline", done=3, total=9, usage=Usage(lm_calls=3))
    )
    lm = LM(world, status)
    assert wait_for(world, lm) == URL
    assert lm.seen == "starting_lm"
    progress = world.jobs.progress(world.job_id)
    assert (progress.done, progress.total, progress.usage.lm_calls) == (0, 0, 3)
    events, _ = world.jobs.events(world.job_id)
    assert [event.sentence("en_US") for event in events] == ["Starting the bundled language model"]


def test_one_that_runs_is_not_worth_a_word(world):
    lm = LM(world, "ready")
    assert wait_for(world, lm) == URL
    assert lm.seen == "queued"
    assert world.jobs.events(world.job_id)[0] == []


def test_one_that_cannot_be_had_is_an_error(world):
    with pytest.raises(UnavailableError):
        wait_for(world, NoLocalLM())


def test_a_batch_that_waits_for_it_keeps_a_progress_that_can_be_read(settings, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", 3)
    batches = Batches(settings.home)
    job_id = batches.create(BatchSpec(model="m", path=str(path)), program("http://127.0.0.1:9"))
    show = partial(show_waiting_batch, batches.store)
    with pytest.raises(UnavailableError):
        ensure_for_job(job_id, batches.jobs, NoLocalLM(), show_waiting=show)
    assert batches.store.progress(job_id) == BatchProgress(phase="starting_lm")
    (event,) = batches.events(job_id, "job.local_lm")
    assert event.sentence("en_US") == "Starting the bundled language model"
