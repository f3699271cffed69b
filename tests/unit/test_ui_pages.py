"""The pages in NiceGUI's simulation: real files in a temporary folder, MLflow and the LM in memory."""

import asyncio
import re
import threading
from typing import Any

import pytest
from nicegui import app, ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.testing import User
from pydantic import SecretStr

from dspyui.domain.base import Fault
from dspyui.domain.compiles import Evaluation, Progress, RowResult
from dspyui.domain.intervals import Difference
from dspyui.domain.jobs import JobEvent, RecordState
from dspyui.domain.lms import LOCAL_MODEL, LMRoles, LMSpec, LocalLMState
from dspyui.domain.metrics import METRICS
from dspyui.domain.optimizers import OPTIMIZERS
from dspyui.domain.providers import OWN_SERVERS, PROVIDERS
from dspyui.domain.registry import RegisterRequest
from dspyui.domain.runs import TrackingState
from dspyui.errors import CancelledError, FailedError, UnavailableError
from dspyui.i18n import Text
from dspyui.services.examples import EXAMPLES, demo_spec, example_spec
from dspyui.services.help import TOPICS
from dspyui.settings import Settings
from dspyui.ui.drafts import OTHER_ROLES
from dspyui.ui.pages.settings import shown_settings
from tests.api.world import MLFLOW, T0, MemoryRegistry, World, program, result
from tests.pages import element, exists, sees, until, visitor, words

ADDRESSES = ("/", "/data", "/jobs", "/runs", "/models", "/settings", "/help")


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize(("language", "tag"), [("en", "en-US"), ("zh", "zh-CN")])
async def test_every_page_opens_in_both_languages(user: User, path, language, tag):
    page = await user.http_client.get(path, params={"lang": language})
    assert page.status_code == 200
    assert f'<html lang="{tag}"' in page.text
    assert re.search(r"<title>.+ · DSPyUI</title>", page.text)
    assert not re.search(r"(src|href|url\()\W{0,2}(https?:)?//", page.text), "nothing comes from outside"


async def test_the_language_asked_for_is_kept(user: User):
    await user.open("/jobs?lang=zh")
    await user.should_see("任务")
    await user.open("/jobs")
    await user.should_see("新建编译")


