"""A running job: its steps, how far it is, what it has asked of the LM, the scores so far, and its log."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from nicegui import ui

from dspyui.domain.compiles import Progress, TrialRows
from dspyui.domain.jobs import JobEvent
from dspyui.i18n import Text
from dspyui.services.jobs import JobView
from dspyui.ui import formats, theme
from dspyui.ui.elements import Region, Tag, box, card, figure, marked, tag
from dspyui.ui.job_views import (
    STATUS_ICONS,
    Pace,
    Step,
    curve_points,
    elapsed,
    fraction,
    overall,
    steps,
    time_left,
    trial_lines,
)
from dspyui.ui.visitor import Visitor

LOG_LINES: Final = 1000
# An estimate to the second would claim too much.
_ABOUT_SECONDS: Final = 5
_ICONS: Final = {"done": "check_circle", "now": "arrow_circle_right", "ahead": "radio_button_unchecked"}


class ProgressPanel:
    """Follows a job: `show` takes each new view; only what changed is sent to the browser."""

    def __init__(self, visitor: Visitor, view: JobView) -> None:
        self._text = visitor.text
        self._view = view
        self._pace = Pace(sizes={})
        self._steps_key: object = None
        self._curves_key: object = None
        with box("d-live"):
            self._draw_steps_card()
            with card(self._text("ui.job.scores"), mark="chart"):
                with box("d-charts") as self._drawn:
                    self._chart = ui.echart(_curves(self._text, view.progress), renderer="svg").classes(
                        "d-chart"
                    )
                    self._trials = ui.echart(_trials(self._text, view.progress), renderer="svg").classes(
                        "d-chart"
                    )
                self._note = tag("p", "", "d-note")
        self.show(view)

    def _draw_steps_card(self) -> None:
        text = self._text
        with card(text("ui.job.progress"), mark="progress"):
            self._overall = marked(tag("p", "", "d-note"), "overall")
            self._whole = marked(ui.linear_progress(value=0, show_value=False), "overall-bar")
            self._whole.props["aria-label"] = text("ui.job.overall")
            self._steps = Region(self._draw_steps)
            self._bar = ui.linear_progress(value=0, show_value=False)
            self._bar.props["aria-label"] = text("ui.job.this_step")
            self._counter = marked(tag("p", "", "d-note"), "progress-rows")
            self._left = marked(tag("p", "", "d-note"), "time-left")
            with box("d-figures") as self._figures:
                self._elapsed = figure(text("ui.job.elapsed"), "–")
                self._calls = marked(figure(text("ui.job.lm_calls"), "0"), "lm-calls")
                self._hits = figure(text("ui.job.cache_hits"), "0")
                self._tokens = figure(text("ui.job.tokens"), "0")

    def read(self, events: Sequence[JobEvent]) -> None:
        """Take in what is new in the log: it tells how long the phases before took."""
        self._pace = self._pace.after(events)
        self._show_left()

    def show(self, view: JobView) -> None:
        """Bring everything up to date."""
        self._view = view
        progress = view.progress
        key = (progress.phase, view.job.status)
        if key != self._steps_key:
            self._steps_key = key
            self._steps.draw()
        self._show_figures(view)
        # A job that ended before the first score has nothing to draw.
        none = not (progress.baseline_curve or progress.evaluation_curve or progress.trials)
        self._drawn.set_visibility(not (none and view.job.is_terminal))
        self._trials.set_visibility(bool(progress.trials) or not view.job.is_terminal)
        curves = (
            len(progress.baseline_curve),
            len(progress.evaluation_curve),
            len(progress.trials),
            view.job.is_terminal,
        )
        if curves != self._curves_key:
            self._curves_key = curves
            _redraw(self._chart, _curves(self._text, progress))
            _redraw(self._trials, _trials(self._text, progress))
            self._note.text = _scores_in_words(self._text, view)

    def _show_figures(self, view: JobView) -> None:
        progress, text = view.progress, self._text
        # Afterwards they stand in the record.
        self._figures.set_visibility(not view.job.is_terminal)
        _set(self._elapsed, formats.duration(elapsed(view.job, datetime.now(UTC)), text))
        _set(self._calls, formats.count(progress.usage.lm_calls))
        _set(self._hits, formats.count(progress.usage.lm_cache_hits))
        _set(self._tokens, formats.count(progress.usage.total_tokens))
        self._show_overall()
        part = fraction(progress)
        self._bar.set_visibility(not view.job.is_terminal)
        self._bar.props["indeterminate"] = part is None and view.job.status == "running"
        self._bar.value = part or 0.0
        rows = text("ui.job.rows_done", done=progress.done, total=progress.total) if progress.total else ""
        _set(self._counter, "" if view.job.is_terminal else rows)
        self._show_left()

    def _show_overall(self) -> None:
        running = self._view.job.status == "running"
        found = overall(self._view.progress, self._listed()) if running else None
        self._whole.set_visibility(running)
        self._overall.set_visibility(running)
        self._whole.value = round(found.part, 3) if found else 0.0
        said = "" if found is None else self._text("ui.job.step_of", number=found.number, of=found.of)
        _set(self._overall, said)

    def _show_left(self) -> None:
        found = None
        if self._view.job.status == "running":
            found = time_left(self._pace, self._view.progress, self._listed())
        if found is None:
            _set(self._left, "")
            return
        about = max(2, math.ceil(found.seconds / _ABOUT_SECONDS)) * _ABOUT_SECONDS
        time = formats.duration(about, self._text)
        _set(self._left, self._text(f"ui.job.left_{found.optimising}", time=time))

    def _listed(self) -> list[Step]:
        view = self._view
        return steps(
            view.progress,
            optimises=view.spec.optimizer.kind != "none",
            validates=view.spec.data.has_validation,
            done=view.job.status == "done",
        )

    def _draw_steps(self) -> None:
        with box("d-steps", "ol"):
            for step in self._listed():
                ended = self._view.job.status if self._view.job.is_terminal else ""
                with box(f"{step.state} {ended}", "li") as line:
                    ui.icon(self._icon(step)).props("aria-hidden=true")
                    tag("span", self._text(f"phase.{step.phase}"))
                if step.state == "now":
                    line.props("aria-current=step")

    def _icon(self, step: Step) -> str:
        job = self._view.job
        if step.state == "now" and job.is_terminal:
            return STATUS_ICONS[job.status]
        return _ICONS[step.state]


def _set(shown: Tag, value: str) -> None:
    if shown.text != value:
        shown.text = value


def _scores_in_words(text: Text, view: JobView) -> str:
    """The chart's last values, for those who cannot see it."""
    progress = view.progress
    parts = [
        text("ui.job.score_now", name=text(f"ui.job.{name}"), score=formats.score(curve[-1]))
        for name, curve in (("baseline", progress.baseline_curve), ("optimised", progress.evaluation_curve))
        if curve
    ]
    parts += [
        text(
            f"ui.job.{_TRIAL_NOW[trial.rows]}",
            label=trial_label(text, trial.label),
            score=formats.score(trial.score),
        )
        for trial in progress.trials
    ]
    return " · ".join(parts) or text("ui.job.ended_unscored" if view.job.is_terminal else "ui.job.no_scores")


