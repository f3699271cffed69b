"""The pages about Runs in NiceGUI's simulation: Runs in memory, as finished compiles leave them."""

import pytest
from nicegui.testing import User

from dspyui.domain.registry import RegisterRequest
from dspyui.domain.run_list import RunQuery
from dspyui.domain.runs import RunInfo
from dspyui.errors import UnavailableError
from dspyui.ui.run_views import AskedRuns, address_of, p_value, param_in_words, short_name
from tests.api.world import World, program
from tests.pages import element, exists, sees, until, words
from tests.run_world import Shelf, result


@pytest.fixture
def shelf(world: World, tmp_path) -> Shelf:
    return Shelf(world, tmp_path / "shelf")


async def opened(user: User, address: str, mark: str) -> None:
    await user.open(address)
    await until(sees(user, marker=mark))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("order-numbers-LabeledFewShot-20261128-004820", "order-numbers"),
        ("demo-batch-20261128-004955", "demo-batch"),
        ("My best, LabeledFewShot", "My best, LabeledFewShot"),
        ("", "r1"),
    ],
)
def test_a_list_says_a_runs_name_without_what_stands_beside_it(name: str, said: str):
    nothing = dict.fromkeys(("job_id", "started_at", "ended_at"))
    params = {"optimizer": "LabeledFewShot"}
    info = RunInfo(run_id="r1", experiment_id="1", url="", name=name, status="FINISHED", params=params, metrics={},
                   tags={}, **nothing)  # fmt: skip
    assert short_name(info) == said


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("signature.outputs", '[{"name": "product"}]', "product"),
        ("signature.inputs", '[{"name": "a"}, {"name": "n", "type": "int"}]', "a, n (int)"),
        ("signature.instructions", "Copy it.", "Copy it."),
        ("signature.outputs", "[1]", "[1]"),
        ("optimizer.k", "8", "8"),
    ],
)
def test_a_parameter_is_said_as_a_person_reads_it(name: str, value: str, said: str):
    assert param_in_words(name, value) == said


# The list.


async def test_the_list_tells_what_a_person_chooses_by(user: User, world: World, shelf: Shelf):
    run_id = shelf.put(name="Best <b>yet</b>")
    request = RegisterRequest(run_id=run_id, name="抽取 1", who="t")
    world.registry.register(request, program(), tags={}, input_example={})
    await opened(user, "/runs", f"run-{run_id}")
    said = words(user, "runs")
    for part in ("Best <b>yet</b>", "Done", "产品 extraction/1", "Predict", "LabeledFewShot", "local/smollm2-135m",
                 "0.00", "0.75", "+0.75 [+0.33 … +0.91] better", "$0.012", "1 min 30 s", "抽取 1 1"):  # fmt: skip
        assert part in said, part
    assert element(user, f"run-{run_id}").props["href"] == f"/runs/{run_id}"
    assert element(user, "version-抽取 1-1").props["href"] == "/models/%E6%8A%BD%E5%8F%96%201/1"
    assert element(user, f"load-{run_id}").props["href"] == f"/?run={run_id}"


async def test_each_version_that_was_made_of_a_run_has_a_line_of_its_own(
    user: User, world: World, shelf: Shelf
):
    run_id = shelf.put()
    for name in ("x", "抽取"):
        request = RegisterRequest(run_id=run_id, name=name, who="t")
        world.registry.register(request, program(), tags={}, input_example={})
    await opened(user, "/runs", f"run-{run_id}")
    lines = [element(user, f"version-{name}-1").parent_slot for name in ("x", "抽取")]
    assert all(line is not None and line.parent.tag == "div" for line in lines)
    assert lines[0] is not lines[1]


async def test_fifty_a_page_and_the_next_ones_on_the_next(user: User, shelf: Shelf):
    runs = [shelf.put(result([1.0])) for _ in range(52)]
    await opened(user, "/runs", "runs-range")
    assert words(user, "runs-range").strip() == "1–50, more follow"
    assert not exists(user, marker=f"run-{runs[1]}")
    assert not element(user, "runs-previous").enabled  # type: ignore[attr-defined]
    user.find(marker="runs-next").click()
    await until(sees(user, marker=f"run-{runs[1]}"))
    assert words(user, "runs-range").strip() == "51–52 of 52 Runs"
    assert not element(user, "runs-next").enabled  # type: ignore[attr-defined]
    user.find(marker="runs-previous").click()
    await until(sees(user, marker=f"run-{runs[51]}"))


