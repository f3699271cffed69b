"""Runs side by side: scores, whether they can be told apart, what they were asked, their prompts, their rows."""

from functools import partial
from typing import Final, Literal

from nicegui import ui

from dspyui.domain.comparisons import PairedTest
from dspyui.domain.compiles import RowResult
from dspyui.domain.runs import RunInfo
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.services.run_comparison import ComparedRow, RunComparison
from dspyui.ui import formats
from dspyui.ui.background import Loaded
from dspyui.ui.components.pager import Pager
from dspyui.ui.components.prompts import draw_diff
from dspyui.ui.components.table import Column, Table
from dspyui.ui.elements import Region, Tone, box, button, card, chip, control, folding, link, marked, tag
from dspyui.ui.frame import Page, framed
from dspyui.ui.job_views import answer
from dspyui.ui.run_views import (
    LETTERS,
    estimate,
    interval,
    optimizer_name,
    p_value,
    param_in_words,
    seconds,
    short_name,
)
from dspyui.ui.visitor import find_visitor

ROWS_PER_PAGE: Final = 10
Shown = Literal["disagree", "all"]


def run_comparison_page(services: Services, run_ids: list[str]) -> None:
    """The page; the Runs are read from MLflow."""
    text = find_visitor(services.settings).text
    with framed(services, "runs", title=text("ui.compare.title"), lead=text("ui.compare.lead")) as page:
        Loaded(page.text, partial(services.run_list.compare, run_ids), partial(_draw, page), lines=8)


def _draw(page: Page, found: RunComparison) -> None:
    text = page.text
    if found.left_out:
        names = ", ".join(short_name(info) for info in found.left_out)
        marked(tag("p", text("ui.compare.batches", names=names), "d-hint"), "left-out")
    _scores(text, found)
    _verdicts(text, found)
    _params(text, found)
    if all(run.result is not None and run.result.optimised.prompt for run in found.runs):
        _Prompts(text, found)
    if found.rows:
        _Rows(text, found)


def _scores(text: Text, found: RunComparison) -> None:
    has_common = any(run.common for run in found.runs)
    with card(text("ui.compare.scores"), note=text("ui.compare.scores_lead"), mark="compared"):
        common = [Column(text("ui.compare.common", count=found.counted), number=True)] if has_common else []
        table = Table(
            [
                Column(""),
                Column(text("ui.runs.name")),
                Column(text("ui.runs.optimizer_lm")),
                Column(text("ui.compare.own"), number=True),
                *common,
                Column(text("ui.job.baseline"), number=True),
                Column(text("ui.job.cost"), number=True),
                Column(text("ui.job.duration"), number=True),
            ],
            pairs=True,
        )
        for letter, run in zip(LETTERS, found.runs, strict=False):
            info = run.info
            with table.row() as row:
                marked(row, f"compared-{info.run_id}")
                table.cell(partial(chip, letter, "accent"))
                table.cell(partial(_name, info))
                lm = info.params.get("lm.task.model", "–")
                table.cell(f"{optimizer_name(info.params.get('optimizer'), text)} · {lm}")
                own = estimate(run.own) if run.own else formats.score(info.metrics.get("evaluation_score"))
                table.cell(own)
                if has_common:
                    table.cell(estimate(run.common))
                table.cell(formats.score(info.metrics.get("baseline_score")))
                table.cell(formats.cost(info.metrics.get("cost")))
                table.cell(formats.duration(seconds(info), text))


def _name(info: RunInfo) -> None:
    link(short_name(info), f"/runs/{info.run_id}").props["title"] = info.name


def _verdicts(text: Text, found: RunComparison) -> None:
    with card(text("ui.compare.verdict"), note=text("ui.compare.verdict_lead"), mark="verdicts"):
        if found.obstacle is not None:
            marked(tag("p", found.obstacle.sentence(text.language), "d-warning"), "obstacle")
            return
        for test in found.tests:
            _verdict(text, found, test)
        said = [text(f"ui.compare.method_{found.tests[0].method}", rows=found.counted)]
        if len(found.tests) > 1:
            said.append(text("ui.compare.holm", count=len(found.tests)))
        left_out = len(found.rows) - found.counted
        if left_out:
            said.append(text("ui.compare.left_out", count=left_out))
        tag("p", text.in_a_row(said), "d-note")


def _verdict(text: Text, found: RunComparison, test: PairedTest) -> None:
    first, second = LETTERS[test.first], LETTERS[test.second]
    tones: dict[str, Tone] = {"first": "good", "second": "good", "unclear": ""}
    with marked(box("d-row"), f"verdict-{first}-{second}"):
        chip(text(f"ui.compare.chip_{test.verdict}", first=first, second=second), tones[test.verdict])
        tag("span", _sentence(text, found, test), "d-grow")


def _sentence(text: Text, found: RunComparison, test: PairedTest) -> str:
    first, second = LETTERS[test.first], LETTERS[test.second]
    values = {
        "difference": formats.signed(test.difference.value),
        "interval": interval(test.difference),
        "p": p_value(test.adjusted),
        "differing": test.difference.differing,
        "rows": found.counted,
    }
    said = [text("ui.compare.measured", first=first, second=second, **values)]
    if test.verdict == "unclear" and test.rows_needed is not None:
        said.append(text("ui.compare.needed", rows=formats.count(test.rows_needed)))
    elif test.verdict == "unclear":
        said.append(text("ui.compare.same"))
    return text.in_a_row(said)


