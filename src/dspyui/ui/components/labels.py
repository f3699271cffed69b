"""What people write on a model or a version: its description, its tags, its aliases."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from nicegui import ui

from dspyui.domain.registry import MAX_ALIAS, MAX_DESCRIPTION, MAX_TAG_NAME, MAX_TAG_VALUE, STAGE_ALIASES
from dspyui.errors import DSPyUIError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.ui.background import notify_error, off_loop
from dspyui.ui.elements import (
    box,
    button,
    card,
    chip,
    control,
    dialog,
    dialog_actions,
    labelled,
    marked,
    tag,
)
from dspyui.ui.model_views import other_tags

OnChanged = Callable[[], Awaitable[None]]


class Labels:
    """Edits one model, or with a number one of its versions; `on_changed` draws the page anew."""

    def __init__(
        self, services: Services, text: Text, name: str, version: int | None, on_changed: OnChanged
    ) -> None:
        self._models = services.models
        self._text = text
        self._name = name
        self._version = version
        self._on_changed = on_changed

    async def _do(self, call: Callable[[], object]) -> bool:
        try:
            await off_loop(call)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return False
        await self._on_changed()
        return True

    # The description.

    def ask_description(self, before: str) -> None:
        """A dialog that changes it."""
        text = self._text
        with dialog() as made:
            tag("h2", text("ui.labels.description"))
            with labelled("", text("ui.labels.description_help")):
                area = control(
                    ui.textarea(value=before), text("ui.models.description"), "description-text"
                ).props(f"autogrow rows=4 maxlength={MAX_DESCRIPTION}")
            dialog_actions(
                text, made, text("ui.job.save"), lambda: self._describe(made, area), mark="description"
            )

    async def _describe(self, opened: ui.dialog, area: ui.textarea) -> None:
        call = partial(self._models.describe, self._name, self._version, area.value or "")
        if await self._do(call):
            opened.close()

    # Tags.

    def draw_tags(self, tags: Mapping[str, str]) -> None:
        """Those that people have set, each to be taken away, and fields for another one."""
        text = self._text
        with card(text("ui.labels.tags"), note=text("ui.labels.tags_lead"), mark="tags"):
            for name, value in other_tags(tags).items():
                with marked(box("d-row"), f"tag-{name}"):
                    tag("span", name, "d-label d-break")
                    tag("span", value, "d-grow d-break")
                    self._taker(text("ui.labels.remove_tag", name=name), {name: None}, f"tag-remove-{name}")
            with box("d-row d-filters"):
                made = ui.input(placeholder=text("ui.labels.tag_name"))
                key = control(made, text("ui.labels.tag_name"), "tag-name").props(f"maxlength={MAX_TAG_NAME}")
                made = ui.input(placeholder=text("ui.labels.tag_value"))
                value = control(made, text("ui.labels.tag_value"), "tag-value").props(
                    f"maxlength={MAX_TAG_VALUE}"
                )
                button(text("ui.labels.set"), partial(self._set_tag, key, value), mark="tag-set")

    def _taker(self, label: str, tags: Mapping[str, str | None], mark: str) -> None:
        call = partial(self._models.set_tags, self._name, self._version, tags)
        button(label, partial(self._do, call), mark=mark, kind="quiet", icon="close", label_hidden=True)

    async def _set_tag(self, name: ui.input, value: ui.input) -> None:
        tags = {(name.value or "").strip(): value.value or ""}
        await self._do(partial(self._models.set_tags, self._name, self._version, tags))

    # Aliases, of a version.

    def draw_aliases(self, aliases: tuple[str, ...]) -> None:
        """Those of the stages as they are, the free ones to be taken away, and a field for another one."""
        text = self._text
        with card(text("ui.labels.aliases"), note=text("ui.labels.aliases_lead"), mark="aliases"):
            with box("d-row"):
                for alias in aliases:
                    chip(alias, "accent", mark=f"alias-{alias}")
                    if alias not in STAGE_ALIASES.values():
                        button(
                            text("ui.labels.remove_alias", alias=alias),
                            partial(self._do, partial(self._models.delete_alias, self._name, alias)),
                            mark=f"alias-remove-{alias}",
                            kind="quiet",
                            icon="close",
                            label_hidden=True,
                        )
                if not aliases:
                    tag("span", text("ui.labels.no_alias"), "d-soft")
            with box("d-row d-filters"):
                made = ui.input(placeholder="champion")
                field = control(made, text("ui.labels.alias"), "alias-name").props(f"maxlength={MAX_ALIAS}")
                button(text("ui.labels.set"), partial(self._set_alias, field), mark="alias-set")

    async def _set_alias(self, field: ui.input) -> None:
        if self._version is not None:
            call = partial(self._models.set_alias, self._name, field.value or "", self._version)
            await self._do(call)
