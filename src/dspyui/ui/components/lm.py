"""Which language models play which roles, with what settings. Never a key: those are typed into the Settings page."""

from collections.abc import Callable
from functools import partial

from nicegui import ui
from nicegui.events import ValueChangeEventArguments

from dspyui.domain.lms import LOCAL_MODEL, LMSpec
from dspyui.domain.providers import OWN_SERVER_KEY, OWN_SERVERS, OwnServer
from dspyui.errors import BadRequestError
from dspyui.i18n import Text
from dspyui.services import Services
from dspyui.services.documents import part_of
from dspyui.ui import formats
from dspyui.ui.components.form import Bounds, Form, number_input, text_input
from dspyui.ui.components.lm_test import LMTest
from dspyui.ui.drafts import OTHER_ROLES, LMDraft, OtherRole
from dspyui.ui.elements import Region, box, button, card, help_link, labelled, link, marked, tag


def lm_panel(form: Form) -> None:
    """The card about the language models: the task's, the number of calls at once, and the other roles."""
    text = form.text
    with card(text("ui.lm.title"), note=text("ui.lm.lead"), mark="lm") as aside:
        with aside:
            help_link(text, "models")
        control = LMControl(form, form.draft.task, "lm", on_model=lambda: [told() for told in form.on_model])
        form.choose_model = control.choose
        with ui.expansion(text("ui.lm.settings")).classes("d-field"), box("d-grid"):
            _settings(form, form.draft.task, "lm")
            number_input(
                form,
                form.draft,
                "threads",
                text("ui.lm.threads"),
                "threads",
                bounds=Bounds(low=1, high=256),
                note=text("ui.lm.threads_help"),
            )
        roles = ui.expansion(text("ui.lm.roles"), caption=text("ui.lm.roles_help")).classes("d-field")
        with marked(roles, "lm-roles"), box("d-stack-16"):
            for role in OTHER_ROLES:
                _other_role(form, role)
        roles.value = any(form.draft.role(role) is not None for role in OTHER_ROLES)


def _other_role(form: Form, role: OtherRole) -> None:
    text, draft = form.text, form.draft
    mark = f"lm-{role}"
    with marked(box("d-stack").props("role=group"), mark) as group:
        group.props["aria-label"] = text(f"ui.lm.role.{role}.title")
        tag("h3", text(f"ui.lm.role.{role}.title"))
        tag("p", text(f"ui.lm.role.{role}.help"), "d-note")
        none = text("ui.lm.nobody") if role == "embedder" else text("ui.lm.same")
        radio = ui.radio({False: none, True: text("ui.lm.own")}, value=draft.role(role) is not None)
        radio.props("inline dense")
        radio.props["aria-label"] = text(f"ui.lm.role.{role}.title")
        marked(radio, f"{mark}-own")
        region = Region(partial(_role_model, form, role, mark))

    def choose(event: ValueChangeEventArguments) -> None:
        setattr(draft, role, _first_of(draft.task, role) if event.value else None)
        form.touch()
        region.draw()

    radio.on_value_change(choose)


def _first_of(task: LMDraft, role: OtherRole) -> LMDraft:
    """A model of its own begins as the task's; an embedder as nothing, because few models make vectors."""
    if role == "embedder":
        return LMDraft(model="")
    return LMDraft(model=task.model, api_base=task.api_base, api_key_env=task.api_key_env)


def _role_model(form: Form, role: OtherRole, mark: str) -> None:
    lm = form.draft.role(role)
    if lm is None:
        return
    LMControl(form, lm, mark, makes_vectors=role == "embedder")
    if role != "embedder":
        with ui.expansion(form.text("ui.lm.settings")).classes("d-field"), box("d-grid"):
            _settings(form, lm, mark)


