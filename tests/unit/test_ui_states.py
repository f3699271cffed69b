"""Every page that reads something: a skeleton while it does, what would be here when there is nothing, why not else."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from nicegui import ui
from nicegui.testing import User

from dspyui.domain.compiles import Progress, TrialScore, Usage
from dspyui.i18n import Text
from dspyui.settings import Settings
from tests.api.world import World
from tests.pages import sees, until, visitor, words


@dataclass(frozen=True)
class Read:
    """A page, and what it reads: the object in the world, the name of its method, the words when there is nothing."""

    path: str
    of: Callable[[World], object]
    name: str
    nothing: str | None
    way_on: str | None = None


READS = {
    "jobs": Read("/jobs", lambda made: made.services.jobs, "search", "ui.jobs.empty", "first-compile"),
    "runs": Read("/runs", lambda made: made.runs, "search_runs", "ui.runs.empty", "first-compile"),
    "models": Read("/models", lambda made: made.registry, "page", "ui.models.empty", "to-jobs"),
    "data sets": Read("/data", lambda made: made.services.uploads, "search", "ui.datasets.empty"),
    "a data set": Read(f"/data/{'0' * 64}", lambda made: made.services.uploads, "get", None),
    "the data folder": Read("/settings", lambda made: made.services.folder, "usage", None),
    "a model": Read("/models/jokes", lambda made: made.registry, "get_model", None),
    "what waits": Read("/settings", lambda made: made.services.waiting, "look", None),
    "a version": Read("/models/jokes/1", lambda made: made.registry, "get_version", None),
}
EMPTY = {name: read for name, read in READS.items() if read.nothing}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_a_skeleton_stands_until_it_is_read_and_a_failure_says_why(
    user: User,
    world: World,
    monkeypatch,
    caplog,
    read: Read,
):
    go_on, goes_wrong, original = threading.Event(), threading.Event(), getattr(read.of(world), read.name)
    goes_wrong.set()

    def slow(*args, **kwargs):
        go_on.wait(60)
        if goes_wrong.is_set():
            raise OSError("the disk is gone")
        return original(*args, **kwargs)

    monkeypatch.setattr(read.of(world), read.name, slow)
    await user.open(read.path)
    assert _skeletons(user)
    assert not sees(user, marker="load-problem")()
    go_on.set()
    await until(sees(user, marker="load-problem"))
    assert "the disk is gone" in words(user, "load-problem")
    assert sees(user, marker="load-problem-copy")()
    assert not _skeletons(user)
    caplog.clear()
    # The button reads again; what is not there is said in its own words.
    goes_wrong.clear()
    user.find(marker="load-problem-retry").click()
    await until(lambda: not sees(user, marker="load-problem")() or "disk" not in words(user, "load-problem"))


@pytest.mark.parametrize("read", EMPTY.values(), ids=EMPTY)
@pytest.mark.parametrize("language", ["en_US", "zh_CN"])
async def test_where_nothing_is_yet_it_says_what_would_be_and_the_way_there(
    user: User,
    read: Read,
    language,
):
    await user.open(f"{read.path}?lang={language}")
    await until(sees(user, content=Text(language)(read.nothing)))
    if read.way_on is not None:
        assert sees(user, marker=read.way_on)()


async def test_without_tracking_runs_and_models_say_so(settings: Settings, tmp_path):
    world = World(settings.model_copy(update={"mlflow_enabled": False}))
    text = Text("en_US")
    async with visitor(world.services, tmp_path) as user:
        await user.open("/runs")
        await until(sees(user, content=text("ui.runs.off")))
        await user.open("/models")
        await until(sees(user, content=text("ui.models.no_programs")))
        kept = world.done()
        await user.open("/models")
        await until(sees(user, content=world.services.programs.get(kept).spec.name))


async def test_a_job_that_cannot_be_read_says_why(user: User, world: World):
    job_id = world.failed()
    (world.jobs.folder(job_id) / "spec.json").write_text("{", encoding="utf-8")
    await user.open(f"/jobs/{job_id}")
    await until(sees(user, marker="problem"))
    assert sees(user, marker="problem-retry")()


async def test_a_running_job_shows_trials_scores_calls_tokens_and_time_at_every_visit(
    user: User,
    world: World,
):
    job_id = world.submitted()
    began = datetime.now(UTC) - timedelta(hours=2)
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "running", "started_at": began}))
    progress = Progress(
        phase="optimising",
        trials=(TrialScore(step=0, label="baseline", score=0.25), TrialScore(step=1, label="#1", score=0.5)),
        baseline_curve=(1.0, 0.5),
        usage=Usage(lm_calls=1234, lm_cache_hits=5, input_tokens=60_000, output_tokens=7_000),
    )
    world.jobs.write_progress(job_id, progress)
    for _ in range(2):  # a reload, or another browser
        await user.open(f"/jobs/{job_id}")
        shown = words(user, "progress")
        for figure in ("1,234", "67,000", "2 h 0"):
            assert figure in shown
        options = [chart.options["series"] for chart in user.find(kind=ui.echart).elements]
        drawn = [[_value(point) for point in series["data"]] for found in options for series in found]
        assert [0.25, 0.5] in drawn
        assert [1.0, 0.5] in drawn


def _value(point: object) -> object:
    if isinstance(point, dict):
        point = point["value"]
    return point[-1] if isinstance(point, (list, tuple)) else point


def _skeletons(user: User) -> bool:
    return sees(user, kind=ui.skeleton)()
