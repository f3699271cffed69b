"""The pages of batches in NiceGUI's simulation."""

import json

import pytest
from nicegui import ui
from nicegui.elements.upload_files import SmallFileUpload

from dspyui.domain.batches import BatchProgress, BatchResult, BatchSpec, ScoreSummary
from dspyui.domain.compiles import Usage
from dspyui.domain.jobs import JobFailure, RecordState
from dspyui.domain.lms import LOCAL_MODEL
from dspyui.domain.registry import RegisterRequest
from dspyui.domain.runs import TrackingState
from dspyui.errors import BadRequestError
from dspyui.ui.batch_draft import BatchDraft
from tests.api.world import T0, World
from tests.batch_world import instructions, program, put_version
from tests.pages import element, sees, until, words


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("message\n" + "".join(f"My thing{n} broke.\n" for n in range(12)))
    return path


@pytest.fixture
def things(world: World, tmp_path):
    """A program file."""
    path = tmp_path / "things.json"
    path.write_text(program("http://127.0.0.1:9/v1").to_json())
    return path


@pytest.fixture
def batch(world: World, rows, things):
    """The id of a queued batch."""
    return world.services.batches.submit(BatchSpec(model=str(things), path=str(rows)), who="tester").id


def finish(world: World, job_id, *, failed=2):
    """What its child would have left."""
    store = world.services.batches._batches
    log = store.open_log(job_id)
    folder = world.jobs.folder(job_id)
    line = {
        "message": "My lamp",
        "product": "lamp",
        "_error": None,
        "_latency_ms": 210.0,
        "_tokens": 40,
        "_trace_id": "tr-1",
    }
    wrong = {**line, "product": None, "_error": "engine.server: It broke."}
    lines = [wrong] * failed + [line] * (12 - failed)
    (folder / "results.jsonl").write_text("".join(json.dumps(found) + "\n" for found in lines))
    log.close()
    (folder / "output.jsonl").write_text((folder / "results.jsonl").read_text())
    (folder / "errors.jsonl").write_text(json.dumps(wrong) + "\n")
    errors = {"engine.server": failed} if failed else {}
    store.write_progress(
        job_id, BatchProgress(phase="writing", total=12, done=12, failed=failed, errors=errors)
    )
    store.write_result(
        job_id,
        BatchResult(
            total_rows=12, success_count=12 - failed, error_count=failed, reused=0,
            usage=Usage(lm_calls=12, input_tokens=400, output_tokens=80), latency_ms_mean=210, latency_ms_p50=210,
            latency_ms_p95=220, latency_ms_p99=230, seconds=2, rows_per_second=6, traced=12, trace_sample=1.0,
            errors=errors, input_digest="d", output=str(folder / "output.jsonl"), versions={},
        ),
    )  # fmt: skip
    moves = {"status": "done", "started_at": T0, "ended_at": T0}
    world.jobs.update(job_id, lambda job: job.model_copy(update=moves))
    url = "http://127.0.0.1:5000/#/experiments/7/runs/r"
    world.jobs.write_record(job_id, RecordState(status="sent", run_id="r", run_url=url, traces_sent=12))


async def choose_file(user, path):
    user.find(marker="choose-file").click()
    await until(sees(user, marker="choose-path"))
    user.find(marker="choose-path").type(str(path))


def test_a_draft_says_what_is_missing():
    for draft, code in ((BatchDraft(), "batch.no_model"), (BatchDraft(model="m"), "batch.no_input")):
        with pytest.raises(BadRequestError) as caught:
            draft.to_spec()
        assert caught.value.code == code


def test_a_draft_becomes_a_spec():
    draft = BatchDraft(
        model=" models:/m/1 ", path="a.csv", concurrency=16.0, requests=60.0, sample=0.5, format="csv"
    )
    spec = draft.to_spec()
    assert (spec.model, spec.concurrency, spec.requests_per_minute, spec.trace_sample) == (
        "models:/m/1",
        16,
        60,
        0.5,
    )
    assert (spec.written_format, spec.tokens_per_minute, spec.output) == ("csv", None, None)


