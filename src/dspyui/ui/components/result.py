"""What a compile found: the three figures, row by row, and the prompts side by side."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from nicegui import ui

from dspyui.domain.compiles import CompileResult, CompileSpec, RowResult, Usage
from dspyui.domain.intervals import FEWEST_DIFFERING
from dspyui.i18n import Text
from dspyui.ui import formats
from dspyui.ui.components.pager import Pager
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    fact,
    facts,
    figure,
    folding,
    marked,
    tag,
)
from dspyui.ui.job_views import (
    FILTERS,
    Certainty,
    Filter,
    RowView,
    answer,
    feedback,
    field_changes,
    field_means,
    filtered,
    metric_in_words,
    row_views,
)

ROWS_PER_PAGE: Final = 10


def scores_card(text: Text, result: CompileResult, spec: CompileSpec) -> None:
    """Baseline, optimised and the difference, with what they were measured on."""
    rows = len(result.baseline.rows)
    with card(text("ui.result.title"), note=text("ui.result.lead", rows=rows), mark="result"):
        with box("d-figures"):
            marked(
                figure(text("ui.job.baseline"), formats.score(result.baseline.score), big=True),
                "baseline-score",
            )
            optimised = figure(text("ui.job.optimised"), formats.score(result.optimised.score), big=True)
            marked(optimised, "evaluation-score")
            _difference(text, result, spec)
        _certainty(text, result)
        _rounded(text, result)
        if spec.lms.task.is_local and spec.optimizer.kind != "none":
            marked(tag("p", text("ui.result.small_model"), "d-note"), "small-model")
        _essentials(text, result, spec)
        _by_field(text, result)
        _missing(text, result)


def _difference(text: Text, result: CompileResult, spec: CompileSpec) -> None:
    found = result.difference
    certainty = Certainty(found.word, found.low, found.high) if found else None
    word = text("ui.result.not_optimised") if spec.optimizer.kind == "none" else ""
    shown = figure(
        text("ui.result.difference"),
        formats.signed(result.improvement),
        word=certainty.words(text) if certainty else word,
        tone=certainty.tone if certainty else "",
        big=True,
    )
    marked(shown, "improvement")


def _essentials(text: Text, result: CompileResult, spec: CompileSpec) -> None:
    """What was measured, on how much, and what it cost."""
    with marked(box(), "essentials"), facts():
        fact(text("ui.result.metric"), metric_in_words(spec, text))
        fact(text("ui.result.test_rows"), formats.count(len(result.baseline.rows)))
        fact(text("ui.job.cost"), cost_in_words(text, asked_cost(result.usage)))
        digest_fact(text("ui.version.data_digest"), result.data_digest)
    marked(tag("p", text("ui.result.digest_help"), "d-note"), "digest-help")


def asked_cost(usage: Usage) -> float | None:
    """What was spent; where no model was asked, nothing was."""
    return usage.cost if usage.lm_calls else 0.0


def cost_in_words(text: Text, cost: float | None) -> str:
    """An estimate, or that there is none."""
    if cost is None:
        return text("ui.job.cost_unknown")
    if cost == 0:
        return formats.cost(cost)
    return text("ui.job.cost_known", cost=formats.cost(cost))


def digest_fact(label: str, digest: str) -> None:
    """A digest's beginning; the whole of it on hover."""
    shown = fact(label, formats.fingerprint(digest))
    shown.props["title"] = digest


def _certainty(text: Text, result: CompileResult) -> None:
    """In plain words: whether the difference could be chance, and how that was worked out."""
    said: list[str] = []
    found = result.difference
    if found is not None:
        if found.word == "too_few":
            values = {"differing": found.differing, "pairs": found.pairs, "needed": FEWEST_DIFFERING}
            said.append(text("ui.result.too_few_note", **values))
        else:
            said.append(Certainty(found.word).sentence(text))
            said.append(text(f"ui.result.method_{found.method}", pairs=found.pairs))
    if result.repeats > 1:
        said.append(text("ui.result.repeats", repeats=result.repeats))
    if said:
        marked(tag("p", text.in_a_row(said), "d-note"), "certainty")


def _rounded(text: Text, result: CompileResult) -> None:
    """Where rounding makes the figures look like wrong arithmetic, the same with more places."""
    before, after, difference = result.baseline.score, result.optimised.score, result.improvement
    shown = float(formats.score(after)) - float(formats.score(before))
    if formats.signed(shown) != formats.signed(difference):
        values = {"before": f"{before:.4f}", "after": f"{after:.4f}", "difference": f"{difference:+.4f}"}
        said = text("ui.result.rounded", **values).replace("-", "−")
        marked(tag("p", said, "d-note"), "rounded")


def _by_field(text: Text, result: CompileResult) -> None:
    fields = field_means(result)
    if not fields:
        return
    tag("h3", text("ui.result.by_field"))
    with facts():
        for name, before, after in fields:
            fact(name, f"{formats.score(before)} → {formats.score(after)}")