async def test_what_is_looked_for_and_the_order_come_from_the_address_and_the_controls(
    user: User, shelf: Shelf
):
    low = shelf.put(result([1.0, 0.0, 0.0, 0.0]), name="low")
    high = shelf.put(result([1.0, 1.0, 1.0, 0.0]), name="high", optimizer={"kind": "none"})
    await opened(user, "/runs?optimizer=None&sort=score", f"run-{high}")
    assert not exists(user, marker=f"run-{low}")
    element(user, "runs-optimizer").set_value("")  # type: ignore[attr-defined]
    await until(sees(user, marker=f"run-{low}"))
    order = [mark for mark in words(user, "runs").split() if mark in {"low", "high"}]
    assert order == ["high", "low"]
    user.find(marker="runs-order").click()
    await until(lambda: [m for m in words(user, "runs").split() if m in {"low", "high"}] == ["low", "high"])
    user.find(marker="runs-name").type("nothing of the sort")
    await until(sees(user, marker="no-fit"))
    user.find(marker="show-all").click()
    await until(sees(user, marker=f"run-{high}"))


async def test_a_batch_is_told_from_a_compile_and_is_not_loaded_into_the_form(user: User, shelf: Shelf):
    made, batch = shelf.put(name="抽取"), shelf.put_batch(name="抽取 1")
    await opened(user, "/runs", f"run-{batch}")
    assert (words(user, f"kind-{made}").strip(), words(user, f"kind-{batch}").strip()) == (
        "Compile ·",
        "Batch ·",
    )
    assert "0.80 [0.50 … 0.95]" in " ".join(words(user, "runs").split())
    assert exists(user, marker=f"load-{made}")
    assert not exists(user, marker=f"load-{batch}")
    again = element(user, f"batch-{batch}").props["href"]
    assert again == "/batch?model=models%3A%2F%E6%8A%BD%E5%8F%96+1%2F3"
    element(user, "runs-kind").set_value("batch")  # type: ignore[attr-defined]
    await until(lambda: not exists(user, marker=f"run-{made}"))
    assert exists(user, marker=f"run-{batch}")
    await opened(user, "/runs?kind=compile", f"run-{made}")
    assert not exists(user, marker=f"run-{batch}")


async def test_nonsense_in_the_address_is_left_out(user: User, shelf: Shelf):
    run_id = shelf.put()
    await opened(user, f"/runs?sort=x&order=y&state=z&module='&name={'w' * 0}&page=7", f"run-{run_id}")


async def test_a_deleted_run_is_restored_from_the_list(user: User, shelf: Shelf):
    run_id = shelf.put()
    shelf.library.delete(run_id)
    await opened(user, "/runs?deleted=1", f"restore-{run_id}")
    user.find(marker=f"restore-{run_id}").click()
    await until(lambda: run_id not in shelf.library.deleted)
    await until(sees(user, marker="no-fit"))


async def test_two_or_more_that_are_chosen_can_be_compared(user: User, shelf: Shelf):
    runs = [shelf.put() for _ in range(2)]
    await opened(user, "/runs", f"choose-{runs[1]}")
    assert not element(user, "compare").enabled  # type: ignore[attr-defined]
    for run_id in runs:
        user.find(marker=f"choose-{run_id}").click()
    await until(lambda: element(user, "compare").enabled)  # type: ignore[attr-defined]
    user.find(marker="compare").click()
    await until(sees(user, marker="verdicts"))


def test_an_address_says_the_whole_query() -> None:
    query = RunQuery(name="a&b 你", program="p", lm="m", kind="batch", state="FAILED", module="Refine",
                     optimizer="GEPA", deleted=True, sort="cost", descending=False)  # fmt: skip
    from urllib.parse import parse_qsl, urlsplit

    assert AskedRuns.of(dict(parse_qsl(urlsplit(address_of(query)).query))).query() == query
    assert address_of(RunQuery()) == "/runs"
    assert AskedRuns().query() == RunQuery()


def test_a_p_value_is_never_nought() -> None:
    assert (p_value(0.0000001), p_value(0.04999), p_value(1.0)) == ("< 0.001", "= 0.050", "= 1.000")


# One Run.