def _params(text: Text, found: RunComparison) -> None:
    with card(text("ui.compare.params"), note=text("ui.compare.params_lead"), mark="differing-params"):
        if not found.params:
            tag("p", text("ui.compare.params_same"), "d-soft")
            return
        letters = LETTERS[: len(found.runs)]
        columns = [Column(text("ui.compare.param")), *(Column(letter) for letter in letters)]
        table = Table(columns, pairs=True)
        for param in found.params:
            with table.row() as row:
                marked(row, f"param-{param.name}")
                table.cell(param.name)
                for value in param.values:
                    table.cell(partial(_value, text, param.name, value))


def _value(text: Text, name: str, value: str | None) -> None:
    """A parameter as a person reads it; one that the Run's optimizer or module does not have is said to be none."""
    if value is None or value == "None":
        tag("span", text("ui.compare.not_applicable" if value is None else "ui.compare.unset"), "d-soft")
    else:
        folding(param_in_words(name, value))


class _Prompts:
    """What changed from one Run's prompt to another's."""

    def __init__(self, text: Text, found: RunComparison) -> None:
        self._text = text
        self._prompts = [run.result.optimised.prompt if run.result else () for run in found.runs]
        self._sides = [0, 1]
        with card(text("ui.prompt.title"), note=text("ui.compare.prompts_lead"), mark="compared-prompts"):
            if len(self._prompts) > 2:
                with box("d-row"):
                    self._choice(0, text("ui.compare.from"))
                    self._choice(1, text("ui.compare.to"))
            self._region = Region(self._draw)

    def _choice(self, side: int, label: str) -> None:
        options = {index: LETTERS[index] for index in range(len(self._prompts))}
        tag("span", label, "d-note").props("aria-hidden=true")
        made = ui.select(options, value=self._sides[side])
        control(made, label, f"prompt-side-{side}").on_value_change(
            lambda event: self._choose(side, event.value)
        )

    def _choose(self, side: int, value: int) -> None:
        self._sides[side] = value
        self._region.draw()

    def _draw(self) -> None:
        before, after = (self._prompts[side] for side in self._sides)
        names = LETTERS[self._sides[0]], LETTERS[self._sides[1]]
        if before == after:
            tag("p", self._text("ui.compare.prompts_same"), "d-soft")
            return
        draw_diff(self._text, before, after, names)


class _Rows:
    """The common test rows: those where the scores differ, or all."""

    def __init__(self, text: Text, found: RunComparison) -> None:
        self._text = text
        self._letters = LETTERS[: len(found.runs)]
        self._rows = list(enumerate(found.rows, start=1))
        self._shown: Shown = "disagree"
        self._pager = Pager(ROWS_PER_PAGE)
        with card(text("ui.compare.rows"), note=text("ui.compare.rows_lead"), mark="compared-rows"):
            self._region = Region(self._draw)

    def _of(self, shown: Shown) -> list[tuple[int, ComparedRow]]:
        return [(number, row) for number, row in self._rows if shown == "all" or row.disagrees]

    def _draw(self) -> None:
        text = self._text
        rows = self._of(self._shown)
        first, last = self._pager.bounds(len(rows))
        with box("d-row").props(f'role=group aria-label="{text("ui.rows.filter")}"'):
            for name in ("disagree", "all"):
                made = button(
                    f"{text(f'ui.compare.{name}')} {len(self._of(name))}",
                    partial(self._choose, name),
                    mark=f"compared-{name}",
                    kind="plain" if name == self._shown else "quiet",
                )
                made.props["aria-pressed"] = "true" if name == self._shown else "false"
        if not rows:
            tag("p", text("ui.compare.all_agree"), "d-soft")
            return
        columns = [Column("#", number=True), Column(text("ui.rows.inputs")), Column(text("ui.rows.expected"))]
        table = Table([*columns, *(Column(letter) for letter in self._letters)])
        for number, row in rows[first:last]:
            with table.row() as made:
                marked(made, f"compared-row-{number}")
                table.cell(str(number))
                table.cell(partial(folding, answer(row.inputs)))
                table.cell(partial(folding, answer(row.expected)))
                for outcome in row.outcomes:
                    table.cell(partial(_outcome, text, outcome))
        with box("d-row"):
            self._pager.draw(text, len(rows), self._turn, mark="compared-rows")

    def _turn(self) -> None:
        self._region.draw()

    def _choose(self, shown: Shown) -> None:
        self._shown = shown
        self._pager.page = 0
        self._region.draw()


def _outcome(text: Text, outcome: RowResult) -> None:
    if said := answer(outcome.predicted):
        folding(said)
    for problem in _problems(text, outcome):
        folding(problem).classes("d-soft")
    score = text("ui.rows.not_scored") if outcome.score is None else formats.score(outcome.score)
    tag("span", score, "d-chip good" if outcome.score == 1 else "d-chip")


def _problems(text: Text, outcome: RowResult) -> list[str]:
    said = [text("ui.rows.unreadable", problem=outcome.error)] if outcome.error is not None else []
    if outcome.failure is not None:
        said.append(text("ui.rows.failed", problem=outcome.failure.sentence(text.language)))
    return said
