"""Job folders as version 0.1 wrote them: every word of them is still there, in lists, pages, form and record.

`tests/data/jobs_of_0_1_0` was written by that version's own code, which knew LabeledFewShot and exact match and
compared nothing; of ten test rows, six answers of the optimised program could not be read.
"""

import shutil
from pathlib import Path

import pytest
from nicegui.testing import User

from dspyui.domain.programs import CompiledProgram
from dspyui.errors import FailedError
from dspyui.services.run_records import run_record
from tests.api.world import World
from tests.pages import element, sees, until, words

KEPT = Path(__file__).parents[1] / "data" / "jobs_of_0_1_0"
DONE, FAILED = "20261124-090000-d2ab9156", "20261124-100000-04de0cd4"
LANGUAGES = ("zh_CN", "en_US")


@pytest.fixture(autouse=True)
def _kept(world: World):
    shutil.copytree(KEPT, world.settings.home / "jobs", dirs_exist_ok=True)


def test_they_are_listed_and_read_whole(world: World):
    assert [job.id for job in world.services.jobs.search()] == [FAILED, DONE]
    view = world.services.jobs.view(DONE)
    assert view.spec.lms.teacher is not None
    assert view.spec.optimizer.params == {"k": 2}
    assert len(world.jobs.rows(DONE)) == 20
    events, _ = world.services.jobs.events(DONE)
    assert len(events) == len((KEPT / DONE / "events.jsonl").read_text().splitlines())
    for language in LANGUAGES:
        assert all("{" not in event.sentence(language) for event in events)
    assert view.progress.evaluation_curve


def test_what_was_not_counted_then_is_counted_now(world: World):
    found = world.services.jobs.view(DONE).result
    assert found is not None
    assert (found.baseline.unreadable, found.optimised.unreadable) == (0, 6)
    assert (found.baseline.score, found.optimised.score) == (0.0, 0.4)
    assert found.difference is not None
    assert (found.difference.value, found.difference.differing, found.difference.pairs) == (0.4, 4, 10)
    assert found.usage.cost is None


def test_a_result_that_compared_nothing_on_purpose_stays_so(world: World):
    document = world.services.jobs.view(DONE).result
    assert document is not None
    alone = document.model_copy(update={"optimised": document.baseline, "difference": None})
    world.jobs.write_result(DONE, alone)
    again = world.services.jobs.view(DONE).result
    assert again is not None
    assert again.difference is None


def test_why_it_failed_is_still_said(world: World):
    failure = world.services.jobs.get(FAILED).failure
    assert failure is not None
    for language in LANGUAGES:
        assert "openai/other" in failure.sentence(language)
        assert failure.sentence(language) != f"{failure.code} {failure.values}"


def test_its_program_is_still_one(world: World):
    text = (world.jobs.folder(DONE) / "program.json").read_text(encoding="utf-8")
    program = CompiledProgram.from_json(text, where="program.json")
    assert len(program.state["demos"]) == 2


def test_its_record_can_still_be_sent(world: World):
    view = world.services.jobs.view(DONE)
    record = run_record(
        view.job, view.spec, view.progress, view.result, world.jobs.folder(DONE), with_evaluations=True
    )
    assert record.metrics["evaluation_unreadable"] == 6
    assert record.metrics["score_improvement_ci_low"] < 0.4 < record.metrics["score_improvement_ci_high"]
    assert record.params["lm.teacher.model"] == "openai/teacher"
    assert "cost" not in record.metrics


@pytest.mark.parametrize("language", ["zh", "en"])
async def test_their_pages_open(user: User, world: World, language: str):
    await user.open(f"/jobs?lang={language}")
    await until(sees(user, marker=f"job-{DONE}"))
    assert "0.00 → 0.40" in words(user, f"job-{DONE}")
    await user.open(f"/jobs/{DONE}")
    await until(sees(user, marker="certainty"))
    assert "6" in words(user, "unreadable")
    await user.open(f"/jobs/{FAILED}")
    await until(lambda: "openai/other" in words(user, "job-failure"))


async def test_they_fill_the_form(user: User, world: World):
    await user.open(f"/?job={DONE}")
    await until(sees(user, marker="form-ready"))
    assert element(user, "program-name").value == "产品 extraction"  # type: ignore[attr-defined]
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    made = world.services.jobs.view(world.queue.submitted[0]).spec
    was = world.services.jobs.view(DONE).spec
    assert made.optimizer.resolved() == was.optimizer.resolved()
    assert made.metric.resolved() == was.metric.resolved()
    assert made.model_dump(exclude={"optimizer", "metric"}) == was.model_dump(exclude={"optimizer", "metric"})


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_another_version_wrote_is_shown_as_it_is(world: World, language):
    assert "of_tomorrow" in FailedError("of_tomorrow", row=3).text(language)
    assert "openai/x" in FailedError("engine.auth", model="openai/x").text(language)
    log = world.jobs.folder(DONE) / "events.jsonl"
    with log.open("a", encoding="utf-8") as lines:
        for kind in ("of_tomorrow", "compile.phase"):
            lines.write(f'{{"at":"2026-11-24T09:00:00Z","kind":"{kind}","values":{{"phase":"dreaming"}}}}\n')
    events, _ = world.services.jobs.events(DONE)
    assert ["dreaming" in event.sentence(language) for event in events[-2:]] == [True, True]