async def test_a_run_made_elsewhere_shows_what_the_job_page_shows(user: User, shelf: Shelf):
    run_id = shelf.put(result([1.0] * 9 + [0.0] * 3, prompt="Extract the product."), name="Best")
    await opened(user, f"/runs/{run_id}", "result")
    assert words(user, "evaluation-score").strip() == "0.75"
    assert "m11" in words(user, "rows") or exists(user, marker="result-rows-next")
    assert "Extract the product." in words(user, "prompts")
    assert "anna" in words(user, "run")
    assert "not on this machine" in words(user, "run-job")
    assert "optimizer.k" in words(user, "params")
    assert "total_tokens" in words(user, "recorded")
    assert "LabeledFewShot" in words(user, "trials")
    assert element(user, "load-run").props["href"] == f"/?run={run_id}"
    assert element(user, "file-result.json").props["href"] == f"/api/runs/{run_id}/files/result.json"
    assert element(user, "mlflow-link").props["href"].endswith(f"/runs/{run_id}")


async def test_a_run_without_rows_shows_its_scores_and_why(user: User, shelf: Shelf):
    run_id = shelf.put()
    del shelf.store.files[run_id]["evaluation/result.json"]
    await opened(user, f"/runs/{run_id}", "figures")
    assert "0.75" in words(user, "figures")
    assert "MLFLOW_LOG_EVALS=false" in words(user, "run-notice")
    assert not exists(user, marker="rows")


async def test_a_failed_run_says_why(user: User, shelf: Shelf):
    run_id = shelf.put()
    record = shelf.store.records[run_id]
    tags = {**record.tags, "dspyui.error": "The key <was> refused.", "mlflow.note.content": "try again"}
    shelf.store.records[run_id] = record.model_copy(update={"status": "FAILED", "tags": tags, "metrics": {}})
    await opened(user, f"/runs/{run_id}", "run-failure")
    assert "The key <was> refused." in words(user, "run-failure")
    assert words(user, "note").strip() == "try again"
    assert not exists(user, marker="result")


async def test_an_unknown_run_says_so(user: User, shelf: Shelf):
    await opened(user, "/runs/nope", "load-problem")
    assert "has no Run 'nope'" in words(user, "load-problem")


async def test_deleting_a_run_names_its_versions_and_restoring_brings_it_back(
    user: User, world: World, shelf: Shelf
):
    run_id = shelf.put(name="Best")
    request = RegisterRequest(run_id=run_id, name="抽取", who="t")
    world.registry.register(request, program(), tags={}, input_example={})
    await opened(user, f"/runs/{run_id}", "delete")
    user.find(marker="delete").click()
    await until(sees(user, marker="confirm-yes"))
    assert exists(user, content="These versions were made of it and stay: 抽取 1.")
    assert shelf.library.deleted == set()
    user.find(marker="confirm-yes").click()
    await until(lambda: run_id in shelf.library.deleted)
    await opened(user, f"/runs/{run_id}", "is-deleted")
    assert not exists(user, marker="load-run")
    user.find(marker="restore").click()
    await until(lambda: shelf.library.deleted == set())


async def test_what_cannot_be_deleted_says_why(user: User, shelf: Shelf):
    run_id = shelf.put()
    await opened(user, f"/runs/{run_id}", "delete")

    def away(_run_id: str) -> None:
        raise UnavailableError("mlflow.unavailable", address="http://x", problem="away")

    shelf.library.delete = away
    user.find(marker="delete").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(lambda: any("does not answer" in said for said in user.notify.messages))


async def test_a_jobs_page_leads_to_its_run(user: User, world: World):
    job_id = world.done()
    world.services.record.send(job_id)
    await opened(user, f"/jobs/{job_id}", "run-page")
    assert element(user, "run-page").props["href"] == f"/runs/run-{job_id}"


async def test_a_batch_s_run_tells_of_its_rows_and_why_it_has_no_spec(user: User, shelf: Shelf):
    run_id = shelf.put_batch()
    await opened(user, f"/runs/{run_id}", "batch-figures")
    assert "holds no spec" in words(user, "is-batch")
    for part in ("Rows 12", "Failed 2", "0.80", "[0.50 … 0.95]", "p50 0.2 s", "p95 1.2 s"):
        assert part in " ".join(words(user, "batch-figures").split()), part
    assert not exists(user, marker="load-run")
    assert element(user, "batch-again").props["href"] == "/batch?model=models%3A%2Fthings%2F3"
    assert element(user, "file-errors.jsonl").props["href"] == f"/api/runs/{run_id}/files/errors.jsonl"
    assert "Batch" in words(user, "run")


# Side by side.