def _missing(text: Text, result: CompileResult) -> None:
    before, after = result.baseline, result.optimised
    said = {
        "unreadable": {"before": before.unreadable, "after": after.unreadable},
        "failed": {"before": before.failed, "after": after.failed},
        "score_errors": {"before": before.score_errors, "after": after.score_errors},
    }
    for name, counts in said.items():
        if any(counts.values()):
            sentence = text(f"ui.result.{name}", **counts, rows=result.uncounted)
            marked(tag("p", sentence, "d-warning"), name.replace("_", "-"))


def _score(text: Text, score: float | None) -> str:
    return text("ui.rows.not_scored") if score is None else formats.score(score)


class RowsCard:
    """The test rows with both programs' answers, a page at a time, by what became of them."""

    def __init__(self, text: Text, result: CompileResult, chosen: Filter) -> None:
        self._text = text
        self._rows = row_views(result)
        self._chosen: Filter = chosen
        self._pager = Pager(ROWS_PER_PAGE)
        with card(text("ui.rows.title"), note=text("ui.rows.lead"), mark="rows"):
            self._region = Region(self._draw)

    def _draw(self) -> None:
        text = self._text
        rows = filtered(self._rows, self._chosen)
        first, last = self._pager.bounds(len(rows))
        with box("d-row").props(f'role=group aria-label="{text("ui.rows.filter")}"'):
            for name in FILTERS:
                count = len(filtered(self._rows, name))
                chosen = name == self._chosen
                made = button(
                    f"{text(f'ui.rows.{name}')} {count}",
                    partial(self._choose, name),
                    mark=f"filter-{name}",
                    kind="plain" if chosen else "quiet",
                )
                made.props["aria-pressed"] = "true" if chosen else "false"
        if not rows:
            tag("p", text("ui.rows.none"), "d-soft")
            return
        with box("d-table-box d-long"), box("d-table stacks", "table"):
            self._draw_head()
            with box(name="tbody"):
                for row in rows[first:last]:
                    self._draw_row(row)
        with box("d-row"):
            self._pager.draw(text, len(rows), self._turn, mark="result-rows")

    def _turn(self) -> None:
        self._region.draw()

    def _draw_head(self) -> None:
        with box(name="thead"), box(name="tr"):
            tag("th", "#", "d-num")
            for name in ("inputs", "expected", "before", "after"):
                tag("th", self._text(f"ui.rows.{name}"))
            tag("th", self._text("ui.rows.score"), "d-num")

    def _draw_row(self, row: RowView) -> None:
        text = self._text
        with marked(box(name="tr"), f"row-{row.number}"):
            tag("td", str(row.number), "d-num d-soft")
            _cell(text, text("ui.rows.inputs"), answer(row.inputs))
            _cell(text, text("ui.rows.expected"), answer(row.expected))
            for name, outcome in (("before", row.outcome_before), ("after", row.outcome_after)):
                _cell(
                    text,
                    text(f"ui.rows.{name}"),
                    answer(outcome.predicted),
                    notes=_notes(text, outcome),
                    outcome=outcome,
                )
            with box("d-num", "td") as cell:
                cell.props["data-label"] = text("ui.rows.score")
                tag("div", f"{_score(text, row.score_before)} → {_score(text, row.score_after)}")
                for name, before, after in field_changes(row):
                    tag("div", f"{name}: {_score(text, before)} → {_score(text, after)}", "d-soft")
                if row.change != "same":
                    tone = "good" if row.change == "better" else "bad"
                    tag("span", text(f"ui.rows.{row.change}"), f"d-chip {tone}")

    def _choose(self, name: Filter) -> None:
        self._chosen = name
        self._pager.page = 0
        # In the address, so that the view can be shared.
        ui.run_javascript(
            "const to = new URL(location.href); "
            f"to.searchParams.set('rows', '{name}'); history.replaceState(history.state, '', to)"
        )
        self._region.draw()


def _notes(text: Text, outcome: RowResult) -> list[str]:
    """What went wrong with an answer, and what the metric said of it."""
    said: list[str] = []
    if outcome.failure is not None:
        said.append(text("ui.rows.failed", problem=outcome.failure.sentence(text.language)))
    if outcome.error is not None:
        said.append(text("ui.rows.unreadable", problem=outcome.error))
    said += dict.fromkeys(problem.sentence(text.language) for problem in outcome.problems)
    return said


def _cell(
    text: Text, label: str, content: str, *, notes: Sequence[str] = (), outcome: RowResult | None = None
) -> None:
    with box("d-cell", "td") as cell:
        cell.props["data-label"] = label
        if content:
            folding(content)
        for note in notes:
            folding(note).classes("d-soft")
        if outcome is not None and outcome.score != 1 and (said := feedback(outcome, text)):
            folding(said).classes("d-soft")
