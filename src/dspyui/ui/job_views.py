"""What the pages about jobs show, worked out from the domain. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args

from dspyui.domain.base import Notice
from dspyui.domain.compiles import (
    CompileResult,
    CompileSpec,
    Phase,
    Progress,
    RowResult,
    TrialRows,
    TrialScore,
    counts,
    phases,
)
from dspyui.domain.intervals import Word
from dspyui.domain.jobs import Job, JobEvent, JobStatus
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerInfo
from dspyui.domain.signatures import SignatureSpec
from dspyui.i18n import Text
from dspyui.ui import formats

Change = Literal["better", "worse", "same"]
Filter = Literal["all", "better", "worse", "wrong"]
FILTERS: tuple[Filter, ...] = ("all", "better", "worse", "wrong")
StepState = Literal["done", "now", "ahead"]
STATUS_TONES: dict[JobStatus, Literal["", "good", "warn", "bad", "accent"]] = {
    "queued": "", "running": "accent", "done": "good", "failed": "bad", "cancelled": "warn",
}  # fmt: skip
STATUS_ICONS: dict[JobStatus, str] = {
    "queued": "schedule",
    "running": "sync",
    "done": "check_circle",
    "failed": "error",
    "cancelled": "block",
}


@dataclass(frozen=True, slots=True)
class RowView:
    """A test row with both programs side by side; a score is None when none could be made."""

    number: int
    inputs: dict[str, Any]
    expected: dict[str, Any]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    score_before: float | None
    score_after: float | None
    outcome_before: RowResult
    outcome_after: RowResult

    @property
    def change(self) -> Change:
        """Which way the score went; a row that does not count went no way."""
        if self.score_after is None or self.score_before is None or self.score_after == self.score_before:
            return "same"
        if not counts(self.outcome_before, self.outcome_after):
            return "same"
        return "better" if self.score_after > self.score_before else "worse"


def row_views(result: CompileResult) -> list[RowView]:
    """All test rows, in their order."""
    return [
        _row_view(before, after)
        for before, after in zip(result.baseline.rows, result.optimised.rows, strict=True)
    ]


def _row_view(before: RowResult, after: RowResult) -> RowView:
    return RowView(
        number=before.index + 1,
        inputs=before.inputs,
        expected=before.expected,
        before=before.predicted,
        after=after.predicted,
        score_before=before.score,
        score_after=after.score,
        outcome_before=before,
        outcome_after=after,
    )


def field_changes(row: RowView) -> list[tuple[str, float | None, float | None]]:
    """Each scored field with its two scores; none when there is one field, whose score is the row's."""
    before, after = row.outcome_before.by_field, row.outcome_after.by_field
    names = list(dict.fromkeys([*before, *after]))
    return [(name, before.get(name), after.get(name)) for name in names] if len(names) > 1 else []


def field_means(result: CompileResult) -> list[tuple[str, float, float]]:
    """The same over all rows that count."""
    found = result.by_field
    return [(name, before, after) for name, (before, after) in found.items()] if len(found) > 1 else []


def filtered(rows: Sequence[RowView], chosen: Filter) -> list[RowView]:
    """The rows of one filter; `wrong` are those the optimised program did not get fully right."""
    if chosen == "all":
        return list(rows)
    if chosen == "wrong":
        return [row for row in rows if row.score_after is None or row.score_after < 1]
    return [row for row in rows if row.change == chosen]


def feedback(outcome: RowResult, text: Text) -> str:
    """What the metric said of an answer, beside the values themselves: they are not said again.

    What an earlier version kept, or a later one calls by another name, is shown in its English words.
    """
    try:
        said = {name: _said(remark, text) for name, remark in outcome.remarks.items()}
    except KeyError:
        said = {}
    lines = [f"{name}: {sentence}" if name else sentence for name, sentence in said.items()]
    if not lines and outcome.feedback:
        return text("feedback_short.own_words", said=outcome.feedback)
    return "\n".join(lines)


def _said(remark: Notice, text: Text) -> str:
    key = f"feedback_short.{remark.code}"
    return text(key, **remark.values) if text.has(key) else remark.sentence(text.language)


