"""What the job pages work out: the difference, the rows and their filters, the steps."""

from datetime import UTC, datetime

import pytest

from dspyui.domain.base import Notice
from dspyui.domain.compiles import PHASES, CompileResult, Evaluation, Progress, RowResult, TrialScore, Usage
from dspyui.domain.jobs import JobEvent
from dspyui.i18n import Text
from dspyui.ui.job_views import (
    Pace,
    TimeLeft,
    answer,
    curve_points,
    feedback,
    field_changes,
    field_means,
    filtered,
    fraction,
    row_views,
    steps,
    time_left,
    trial_lines,
)


def evaluation(scores, errors=(), by_field=None):
    rows = tuple(
        RowResult(
            index=index,
            inputs={"q": f"q{index}"},
            expected={"a": "x"},
            predicted=None if index in errors else {"a": "y"},
            score=score,
            by_field=by_field or ({} if score is None else {"a": score}),
            error="no JSON" if index in errors else None,
        )
        for index, score in enumerate(scores)
    )
    known = [score for score in scores if score is not None]
    return Evaluation(score=sum(known) / len(known), rows=rows)


def result(before, after, *, fields_before=None, fields_after=None):
    return CompileResult(
        baseline=evaluation(before, errors={0}, by_field=fields_before),
        optimised=evaluation(after, by_field=fields_after),
        trials=(),
        usage=Usage(),
        splits={},
        data_digest="",
        versions={},
    )


def test_a_row_without_a_score_went_no_way_and_is_not_right():
    found = result([None, 0.5], [1, None])
    rows = row_views(found)
    assert [row.change for row in rows] == ["same", "same"]
    assert [row.number for row in filtered(rows, "wrong")] == [2]
    assert found.uncounted == 2


def test_fields_are_told_when_there_are_several():
    one = result([0, 1], [1, 1])
    assert (field_means(one), field_changes(row_views(one)[0])) == ([], [])
    two = result([0.5], [1], fields_before={"a": 1, "b": 0}, fields_after={"a": 1, "b": 1})
    assert field_means(two) == field_changes(row_views(two)[0]) == [("a", 1, 1), ("b", 0, 1)]


def test_a_row_whose_fields_were_not_all_scored_is_no_gain():
    missing = result([0.5], [1], fields_before={"a": 1, "b": 0}, fields_after={"a": 1})
    assert (field_means(missing), missing.uncounted) == ([], 1)
    assert field_changes(row_views(missing)[0]) == [("a", 1, 1), ("b", 0, None)]
    assert row_views(missing)[0].change == "same"


def test_rows_are_filtered_by_what_became_of_them():
    rows = row_views(result([0, 0, 1, 1], [1, 0, 0, 1]))
    assert [[row.number for row in filtered(rows, name)] for name in ("all", "better", "worse", "wrong")] == [
        [1, 2, 3, 4],
        [1],
        [3],
        [2, 3],
    ]
    assert (rows[0].before, rows[0].outcome_before.error) == (None, "no JSON")


def test_one_field_is_shown_alone_and_several_by_name():
    assert answer({"a": "text"}) == "text"
    assert answer({"a": "text", "n": 3}) == "a: text\nn: 3"
    assert answer(None) == ""


def test_a_compile_goes_through_every_phase():
    found = steps(Progress(phase="optimising"), optimises=True, validates=True, done=False)
    assert [step.phase for step in found] == list(PHASES)
    assert [step.state for step in found] == ["done"] * 3 + ["now"] + ["ahead"] * 3


def test_without_an_optimizer_there_are_three_phases():
    found = steps(Progress(phase="saving"), optimises=False, validates=True, done=True)
    assert [step.phase for step in found] == ["preparing", "baseline", "saving"]
    assert {step.state for step in found} == {"done"}


def test_before_the_start_nothing_is_done():
    found = steps(Progress(), optimises=True, validates=False, done=False)
    assert {step.state for step in found} == {"ahead"}
    assert fraction(Progress()) is None
    assert fraction(Progress(done=1, total=4)) == 0.25


def test_a_long_curve_is_thinned_out_and_keeps_its_end():
    points = curve_points([0.5] * 1000 + [0.75], limit=100)
    assert len(points) <= 102
    assert points[-1] == [1001, 0.75]
    assert curve_points([]) == []


# How long it will still take.

SIZES = {"train": 50, "validation": 20, "test": 40}


def log(*entries):
    """Events from (kind, values)."""
    at = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    return [JobEvent(at=at, kind=kind, values=values) for kind, values in entries]


START = log(
    ("job.started", {"attempt": 1}),
    ("compile.phase", {"phase": "preparing", "number": 1, "of": 7}),
    ("compile.split", SIZES),
    ("compile.phase", {"phase": "baseline", "number": 2, "of": 7}),
)
# 39 rows after the first in 15.5 s, then 19 in 13.5 s: 0.5 s a row.
BASELINE_DONE = log(
    ("compile.scored", {"phase": "baseline", "rows": 40, "score": "0.10", "row_seconds": 15.5}),
    ("compile.phase", {"phase": "validating_baseline", "number": 3, "of": 7}),
    ("compile.scored", {"phase": "validating_baseline", "rows": 20, "score": "0.10", "row_seconds": 13.5}),
    ("compile.phase", {"phase": "optimising", "number": 4, "of": 7}),
)