async def test_the_first_visit_is_a_filled_in_example_that_compiles(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    assert "120" in words(user, "summary")
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    job = world.services.jobs.view(world.queue.submitted[0])
    assert job.spec.optimizer.kind == "bootstrap_few_shot"
    assert job.spec.data.rows is not None
    assert len(world.jobs.rows(job.job.id)) == 120


async def test_a_cell_that_is_edited_is_what_gets_compiled(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    cell = element(user, "cell-0-f2")
    user.find(marker="cell-0-f2").clear().type("ear muffs")
    assert cell.value == "ear muffs"  # type: ignore[attr-defined]
    user.find(marker="delete-row-1").click()
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    rows = world.jobs.rows(world.queue.submitted[0])
    assert rows[0]["product"] == "ear muffs"
    assert len(rows) == 119


async def test_a_bad_field_name_is_told_at_its_place_and_in_the_summary(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="inputs-0-name").clear().type("../../x")
    await until(sees(user, marker="form-problem-0"))
    assert "'../../x' cannot be a field's name" in words(user, "form-problem-0")
    assert "cannot be a field's name" in str(element(user, "inputs-0-name").error)  # type: ignore[attr-defined]
    user.find(marker="compile").click()
    await asyncio.sleep(0.1)
    assert world.queue.submitted == []


async def test_choosing_another_optimizer_draws_its_parameters(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    element(user, "optimizer").set_value("labeled_few_shot")  # type: ignore[attr-defined]
    await until(sees(user, marker="optimizer-k"))
    element(user, "optimizer-k").set_value(2.0)  # type: ignore[attr-defined]
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    optimizer = world.services.jobs.view(world.queue.submitted[0]).spec.optimizer
    assert (optimizer.kind, optimizer.resolved()["k"]) == ("labeled_few_shot", 2)


@pytest.mark.parametrize("kind", OPTIMIZERS)
async def test_every_optimizer_draws_all_its_parameters(user: User, kind):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    element(user, "optimizer").set_value(kind)  # type: ignore[attr-defined]
    for info in OPTIMIZERS[kind].parameters:
        await until(sees(user, marker=f"optimizer-{info.name}"))
    folded = any(info.advanced for info in OPTIMIZERS[kind].parameters)
    assert exists(user, marker="optimizer-advanced") == folded
    assert len(words(user, "optimizer-help")) > 20


async def test_a_reward_is_chosen_of_the_metrics_that_expect_nothing(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    element(user, "module").set_value("best_of_n")  # type: ignore[attr-defined]
    await until(sees(user, marker="reward"))
    assert set(element(user, "reward").options) == {"regex", "llm_judge", "custom"}  # type: ignore[attr-defined]
    # Without a pattern the reward says nothing.
    await until(sees(user, marker="form-problem-0"))
    user.find(marker="reward-pattern").type("[a-z]+")
    element(user, "module-N").set_value(4.0)  # type: ignore[attr-defined]
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    module = world.services.jobs.view(world.queue.submitted[0]).spec.program.module
    assert module.kind == "best_of_n"
    assert module.resolved()["N"] == 4
    assert module.reward is not None
    assert module.reward.resolved()["pattern"] == "[a-z]+"


async def test_small_data_is_warned_of_and_compiles(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    element(user, "optimizer").set_value("miprov2")  # type: ignore[attr-defined]
    await until(sees(user, marker="optimizer-warning-train"))
    assert "MIPROv2 works best with 100 training rows or more" in words(user, "optimizer-warning-train")
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)


async def test_an_optimizer_that_cannot_run_on_the_rows_is_told_before_the_start(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    element(user, "optimizer").set_value("simba")  # type: ignore[attr-defined]
    await until(sees(user, marker="optimizer-bsize"))
    element(user, "optimizer-bsize").set_value(500.0)  # type: ignore[attr-defined]
    await until(sees(user, marker="form-problem-0"))
    assert "SIMBA looks at 500 training rows a step" in words(user, "form-problem-0")
    user.find(marker="compile").click()
    await asyncio.sleep(0.1)
    assert world.queue.submitted == []


async def test_fields_come_and_go(user: User):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="add-outputs").click()
    await until(sees(user, marker="outputs-1-name"))
    assert exists(user, marker="metric-field-1")
    user.find(marker="outputs-1-remove").click()
    await until(lambda: not exists(user, marker="outputs-1-name"))
    await until(sees(user, marker="form-ready"))


async def test_another_metric_brings_its_own_parameters_and_they_reach_the_job(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    assert "1.00 when an answer equals" in words(user, "metric-help")
    element(user, "metric").set_value("regex")  # type: ignore[attr-defined]
    await until(sees(user, marker="metric-pattern"))
    assert not exists(user, marker="metric-normalise")
    await until(lambda: "needs a pattern" in words(user, "summary"))
    element(user, "metric-pattern").set_value("[a-z]+")  # type: ignore[attr-defined]
    element(user, "metric-whole").set_value(True)  # type: ignore[attr-defined]
    element(user, "repeats").set_value(3.0)  # type: ignore[attr-defined]
    element(user, "max-errors").set_value(7.0)  # type: ignore[attr-defined]
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    spec = world.services.jobs.view(world.queue.submitted[0]).spec
    assert spec.metric.resolved() == {"pattern": "[a-z]+", "whole": True, "ignore_case": False}
    assert (spec.metric.kind, spec.repeats, spec.max_errors) == ("regex", 3, 7)


async def test_every_metric_can_be_chosen_and_shows_all_its_parameters(user: User, world: World):
    await user.open("/")
    for kind, info in METRICS.items():
        element(user, "metric").set_value(kind)  # type: ignore[attr-defined]
        await until(lambda kind=kind: Text("en_US")(f"metric.{kind}.help") in words(user, "metric-card"))
        shown = [made.name for made in info.parameters if exists(user, marker=f"metric-{made.name}")]
        assert kind == "custom" or shown == [made.name for made in info.parameters]
    assert exists(user, marker="metric-none")


async def test_weights_are_asked_for_each_output(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    assert not exists(user, marker="metric-weight-0")
    user.find(marker="add-outputs").click()
    await until(sees(user, marker="metric-weight-1"))
    element(user, "metric-weight-0").set_value(0.0)  # type: ignore[attr-defined]
    user.find(marker="outputs-1-name").type("count")
    await until(lambda: "A weight must be a number above 0" in words(user, "summary"))
    element(user, "metric").set_value("custom")  # type: ignore[attr-defined]
    await until(lambda: not exists(user, marker="metric-weight-0"))


async def test_ones_own_metrics_are_listed_where_they_may_run(user: User, world: World):
    folder = world.settings.home / "metrics"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text("def metric(example, prediction): return 1")
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    element(user, "metric").set_value("custom")  # type: ignore[attr-defined]
    await until(sees(user, marker="metric-name"))
    assert element(user, "metric-name").options == ["mine"]  # type: ignore[attr-defined]
    element(user, "metric-name").set_value("mine")  # type: ignore[attr-defined]
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    metric = world.services.jobs.view(world.queue.submitted[0]).spec.metric
    assert (metric.kind, metric.resolved()) == ("custom", {"name": "mine"})


async def test_what_is_typed_outlives_a_reload(user: User):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="program-name").clear().type("mine")
    await until(lambda: "mine" in (user_draft(user) or {}).get("name", ""))
    await user.open("/")
    assert element(user, "program-name").value == "mine"  # type: ignore[attr-defined]
    await user.open("/?start=products")
    assert element(user, "program-name").value == "product-extraction"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EXAMPLES)
async def test_a_newcomer_can_begin_with_any_example(user: User, world: World, name: str):
    await user.open("/?start=empty")
    user.find(marker=f"begin-{name}").click()
    wanted = example_spec(name).program.name  # type: ignore[arg-type]
    await until(lambda: element(user, "program-name").value == wanted)  # type: ignore[attr-defined]
    if name != "tickets":
        await until(sees(user, marker="form-ready"))
        return
    # Its model stands behind an API, and no key is set here.
    await until(sees(user, marker="form-problem-0"))
    assert "OPENAI_API_KEY" in words(user, "form-problem-0")


async def test_a_form_that_was_changed_is_not_replaced_unasked(user: User):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="start-empty").click()
    await until(lambda: element(user, "program-name").value == "")  # type: ignore[attr-defined]
    user.find(marker="program-name").type("mine")
    user.find(marker="start-products").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-no").click()
    await until(lambda: (user_draft(user) or {}).get("name") == "mine")
    # It is still the visitor's own after a reload.
    await user.open("/")
    assert element(user, "program-name").value == "mine"  # type: ignore[attr-defined]
    user.find(marker="start-products").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(lambda: element(user, "program-name").value == "product-extraction")  # type: ignore[attr-defined]


def user_draft(user: User) -> dict | None:
    from nicegui import app

    stored = list(app.storage._users.values())
    return stored[-1].get("draft") if stored else None


async def test_an_empty_form_greets_without_red(user: User):
    await user.open("/?start=empty")
    await until(sees(user, marker="form-problem-0"))
    page = element(user, "summary")
    assert not [part for part in page.descendants() if "d-problem" in part.classes]
    assert element(user, "inputs-0-name").error is None  # type: ignore[attr-defined]
    user.find(marker="inputs-0-name").type("a b")
    await until(lambda: "cannot be a field's name" in words(user, "form-problem-0"))
    assert "d-problem" in element(user, "form-problem-0").classes
    assert "d-hint" in element(user, "form-problem-1").classes


async def test_a_missing_key_is_told_before_the_click(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="lm-model").clear().type("openai/gpt-4o-mini")
    await until(
        lambda: exists(user, marker="form-problem-0") and "role: task" in words(user, "form-problem-0")
    )
    assert "OPENAI_API_KEY" in words(user, "form-problem-0")
    user.find(marker="compile").click()
    await asyncio.sleep(0.2)
    assert world.jobs.search() == []


async def test_the_key_is_named_and_only_whether_it_is_set(settings: Settings, tmp_path):
    secret = "sk-1234567890abcdef"
    environment = {**settings.child_environment, "OPENAI_API_KEY": secret}
    world = World(settings.model_copy(update={"child_environment": environment}))
    async with visitor(world.services, tmp_path) as user:
        await user.open("/")
        user.find(marker="lm-model").clear().type("openai/gpt-4o-mini")
        await until(sees(user, content="OPENAI_API_KEY is set"))
        user.find(marker="lm-model").clear().type("groq/x")
        await until(sees(user, content="GROQ_API_KEY is not set"))
        for path in ADDRESSES:
            assert secret not in (await user.http_client.get(path)).text


# A job.


async def test_a_job_is_followed_to_its_end(user: User, world: World):
    job_id = world.submitted()
    await user.open(f"/jobs/{job_id}")
    assert "Queued" in words(user, "job-status")
    world.jobs.append_event(job_id, JobEvent(at=T0, kind="job.started", values={"attempt": 1}))
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "running", "started_at": T0}))
    await until(lambda: "Running" in words(user, "job-status"))
    await until(sees(user, content="Attempt 1 started"))
    world.jobs.write_result(job_id, result())
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "done", "ended_at": T0}))
    await until(sees(user, marker="evaluation-score"))
    assert "0.75" in words(user, "evaluation-score")
    assert "0.25" in words(user, "baseline-score")
    assert words(user, "improvement") == "+0.50"


async def test_a_job_is_cancelled_after_one_question(user: User, world: World):
    job_id = world.submitted()
    await user.open(f"/jobs/{job_id}")
    user.find(marker="cancel").click()
    await until(sees(user, marker="confirm-yes"))
    assert world.jobs.get(job_id).status == "queued"
    user.find(marker="confirm-yes").click()
    await until(sees(user, marker="cancelled"))
    assert world.jobs.get(job_id).status == "cancelled"


