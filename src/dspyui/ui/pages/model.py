"""One registered model: what it is for, who holds which stage, and its versions, a page at a time."""

from collections.abc import Mapping, Sequence
from functools import partial

from nicegui import ui

from dspyui.domain.registry import PAGE_MODELS, ModelVersion, RegisteredModel
from dspyui.errors import DSPyUIError
from dspyui.services import Services
from dspyui.services.models import ListedVersion, ModelDetail
from dspyui.ui import formats
from dspyui.ui.background import Loaded, notify_error, off_loop
from dspyui.ui.components.labels import Labels
from dspyui.ui.components.pager import draw_turns
from dspyui.ui.components.register import version_address
from dspyui.ui.components.table import Column, Table, two
from dspyui.ui.components.try_it import test_address
from dspyui.ui.elements import (
    box,
    button,
    card,
    chip,
    confirmed,
    delete_button,
    empty,
    facts,
    folding,
    link,
    link_button,
    marked,
    tag,
    time_of,
)
from dspyui.ui.frame import Page, framed
from dspyui.ui.model_views import STAGE_TONES, other_tags, scores_of
from dspyui.ui.visitor import find_visitor


def model_page(services: Services, name: str) -> None:
    """The page; what it shows is read from MLflow."""
    lead = find_visitor(services.settings).text("ui.model.lead")
    with framed(services, "models", title=name, lead=lead) as page:
        if not services.settings.mlflow_enabled:
            empty("cloud_off", page.text("ui.runs.off"), page.text("ui.model.off_lead"))
            return
        _Model(page, name)