async def test_runs_that_differ_are_told_apart(user: User, shelf: Shelf):
    one = shelf.put(result([0.0] * 12, prompt="Extract."), name="weak")
    two = shelf.put(result([1.0] * 12, prompt="Extract the product."), name="strong", seed=7)
    await opened(user, f"/runs/compare?ids={one},{two}", "verdict-A-B")
    said = words(user, "verdict-A-B")
    assert "B scores more than A" in said
    assert "B minus A: +1.00, 95% interval +0." in said
    assert "12 of 12 rows differ, p < 0.001." in said
    assert "McNemar" in words(user, "verdicts")
    assert "Holm" not in words(user, "verdicts")
    assert "1.00 [0.7" in words(user, f"compared-{two}")
    assert words(user, "param-seed").split() == ["seed", "0", "7"]
    assert not exists(user, marker="param-optimizer")
    assert "Extract the product." in words(user, "prompt-diff")
    assert "Scores differ 12" in words(user, "compared-rows")
    assert "?" in words(user, "compared-row-1")


async def test_runs_that_cannot_be_told_apart_say_how_many_rows_it_would_take(user: User, shelf: Shelf):
    one = shelf.put(result([1.0, 0.0, 0.0, 0.0] * 3))
    two = shelf.put(result([1.0, 0.0, 0.0, 1.0] * 3))
    await opened(user, f"/runs/compare?ids={one},{two}", "verdict-A-B")
    said = words(user, "verdict-A-B")
    assert "cannot be told apart" in said
    assert "About 29 rows would be needed" in said
    assert "p = 0.250" in said
    user.find(marker="compared-all").click()
    await until(sees(user, marker="compared-row-2"))


async def test_three_runs_are_corrected_and_their_prompts_chosen(user: User, shelf: Shelf):
    runs = [shelf.put(result(scores, prompt=f"Prompt {n}."))
            for n, scores in enumerate(([0.0] * 12, [1.0] * 12, [0.5] * 12))]  # fmt: skip
    await opened(user, f"/runs/compare?ids={','.join(runs)}", "verdict-B-C")
    said = words(user, "verdicts")
    assert "Sign-flip test" in said
    assert "Holm's method for 3 comparisons" in said
    assert "Prompt 1." in words(user, "prompt-diff")
    element(user, "prompt-side-1").set_value(2)  # type: ignore[attr-defined]
    await until(lambda: "Prompt 2." in words(user, "prompt-diff"))


async def test_what_must_not_be_compared_says_why(user: User, shelf: Shelf):
    one, two = shelf.put(), shelf.put(metric={"kind": "contains"})
    await opened(user, f"/runs/compare?ids={one},{two}", "obstacle")
    assert "scored by different metrics (exact_match ≠ contains" in words(user, "obstacle")
    assert not exists(user, marker="verdict-A-B")


@pytest.mark.parametrize("ids", ["", "one", "a,b,c,d,e,f,g"])
async def test_too_few_or_too_many_to_compare_says_so(user: User, shelf: Shelf, ids):
    await opened(user, f"/runs/compare?ids={ids}", "load-problem")
    assert "Choose 2 to 6 different ones" in words(user, "load-problem")


@pytest.mark.parametrize("path", ["/runs", "/runs/{one}", "/runs/compare?ids={one},{two}"])
async def test_the_pages_speak_chinese(user: User, shelf: Shelf, path):
    one, two = shelf.put(), shelf.put(result([0.0] * 12))
    address = path.format(one=one, two=two)
    await opened(user, f"{address}{'&' if '?' in address else '?'}lang=zh", {"/runs": "runs"}.get(path, "")
                 or ("recorded" if "compare" not in path else "compared-rows"))  # fmt: skip
    words_of = {"/runs": "注册为", "/runs/{one}": "参数"}
    assert exists(user, content=words_of.get(path, "能否区分高下？"))


async def test_a_batch_among_compared_runs_is_left_out_and_named(user: User, shelf: Shelf):
    first, batch, second = shelf.put(), shelf.put_batch(name="things"), shelf.put(result([1.0] * 12))
    await user.open(f"/runs/compare?ids={first},{batch},{second}")
    await until(sees(user, marker="verdict-A-B"))
    assert "things" in words(user, "left-out")
    assert not exists(user, marker="obstacle")
    assert not exists(user, marker=f"compared-{batch}")
    # Beside a single compile there is nothing to compare.
    await user.open(f"/runs/compare?ids={first},{batch}")
    await until(sees(user, marker="obstacle"))
    assert not exists(user, marker="left-out")