async def test_the_form_says_what_is_missing_and_starts_a_batch(user, world, rows, things):
    await user.open("/batch?lang=en")
    user.find(marker="batch-start").click()
    await until(sees(user, marker="batch-problem"))
    assert "Choose the program" in words(user, "batch-problem")
    await choose_file(user, things)
    user.find(marker="batch-path").type(str(rows))
    for name, value in (("concurrency", 16), ("requests", 600), ("tokens", 90000), ("sample", 0.25)):
        element(user, f"batch-{name}").set_value(value)
    user.find(marker="batch-start").click()
    await until(lambda: world.queue.submitted)
    spec = world.services.batches.view(world.queue.submitted[0]).spec
    assert (spec.path, spec.concurrency, spec.output) == (str(rows), 16, None)
    assert (spec.requests_per_minute, spec.tokens_per_minute, spec.trace_sample) == (600, 90000, 0.25)


async def test_a_version_is_chosen_by_stage_number_or_alias_as_on_the_test_page(user, world, rows):
    for run_id in ("r1", "r2"):
        request = RegisterRequest(
            run_id=run_id, name="产品 1", who="t", stage="Production" if run_id == "r1" else "None"
        )
        world.registry.register(request, program(None, model="local/smollm2-135m"), tags={}, input_example={})
    await user.open("/batch?lang=en")
    await until(sees(user, marker="choose-which"))
    which = element(user, "choose-which")
    assert (which.value, list(which.options)) == (
        "models:/产品 1/Production",
        ["models:/产品 1/Production", "models:/产品 1/2", "models:/产品 1/1"],
    )
    which.set_value("models:/产品 1/2")
    user.find(marker="batch-path").type(str(rows))
    user.find(marker="batch-start").click()
    await until(lambda: world.queue.submitted)
    view = world.services.batches.view(world.queue.submitted[0])
    assert (view.spec.model, view.model.version) == ("models:/产品 1/2", 2)


@pytest.mark.parametrize(
    "asked", ["models:/gone/7", "models:/gone@champion", "runs:/r9", "job:20261124-090000-00000000"]
)
async def test_the_program_that_the_address_names_is_chosen_even_when_it_is_gone(user, world, rows, asked):
    """Never another one in its place."""
    request = RegisterRequest(run_id="r1", name="other", who="t")
    world.registry.register(request, program("http://127.0.0.1:9/v1"), tags={}, input_example={})
    world.done()
    world.queue.submitted.clear()
    await user.open(f"/batch?lang=en&model={asked}")
    mark = {"models": "choose-which", "runs": "choose-run-list", "job": "choose-job-list"}[
        asked.partition(":")[0]
    ]
    await until(sees(user, marker=mark))
    assert element(user, mark).value == asked
    user.find(marker="batch-path").type(str(rows))
    user.find(marker="batch-start").click()
    await until(sees(user, marker="batch-problem"))
    assert world.queue.submitted == []


async def test_a_program_file_is_uploaded_and_found_whenever_the_batch_runs(
    user, world, rows, things, tmp_path
):
    await user.open("/batch?lang=en")
    user.find(marker="choose-file").click()
    await until(sees(user, marker="choose-upload"))
    upload = element(user, "choose-upload")
    await upload.handle_uploads([SmallFileUpload("mine.json", "application/json", things.read_bytes())])
    await until(sees(user, marker="choose-uploaded"))
    assert "mine.json" in words(user, "choose-uploaded")
    user.find(marker="batch-path").type(str(rows))
    user.find(marker="batch-start").click()
    await until(lambda: world.queue.submitted)
    view = world.services.batches.view(world.queue.submitted[0])
    assert view.spec.model == f"program:{view.model.digest}"
    assert view.model.program == program("http://127.0.0.1:9/v1")
    assert world.services.programs.search() == []
    await user.open(f"/batch/{view.job.id}?lang=en")
    await user.should_see(f"things ({view.model.digest[:12]})")