def left(events, optimises=True, **progress):
    now = Progress(**progress)
    listed = steps(now, optimises=optimises, validates=True, done=False)
    return time_left(Pace(sizes={}).after(events), now, listed)


def test_rows_left_take_as_long_as_those_that_are_done():
    # 10 rows after the first in 5 s; left: 29 of the baseline, 20 + 20 of validation, 40 of the final scores.
    found = left(START, phase="baseline", done=11, total=40, row_seconds=5.0)
    assert found == TimeLeft(seconds=54.5, optimising="ahead")


def test_without_an_optimizer_only_the_baseline_counts():
    found = left(START, optimises=False, phase="baseline", done=11, total=40, row_seconds=5.0)
    assert found == TimeLeft(seconds=14.5, optimising="done")


def test_while_it_optimises_only_the_scoring_after_it_is_told():
    # Left: 20 of validation, 40 of the final scores.
    found = left(START + BASELINE_DONE, phase="optimising")
    assert found == TimeLeft(seconds=30.0, optimising="now")


def test_the_speed_is_that_of_all_counted_phases_together():
    # 58 rows in 29 s, then 22 in 51 s: 1 s a row; 17 rows left.
    found = left(START + BASELINE_DONE, phase="evaluating", done=23, total=40, row_seconds=51.0)
    assert found == TimeLeft(seconds=17.0, optimising="done")


@pytest.mark.parametrize(
    ("events", "progress"),
    [
        ([], {}),
        (START, {"phase": "preparing"}),
        (START, {"phase": "baseline", "total": 40}),
        (START, {"phase": "baseline", "done": 8, "total": 40, "row_seconds": 3.0}),
        (START, {"phase": "baseline", "done": 20, "total": 40}),
        (START + BASELINE_DONE, {"phase": "saving"}),
        # Written by an earlier version.
        (
            log(("compile.scored", {"phase": "baseline", "rows": 40, "score": "0.10"})),
            {"phase": "optimising"},
        ),
    ],
)
def test_too_little_measured_gives_no_estimate(events, progress):
    assert left(events, **progress) is None


def test_a_new_attempt_measures_anew():
    again = log(("job.resumed", {"attempt": 2}))
    assert left(START + BASELINE_DONE + again, phase="preparing") is None


def test_waiting_for_the_bundled_model_is_a_step_before_the_first():
    listed = steps(Progress(phase="starting_lm"), optimises=False, validates=False, done=False)
    assert [(step.phase, step.state) for step in listed][:2] == [
        ("starting_lm", "now"),
        ("preparing", "ahead"),
    ]
    assert "starting_lm" not in [
        step.phase for step in steps(Progress(), optimises=True, validates=True, done=False)
    ]


@pytest.mark.parametrize(
    ("remarks", "english", "chinese"),
    [
        ({"": Notice(key="feedback.not_equal", values={"expected": "'x'", "got": "'y'"})},
         "Not equal to the expected answer.", "与期望不一致。"),
        ({"": Notice(key="feedback.missing", values={"missing": "'x'"})}, "Missing: 'x'.", "缺少：'x'。"),
        ({"a": Notice(key="feedback.right"), "b": Notice(key="feedback.no_json", values={"got": "'y'"})},
         "a: Right.\nb: Not JSON.", "a: 正确。\nb: 不是 JSON。"),
        ({"": Notice(key="feedback.own_words", values={"said": "Too {short}."})},
         "The metric said: Too {short}.", "指标说明：Too {short}."),
        ({"": Notice(key="feedback.of_tomorrow")}, "The metric said: As kept.", "指标说明：As kept."),
        ({}, "The metric said: As kept.", "指标说明：As kept."),
    ],
)  # fmt: skip
def test_feedback_is_said_in_the_visitors_language_without_the_values_beside_it(remarks, english, chinese):
    outcome = evaluation([0.0]).rows[0].model_copy(update={"remarks": remarks, "feedback": "As kept."})
    assert (feedback(outcome, Text("en_US")), feedback(outcome, Text("zh_CN"))) == (english, chinese)


def trials(*found):
    return tuple(
        TrialScore(step=step, label=f"#{step}", score=score, rows=rows)
        for step, (score, rows) in enumerate(found)
    )


def test_trials_on_other_rows_are_lines_of_their_own():
    found = trials((0.1, "validation"), (0.9, "train"), (0.5, "minibatch"), (0.7, "validation"))
    assert trial_lines(found) == {
        "validation": [0.1, None, None, 0.7],
        "minibatch": [None, None, 0.5, None],
        "train": [None, 0.9, None, None],
    }
    assert trial_lines(trials((1, "train"))) == {"train": [1]}
    assert trial_lines(()) == {}


@pytest.mark.parametrize(
    ("label", "rows", "shown"),
    [("#3 (train)", "train", "#3"), ("#3 (minibatch)", "minibatch", "#3"), ("#3", "validation", "#3")],
)
def test_a_trial_of_an_earlier_version_tells_its_rows(label, rows, shown):
    trial = TrialScore.model_validate({"step": 3, "label": label, "score": 0.5})
    assert (trial.label, trial.rows) == (shown, rows)
    assert TrialScore.model_validate_json(trial.model_dump_json()) == trial