class _Model:
    """The model, and the page of its versions that is shown."""

    def __init__(self, page: Page, name: str) -> None:
        self._page = page
        self._text = page.text
        self._name = name
        self._tokens: list[str | None] = [None]
        self._at = 0
        # Where it is said of a version of another program that it cannot be loaded.
        self._places: dict[int, ui.element] = {}
        self._loaded = Loaded(page.text, self._read, self._draw)
        self._labels = Labels(page.services, page.text, name, None, self._loaded.reload)

    def _read(self) -> ModelDetail:
        # Without looking into versions of other programs, which takes seconds: the list stands meanwhile.
        return self._page.services.models.detail(self._name, self._tokens[self._at], look=False)

    async def _turn(self, step: int) -> None:
        self._at = min(max(self._at + step, 0), len(self._tokens) - 1)
        await self._loaded.reload()

    def _draw(self, found: ModelDetail) -> None:
        if found.next_token is not None and self._at + 1 == len(self._tokens):
            self._tokens.append(found.next_token)
        self._draw_actions(found.model)
        self._draw_facts(found.model)
        self._places = {}
        self._draw_versions(found)
        if self._places:
            versions = [listed.version for listed in found.versions]
            ui.timer(0.01, partial(self._look, versions, self._places), once=True)
        self._labels.draw_tags(found.model.tags)

    def _draw_actions(self, model: RegisteredModel) -> None:
        """What is in use can be tested; before that, the newest version."""
        text = self._text
        self._page.actions.clear()
        with self._page.actions:
            delete_button(text, text("ui.model.delete"), self._delete, mark="delete-model")
            if (version := model.production or model.newest) is not None:
                link_button(
                    text("ui.test.nav"),
                    test_address(version.model_uri),
                    mark="test-model",
                    kind="primary",
                    icon="science",
                )

    def _draw_facts(self, model: RegisteredModel) -> None:
        text = self._text
        with card(text("ui.model.about"), mark="model") as aside:
            with aside:
                button(
                    text("ui.labels.description"),
                    partial(self._labels.ask_description, model.description),
                    mark="edit-description",
                    kind="quiet",
                    icon="edit",
                )
            if model.description:
                marked(folding(model.description), "model-description")
            with facts():
                for stage, holder in (("Staging", model.staging), ("Production", model.production)):
                    tag("span", text(f"stage.{stage}"), "k")
                    with marked(box("v d-row"), f"holder-{stage.lower()}"):
                        self._holder(holder)
                tag("span", text("ui.models.updated"), "k")
                with box("v"):
                    time_of(model.updated_at, self._page.visitor)
                tag("span", "MLflow", "k")
                with box("v"):
                    link(text("ui.common.in_mlflow"), model.url, mark="model-mlflow", outside=True)

    def _holder(self, holder: ModelVersion | None) -> None:
        if holder is None:
            tag("span", self._text("ui.model.nobody"), "d-soft")
            return
        link(self._text("ui.models.number", version=holder.version), version_address(holder))
        if holder.is_changed_outside:
            chip(self._text("ui.models.outside"), "warn")

    def _draw_versions(self, found: ModelDetail) -> None:
        text = self._text
        with card(text("ui.model.versions"), mark="versions"):
            if not found.versions and self._at == 0:
                tag("p", text("ui.model.no_versions"), "d-soft")
                return
            table = Table(
                [
                    Column(text("ui.models.version")),
                    Column(text("ui.models.stage")),
                    Column(text("ui.model.score_gain"), number=True),
                    Column(text("ui.version.data_digest")),
                    Column(text("ui.version.run")),
                    Column(text("ui.models.description")),
                ],
                pairs=True,
            )
            for listed in found.versions:
                with table.row() as row:
                    marked(row, f"row-{listed.version.version}")
                    self._row(table, listed)
            self._draw_pager(found, self._at * PAGE_MODELS + 1)

    def _row(self, table: Table, listed: ListedVersion) -> None:
        version = listed.version
        table.cell(partial(self._number, listed))
        table.cell(partial(self._stage, version))
        table.cell(partial(two, *scores_of(version, self._text)))
        digest = version.tags.get("dspyui.data_digest")
        table.cell(partial(_digest, digest) if digest else "–")
        run_id = version.run_id
        label = version.tags.get("dspyui.program") or (run_id or "")[:8]
        table.cell(partial(_run, label, run_id) if run_id else "–")
        table.cell(partial(self._about, version))

    def _number(self, listed: ListedVersion) -> None:
        version = listed.version
        label = self._text("ui.models.number", version=version.version)
        link(label, version_address(version), mark=f"version-{version.version}")
        with box("d-note"):
            time_of(version.created_at, self._page.visitor)
        if not version.is_ours:
            with box() as self._places[version.version]:
                tag("span", self._text("ui.model.looking"), "d-note")

    async def _look(self, versions: Sequence[ModelVersion], places: Mapping[int, ui.element]) -> None:
        """Say of each version of another program what lies in it."""
        text = self._text
        try:
            found = await off_loop(self._page.services.models.look, versions)
        except DSPyUIError as exc:
            found = None
            notify_error(exc, text)
        for number, place in places.items():
            if place.is_deleted:
                return  # another page of the list is shown by now
            place.clear()
            fault = found.get(number) if found is not None else None
            if fault is not None:
                with place:
                    said = fault.sentence(text.language)
                    made = chip(text("ui.models.unloadable"), "warn", mark=f"unloadable-{number}")
                    made.props["title"] = said
                    tag("div", said, "d-note")

    def _stage(self, version: ModelVersion) -> None:
        with box("d-row"):
            chip(self._text(f"stage.{version.stage}"), STAGE_TONES[version.stage])
            for alias in version.free_aliases:
                chip(alias, "accent")
            if version.is_changed_outside:
                chip(self._text("ui.models.outside"), "warn", mark=f"outside-{version.version}")

    def _about(self, version: ModelVersion) -> None:
        if version.description:
            folding(version.description)
        for name, value in other_tags(version.tags).items():
            tag("div", f"{name}: {value}", "d-note d-break")
        if not version.description and not other_tags(version.tags):
            tag("span", "–")

    def _draw_pager(self, found: ModelDetail, first: int) -> None:
        draw_turns(
            self._text,
            first,
            len(found.versions),
            self._turn,
            has_more=found.next_token is not None,
            noun="versions",
            mark="versions",
        )

    async def _delete(self) -> None:
        text = self._text
        body = text("ui.model.delete_body", name=self._name)
        if not await confirmed(text, text("ui.model.delete"), body, text("ui.model.delete_yes")):
            return
        try:
            await off_loop(self._page.services.models.delete_model, self._name)
        except DSPyUIError as exc:
            notify_error(exc, text)
            return
        ui.navigate.to("/models")


def _digest(digest: str) -> None:
    made = tag("span", formats.fingerprint(digest), "d-note")
    made.props["title"] = digest


def _run(label: str, run_id: str) -> None:
    link(label or run_id, f"/runs/{run_id}").classes("d-break")