@pytest.mark.parametrize("status", ["off", "starting", "unreachable"])
async def test_what_needs_the_registry_is_disabled_with_its_reason(user, world, rows, status):
    job_id = world.done()
    world.queue.submitted.clear()
    world.tracking.now = TrackingState(status=status)
    await user.open("/batch?lang=en")
    for kind in ("version", "run"):
        assert "disable" in element(user, f"choose-{kind}").props
    reasons = {"off": "MLFLOW_ENABLED=false", "starting": "starting", "unreachable": "cannot be reached"}
    assert reasons[status] in words(user, "choose-reason")
    await until(sees(user, marker="choose-job-list"))
    user.find(marker="batch-path").type(str(rows))
    user.find(marker="batch-start").click()
    await until(lambda: world.queue.submitted)
    assert world.services.batches.view(world.queue.submitted[-1]).spec.model == f"job:{job_id}"


async def test_five_rows_are_tried_and_nothing_is_kept(user, world, rows, things):
    await user.open("/batch?lang=en")
    await choose_file(user, things)
    user.find(marker="batch-path").type(str(rows))
    user.find(marker="batch-try").click()
    await until(lambda: world.queue.submitted)
    (job_id,) = world.queue.submitted
    view = world.services.batches.view(job_id)
    assert (view.spec.limit, view.record.status) == (5, "off")
    finish(world, job_id)
    world.jobs.write_record(job_id, RecordState(status="off"))
    await until(sees(user, marker="batch-tried"))
    assert "lamp" in words(user, "batch-tried")
    assert world.services.batches.search() == []


async def test_a_running_batch_shows_its_rate_and_can_be_cancelled(user, world, batch):
    world.jobs.update(batch, lambda job: job.model_copy(update={"status": "running", "started_at": T0}))
    progress = BatchProgress(phase="running", total=1200, done=300, failed=3, asked=300, seconds=10)
    world.services.batches._batches.write_progress(batch, progress)
    await user.open(f"/batch/{batch}?lang=en")
    assert "300 / 1,200" in words(user, "batch-progress")
    assert "30.0 a second" in words(user, "batch-progress")
    assert "30 s" in words(user, "batch-progress")
    assert not sees(user, marker="batch-download")()
    user.find(marker="batch-cancel").click()
    await until(sees(user, marker="confirm-yes"))
    assert world.jobs.get(batch).status == "running"
    user.find(marker="confirm-yes").click()
    await until(lambda: "Cancelled" in words(user, "batch-status"))
    assert world.jobs.get(batch).cancel_requested
    await until(sees(user, marker="batch-again"))
    assert not sees(user, marker="batch-cancel")()


async def test_a_finished_batch_shows_errors_by_kind_and_what_to_fetch(user, world, batch):
    finish(world, batch)
    await user.open(f"/batch/{batch}?lang=en")
    assert "The provider failed on its side engine.server 2" in " ".join(words(user, "batch-errors").split())
    assert "It broke." in words(user, "batch-head")
    assert element(user, "batch-download").props["href"] == f"/api/batches/{batch}/output"
    assert element(user, "batch-errors-file").props["href"] == f"/api/batches/{batch}/errors"
    assert "12" in words(user, "batch-record")


async def test_scores_are_told_with_metric_rows_and_each_row_s_own_and_answers_from_the_cache_are(
    user, world, things, tmp_path
):
    path = tmp_path / "expected.csv"
    path.write_text("message,product\n" + "My lamp broke.,lamp\n" * 12)
    spec = BatchSpec.model_validate(
        {"model": str(things), "path": str(path), "metric": {"kind": "exact_match"}}
    )
    batch = world.services.batches.submit(spec, who="tester").id
    finish(world, batch, failed=0)
    store = world.services.batches._batches
    result = store.find_result(batch)
    usage = Usage(lm_cache_hits=12)
    score = ScoreSummary(value=0.77, low=0.5, high=0.9, rows=11)
    store.write_result(batch, result.model_copy(update={"score": score, "usage": usage}))
    results = world.jobs.folder(batch) / "results.jsonl"
    lines = [json.loads(line) | {"_score": 0.25} for line in results.read_text().splitlines()]
    results.write_text("".join(json.dumps(line) + "\n" for line in lines))
    await user.open(f"/batch/{batch}?lang=en")
    said = words(user, "batch-score")
    for part in ("Exact match (product)", "0.77", "95% interval 0.50 – 0.90, 11 rows"):
        assert part in said
    assert "12" in words(user, "batch-cached")
    assert "0.25" in words(user, "batch-head")
    assert "answered" in words(user, "batch-head")
    chips = [made.parent_slot.parent for made in user.find(content="answered").elements]
    assert not any("good" in made.classes for made in chips)