async def test_a_failed_job_says_why_and_runs_again(user: User, world: World):
    job_id = world.failed()
    await user.open(f"/jobs/{job_id}")
    assert "no such luck" in words(user, "job-failure")
    user.find(marker="run-again").click()
    await until(lambda: len(world.queue.submitted) == 2)


async def test_a_double_click_starts_one_job(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    clicked = user.find(marker="compile")
    clicked.click()
    clicked.click()
    await until(lambda: world.queue.submitted)
    await until(lambda: user.back_history[-1].startswith("/jobs/"))
    assert len(world.queue.submitted) == 1


async def test_a_damaged_job_stays_in_the_list(user: User, world: World):
    job_id = world.failed()
    (world.jobs.folder(job_id) / "spec.json").write_text("{", encoding="utf-8")
    await user.open("/jobs")
    await until(sees(user, marker=f"delete-{job_id}"))


async def test_what_cannot_be_read_says_so_instead_of_loading_for_ever(user: User, world: World, caplog):
    def search_runs(*, limit: int = 100):
        raise OSError("the disk is gone")

    world.runs.search_runs = search_runs
    await user.open("/runs")
    await until(sees(user, marker="load-problem"))
    assert "the disk is gone" in words(user, "load-problem")
    caplog.clear()


@pytest.mark.parametrize("job_id", ["nope", "20261123-224500-1a2b3c4d"])
async def test_an_unknown_job_has_a_page_that_says_so(user: User, job_id):
    page = await user.http_client.get(f"/jobs/{job_id}")
    assert (page.status_code, "unknown-job" in page.text) == (404, True)


async def test_rows_are_filtered_and_the_filter_is_in_the_address(user: User, world: World):
    job_id = world.done()
    await user.open(f"/jobs/{job_id}?rows=worse")
    await user.should_see("No row is like this.")
    user.find(marker="filter-better").click()
    await until(sees(user, marker="row-1"))


def scored(score, **fields) -> RowResult:
    values = {
        "predicted": {"product": "p"},
        "by_field": {} if score is None else {"product": score},
        **fields,
    }
    return RowResult(index=0, inputs={"message": "m"}, expected={"product": "p"}, score=score, **values)


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (Difference(value=0.5, low=0.1, high=0.9, pairs=20, differing=12, method="tango"), "excludes zero"),
        (
            Difference(value=0.5, low=-0.1, high=0.9, pairs=20, differing=12, method="bootstrap"),
            "includes zero",
        ),
        (
            Difference(value=0.5, low=0.1, high=0.9, pairs=20, differing=4, method="tango"),
            "4 of 20 rows differ",
        ),
    ],
)
async def test_a_result_says_how_sure_it_is(user: User, world: World, found, shown):
    job_id = world.done()
    world.jobs.write_result(job_id, result().model_copy(update={"difference": found, "repeats": 3}))
    await user.open(f"/jobs/{job_id}")
    await until(sees(user, marker="certainty"))
    assert shown in words(user, "certainty")
    assert "asked 3 times" in words(user, "certainty")
    interval = "95% interval" in words(user, "result")
    assert interval == (found.differing >= 5)


async def test_a_row_tells_its_scores_by_field_the_metrics_words_and_what_failed(user: User, world: World):
    job_id = world.done()
    failed = scored(
        0.0, by_field={"product": 0.0, "count": 0.0}, predicted=None, failed=1,
        failure=Fault(code="engine.server", values={"model": "m", "problem": "overloaded"}),
    )  # fmt: skip
    unscored = scored(
        None, feedback="", score_errors=1,
        problems=(Fault(code="metric.judge_number", values={"reply": "'Hm.'"}),),
    )  # fmt: skip
    half = scored(0.5, by_field={"product": 1.0, "count": 0.0}, feedback="count: Expected '3', got '4'.")
    rows = (failed, unscored), (half, half)
    before, after = (Evaluation(score=0.5, rows=part) for part in zip(*rows, strict=True))
    world.jobs.write_result(job_id, result().model_copy(update={"baseline": before, "optimised": after}))
    await user.open(f"/jobs/{job_id}?lang=zh")
    await until(sees(user, marker="rows"))
    said = words(user, "rows")
    for part in ("overloaded", "评判模型没有给出分数", "未打分", "count: 0.00", "Expected '3', got '4'."):
        assert part in said
    assert "基线 1 次" in words(user, "failed")
    assert "优化后 1 个" in words(user, "score-errors")
    assert "count" in words(user, "result")


async def test_a_done_job_is_registered_and_tried(user: User, world: World):
    job_id = world.done()
    await user.open(f"/jobs/{job_id}")
    user.find(marker="try-message").clear().type("hello")
    user.find(marker="try-run").click()
    await until(sees(user, marker="try-answer"))
    assert "HELLO" in words(user, "try-answer")

    user.find(marker="register").click()
    await until(sees(user, marker="register-name"))
    user.find(marker="register-name").clear().type("a/b")
    await until(lambda: "contains '/'" in str(element(user, "register-name").error))  # type: ignore[attr-defined]
    user.find(marker="register-confirm").click()
    await asyncio.sleep(0.1)
    assert not exists(user, marker="register-problem"), "the reason stands at the field, and only there"
    assert not world.registry.search_versions()
    user.find(marker="register-name").clear().type("抽取")
    assert not exists(user, marker="register-stage-note")
    element(user, "register-stage").set_value("Staging")  # type: ignore[attr-defined]
    await until(sees(user, marker="register-stage-note"))
    assert "too few rows to tell" in words(user, "register-unproven")
    user.find(marker="register-confirm").click()
    await until(sees(user, marker="register-problem"))
    assert "needs a reason" in words(user, "register-problem")
    assert not world.registry.search_versions()
    user.find(marker="register-why").type("the first one")
    user.find(marker="register-confirm").click()
    await until(sees(user, marker="registered"))
    (version,) = world.registry.search_versions()
    assert [change.why for change in version.history] == ["the first one"]
    assert words(user, "registered") == "抽取, version 1: Staging"
    target = element(user, "registered-link").props["href"]
    await user.open(target)
    await until(sees(user, marker="stage"))
    assert "Staging" in words(user, "stage")


async def test_registering_into_production_asks_for_what_the_gate_wants(user: User, world: World):
    world.registry.put("抽取", run_id=None)
    world.registry.set_stage("抽取", 1, "Production", who="a", why="w")
    await user.open(f"/jobs/{world.done()}")
    user.find(marker="register").click()
    await until(sees(user, marker="register-name"))
    user.find(marker="register-name").clear().type("抽取")
    element(user, "register-stage").set_value("Production")  # type: ignore[attr-defined]
    user.find(marker="register-why").type("the better one")
    assert not exists(user, marker="register-gate-confirm")
    user.find(marker="register-confirm").click()
    await until(sees(user, marker="register-gate-confirm"))
    assert "Never tested" in words(user, "register-problem")
    assert len(world.registry.search_versions("抽取")) == 1
    user.find(marker="register-gate-confirm").type("抽取")
    user.find(marker="register-confirm").click()
    await until(sees(user, marker="registered"))
    assert words(user, "registered") == "抽取, version 2: Production"
    assert world.registry.get_version("抽取", 2).history[-1].gate.confirmed == "抽取"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.304, 0.668, "Not rounded: 0.3040 → 0.6680, +0.3640."),
        (0.668, 0.304, "Not rounded: 0.6680 → 0.3040, −0.3640."),
        (0.25, 0.75, None),
    ],
)
async def test_figures_that_look_like_wrong_arithmetic_are_told_unrounded(
    user: User, world: World, before, after, said
):
    job_id = world.done()
    made = world.jobs.find_result(job_id)
    world.jobs.write_result(
        job_id,
        made.model_copy(
            update={
                "baseline": made.baseline.model_copy(update={"score": before}),
                "optimised": made.optimised.model_copy(update={"score": after}),
                "difference": made.difference.model_copy(update={"value": after - before}),
            }
        ),
    )
    await user.open(f"/jobs/{job_id}")
    await until(sees(user, marker="result"))
    assert exists(user, marker="rounded") == (said is not None)
    if said is not None:
        assert words(user, "rounded") == said