def optimizer_label(info: OptimizerInfo, text: Text) -> str:
    """DSPy's name of the optimizer; `none` is no name, and is said in words."""
    return text("optimizer.none.label") if info.kind == "none" else info.label


def metric_in_words(spec: CompileSpec, text: Text) -> str:
    """What the metric of a compile is called, and the output fields it looks at."""
    return metric_words(spec.metric, spec.program.signature, text)


def metric_words(metric: MetricSpec, signature: SignatureSpec, text: Text) -> str:
    """The same of any metric and program."""
    if metric.info.score is None:
        return metric_label(metric.kind, str(metric.resolved()["name"]), text)
    names = ", ".join(field.name for field in metric.scored_fields(signature))
    return metric_label(metric.kind, names, text)


def metric_label(kind: str, names: str, text: Text) -> str:
    """The same from a record; a metric that is not known here keeps its name."""
    key = f"metric.{kind}.label"
    label = text(key) if text.has(key) else kind
    return text("ui.result.metric_of", metric=label, names=names) if names else label


def certainty(word: str | None, low: float | None, high: float | None) -> "Certainty | None":
    """How sure a recorded gain is; None when nothing was optimised or the record is of no use."""
    known = next((known for known in get_args(Word) if known == word), None)
    return None if known is None else Certainty(known, low, high)


def difference_in_words(gained: float | None, sure: "Certainty | None", text: Text) -> str:
    """A difference in one line: its sign, its interval and a word; an empty text where there is none."""
    if gained is None:
        return ""
    said = formats.signed(gained)
    if sure is None:
        return said
    word = text(f"ui.result.{sure.word}")
    if sure.low is None or sure.high is None:
        return text("ui.result.gained", difference=said, word=word)
    interval = formats.between(sure.low, sure.high)
    return text("ui.result.gained_interval", difference=said, interval=interval, word=word)


@dataclass(frozen=True, slots=True)
class Certainty:
    """A difference's 95 % interval as a result or a version's record has it."""

    word: Word
    low: float | None = None
    high: float | None = None

    def words(self, text: Text) -> str:
        """The word, with its interval where that says something."""
        word = text(f"ui.result.{self.word}")
        if self.word == "too_few" or self.low is None or self.high is None:
            return word
        return text("ui.result.interval", word=word, interval=formats.between(self.low, self.high))

    def sentence(self, text: Text) -> str:
        """What the interval means."""
        if self.word == "too_few":
            return text("ui.result.too_few_lead")
        return text("ui.result.includes" if self.word == "unclear" else "ui.result.excludes")

    @property
    def tone(self) -> Literal["good", "bad", ""]:
        """The colour that goes with the word."""
        tones: dict[Word, Literal["good", "bad"]] = {"better": "good", "worse": "bad"}
        return tones.get(self.word, "")


def answer(values: dict[str, Any] | None) -> str:
    """The fields of a row or a prediction as text: the value alone when there is one field."""
    if values is None:
        return ""
    shown = {name: value if isinstance(value, str) else repr(value) for name, value in values.items()}
    if len(shown) == 1:
        return next(iter(shown.values()))
    return "\n".join(f"{name}: {value}" for name, value in shown.items())


@dataclass(frozen=True, slots=True)
class Step:
    """One phase of a compile and how far it is."""

    phase: Phase
    state: StepState


def steps(progress: Progress, *, optimises: bool, validates: bool, done: bool) -> list[Step]:
    """The phases this compile goes through, and where it is; waiting for the bundled model comes before them."""
    listed = list(phases(optimises=optimises, validates=validates))
    if progress.phase == "starting_lm":
        listed.insert(0, "starting_lm")
    at = listed.index(progress.phase) if progress.phase in listed else -1
    if done:
        at = len(listed)
    return [Step(phase, _state(index, at)) for index, phase in enumerate(listed)]


def _state(index: int, at: int) -> StepState:
    if index < at:
        return "done"
    return "now" if index == at else "ahead"


def fraction(progress: Progress) -> float | None:
    """How much of the phase is done, 0 to 1; None when it cannot be counted."""
    return progress.done / progress.total if progress.total else None


