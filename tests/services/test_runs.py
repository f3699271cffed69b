"""Runs read back, of this machine or another, and side by side."""

import json

import pytest

from dspyui.domain.compiles import CompileResult
from dspyui.errors import BadRequestError, NotFoundError, UnavailableError
from dspyui.services.runs import RunService
from tests.contracts.fakes import InMemoryRunStore
from tests.contracts.library import MemoryLibrary
from tests.run_world import record_of, result


@pytest.fixture
def store():
    return InMemoryRunStore()


@pytest.fixture
def library(store):
    return MemoryLibrary(store)


@pytest.fixture
def service(library):
    return RunService(library)


@pytest.fixture
def put(store, tmp_path):
    """Send the record of a finished job; gives the Run's id."""
    count = iter(range(100))

    def send(found, **changes):
        number = next(count)
        job_id = f"20261124-0900{number:02d}-00000000"
        return store.send(record_of(job_id, found, tmp_path / job_id, minutes=number, **changes)).run_id

    return send


def without(store, run_id, *paths):
    for path in paths:
        del store.files[run_id][path]


def test_a_run_holds_everything_that_its_compile_found(service, put):
    found = result([1, 1, 0, None])
    run_id = put(found)
    detail = service.detail(run_id)
    assert detail.result == found
    assert detail.spec is not None
    assert detail.spec.optimizer.kind == "labeled_few_shot"
    assert detail.notices == ()
    assert detail.files == ("spec.yaml", "result.json")
    assert service.file(run_id, "result.json") == found.model_dump_json().encode()


def test_a_run_of_another_program_or_one_that_still_runs_holds_nothing(service, store, tmp_path):
    record = record_of("20261124-090000-00000000", result([1]), tmp_path / "job")
    run_id = store.send(
        record.model_copy(update={"metrics": {}, "artifacts": (), "status": "RUNNING"})
    ).run_id
    detail = service.detail(run_id)
    assert (detail.spec, detail.result, detail.notices) == (None, None, ())


def test_without_evaluations_the_scores_are_all_there_is_and_it_says_so(service, store, put):
    run_id = put(result([1, 0]))
    without(store, run_id, "evaluation/result.json")
    detail = service.detail(run_id)
    assert detail.result is None
    assert [notice.key for notice in detail.notices] == ["ui.run.no_result"]
    assert "MLFLOW_LOG_EVALS" in detail.notices[0].sentence("zh_CN")


def test_what_another_version_wrote_is_not_guessed_at(service, store, put):
    run_id = put(result([1, 0]))
    store.files[run_id]["evaluation/result.json"] = '{"of": "the future"}'
    store.files[run_id]["spec/compile.yaml"] = "program: {new: thing}\n"
    detail = service.detail(run_id)
    assert (detail.spec, detail.result) == (None, None)
    assert [notice.key for notice in detail.notices] == ["ui.run.spec_unreadable", "ui.run.result_unreadable"]
    for notice in detail.notices:
        assert notice.sentence("zh_CN") != notice.sentence("en_US")