@pytest.mark.parametrize("typed", ["", "  \n"])
async def test_an_empty_input_is_asked_for_at_its_field(user: User, world: World, typed):
    await user.open(f"/jobs/{world.done()}")
    user.find(marker="try-message").clear().type(typed)
    user.find(marker="try-run").click()
    await until(lambda: "This is still empty" in str(element(user, "try-message").error))  # type: ignore[attr-defined]
    assert not exists(user, marker="try-answer")
    assert not exists(user, marker="try-problem")
    user.find(marker="try-message").type("hello")
    assert element(user, "try-message").error is None  # type: ignore[attr-defined]
    user.find(marker="try-run").click()
    await until(sees(user, marker="try-answer"))


async def test_waiting_for_the_bundled_model_and_the_time_left_are_told(user: User, world: World):
    job_id = world.submitted()
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "running", "started_at": T0}))
    world.jobs.write_progress(job_id, Progress(phase="starting_lm"))
    await user.open(f"/jobs/{job_id}")
    assert "Starting the bundled model" in words(user, "progress")
    assert words(user, "time-left") == ""
    sizes = {"train": 6, "validation": 2, "test": 41}
    world.jobs.append_event(job_id, JobEvent(at=T0, kind="compile.split", values=sizes))
    world.jobs.write_progress(job_id, Progress(phase="baseline", done=21, total=41, row_seconds=60))
    await until(lambda: words(user, "time-left") == "About 1 min 00 s left.")
    assert "Starting the bundled model" not in words(user, "progress")


@pytest.mark.parametrize("status", ["off", "starting", "unreachable"])
async def test_registering_is_off_with_its_reason(user: User, world: World, status):
    world.tracking.now = TrackingState(status=status, address=MLFLOW)
    await user.open(f"/jobs/{world.done()}")
    assert not element(user, "register").enabled  # type: ignore[attr-defined]
    assert element(user, "register").props["title"]


async def test_a_record_that_waits_says_so(user: User, world: World):
    job_id = world.done()
    world.jobs.write_record(job_id, RecordState(status="pending", tries=3, last_error="away"))
    await user.open(f"/jobs/{job_id}")
    assert "tried 3 times" in words(user, "record")
    linked = RecordState(status="sent", run_id="r", experiment_id="1", run_url=f"{MLFLOW}/#/r", traces_sent=4)
    world.jobs.write_record(job_id, linked)
    await until(sees(user, marker="run-link"))
    assert "4 traces sent" in words(user, "record")


async def test_what_is_open_stays_when_the_record_arrives(user: User, world: World):
    job_id = world.done()
    await user.open(f"/jobs/{job_id}")
    user.find(marker="register").click()
    await until(sees(user, marker="register-name"))
    user.find(marker="try-message").clear().type("half a sent")
    world.jobs.write_record(job_id, RecordState(status="sent", run_id="r", experiment_id="1", run_url=MLFLOW))
    await until(sees(user, marker="run-link"))
    assert element(user, "try-message").value == "half a sent"  # type: ignore[attr-defined]
    assert exists(user, marker="register-name")


async def test_loading_a_job_into_the_form_outlives_its_file(user: User, world: World, tmp_path):
    file = tmp_path / "gone.csv"
    file.write_text("message,product\n" + "".join(f"m{n},p{n}\n" for n in range(12)), encoding="utf-8")
    job_id = world.submitted(data={"path": str(file)})
    file.unlink()
    await user.open(f"/?job={job_id}")
    await until(sees(user, marker="form-ready"))
    assert element(user, "program-name").value == "产品 extraction/1"  # type: ignore[attr-defined]
    assert "12" in words(user, "summary")


# Lists.


async def test_the_list_of_jobs_and_deleting_one(user: User, world: World):
    await user.open("/jobs")
    await until(sees(user, marker="no-jobs"))
    job_id = world.done()
    world.jobs.write_record(job_id, RecordState(status="sent"))
    await until(sees(user, marker=f"job-{job_id}"))
    assert "0.25 → 0.75" in words(user, f"job-{job_id}")
    user.find(marker=f"delete-{job_id}").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(sees(user, marker="no-jobs"))


@pytest.mark.parametrize(("run_id", "said"), [(None, "there will be no Run"), ("r1", "the Run r1 stays")])
async def test_deleting_a_job_whose_record_waits_names_what_is_lost(
    user: User, world: World, run_id: str | None, said: str
):
    job_id = world.done()
    world.jobs.write_record(job_id, RecordState(run_id=run_id))
    await user.open("/jobs")
    await until(sees(user, marker=f"delete-{job_id}"))
    user.find(marker=f"delete-{job_id}").click()
    await until(sees(user, content=said))
    assert world.jobs.get(job_id).status == "done"
    user.find(marker="confirm-yes").click()
    await until(sees(user, marker="no-jobs"))


async def test_runs_link_to_their_job_and_to_mlflow(user: User, world: World):
    job_id = world.done()
    world.services.record.send(job_id)
    await user.open("/runs")
    await until(sees(user, marker=f"run-run-{job_id}"))
    assert element(user, f"run-run-{job_id}").props["href"] == f"/runs/run-{job_id}"
    await user.open(f"/runs/run-{job_id}")
    await until(sees(user, marker="job-link"))
    assert element(user, "job-link").props["href"] == f"/jobs/{job_id}"


async def test_a_list_that_was_away_comes_by_itself(user: User, world: World):
    away = True

    def search_runs(*, limit: int = 100):
        if away:
            raise UnavailableError("tracking.starting")
        return ()

    world.runs.search_runs = search_runs
    await user.open("/runs")
    await until(sees(user, marker="load-problem"))
    assert "still starting" in words(user, "load-problem")
    away = False
    await until(sees(user, content="No Runs yet"))


async def test_an_unknown_version_says_what_is_wrong(user: User):
    await user.open("/models/抽取/x")
    await until(sees(user, marker="load-problem"))


def registered(world: World, **tags: str) -> str:
    """The address of a version of a done job's program."""
    job_id = world.done()
    link = world.services.record.ensure_run(job_id)
    request = RegisterRequest(run_id=link.run_id, name="抽取", who="tester")
    world.registry.register(request, program(), tags={"dspyui.job_id": job_id, **tags}, input_example={})
    return job_id