class LMControl:
    """One model: its name with suggestions, its address and key's variable, the key's state, and a test."""

    def __init__(
        self,
        form: Form,
        lm: LMDraft,
        mark: str,
        *,
        makes_vectors: bool = False,
        on_settings: bool = False,
        on_model: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_settings`: it stands on the Settings page itself, so it need not lead there.

        `on_model` is told when it became another.
        """
        self._on_model = on_model
        self._makes_vectors = makes_vectors
        self._form = form
        self._on_settings = on_settings
        self._lm = lm
        self._mark = mark
        self._was_local = lm.is_local
        text = form.text
        with box("d-cols"):
            self._model = text_input(
                form,
                lm,
                "model",
                text("ui.lm.model"),
                f"{mark}-model",
                placeholder="openai/text-embedding-3-small" if makes_vectors else "openai/gpt-4.1-mini",
                note=text("ui.lm.embedder_help" if makes_vectors else "ui.lm.model_help"),
            )
            self._model.props("autocomplete=off spellcheck=false")
            if not makes_vectors:
                with self._model.add_slot("append"):
                    self._menu()
        self._place = Region(self._draw_place)
        self._key = Region(self._draw_key)
        self._model.on_value_change(self._changed)
        if not makes_vectors:
            LMTest(form.services.lms, text, lambda: part_of(LMSpec, lm.document()), mark)

    def _menu(self) -> None:
        text, mark = self._form.text, self._mark
        chooser = button(
            text("ui.lm.choose"),
            mark=f"{mark}-choose",
            kind="quiet",
            icon="arrow_drop_down",
            label_hidden=True,
        )
        with chooser, ui.menu().props("auto-close") as menu:
            # Drawn when it is opened: a key may have been typed in since the page was built.
            items = Region(self._draw_menu, "")
        menu.on_value_change(lambda event: items.draw() if event.value else None)

    def _draw_menu(self) -> None:
        text, mark = self._form.text, self._mark
        for index, model in enumerate(self._form.services.lms.models()):
            label = text("ui.lm.local", model=model) if model == LOCAL_MODEL else model
            marked(ui.menu_item(label, partial(self._choose, model, "")), f"{mark}-choice-{index}")
        ui.separator()
        for server in OWN_SERVERS:
            label = text("ui.lm.own_server", name=server.label, address=server.address)
            marked(ui.menu_item(label, partial(self._choose_server, server)), f"{mark}-server-{server.name}")
        tag("p", text("ui.lm.more_models"), "d-note d-menu-note")

    def choose(self, model: str) -> None:
        """Make it another model, one that is not at an address of its own."""
        self._choose(model, "")

    def _choose_server(self, server: OwnServer) -> None:
        self._choose("openai/", server.address)
        self._model.run_method("focus")

    def _choose(self, model: str, api_base: str) -> None:
        self._lm.api_base = api_base
        self._model.value = model
        self._place.draw()
        self._key.draw()
        self._form.touch()

    def _changed(self) -> None:
        # Only when it matters: what is being typed below would be lost.
        if self._lm.is_local != self._was_local:
            self._was_local = self._lm.is_local
            self._place.draw()
        self._key.draw()
        self._on_model()

    def _draw_place(self) -> None:
        form, lm, text = self._form, self._lm, self._form.text
        if lm.is_local:
            return
        with box("d-grid"):
            base = text_input(
                form,
                lm,
                "api_base",
                text("ui.lm.api_base"),
                f"{self._mark}-base",
                placeholder="http://localhost:8000/v1",
                note=text("ui.lm.api_base_help"),
            )
            variable = text_input(
                form,
                lm,
                "api_key_env",
                text("ui.lm.api_key_env"),
                f"{self._mark}-key-variable",
                note=text("ui.lm.api_key_env_help"),
            )
        base.on_value_change(self._redraw_key)
        variable.on_value_change(self._redraw_key)

    def _redraw_key(self) -> None:
        # By name: the address is drawn before the key's state is there.
        self._key.draw()

    def _draw_key(self) -> None:
        form, text = self._form, self._form.text
        if self._lm.is_local:
            status = form.services.local_lm.state().status
            tone = "d-warning" if status in {"off", "missing", "failed"} else "d-note"
            tag("p", text(f"local_lm.{status}"), tone)
            return
        name = self._lm.key_variable()
        if not name:
            return
        state = form.services.lms.key_state(name)
        optional = state == "unset" and name == OWN_SERVER_KEY
        with box("d-row"):
            said = text(f"ui.lm.key_{'optional' if optional else state}", variable=name)
            marked(tag("p", said, "d-note"), f"{self._mark}-key-state")
            if state == "unset" and not self._on_settings:
                link(text("ui.lm.to_settings"), "/settings", mark=f"{self._mark}-to-settings")
        if self._lm.is_hosted and not self._makes_vectors:
            self._draw_price()

    def _draw_price(self) -> None:
        text = self._form.text
        with box("d-row"):
            said = price_words(self._form.services, text, self._lm)
            marked(tag("p", said, "d-note d-grow"), f"{self._mark}-price")
            if bundled_is_there(self._form.services):
                button(
                    text("ui.lm.use_bundled"),
                    partial(self.choose, LOCAL_MODEL),
                    mark=f"{self._mark}-use-bundled",
                    kind="quiet",
                    icon="computer",
                )


def bundled_is_there(services: Services) -> bool:
    """Whether the bundled model can be used."""
    return services.local_lm.state().status not in {"off", "missing", "failed"}


def price_words(services: Services, text: Text, lm: LMDraft) -> str:
    """What is to be known of a provider's price before its model is called."""
    try:
        price = services.lms.price(part_of(LMSpec, lm.document()))
    except BadRequestError:
        # Not a model's name yet; what is wrong with it is said in the summary.
        price = None
    if price is None:
        return text("ui.lm.paid_unknown")
    million = 1_000_000
    return text(
        "ui.lm.paid_listed",
        input=formats.price(price.input * million),
        output=formats.price(price.output * million),
    )


def _settings(form: Form, lm: LMDraft, mark: str) -> None:
    text = form.text
    numbers: tuple[tuple[str, str, Bounds], ...] = (
        ("temperature", "temperature", Bounds(step=0.1, low=0, high=2)),
        ("max_tokens", "max-tokens", Bounds(low=1)),
        ("num_retries", "retries", Bounds(low=0, high=20)),
        ("timeout", "timeout", Bounds(low=1, high=3600, step=10)),
    )
    for name, ending, bounds in numbers:
        number_input(
            form,
            lm,
            name,
            text(f"ui.lm.{name}"),
            f"{mark}-{ending}",
            bounds=bounds,
            note=text(f"ui.lm.{name}_help"),
        )
    with labelled("", text("ui.lm.cache_help")):
        switch = ui.switch(
            text("ui.lm.cache"), value=lm.cache, on_change=partial(form.set_attribute, lm, "cache")
        )
        marked(switch, f"{mark}-cache")
