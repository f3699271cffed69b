"""One version of a registered model: what it is, where it stands, how it came there, and a try."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from nicegui import ui

from dspyui.domain.lms import LOCAL_MODEL
from dspyui.domain.optimizers import OPTIMIZERS
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import OWN_ADDRESS_TAG, ModelVersion
from dspyui.domain.signatures import Row
from dspyui.errors import DSPyUIError, FailedError, NotFoundError
from dspyui.services import Services
from dspyui.services.register import version_tags
from dspyui.ui import formats
from dspyui.ui.background import Loaded, notify_error, off_loop
from dspyui.ui.components.labels import Labels
from dspyui.ui.components.result import cost_in_words, digest_fact
from dspyui.ui.components.stages import StageCard
from dspyui.ui.components.table import Column, Table
from dspyui.ui.components.traces import TracesCard
from dspyui.ui.components.try_it import TryCard, test_address
from dspyui.ui.elements import (
    Region,
    box,
    button,
    card,
    code,
    confirmed,
    copy_button,
    delete_button,
    fact,
    facts,
    figure,
    folding,
    link,
    link_button,
    marked,
    sentence,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.job_views import metric_label
from dspyui.ui.model_views import model_path, number_in, recorded_certainty, why_of
from dspyui.ui.snippet import model_snippet, placeholder_row
from dspyui.ui.visitor import find_visitor

# The tags people look for, and what they are called.
TAGS: Final = {
    "dspyui.signature": "ui.version.signature",
    "dspyui.module": "ui.program.module",
    "dspyui.optimizer": "ui.optimizer.kind",
    "dspyui.lm": "ui.lm.title",
    "dspyui.data_digest": "ui.version.data_digest",
}
# The rest, in a fold below.
MORE_TAGS: Final = {
    "dspyui.program": "ui.version.program",
    "dspyui.registered_by": "ui.version.registered_by",
    "dspyui.signature_digest": "ui.version.signature_digest",
    OWN_ADDRESS_TAG: "ui.version.own_address",
}
# Values that are no names, and stand on the page in the visitor's words.
WORDS: Final[Mapping[tuple[str, str], str]] = {
    ("dspyui.optimizer", OPTIMIZERS["none"].label): "optimizer.none.label",
    (OWN_ADDRESS_TAG, "true"): "ui.common.yes",
}
DIGESTS: Final = ("dspyui.data_digest", "dspyui.signature_digest")


@dataclass(frozen=True, slots=True)
class _Found:
    version: ModelVersion
    program: CompiledProgram | None
    unloadable: NotFoundError | None
    example: Row
    example_problem: FailedError | None
    has_job: bool
    recorded: Mapping[str, str]


def version_page(services: Services, name: str, version: str) -> None:
    """The page; what it shows is read from MLflow."""
    text = find_visitor(services.settings).text
    title = text("ui.version.title", name=name, version=version)
    with framed(services, "models", title=title, lead=text("ui.version.lead")) as page:
        Loaded(page.text, partial(_read, services, name, version), partial(_Version, page))


def _read(services: Services, name: str, version: str) -> _Found:
    if not version.isdecimal():
        raise NotFoundError("registry.no_version", name=name, version=version[:20])
    found = services.registry.get_version(name, int(version))
    program, unloadable = None, None
    try:
        program = services.registry.program(found)
    except NotFoundError as exc:
        # A version that another program made has no program of ours; everything else can still be shown.
        unloadable = exc
    example, example_problem = _example(services, found, program) if program is not None else ({}, None)
    return _Found(
        version=found,
        program=program,
        unloadable=unloadable,
        example=example,
        example_problem=example_problem,
        has_job=_has_job(services, found),
        recorded=_recorded(services, found, program),
    )


def _recorded(services: Services, version: ModelVersion, program: CompiledProgram | None) -> dict[str, str]:
    """The version's tags; what one of an earlier DSPyUI does not say of itself, its Run may still tell."""
    if "dspyui.metric" in version.tags or version.run_id is None or program is None:
        return version.tags
    try:
        run = services.runs.get_run(version.run_id)
    except NotFoundError:
        return version.tags
    return {**version_tags(run, program), **version.tags}