async def test_a_version_links_to_its_job_as_long_as_there_is_one(user: User, world: World):
    job_id = registered(world)
    await user.open("/models/抽取/1")
    await until(sees(user, marker="version-job-link"))
    world.jobs.write_record(job_id, RecordState(status="sent"))
    world.services.jobs.delete(job_id)
    await user.open("/models/抽取/1")
    await until(lambda: exists(user, marker="version-job") and "(deleted)" in words(user, "version-job"))
    assert not exists(user, marker="version-job-link")


async def test_a_versions_tags_have_names_and_its_audit_record_is_the_history(user: User, world: World):
    digest = "ab" * 32
    registered(
        world,
        **{
            "dspyui.audit.0001": '{"who": "me"}',
            "dspyui.data_digest": digest,
            "dspyui.registered_by": "Ada",
            "team": "search",
        },
    )
    await user.open("/models/抽取/1")
    await until(sees(user, marker="more-tags"))
    shown = words(user, "version")
    assert "audit" not in shown
    assert "dspyui." not in shown
    assert digest not in shown
    titles = [part.props.get("title") for part in element(user, "version").descendants()]
    assert digest in titles
    assert "Registered by Ada" in shown
    assert "team search" in words(user, "tags")


async def test_a_version_whose_example_is_damaged_says_so_and_takes_another(user: User, world: World):
    registered(world)

    def broken(run_id):
        raise FailedError("run.broken", run_id=run_id, path="dataset/test.jsonl", line=1, problem="cut")

    world.runs.input_example = broken
    await user.open("/models/抽取/1")
    await until(sees(user, marker="example-problem"))
    assert "dataset/test.jsonl is damaged at line 1" in words(user, "example-problem")
    assert exists(user, marker="try-run")
    assert "m1" not in words(user, "version-snippet")

    def away(run_id):
        raise UnavailableError("record.tracking_off")

    world.runs.input_example = away
    await user.open("/models/抽取/1")
    await until(sees(user, marker="load-problem"))


async def test_a_versions_snippet_is_complete(user: User, world: World):
    registered(world)
    await user.open("/models/抽取/1")
    await until(sees(user, marker="version-snippet"))
    lines = words(user, "version-snippet").splitlines()
    assert lines[0] == "# pip install mlflow dspy"
    assert f'mlflow.set_tracking_uri("{MLFLOW}")' in lines
    assert 'model = mlflow.pyfunc.load_model("models:/抽取/1")' in lines
    assert lines[-1] == "print(model.predict([{'message': 'm1'}]))"


# Header and settings.


@pytest.mark.parametrize(("language", "said"), [("en", "No such page"), ("zh", "没有这个页面")])
async def test_an_unknown_address_has_a_page_in_the_visitors_language(user: User, language, said):
    page = await user.http_client.get("/nowhere/<b>at all", params={"lang": language})
    assert page.status_code == 404
    assert f"<title>{said} · DSPyUI</title>" in page.text
    assert "unknown-home" in page.text
    assert "<b>at" not in page.text
    missing = await user.http_client.get("/_nicegui/none")
    assert (missing.status_code, "unknown-page" in missing.text) == (404, False)


async def test_something_is_seen_before_the_scripts_run(user: User):
    page = (await user.http_client.get("/jobs", params={"lang": "zh"})).text
    assert "content: '正在加载……'" in page
    # The rule holds while this element is empty.
    assert re.search(r'<div id="app"[^>]*></div>', page)


async def test_the_banner_comes_and_offers_the_local_server(user: User, world: World):
    await user.open("/jobs")
    assert not exists(user, marker="mlflow-banner")
    world.tracking.now = TrackingState(
        status="unreachable", address="http://127.0.0.1:1", problem="refused", can_start_local=True
    )
    await until(sees(user, marker="mlflow-banner"))
    assert "http://127.0.0.1:1" in words(user, "mlflow-banner")
    assert exists(user, marker="start-local-mlflow")


@pytest.mark.parametrize(
    ("login", "said"),
    [
        ("token", "Login a token (MLFLOW_TRACKING_TOKEN)"),
        ("password", "Login user name and password (MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"),
        ("file", "Login user name and password (from ~/.mlflow/credentials)"),
        ("none", "Login none"),
    ],
)
async def test_settings_tell_how_mlflow_is_logged_in_to(user: User, world: World, login: str, said: str):
    world.tracking.now = world.tracking.now.model_copy(update={"login": login})
    await user.open("/settings")
    await until(sees(user, marker="mlflow-card"))
    await until(lambda: said in words(user, "mlflow-card"))


async def test_running_jobs_are_counted_in_the_header(user: User, world: World):
    world.submitted()
    await user.open("/settings")
    await until(sees(user, marker="running-jobs"))
    assert "1 in progress" in words(user, "running-jobs")


async def test_settings_tell_the_disk_of_data_sets_and_leave_them_to_their_page(user: User, world: World):
    await user.open("/settings")
    await until(sees(user, marker="disk"))
    assert not exists(user, marker="to-data")
    info = world.services.uploads.keep("mine.csv", b"a,b\n1,2\n")
    await user.open("/settings")
    await until(sees(user, marker="to-data"))
    assert element(user, "to-data").props["href"] == "/data"
    assert info.name not in words(user, "disk")


def test_settings_are_shown_without_secrets(settings: Settings):
    secret = "argon2-hash-of-somebody"
    given = settings.model_copy(
        update={
            "auth": SecretStr(f"me:{secret}"),
            "mlflow_tracking_uri": "http://user:pass-word-1@host",
            "child_environment": {"MLFLOW_TRACKING_PASSWORD": "pass-word-1"},
        }
    )
    shown = dict(shown_settings(given))
    assert shown["DSPYUI_AUTH"] == "***"
    assert secret not in str(shown)
    assert "pass-word-1" not in str(shown)
    assert shown["MLFLOW_ENABLED"] == "true"


# Keys, and models for roles.


async def test_a_key_is_typed_in_used_and_forgotten_and_never_shown(user: User, world: World):
    secret = "sk-typed-in-by-hand-0123456789"
    await user.open("/settings")
    await until(sees(user, marker="no-keys"))
    user.find(marker="key-value").type(secret)
    user.find(marker="key-set").click()
    await until(sees(user, marker="key-OPENAI_API_KEY"))
    assert "set here" in words(user, "key-OPENAI_API_KEY")
    assert element(user, "key-value").value == ""  # type: ignore[attr-defined]
    assert world.settings.lm_environment["OPENAI_API_KEY"] == secret
    for path in ADDRESSES:
        assert secret not in (await user.http_client.get(path)).text
    kept = {visitor: dict(values) for visitor, values in app.storage._users.items()}
    assert secret not in str(kept)
    await user.open("/?start=empty")
    await until(sees(user, content="OPENAI_API_KEY was typed in"))
    assert element(user, "lm-model").value == "openai/gpt-4.1-mini"  # type: ignore[attr-defined]
    await user.open("/settings")
    await until(sees(user, marker="clear-key-OPENAI_API_KEY"))
    user.find(marker="clear-key-OPENAI_API_KEY").click()
    await until(sees(user, marker="no-keys"))
    assert "The key for OPENAI_API_KEY has been removed." in user.notify.messages
    assert "OPENAI_API_KEY" not in world.settings.lm_environment