def trial_label(text: Text, label: str) -> str:
    """What a trial tried: the program as it was, or what the optimizer calls it."""
    return text("ui.job.baseline") if label == "baseline" else label


def _redraw(chart: ui.echart, options: dict[str, Any]) -> None:
    chart.options.clear()
    chart.options.update(options)
    chart.update()


# A kind of rows that trials are scored on -> the key of its line's name, of a trial in words, and its points' shape.
_TRIALS: Final[Mapping[TrialRows, str]] = {
    "validation": "trials", "minibatch": "trials_minibatch", "train": "trials_train",
}  # fmt: skip
_TRIAL_NOW: Final[Mapping[TrialRows, str]] = {
    "validation": "trial_now", "minibatch": "trial_now_minibatch", "train": "trial_now_train",
}  # fmt: skip
_SYMBOLS: Final[Mapping[TrialRows, str]] = {
    "validation": "circle", "minibatch": "emptyCircle", "train": "diamond",
}  # fmt: skip
_INK: Final = {"color": theme.CHART_INK, "fontSize": theme.CHART_FONT_SIZE}
_LINES: Final = {"lineStyle": {"color": theme.CHART_LINE}}


# As everywhere else.
_SCORE: Final = {**_INK, ":formatter": "value => value.toFixed(2)"}