def table(*rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    return json.dumps({"columns": names, "data": [[row.get(name) for name in names] for row in rows]})


def test_a_run_of_the_first_version_shows_the_rows_of_its_table(service, store, put):
    run_id = put(result([1.0, 0.5], before=[0.0, 0.5]))
    without(store, run_id, "evaluation/result.json")
    row = {
        "row": 0, "input_message": "m0", "expected_product": "p0", "before_product": None, "after_product": "p0",
        "after_reasoning": "because", "score_before": 0.0, "field_score_before_product": 0.0, "score_after": 1.0,
        "field_score_after_product": 1.0, "feedback_before": "wrong", "feedback_after": None,
        "error_before": "no JSON", "error_after": None, "trace_id_before": "tr-1", "trace_id_after": None,
    }  # fmt: skip
    other = {**row, "row": 1, "before_product": "x", "score_after": None, "field_score_after_product": None}
    store.files[run_id]["evaluation/rows.json"] = table(row, other)
    store.files[run_id]["prompt/baseline_prompt.txt"] = "[system]\nExtract.\n"
    detail = service.detail(run_id)
    found = detail.result
    assert isinstance(found, CompileResult)
    before, after = found.baseline.rows[0], found.optimised.rows[0]
    assert (before.inputs, before.expected, before.predicted) == ({"message": "m0"}, {"product": "p0"}, None)
    assert (before.error, before.unreadable, before.trace_id, before.feedback) == (
        "no JSON",
        1,
        "tr-1",
        "wrong",
    )
    assert after.predicted == {"product": "p0", "reasoning": "because"}
    assert (after.score, after.by_field) == (1.0, {"product": 1.0})
    assert (found.baseline.score, found.optimised.score) == (0.25, 0.75)
    assert found.baseline.prompt[0].content == "[system]\nExtract."
    assert (found.usage.lm_calls, found.usage.cost, found.versions) == (24, 0.012, {"dspy": "3.4.1"})
    assert found.difference is not None
    assert found.difference.pairs == 1
    assert [notice.key for notice in detail.notices] == ["ui.run.old_result"]
    for damaged in (b"{", b"{}", b"[]", b'{"columns": ["row"], "data": [[1, 2]]}'):
        store.files[run_id]["evaluation/rows.json"] = damaged.decode()
        detail = service.detail(run_id)
        assert detail.result is None
        assert [notice.key for notice in detail.notices] == ["ui.run.result_unreadable"]


def test_a_deleted_run_can_be_opened_and_restored(service, put):
    run_id = put(result([1, 0]))
    service.delete(run_id)
    detail = service.detail(run_id)
    assert detail.info.deleted
    assert detail.result is not None
    service.restore(run_id)
    assert not service.detail(run_id).info.deleted


def test_a_server_that_is_away_is_no_missing_file(service, store, put):
    run_id = put(result([1, 0]))
    store.away = True
    for call in (
        service.detail,
        lambda one: service.compare([one, "x"]),
        lambda one: service.file(one, "spec.yaml"),
    ):
        with pytest.raises(UnavailableError):
            call(run_id)


@pytest.mark.parametrize("name", ["../x", "passwd", "spec/compile.yaml"])
def test_only_known_files_can_be_asked_for(service, put, name):
    with pytest.raises(NotFoundError) as caught:
        service.file(put(result([1])), name)
    assert caught.value.code == "api.file"


# Side by side.


def test_two_runs_are_tested_on_the_rows_they_have_in_common(service, put):
    """The second has other rows too, and in another order: m4 to m15 against m0 to m11."""
    one = put(result([0.0] * 12))
    two = put(result([1.0] * 12, first=4))
    found = service.compare([one, two])
    assert found.obstacle is None
    assert [row.inputs["message"] for row in found.rows] == [f"m{n}" for n in range(4, 12)]
    (test,) = found.tests
    assert (test.method, test.verdict, test.difference.pairs) == ("mcnemar", "second", 8)
    assert test.p == pytest.approx(2 / 2**8)
    own, common = found.runs[1].own, found.runs[1].common
    assert own is not None
    assert common is not None
    assert (own.rows, common.rows, found.counted) == (12, 8, 8)
    assert [run.info.run_id for run in found.runs] == [one, two]
    assert all(row.disagrees for row in found.rows)


def test_a_row_without_a_score_or_with_other_fields_counts_for_none(service, put):
    one, two = result([1.0, 1.0, 0.0, 1.0]), result([1.0, None, 1.0, 1.0])
    rows = list(two.optimised.rows)
    rows[3] = rows[3].model_copy(update={"by_field": {"other": 1.0}})
    two = two.model_copy(update={"optimised": two.optimised.model_copy(update={"rows": tuple(rows)})})
    found = service.compare([put(one), put(two)])
    assert (len(found.rows), found.counted) == (4, 2)
    assert found.tests[0].difference.value == 0.5


def test_equal_rows_are_paired_in_their_order(service, put):
    def twice(scores):
        made = result(scores)
        rows = tuple(
            row.model_copy(update={"inputs": {"message": "m"}, "expected": {"product": "p"}})
            for row in made.optimised.rows
        )
        return made.model_copy(update={"optimised": made.optimised.model_copy(update={"rows": rows})})

    found = service.compare([put(twice([1.0, 0.0, 1.0])), put(twice([0.0, 0.0]))])
    assert [row.scores for row in found.rows] == [(1.0, 0.0), (0.0, 0.0)]


def test_three_runs_get_holms_correction(service, put):
    ids = [put(result(scores)) for scores in ([0.0] * 8, [1.0] * 8, [1.0] * 7 + [0.0])]
    found = service.compare(ids)
    assert [(test.first, test.second) for test in found.tests] == [(0, 1), (0, 2), (1, 2)]
    assert found.tests[0].adjusted == pytest.approx(3 * 2 / 2**8)
    assert [test.verdict for test in found.tests] == ["second", "second", "unclear"]


def test_scores_of_different_metrics_are_not_compared(service, put):
    found = service.compare([put(result([1.0, 0.0])), put(result([1.0, 0.5]), metric={"kind": "contains"})])
    assert found.tests == ()
    assert found.obstacle is not None
    assert found.obstacle.values["params"] == "exact_match ≠ contains"
    assert [run.common for run in found.runs] == [None, None]
    assert len(found.rows) == 2


def test_another_judge_is_another_metric_but_another_task_model_is_not(service, put):
    judged = {"metric": {"kind": "llm_judge"}}
    one = put(result([1.0, 0.0]), **judged, lms={"judge": {"model": "openai/a"}})
    two = put(result([1.0, 0.0]), **judged, lms={"judge": {"model": "openai/b"}})
    assert service.compare([one, two]).obstacle is not None
    three = put(result([1.0, 0.0]), lms={"task": {"model": "openai/a"}})
    assert service.compare([three, put(result([1.0, 0.0]))]).obstacle is None


def test_runs_without_rows_or_without_common_ones_say_so(service, store, put):
    one, two = put(result([1.0, 0.0]), name="Best"), put(result([1.0], first=50))
    found = service.compare([one, two])
    assert found.obstacle is not None
    assert (found.obstacle.key, found.rows, found.tests) == ("ui.compare.no_common", (), ())
    without(store, one, "evaluation/result.json")
    found = service.compare([one, two])
    assert found.obstacle is not None
    assert (found.obstacle.key, found.obstacle.values) == ("ui.compare.no_rows", {"names": "Best"})


def test_only_params_that_differ_are_told(service, put):
    one = put(result([1.0]), optimizer={"kind": "labeled_few_shot", "params": {"k": 2}})
    two = put(result([1.0]), optimizer={"kind": "none"}, seed=7)
    params = {row.name: row.values for row in service.compare([one, two]).params}
    assert params["optimizer"] == ("LabeledFewShot", "None")
    assert params["optimizer.k"] == ("2", None)
    assert params["seed"] == ("0", "7")
    assert "program" not in params


@pytest.mark.parametrize("count", [0, 1, 7])
def test_two_to_six_runs_can_be_compared(service, put, count):
    with pytest.raises(BadRequestError) as caught:
        service.compare([put(result([1.0])) for _ in range(count)])
    assert caught.value.code == "run.compare_count"


def test_one_run_twice_is_one(service, put):
    run_id = put(result([1.0]))
    with pytest.raises(BadRequestError):
        service.compare([run_id, run_id])
    with pytest.raises(NotFoundError):
        service.compare([run_id, "run-none"])