async def test_a_typed_key_is_tested_right_there(user: User, world: World, monkeypatch):
    await user.open("/settings")
    user.find(marker="key-value").type("k" * 20)
    user.find(marker="key-set").click()
    await until(sees(user, marker="test-key-OPENAI_API_KEY"))
    assert "not tested" in words(user, "key-tested-OPENAI_API_KEY")
    user.find(marker="test-key-OPENAI_API_KEY").click()
    await until(sees(user, content="works (0.2 s)"))
    asked = world.tester.asked[-1]
    assert (asked.model, asked.api_key_env) == ("openai/gpt-4.1-mini", "OPENAI_API_KEY")

    def refused(lm, _cancelled):
        raise FailedError("engine.auth", model=lm.model, problem="no such key")

    def unreachable(lm, _cancelled):
        raise FailedError("engine.transport", model=lm.model, problem="no route")

    monkeypatch.setattr(world.tester, "test", refused)
    user.find(marker="test-key-OPENAI_API_KEY").click()
    await until(sees(user, marker="key-problem-OPENAI_API_KEY"))
    assert "the provider did not accept the key" in words(user, "key-problem-OPENAI_API_KEY")
    assert "does not work" in words(user, "key-tested-OPENAI_API_KEY")
    # A network that is down says nothing of the key.
    monkeypatch.setattr(world.tester, "test", unreachable)
    user.find(marker="test-key-OPENAI_API_KEY").click()
    await until(lambda: "not decided" in words(user, "key-tested-OPENAI_API_KEY"))
    monkeypatch.setattr(world.tester, "test", refused)
    user.find(marker="test-key-OPENAI_API_KEY").click()
    await until(lambda: "does not work" in words(user, "key-tested-OPENAI_API_KEY"))
    # Another visitor sees it too: the key is everyone's.
    await user.open("/settings?lang=zh")
    await until(sees(user, marker="key-problem-OPENAI_API_KEY"))
    assert "不可用" in words(user, "key-tested-OPENAI_API_KEY")
    user.find(marker="key-value").type("n" * 20)
    user.find(marker="key-set").click()
    await until(lambda: "未测试" in words(user, "key-tested-OPENAI_API_KEY"))


async def test_a_test_of_a_key_is_stopped(user: User, world: World, monkeypatch):
    def waits(_lm, cancelled):
        assert cancelled.wait(20)
        raise CancelledError("predict.cancelled")

    monkeypatch.setattr(world.tester, "test", waits)
    world.settings.keys.set("OPENAI_API_KEY", SecretStr("k" * 20))
    await user.open("/settings")
    user.find(marker="test-key-OPENAI_API_KEY").click()
    await until(sees(user, marker="stop-key-OPENAI_API_KEY"))
    user.find(marker="stop-key-OPENAI_API_KEY").click()
    await until(sees(user, marker="test-key-OPENAI_API_KEY"))
    assert "not tested" in words(user, "key-tested-OPENAI_API_KEY")


async def test_an_empty_form_says_what_its_model_costs_and_offers_the_bundled_one(
    user: User, world: World, monkeypatch
):
    ready = LocalLMState(status="stopped")
    monkeypatch.setattr(type(world.services.local_lm), "state", lambda _self: ready)
    world.settings.keys.set("OPENAI_API_KEY", SecretStr("k" * 20))
    await user.open("/?start=empty")
    await until(sees(user, marker="paid-notice"))
    assert "openai/gpt-4.1-mini, because its key is set" in words(user, "paid-notice")
    assert "$0.40 for a million tokens sent, $1.60" in words(user, "paid-notice")
    assert exists(user, marker="lm-price")
    user.find(marker="paid-use-bundled").click()
    await until(lambda: not exists(user, marker="paid-notice"))
    assert element(user, "lm-model").value == LOCAL_MODEL  # type: ignore[attr-defined]
    assert not exists(user, marker="lm-price")
    user.find(marker="lm-model").clear().type("nebius/x")
    await until(sees(user, marker="lm-price"))
    assert "No price is listed" in words(user, "lm-price")
    user.find(marker="lm-use-bundled").click()
    await until(lambda: not exists(user, marker="lm-price"))


async def test_without_a_key_an_empty_form_says_nothing_of_money(user: User):
    await user.open("/?start=empty")
    await until(sees(user, marker="lm-model"))
    assert not exists(user, marker="paid-notice")


async def test_what_a_compile_will_ask_and_cost_stands_beside_the_button(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="estimate"))
    # 36 test and 24 validation rows, twice each, and 60 training rows.
    assert "at most 180" in words(user, "estimate")
    assert "nothing" in words(user, "estimate")
    element(user, "optimizer").set_value("none")  # type: ignore[attr-defined]
    await until(lambda: "at most 36" in words(user, "estimate"))
    world.settings.keys.set("OPENAI_API_KEY", SecretStr("k" * 20))
    user.find(marker="lm-model").clear().type("openai/gpt-4.1-mini")
    await until(lambda: "about $" in words(user, "estimate"))
    user.find(marker="lm-model").clear().type("openai/no-such-model")
    await until(lambda: "unknown" in words(user, "estimate"))
    user.find(marker="inputs-0-name").clear().type("class")
    await until(lambda: not exists(user, marker="estimate"))


async def test_the_role_of_a_missing_key_is_told_in_the_visitors_words(user: User):
    await user.open("/?start=tickets&lang=zh")
    await until(sees(user, marker="form-problem-0"))
    said = words(user, "form-problem-0")
    assert "OPENAI_API_KEY" in said
    assert "角色：任务模型" in said


async def test_a_program_without_a_name_is_asked_for_one_and_called_after_its_file(user: User, tmp_path):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="program-name").clear()
    await until(sees(user, marker="form-problem-0"))
    assert "The program has no name yet" in words(user, "form-problem-0")
    file = tmp_path / "客户 tickets.v2.csv"
    file.write_text("text,label\n" + "".join(f"m{n},p{n}\n" for n in range(12)), encoding="utf-8")
    await user.open("/?start=empty")
    user.find(marker="data-tab-file").click()
    element(user, "data-path").set_value(str(file))  # type: ignore[attr-defined]
    await until(sees(user, marker="columns-to-fields"))
    user.find(marker="columns-to-fields").click()
    await until(sees(user, marker="form-ready"))
    assert element(user, "program-name").value == "客户 tickets.v2"  # type: ignore[attr-defined]


async def test_a_name_that_is_no_keys_is_refused(user: User, world: World):
    await user.open("/settings")
    element(user, "key-provider").set_value("other")  # type: ignore[attr-defined]
    user.find(marker="key-variable").type("LD_PRELOAD")
    user.find(marker="key-value").type("/tmp/evil.so")
    user.find(marker="key-set").click()
    await until(lambda: any("is not the name of a key" in said for said in user.notify.messages))
    assert "LD_PRELOAD" not in world.settings.lm_environment