def _frame(text: Text, name: str) -> dict[str, Any]:
    """What both charts have in common: no animation, scores from 0.00 to 1.00, `name` below the lower axis."""
    below = {"name": text(name), "nameLocation": "middle", "nameGap": 26, "nameTextStyle": _INK}
    beside = {
        "name": text("ui.job.axis_score"),
        "nameLocation": "middle",
        "nameGap": 36,
        "nameTextStyle": _INK,
    }
    return {
        "animation": False,
        "grid": {"left": 54, "right": 16, "top": 36, "bottom": 40},
        "tooltip": {
            "trigger": "axis",
            "confine": True,
            "axisPointer": {"label": {"precision": 0}},
            ":valueFormatter": "value => value == null ? '–' : value.toFixed(2)",
        },
        "xAxis": {**below, "axisLabel": _INK, "splitLine": {"show": False}, "axisLine": _LINES},
        "yAxis": {**beside, "type": "value", "min": 0, "max": 1, "axisLabel": _SCORE, "splitLine": _LINES},
    }


def _curves(text: Text, progress: Progress) -> dict[str, Any]:
    """The running score of both programs over the test rows."""
    options = _frame(text, "ui.job.axis_rows")
    options["xAxis"] |= {"type": "value", "min": 0, "minInterval": 1}
    options["legend"] = {"top": 0, "left": 0, "textStyle": _INK, "itemGap": 16}
    options["series"] = [
        _line(text("ui.job.baseline"), curve_points(progress.baseline_curve), theme.CHART_BASELINE),
        # A compile that optimises nothing has none.
        *(
            [_line(text("ui.job.optimised"), curve_points(curve), theme.CHART_OPTIMISED)]
            if (curve := progress.evaluation_curve)
            else []
        ),
    ]
    return options


def _line(name: str, points: list[list[float]], colour: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "line",
        "data": points,
        # It would be drawn in a lighter colour, and none is known that is lighter than a variable's.
        "emphasis": {"disabled": True},
        "showSymbol": len(points) == 1,
        "lineStyle": {"color": colour, "width": 2},
        "itemStyle": {"color": colour},
    }


def _trials(text: Text, progress: Progress) -> dict[str, Any]:
    """Each trial's score: a line, and a shape of its points, for each kind of rows they were scored on."""
    options = _frame(text, "ui.job.axis_trials")
    options["xAxis"] |= {
        "type": "category",
        "data": [str(trial.step) for trial in progress.trials],
    }
    options["legend"] = {"top": 0, "left": 0, "textStyle": _INK}
    labels = [trial_label(text, trial.label) for trial in progress.trials]
    options["series"] = [
        {
            **_line(text(f"ui.job.{_TRIALS[rows]}"), [], theme.CHART_TRIAL),
            "data": [{"value": score, "name": label} for score, label in zip(scores, labels, strict=True)],
            "showSymbol": True,
            "symbol": _SYMBOLS[rows],
            "symbolSize": 8,
            "connectNulls": True,
        }
        for rows, scores in (trial_lines(progress.trials) or {"validation": []}).items()
    ]
    return options


class LogPanel:
    """The job's events as sentences, the newest at the end."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        with card(visitor.text("ui.job.log"), mark="log"):
            self._log = ui.log(max_lines=LOG_LINES).classes("d-log")
            self._log.props("tabindex=0 role=log")

    def add(self, events: Sequence[JobEvent]) -> None:
        """Append new events."""
        tones = {"info": "", "warning": "warn", "error": "bad"}
        for event in events:
            at = event.at.astimezone(self._visitor.where)
            said = f"{at:%H:%M:%S}  {_named(event, self._visitor.text).sentence(self._visitor.language)}"
            self._log.push(said, classes=tones[event.level])


def _named(event: JobEvent, text: Text) -> JobEvent:
    """The event with a trial's label in words."""
    if "label" not in event.values:
        return event
    return event.model_copy(
        update={"values": {**event.values, "label": trial_label(text, str(event.values["label"]))}}
    )
