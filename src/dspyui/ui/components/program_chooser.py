"""Choose a program: a model version, a Run's, one compiled here, or a file."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, get_args

from nicegui import ui
from nicegui.elements.mixins.disableable_element import DisableableElement
from nicegui.events import UploadEventArguments

from dspyui.domain.batches import BatchModel
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import STAGE_ALIASES, STAGES, ModelVersion
from dspyui.domain.runs import RunInfo, TrackingStatus
from dspyui.domain.storage import KeptProgram
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.ui import formats
from dspyui.ui.background import Loaded, notify_error
from dspyui.ui.elements import Region, box, button, control, labelled, link_button, marked, tag
from dspyui.ui.frame import Page

Kind = Literal["version", "run", "job", "file"]
LISTED_RUNS: Final = 100
LOOK_SECONDS: Final = 1.0
# A choice that needs MLflow says why there is none.
_REASONS: Final[Mapping[TrackingStatus, str]] = {
    "off": "ui.test.why_off",
    "starting": "ui.test.why_starting",
    "unreachable": "ui.test.why_unreachable",
}
_NEED_MLFLOW: Final = frozenset({"version", "run"})
_BEGINNINGS: Final[Mapping[str, Kind]] = {"models:/": "version", "runs:/": "run", "job:": "job"}
_ICONS: Final[Mapping[Kind, str]] = {
    "version": "inventory_2", "run": "timeline", "job": "bolt", "file": "description",
}  # fmt: skip
Choose = Callable[[str | BatchModel], Awaitable[None]]


class ProgramChooser:
    """Programs to add one by one, or, without `choose`, the one that is chosen: `chosen` tells which.

    `choose` is called with a name for `ModelSource`, or with a program that was uploaded. `asked` is the name of the
    program that is chosen at first.
    """

    def __init__(self, page: Page, choose: Choose | None = None, *, asked: str = "") -> None:
        self._page = page
        self._services = page.services
        self._text = page.text
        self._choose = choose
        self._status: TrackingStatus = self._services.tracking.state().status
        self._kind: Kind = _kind_of(asked) or ("version" if self._status == "ready" else "job")
        self._asked = asked
        self._value = ""
        self._uploaded_model: BatchModel | None = None
        self._is_enabled = True
        self._adders: list[DisableableElement] = []
        self._region = Region(self._draw, "d-stack-16")
        ui.timer(LOOK_SECONDS, self._look)

    @property
    def chosen(self) -> str | BatchModel:
        """What is chosen now; an empty text when nothing is."""
        if self._kind == "file" and self._uploaded_model is not None:
            return self._uploaded_model
        return self._value.strip()

    def set_enabled(self, is_enabled: bool) -> None:
        """Whether a program can be added now."""
        self._is_enabled = is_enabled
        for made in self._adders:
            made.set_enabled(is_enabled)

    def _look(self) -> None:
        """MLflow may have come, or gone."""
        status = self._services.tracking.state().status
        if status != self._status:
            self._status = status
            self._region.draw()

    def _draw(self) -> None:
        text = self._text
        self._adders = []
        reason = _REASONS.get(self._status)
        with box("d-row").props(f'role=group aria-label="{text("ui.test.choose")}"'):
            for kind in get_args(Kind):
                is_chosen = kind == self._kind
                made = button(
                    text(f"ui.test.kind_{kind}"),
                    partial(self._set_kind, kind),
                    mark=f"choose-{kind}",
                    kind="plain" if is_chosen else "quiet",
                    icon=_ICONS[kind],
                )
                made.props["aria-pressed"] = "true" if is_chosen else "false"
                if kind in _NEED_MLFLOW and reason:
                    made.disable()
        if reason:
            marked(tag("p", text("ui.test.needs_mlflow", reason=text(reason)), "d-note"), "choose-reason")
        self._value = self._asked if _kind_of(self._asked) == self._kind else ""
        if reason and self._kind in _NEED_MLFLOW:
            return
        _PICKERS[self._kind](self)

    def _set_kind(self, kind: Kind) -> None:
        self._kind = kind
        self._region.draw()

    # One picker a kind.

    def _draw_versions(self) -> None:
        Loaded(self._text, self._services.registry.search_versions, self._draw_models, lines=2)

    def _draw_models(self, versions: Sequence[ModelVersion]) -> None:
        text = self._text
        if not versions and not self._value:
            self._draw_none("ui.models.empty")
            return
        names = list(dict.fromkeys(version.name for version in versions))
        # Also one that is not there (any more): another one must not take its place unseen.
        first = _model_of(self._value) or names[0]
        if first not in names:
            names.insert(0, first)
        with box("d-grid"):
            with labelled(text("ui.test.model")):
                select = ui.select(names, value=first, with_input=True)
                control(select, text("ui.test.model"), "choose-model")
            which = box("d-field")
        select.on_value_change(lambda event: self._pick_model(which, versions, event.value))
        self._draw_which(which, versions, first)
        self._draw_add()

    def _pick_model(self, place: ui.element, versions: Sequence[ModelVersion], name: str | None) -> None:
        self._draw_which(place, versions, name)
        self._asked = self._value

    def _draw_which(self, place: ui.element, versions: Sequence[ModelVersion], name: str | None) -> None:
        text = self._text
        place.clear()
        options = version_options(versions, name or "")
        asked = self._asked if name and _model_of(self._asked) == name else ""
        self._value = asked or next(iter(options), "")
        with place, labelled(text("ui.test.version"), text("ui.test.version_help")):
            shown = {uri: text(key, **values) for uri, (key, values) in options.items()}
            shown |= {asked: asked} if asked and asked not in shown else {}
            select = ui.select(
                shown,
                value=self._value or None,
                with_input=True,
                new_value_mode="add-unique",
                key_generator=partial(_typed_version, name or ""),
                on_change=self._set_value,
            )
            control(select, text("ui.test.version"), "choose-which")

    def _draw_runs(self) -> None:
        Loaded(
            self._text,
            partial(self._services.runs.search_runs, limit=LISTED_RUNS),
            self._draw_run_list,
            lines=2,
        )

    def _draw_run_list(self, runs: Sequence[RunInfo]) -> None:
        text = self._text
        shown = {f"runs:/{run.run_id}": self._run_label(run) for run in runs if _has_program(run)}
        shown |= {self._value: self._value} if self._value and self._value not in shown else {}
        if not shown:
            self._draw_none("ui.runs.empty")
        self._value = self._value or next(iter(shown), "")
        with labelled(text("ui.test.run"), text("ui.test.run_help")):
            select = ui.select(
                shown,
                value=self._value or None,
                with_input=True,
                new_value_mode="add-unique",
                key_generator=lambda typed: f"runs:/{str(typed).strip()}",
                on_change=self._set_value,
            )
            control(select, text("ui.test.run"), "choose-run-list")
        self._draw_add()

    def _run_label(self, run: RunInfo) -> str:
        score = formats.score(run.metrics.get("evaluation_score"))
        at = formats.moment(run.started_at, self._page.visitor.where) if run.started_at else "–"
        return f"{run.name} · {score} · {at}"

    def _draw_jobs(self) -> None:
        Loaded(self._text, self._services.programs.search, self._draw_job_list, lines=2)

    def _draw_job_list(self, programs: Sequence[KeptProgram]) -> None:
        text = self._text
        if not programs and not self._value:
            self._draw_none("ui.models.no_programs")
            return
        where = self._page.visitor.where
        shown = {f"job:{kept.job_id}": f"{kept.name} · {formats.moment(kept.at, where)}" for kept in programs}
        shown |= {self._value: self._value} if self._value and self._value not in shown else {}
        self._value = self._value or next(iter(shown))
        with labelled(text("ui.test.kind_job")):
            select = ui.select(shown, value=self._value, with_input=True, on_change=self._set_value)
            control(select, text("ui.test.kind_job"), "choose-job-list")
        self._draw_add()

    def _draw_file(self) -> None:
        text = self._text
        limit = self._services.settings.max_upload_mb
        upload = ui.upload(
            label=text("ui.test.upload"),
            auto_upload=True,
            max_file_size=limit * 1024**2,
            on_upload=self._uploaded,
            on_rejected=lambda: ui.notify(text("ui.data.rejected", limit=limit), type="negative"),
        )
        self._adds(marked(upload.props("accept=.json flat"), "choose-upload"))
        self._file_name = Region(self._draw_file_name)
        with labelled(text("ui.test.path"), text("ui.test.path_help")):
            made = ui.input(value=self._value, placeholder="program.json", on_change=self._set_path)
            control(made, text("ui.test.path"), "choose-path").props("spellcheck=false")
        self._draw_add()

    def _draw_file_name(self) -> None:
        if self._uploaded_model is not None:
            said = self._text("ui.test.uploaded", name=self._uploaded_model.uri)
            marked(tag("p", said, "d-note"), "choose-uploaded")

    def _set_path(self, event: Any) -> None:
        self._uploaded_model = None
        self._file_name.draw()
        self._set_value(event)

    def _draw_none(self, said: str) -> None:
        """Nothing to choose from yet, and the way to have something."""
        with marked(box("d-row"), "choose-none"):
            tag("p", self._text(said), "d-note")
            link_button(self._text("ui.jobs.new"), "/", mark="first-compile", icon="bolt")

    def _draw_add(self) -> None:
        if self._choose is None:
            return
        with box("d-row"):
            self._adds(button(self._text("ui.test.add"), self.add, mark="add-program", icon="add"))

    def _adds(self, made: DisableableElement) -> None:
        made.set_enabled(self._is_enabled)
        self._adders.append(made)

    def _set_value(self, event: Any) -> None:
        self._value = self._asked = event.value or ""

    async def add(self) -> None:
        """Take the program that is chosen; say so when none is."""
        if self._choose is None:
            return
        if not self._value.strip():
            notify_error(BadRequestError("batch.no_model"), self._text)
            return
        await self._choose(self._value.strip())

    async def _uploaded(self, event: UploadEventArguments) -> None:
        content = await event.file.read()
        try:
            program = CompiledProgram.from_json(content, where=event.file.name)
        except DSPyUIError as exc:
            notify_error(exc, self._text)
            return
        model = BatchModel(program=program, uri=event.file.name, name=program.spec.name)
        if self._choose is not None:
            await self._choose(model)
            return
        self._uploaded_model = model
        self._file_name.draw()


_PICKERS: Final[Mapping[Kind, Callable[[ProgramChooser], None]]] = {
    "version": ProgramChooser._draw_versions,
    "run": ProgramChooser._draw_runs,
    "job": ProgramChooser._draw_jobs,
    "file": ProgramChooser._draw_file,
}


def version_options(versions: Sequence[ModelVersion], name: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """What a model's versions are called, in the order they are looked for: stages, then numbers.

    Each address with the key of its words and their values.
    """
    mine = [version for version in versions if version.name == name]
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for stage in ("Production", "Staging"):
        if holder := next((version for version in mine if version.stage == stage), None):
            found[f"models:/{name}/{stage}"] = (
                f"ui.test.which_{STAGE_ALIASES[stage]}",
                {"version": holder.version},
            )
    for version in mine:
        found[version.model_uri] = ("ui.models.number", {"version": version.version})
    return found


def _kind_of(asked: str) -> Kind | None:
    """Where a program of this name comes from; None for no name."""
    for beginning, kind in _BEGINNINGS.items():
        if asked.startswith(beginning):
            return kind
    return "file" if asked else None


def _model_of(asked: str) -> str:
    """The model's name in the address of a version; an empty text when it is none."""
    path = asked.removeprefix("models:/")
    if path == asked:
        return ""
    name, slash, which = path.rpartition("/")
    is_path = slash and (which.isdecimal() or which.lower() in {stage.lower() for stage in STAGES})
    return name if is_path else path.rpartition("@")[0]


def _typed_version(name: str, typed: Any) -> str:
    """The address of what was typed: a number, a stage, or an alias."""
    word = str(typed).strip().removeprefix("@")
    is_path = word.isdecimal() or word.lower() in {stage.lower() for stage in STAGES}
    return f"models:/{name}/{word}" if is_path else f"models:/{name}@{word}"


def _has_program(run: RunInfo) -> bool:
    return run.status == "FINISHED" and run.kind != "batch"