async def test_a_model_is_tested_from_the_form(user: User, world: World):
    await user.open("/")
    for model, seen in (("ollama/good", "It answered in 0.2 s"), ("ollama/bad", "did not accept the key")):
        user.find(marker="lm-model").clear().type(model)
        user.find(marker="lm-test").click()
        await until(sees(user, content=seen))
    user.find(marker="lm-model").clear().type("gpt")
    user.find(marker="lm-test").click()
    await until(sees(user, content="is not a model's name"))
    assert [lm.model for lm in world.tester.asked] == ["ollama/good", "ollama/bad"]


async def test_a_test_is_stopped(user: User, world: World):
    await user.open("/")
    user.find(marker="lm-model").clear().type("ollama/slow")
    user.find(marker="lm-test").click()
    await until(sees(user, marker="lm-test-stop"))
    user.find(marker="lm-test-stop").click()
    await until(sees(user, marker="lm-test"))


# The settings of a model, and how their controls' marks end.
LM_SETTINGS = {
    "temperature": "temperature",
    "max_tokens": "max-tokens",
    "num_retries": "retries",
    "timeout": "timeout",
    "cache": "cache",
}


async def set_model(user: User, mark: str, begins: LMSpec | None, wanted: dict[str, Any]) -> None:
    """Fill in one model's controls; its settings are there as they `begin`."""
    user.find(marker=f"{mark}-model").clear().type(wanted["model"])
    await until(sees(user, marker=f"{mark}-base"))
    element(user, f"{mark}-base").set_value(wanted["api_base"])  # type: ignore[attr-defined]
    element(user, f"{mark}-key-variable").set_value(wanted["api_key_env"])  # type: ignore[attr-defined]
    for name, ending in LM_SETTINGS.items():
        assert exists(user, marker=f"{mark}-{ending}") == (begins is not None)
        if begins is not None:
            made: Any = element(user, f"{mark}-{ending}")
            assert made.value == getattr(begins, name)
            made.set_value(wanted[name])


async def test_every_role_gets_a_model_of_its_own_with_every_setting(user: User, world: World):
    world.settings.keys.set("MY_KEY", SecretStr("k" * 20))
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    wanted: dict[str, dict[str, Any]] = {}
    for n, role in enumerate(("task", *OTHER_ROLES), start=1):
        asked = {
            "model": f"openai/{role}",
            "api_base": f"http://localhost:800{n}/v1",
            "api_key_env": "MY_KEY",
        }
        mark, begins = "lm", demo_spec().lms.task
        if role != "task":
            mark, begins = f"lm-{role}", LMSpec()
            element(user, f"{mark}-own").set_value(True)  # type: ignore[attr-defined]
            await until(sees(user, marker=f"{mark}-model"))
        if role != "embedder":
            asked |= {"temperature": n / 10, "max_tokens": 10 + n, "num_retries": 4 + n, "timeout": 20 + n}
            asked |= {"cache": False}
        await set_model(user, mark, None if role == "embedder" else begins, asked)
        wanted[role] = asked
    element(user, "threads").set_value(7)  # type: ignore[attr-defined]
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    spec = world.jobs.spec(world.queue.submitted[0])
    assert spec.lms == LMRoles.model_validate(wanted)
    assert spec.threads == 7


async def test_a_role_goes_back_to_the_tasks_model(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    for role in OTHER_ROLES:
        for own in (True, False):
            element(user, f"lm-{role}-own").set_value(own)  # type: ignore[attr-defined]
            await until(lambda role=role, own=own: exists(user, marker=f"lm-{role}-model") == own)
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert world.jobs.spec(world.queue.submitted[0]).lms.models().keys() == {"task"}


def offered(user: User) -> list[str]:
    """Open the menu beside the model's name; gives what stands in it, from the top."""
    (menu,) = [found for found in element(user, "lm-choose").descendants() if isinstance(found, ui.menu)]
    menu.open()  # in a browser the click does it
    items = [found for found in menu.descendants() if isinstance(found, ui.menu_item)]
    said = [
        " ".join(part.text for part in item.descendants() if isinstance(part, TextElement)) for item in items
    ]
    menu.close()
    return said


async def test_the_menu_of_models_offers_what_has_a_key_and_servers_of_ones_own(user: User, world: World):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    servers = [f"{server.label} at {server.address}" for server in OWN_SERVERS]
    assert offered(user) == [f"{LOCAL_MODEL} (bundled, needs no key)", *servers]
    world.settings.keys.set("GROQ_API_KEY", SecretStr("k" * 20))
    groq = PROVIDERS["groq"].models
    assert offered(user) == [f"{LOCAL_MODEL} (bundled, needs no key)", *groq, *servers]
    name: Any = element(user, "lm-model")
    user.find(marker="lm-choice-1").click()
    assert name.value == groq[0]
    await until(sees(user, marker="lm-key-state"))
    assert words(user, "lm-key-state") == "GROQ_API_KEY was typed in on the Settings page."
    for server in OWN_SERVERS:
        user.find(marker=f"lm-server-{server.name}").click()
        assert (name.value, element(user, "lm-base").value) == ("openai/", server.address)  # type: ignore[attr-defined]
        assert "DSPYUI_LM_API_KEY" in words(user, "lm-key-state")
    user.find(marker="lm-choice-2").click()
    assert (name.value, element(user, "lm-base").value) == (groq[1], "")  # type: ignore[attr-defined]
    user.find(marker="lm-server-ollama").click()
    user.find(marker="lm-model").type("llama3.2")
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    chosen = world.jobs.spec(world.queue.submitted[0]).lms.task
    assert (chosen.model, chosen.api_base) == ("openai/llama3.2", "http://localhost:11434/v1")


async def test_a_default_of_ones_own_begins_new_forms(user: User):
    await user.open("/settings")
    user.find(marker="default-lm-model").clear().type("ollama/mine")
    user.find(marker="default-lm-keep").click()
    await user.open("/?start=empty")
    await until(sees(user, marker="lm-model"))
    assert element(user, "lm-model").value == "ollama/mine"  # type: ignore[attr-defined]


# What a result says of itself, and registering it.

MEASURED = {
    "dspyui.metric": "exact_match",
    "dspyui.metric_fields": "product",
    "dspyui.test_rows": "36",
    "dspyui.baseline_score": "0.0000",
    "dspyui.evaluation_score": "0.8611",
    "dspyui.score_improvement": "0.8611",
    "dspyui.score_improvement_ci_low": "0.7100",
    "dspyui.score_improvement_ci_high": "0.9400",
    "dspyui.verdict": "better",
    "dspyui.cost": "0.000000",
}


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ["+0.86", "better, 95% interval +0.71 … +0.94", "The interval excludes zero.",
                "Exact match (product)", "Test rows 36", "Cost $0.00"]),
        ("zh", ["+0.86", "提升，95% 置信区间 +0.71 … +0.94", "区间不包含零。",
                "精确匹配（product）", "测试行数 36", "费用 $0.00"]),
    ],
)  # fmt: skip
async def test_a_version_says_first_what_was_measured_and_how_sure_it_is(
    user: User, world: World, language, said
):
    registered(world, **MEASURED, **{"dspyui.lm": "local/smollm2-135m"})
    await user.open(f"/models/抽取/1?lang={language}")
    await until(sees(user, marker="version-result"))
    shown = words(user, "version-result")
    assert [part for part in said if part not in shown] == []
    assert exists(user, marker="small-model")
    assert "dspyui." not in words(user, "version")