def _example(
    services: Services, version: ModelVersion, program: CompiledProgram
) -> tuple[Row, FailedError | None]:
    """A row of the Run's test data; one made up when the Run is gone, or when its file is damaged, which is told."""
    made_up = placeholder_row(program.spec.signature)
    if version.run_id is None:
        return made_up, None
    try:
        return services.runs.input_example(version.run_id), None
    except NotFoundError:
        return made_up, None
    except FailedError as exc:
        if exc.code != "run.broken":
            raise
        return made_up, exc


def _has_job(services: Services, version: ModelVersion) -> bool:
    try:
        services.jobs.get(version.tags.get("dspyui.job_id", ""))
    except NotFoundError:
        return False
    return True


class _Version:
    """Draws the version; its stage, aliases, description and tags can be changed here."""

    def __init__(self, page: Page, found: _Found) -> None:
        self._page = page
        self._services = page.services
        self._text = page.text
        self._version = found.version
        self._program = found.program
        self._example = found.example
        self._example_problem = found.example_problem
        self._has_job = found.has_job
        self._recorded = found.recorded
        self._unloadable = found.unloadable
        version = found.version
        self._labels = Labels(self._services, self._text, version.name, version.version, self._again)
        self._facts = Region(self._draw_facts, "d-stack-16")
        self._draw_actions()
        if self._program is not None:
            if (broken := self._example_problem) is not None:
                said = self._text("ui.version.example_broken", problem=sentence(broken, self._text))
                marked(tag("p", said, "d-note"), "example-problem")
            with box("d-cols d-top"):
                self._draw_try(self._program)
                self._draw_use(self._program)
        traces = partial(self._services.traces.of_version, version.name, version.version)
        TracesCard(page, "version", traces)

    async def _again(self) -> None:
        """What was changed, as MLflow holds it now."""
        version = self._version
        try:
            self._version = await off_loop(self._services.registry.get_version, version.name, version.version)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        self._facts.draw()

    def _draw_actions(self) -> None:
        text = self._text
        with self._page.actions:
            delete_button(text, text("ui.version.delete"), self._delete, mark="delete-version")
            if self._program is not None:
                link_button(
                    text("ui.test.nav"),
                    test_address(self._version.model_uri),
                    mark="test-version",
                    kind="primary",
                    icon="science",
                )

    def _draw_facts(self) -> None:
        version = self._version
        self._draw_unloadable()
        self._draw_scores()
        StageCard(self._services, self._text, version, self._again)
        self._draw_about()
        with box("d-cols"):
            self._labels.draw_aliases(version.aliases)
            self._labels.draw_tags(version.tags)
        self._draw_history()

    def _draw_unloadable(self) -> None:
        """What another program made of it, and that it stays closed here."""
        if self._unloadable is not None:
            with marked(box("d-warning"), "unloadable"):
                tag("div", self._text("ui.models.unloadable"), "d-h3")
                tag("div", sentence(self._unloadable, self._text))

    def _draw_about(self) -> None:
        text, version = self._text, self._version
        with card(text("ui.version.about"), mark="version") as aside, facts():
            with aside:
                button(
                    text("ui.labels.description"),
                    partial(self._labels.ask_description, version.description),
                    mark="edit-description",
                    kind="quiet",
                    icon="edit",
                )
            tag("span", text("ui.models.name"), "k")
            with box("v"):
                link(version.name, model_path(version.name), mark="version-model")
            if version.description:
                tag("span", text("ui.models.description"), "k")
                with box("v"):
                    marked(folding(version.description), "version-description")
            tag("span", text("ui.jobs.when"), "k")
            with box("v"):
                time_of(version.created_at, self._page.visitor)
            tag("span", "MLflow", "k")
            with box("v"):
                link(text("ui.common.in_mlflow"), version.url, mark="version-mlflow", outside=True)
            if job_id := version.tags.get("dspyui.job_id"):
                tag("span", text("ui.version.job"), "k")
                with marked(box("v"), "version-job"):
                    self._draw_job(job_id)
            for name, label in TAGS.items():
                self._draw_tag(name, label)
            self._draw_run()
            self._draw_more_tags()

    def _draw_run(self) -> None:
        if run_id := self._version.run_id:
            tag("span", self._text("ui.version.run"), "k")
            with box("v"):
                link(run_id, f"/runs/{run_id}", mark="version-run").classes("d-break")

    def _draw_scores(self) -> None:
        """What was gained, how sure that is, on what it was measured, and what it cost."""
        text, tags = self._text, self._recorded
        if "dspyui.evaluation_score" not in tags:
            return
        certainty = recorded_certainty(tags)
        with card(text("ui.result.title"), mark="version-result"):
            with box("d-figures"):
                for name, label in (("baseline", "ui.job.baseline"), ("evaluation", "ui.job.optimised")):
                    figure(text(label), formats.score(number_in(tags, f"dspyui.{name}_score")), big=True)
                gained = number_in(tags, "dspyui.score_improvement")
                figure(
                    text("ui.result.difference"),
                    "–" if gained is None else formats.signed(gained),
                    word=certainty.words(text) if certainty else text("ui.result.not_optimised"),
                    tone=certainty.tone if certainty else "",
                    big=True,
                )
            if certainty is not None:
                marked(tag("p", certainty.sentence(text), "d-note"), "certainty")
                if tags.get("dspyui.lm") == LOCAL_MODEL:
                    marked(tag("p", text("ui.result.small_model"), "d-note"), "small-model")
            with facts():
                self._draw_measure(tags)

    def _draw_measure(self, tags: Mapping[str, str]) -> None:
        text = self._text
        if metric := tags.get("dspyui.metric"):
            label = metric_label(metric, tags.get("dspyui.metric_fields", ""), text)
            fact(text("ui.result.metric"), label)
        if rows := tags.get("dspyui.test_rows"):
            fact(text("ui.result.test_rows"), rows)
        if metric:
            fact(text("ui.job.cost"), cost_in_words(text, number_in(tags, "dspyui.cost")))

    def _draw_job(self, job_id: str) -> None:
        if self._has_job:
            link(job_id, f"/jobs/{job_id}", mark="version-job-link")
        else:
            tag("span", self._text("ui.version.job_deleted", job=job_id), "d-soft")

    def _draw_tag(self, name: str, label: str) -> None:
        value = self._version.tags.get(name)
        if not value:
            return
        if name in DIGESTS:
            digest_fact(self._text(label), value)
            return
        fact(self._text(label), self._text(WORDS[name, value]) if (name, value) in WORDS else value)

    def _draw_more_tags(self) -> None:
        tags = self._version.tags
        if not any(name in tags for name in MORE_TAGS):
            return
        with marked(box("d-span"), "more-tags"), ui.expansion(self._text("ui.version.tags")), facts():
            for name, label in MORE_TAGS.items():
                self._draw_tag(name, label)

    def _draw_history(self) -> None:
        text, unreadable = self._text, self._version.unreadable_history
        if not self._version.history and not unreadable:
            return
        with card(text("ui.version.history"), mark="history"):
            if unreadable:
                said = text("ui.stage.unreadable", names=", ".join(unreadable))
                marked(tag("p", said, "d-warning"), "unreadable-history")
            names = ("when", "who", "change_column", "why")
            table = Table([Column(text(f"ui.version.{name}")) for name in names])
            for change in reversed(self._version.history):
                with table.row():
                    table.cell(partial(time_of, change.at, self._page.visitor))
                    table.cell(change.who)
                    moved = f"{text(f'stage.{change.from_stage}')} → {text(f'stage.{change.to_stage}')}"
                    table.cell(moved)
                    table.cell(partial(folding, why_of(change, text)))

    def _draw_try(self, program: CompiledProgram) -> None:
        TryCard(
            self._text,
            program.spec.signature,
            partial(self._services.predict.with_version, self._version),
            self._example,
            more=test_address(self._version.model_uri),
        )

    def _draw_use(self, program: CompiledProgram) -> None:
        text, version = self._text, self._version
        address = self._services.tracking.state().address or ""
        snippet = model_snippet(address, version.model_uri, program.lm, self._example)
        with card(text("ui.version.use"), note=text("ui.version.use_lead"), mark="use") as aside:
            with aside:
                copy_button(text, snippet)
            code(snippet, mark="version-snippet", is_program=True)
            if version.run_id:
                address = f"/api/runs/{version.run_id}/program"
                link_button(text("ui.download.program"), address, mark="download-program", icon="download")

    async def _delete(self) -> None:
        text, version = self._text, self._version
        body = text("ui.version.delete_body", name=version.name, version=version.version)
        if not await confirmed(text, text("ui.version.delete"), body, text("ui.version.delete_yes")):
            return
        try:
            await off_loop(self._services.models.delete_version, version.name, version.version)
        except DSPyUIError as exc:
            notify_error(exc, text)
            return
        ui.navigate.to(model_path(version.name))