@dataclass(frozen=True, slots=True)
class Overall:
    """Where the whole job stands: in step `number` of `of`, and `part` of all steps done, 0 to 1.

    Steps count alike, however long they take: `part` says how much is over, not how long it still takes.
    """

    number: int
    of: int
    part: float


def overall(progress: Progress, listed: Sequence[Step]) -> Overall | None:
    """None before the first numbered step (waiting for a worker or for the bundled model) and after the last."""
    numbered = [step for step in listed if step.phase != "starting_lm"]
    over = next((index for index, step in enumerate(numbered) if step.state == "now"), None)
    if over is None:
        return None
    return Overall(over + 1, len(numbered), (over + (fraction(progress) or 0.0)) / len(numbered))


# What the rows of a phase are taken from; the other phases have no rows to count.
_COUNTED: Mapping[Phase, str] = {
    "baseline": "test", "validating_baseline": "validation", "validating": "validation", "evaluating": "test",
}  # fmt: skip
# Fewer rows say too little: those of the first calls at once come together.
_ROWS_TO_JUDGE = 8


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast rows were done in the phases that are over, read from a job's log: `rows` in `seconds`, each phase's
    first row left out. `sizes` are the rows of each split."""

    sizes: Mapping[str, int]
    rows: int = 0
    seconds: float = 0.0

    def after(self, events: Sequence[JobEvent]) -> "Pace":
        """The pace with more of the log read."""
        pace = self
        for event in events:
            pace = pace._after(event)
        return pace

    def _after(self, event: JobEvent) -> "Pace":
        values = event.values
        match event.kind:
            case "job.started" | "job.resumed":
                # A new attempt does everything again.
                return Pace(sizes={})
            case "compile.split":
                return replace(self, sizes=dict(values))
            case "compile.scored" if "row_seconds" in values:
                rows, seconds = self.rows + values["rows"] - 1, self.seconds + values["row_seconds"]
                return replace(self, rows=rows, seconds=seconds)
            case _:
                return self


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """Seconds that the rows still to be scored will take; `optimising`: where that phase, which has no rows to
    count and comes on top, stands."""

    seconds: float
    optimising: StepState


def time_left(pace: Pace, progress: Progress, listed: Sequence[Step]) -> TimeLeft | None:
    """Rows left over rows per second so far, over all counted phases; None while too little was measured.

    It holds when the rows to come take as long as those that are done. The optimised program's prompt is longer,
    so its rows correct the figure once they are counted.
    """
    rows, seconds = pace.rows, pace.seconds
    left = sum(pace.sizes.get(_COUNTED.get(step.phase, ""), 0) for step in listed if step.state == "ahead")
    if 0 < progress.done < progress.total:
        rows, seconds = rows + progress.done - 1, seconds + progress.row_seconds
    left += progress.total - progress.done
    if rows < _ROWS_TO_JUDGE or seconds <= 0 or not left:
        return None
    states: dict[Phase, StepState] = {step.phase: step.state for step in listed}
    return TimeLeft(seconds=left * seconds / rows, optimising=states.get("optimising", "done"))


def elapsed(job: Job, now: datetime) -> float | None:
    """Seconds from the first start to the end, or to now; None when it has not started."""
    if job.started_at is None:
        return None
    return ((job.ended_at or now) - job.started_at).total_seconds()


# The order in which the kinds of trials are shown.
_TRIAL_ROWS: tuple[TrialRows, ...] = ("validation", "minibatch", "train")


def trial_lines(trials: Sequence[TrialScore]) -> dict[TrialRows, list[float | None]]:
    """The trials' scores as a line for each kind of rows that occurs, with None where a trial is of another kind.

    Scores on other rows cannot be compared, so that no line joins them.
    """
    return {
        rows: [round(trial.score, 4) if trial.rows == rows else None for trial in trials]
        for rows in _TRIAL_ROWS
        if any(trial.rows == rows for trial in trials)
    }


def curve_points(curve: Sequence[float], limit: int = 400) -> list[list[float]]:
    """A running score as (row, score) for a chart, thinned out so that a long one stays light."""
    step = max(1, math.ceil(len(curve) / limit))
    kept = [index for index in range(len(curve)) if index % step == 0 or index == len(curve) - 1]
    return [[index + 1, round(curve[index], 4)] for index in kept]