async def test_what_an_older_version_does_not_say_its_run_tells(user: User, world: World):
    registered(world)
    await user.open("/models/抽取/1")
    await until(sees(user, marker="version-result"))
    shown = words(user, "version-result")
    assert "0.25" in shown
    assert "+0.50" in shown
    assert "too few rows to tell" in shown
    assert "Too few rows differ" in words(user, "certainty")
    assert "Exact match (product)" in shown


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ["Exact match (product)", "Test rows 1", "Fingerprint of the rows 000000000000"]),
        ("zh", ["精确匹配（product）", "测试行数 1", "数据指纹（SHA-256） 000000000000"]),
    ],
)
async def test_a_result_says_first_what_was_measured(user: User, world: World, language, said):
    await user.open(f"/jobs/{world.done()}?lang={language}")
    await until(sees(user, marker="essentials"))
    assert [part for part in said if part not in words(user, "essentials")] == []
    # What the digest is of, and why it is not the file's.
    explained = {"en": "whatever file they came from", "zh": "与来自哪个文件无关"}[language]
    assert explained in words(user, "digest-help")


@pytest.mark.parametrize(("optimizer", "model", "told"), [
    ("labeled_few_shot", "local/smollm2-135m", True),
    ("labeled_few_shot", "openai/gpt-4o-mini", False),
    ("none", "local/smollm2-135m", False),
])  # fmt: skip
async def test_a_gain_on_the_bundled_model_is_told_with_care(
    user: User, world: World, optimizer, model, told
):
    world.settings.keys.set("OPENAI_API_KEY", SecretStr("k" * 20))
    job_id = world.submitted(optimizer={"kind": optimizer}, lms={"task": {"model": model}})
    world.jobs.write_result(job_id, result())
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "done"}))
    await user.open(f"/jobs/{job_id}")
    await until(sees(user, marker="essentials"))
    assert exists(user, marker="small-model") == told


async def test_the_whole_jobs_progress_is_told_beside_the_steps(user: User, world: World):
    job_id = world.submitted(optimizer={"kind": "labeled_few_shot"})
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "running", "started_at": T0}))
    world.jobs.write_progress(job_id, Progress(phase="starting_lm"))
    await user.open(f"/jobs/{job_id}")
    assert words(user, "overall") == ""
    world.jobs.write_progress(job_id, Progress(phase="baseline", done=1, total=2))
    await until(lambda: words(user, "overall") == "Step 2 of 7")
    assert element(user, "overall-bar").value == pytest.approx(1.5 / 7, abs=0.001)  # type: ignore[attr-defined]
    assert "This step: 1 of 2 rows" in words(user, "progress")
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "cancelled", "ended_at": T0}))
    await until(sees(user, marker="cancelled"))
    assert not exists(user, marker="overall")


class SlowRegistry(MemoryRegistry):
    """A registry that takes as long as the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def register(self, request, program, *, tags, input_example):
        assert self.go.wait(10)
        return super().register(request, program, tags=tags, input_example=input_example)


@pytest.fixture
def slow(world: World) -> SlowRegistry:
    registry = SlowRegistry()
    services = world.services
    services.register._registry = registry
    return registry


async def test_registering_goes_on_when_its_dialog_is_closed_and_says_so(user: User, world: World, slow):
    await user.open(f"/jobs/{world.done()}")
    user.find(marker="register").click()
    await until(sees(user, marker="register-confirm"))
    user.find(marker="register-confirm").click()
    user.find(marker="register-confirm").click()
    await until(sees(user, marker="register-busy"))
    assert "goes on when you close" in words(user, "register-busy")
    first = element(user, "register-busy").id
    user.find(marker="register-close").click()
    user.find(marker="register").click()
    await until(lambda: element(user, "register-busy").id != first)
    user.find(marker="register-close").click()
    slow.go.set()
    await until(lambda: any("version 1" in said for said in user.notify.messages))
    assert len(slow.kept) == 1
    user.find(marker="register").click()
    await until(sees(user, marker="registered"))


async def test_a_registration_that_fails_behind_a_closed_dialog_is_told(user: User, world: World, slow):
    def refuse(*_request, **_more):
        assert slow.go.wait(10)
        raise UnavailableError("record.tracking_off")

    slow.register = refuse
    await user.open(f"/jobs/{world.done()}")
    user.find(marker="register").click()
    await until(sees(user, marker="register-confirm"))
    user.find(marker="register-name").clear().type("抽取")
    user.find(marker="register-confirm").click()
    await until(sees(user, marker="register-close"))
    user.find(marker="register-close").click()
    slow.go.set()
    await until(lambda: any("抽取 was not registered" in said for said in user.notify.messages))
    user.find(marker="register").click()
    await until(sees(user, marker="register-problem"))
    assert element(user, "register-name").value == "抽取"  # type: ignore[attr-defined]


async def test_a_title_that_can_be_no_models_name_is_not_offered_as_one(user: User, world: World):
    job_id = world.done()
    world.services.jobs.describe(job_id, title="最好的 run", note="")
    await user.open(f"/jobs/{job_id}")
    user.find(marker="register").click()
    await until(sees(user, marker="register-name"))
    assert element(user, "register-name").value == "最好的 run"  # type: ignore[attr-defined]
    world.services.jobs.describe(job_id, title="best: a/b", note="")
    await user.open(f"/jobs/{job_id}")
    user.find(marker="register").click()
    await until(sees(user, marker="register-name"))
    assert element(user, "register-name").value == "best- a-b"  # type: ignore[attr-defined]


# Help.


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize(("language", "other"), [("en", "zh"), ("zh", "en")])
async def test_help_is_there_in_the_visitors_language(user: User, topic, language, other):
    await user.open(f"/help/{topic}?lang={language}")
    shown = element(user, "help-text").content  # type: ignore[attr-defined]
    assert ("的" in shown) == (language == "zh")
    assert ".md" not in re.sub(r"`[^`]*`|docs/\S+|&lt;.*?&gt;|<code>.*?</code>", "", shown)
    for target in re.findall(r"\]\(/help/(\w+)\)", shown):
        assert target in TOPICS


async def test_an_unknown_subject_says_so(user: User):
    await user.open("/help/..settings")
    await user.should_see("no help on")


async def test_each_part_of_the_form_leads_to_its_help(user: User):
    await user.open("/")
    targets = {f"/help/{topic}" for topic in ("data", "optimizers", "metrics", "models")}
    for topic in ("data", "optimizers", "metrics", "models"):
        assert element(user, f"about-{topic}").props["href"] in targets