async def test_a_finished_batch_leads_to_its_run_here_and_each_row_to_its_trace(user, world, batch):
    finish(world, batch)
    await user.open(f"/batch/{batch}?lang=en")
    assert element(user, "run-page").props["href"] == "/runs/r"
    assert element(user, "batch-run").props["href"] == "http://127.0.0.1:5000/#/experiments/7/runs/r"
    traces = user.find(marker="trace-tr-1").elements
    assert len(traces) == 12
    address = "http://127.0.0.1:5000/#/experiments/7/traces?selectedEvaluationId=tr-1&traceId=tr-1"
    assert {link.props["href"] for link in traces} == {address}


async def test_rows_without_a_run_have_no_trace_to_lead_to(user, world, batch):
    finish(world, batch)
    world.jobs.write_record(batch, RecordState(status="off"))
    await user.open(f"/batch/{batch}?lang=en")
    assert "lamp" in words(user, "batch-head")
    assert not sees(user, marker="trace-tr-1")()
    assert not sees(user, marker="run-page")()


async def test_the_failed_rows_are_asked_again(user, world, batch):
    finish(world, batch)
    await user.open(f"/batch/{batch}?lang=en")
    user.find(marker="batch-again").click()
    await until(lambda: len(world.queue.submitted) == 2)
    spec = world.services.batches.view(world.queue.submitted[-1]).spec
    assert (spec.earlier, spec.path) == (batch, world.services.batches.view(batch).spec.path)


async def test_the_version_that_was_in_production_answers_them_when_another_is_promoted(user, world, rows):
    made = program(None, model=LOCAL_MODEL)
    put_version(world.registry, made, "ONE")
    by_stage = BatchSpec(model="models:/things/Production", path=str(rows))
    job_id = world.services.batches.submit(by_stage, who="tester").id
    finish(world, job_id)
    put_version(world.registry, made, "TWO")
    await user.open(f"/batch/{job_id}?lang=en")
    user.find(marker="batch-again").click()
    await until(lambda: len(world.queue.submitted) == 2)
    model = world.services.batches.view(world.queue.submitted[-1]).model
    assert (model.version, instructions(model.program)) == (1, "Name the product. ONE")


async def test_a_failed_batch_says_why(user, world, batch):
    failure = JobFailure(code="batch.input_changed", values={"row": 7})
    moves = {"status": "failed", "failure": failure, "started_at": T0, "ended_at": T0}
    world.jobs.update(batch, lambda job: job.model_copy(update=moves))
    await user.open(f"/batch/{batch}?lang=zh")
    assert "第 7 行" in words(user, "batch-failure")


async def test_the_list_and_a_job_s_own_address_lead_to_it(user, world, batch):
    finish(world, batch)
    await user.open("/batch?lang=en")
    await until(sees(user, marker="batches"))
    assert "12 / 12" in words(user, "batches")
    assert isinstance(element(user, f"open-{batch}"), ui.link)
    moved = await user.http_client.get(f"/jobs/{batch}", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (307, f"/batch/{batch}")
    listed = await user.http_client.get("/jobs")
    assert listed.status_code == 200


async def test_an_unknown_batch(user):
    page = await user.http_client.get("/batch/20200101-000000-00000000")
    assert page.status_code == 404


def test_columns_are_typed_as_pairs():
    draft = BatchDraft(
        model="m", path="a.csv", columns="message=Text，product = 产品 名", metric="exact_match"
    )
    spec = draft.to_spec()
    assert spec.columns == {"message": "Text", "product": "产品 名"}
    assert spec.metric is not None
    with pytest.raises(BadRequestError) as caught:
        BatchDraft(model="m", path="a.csv", columns="message").to_spec()
    assert caught.value.code == "batch.map"


async def test_the_form_offers_metrics_that_need_no_more(user):
    await user.open("/batch?lang=en")
    options = element(user, "batch-metric").options
    assert "exact_match" in options
    assert "regex" not in options
