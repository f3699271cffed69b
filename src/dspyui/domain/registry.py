"""Registered models, their versions, stages and aliases."""

import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from pydantic import Field

from dspyui.domain.base import Fault, Frozen
from dspyui.domain.programs import CompiledProgram
from dspyui.errors import BadRequestError

Stage = Literal["None", "Staging", "Production", "Archived"]
STAGES: tuple[Stage, ...] = get_args(Stage)
STAGE_ALIASES: dict[Stage, str] = {"Staging": "staging", "Production": "production"}
MAX_MODEL_NAME = 200
MAX_ALIAS = 255
# What every store behind MLflow can hold, in characters.
MAX_DESCRIPTION = 5_000
MAX_TAG_NAME, MAX_TAG_VALUE = 250, 5_000
PAGE_MODELS = 50
# Tags that programs keep their own records in: nobody edits them by hand here.
RESERVED_TAGS = ("dspyui.", "mlflow.")
# Set to "true" on a version whose LM answered at somebody's own address, which the version does not keep.
OWN_ADDRESS_TAG = "dspyui.lm_own_address"


def check_model_name(name: str) -> str:
    """Return the name (NFC) when MLflow and every store behind it take it.

    Letters of any script, digits, `_` and `-`; inside the name also `.` and single spaces; 1 to 200 characters.
    Raises BadRequestError.
    """
    normal = unicodedata.normalize("NFC", name)
    if not normal:
        raise BadRequestError("model_name.empty")
    if len(normal) > MAX_MODEL_NAME:
        raise BadRequestError("model_name.long", length=len(normal), limit=MAX_MODEL_NAME)
    for position, char in enumerate(normal):
        inside = 0 < position < len(normal) - 1
        if not (_is_word(char) or (inside and char in ". ")):
            code = "model_name.edge" if char in ". " else "model_name.character"
            raise BadRequestError(code, name=normal, character=char)
    if "  " in normal:
        raise BadRequestError("model_name.spaces", name=normal)
    return normal


def model_name_from(title: str) -> str:
    """A model name as near to a title as the rules allow: "best: a/b" becomes "best- a-b"; may be empty."""
    normal = unicodedata.normalize("NFC", title)
    kept = "".join(char if _is_word(char) or char in ". " else "-" for char in normal)
    return " ".join(kept.split()).strip(". ")[:MAX_MODEL_NAME].rstrip(". ")


def check_alias(alias: str) -> str:
    """Return the alias when MLflow takes it and it is nobody's own. Raises BadRequestError.

    `staging` and `production` move with the stages; `latest` and `v` with a number are what MLflow itself
    understands by them.
    """
    wanted = alias.strip()
    if not wanted:
        raise BadRequestError("alias.empty")
    if len(wanted) > MAX_ALIAS:
        raise BadRequestError("alias.long", length=len(wanted), limit=MAX_ALIAS)
    if wanted.lower() in STAGE_ALIASES.values():
        raise BadRequestError("alias.stage", alias=wanted)
    if wanted.lower() == "latest":
        raise BadRequestError("alias.latest", alias=wanted)
    if re.fullmatch(r"[vV]\d+", wanted):
        raise BadRequestError("alias.version", alias=wanted)
    if not re.fullmatch(r"[\w-]+", wanted):
        raise BadRequestError("alias.character", alias=wanted)
    return wanted


def check_description(description: str) -> str:
    """Return it when every store can hold it. Raises BadRequestError."""
    if len(description) > MAX_DESCRIPTION:
        raise BadRequestError("description.long", length=len(description), limit=MAX_DESCRIPTION)
    return description


def check_reason(why: str) -> str:
    """The reason for a change of stage, without outer spaces. Raises BadRequestError when there is none."""
    if not why.strip():
        raise BadRequestError("registry.no_why")
    return why.strip()


def check_tag(name: str, value: str | None) -> None:
    """Raises BadRequestError for a tag that MLflow does not take, or that a program keeps its records in."""
    if name.startswith(RESERVED_TAGS):
        raise BadRequestError("tag.reserved", name=name[:100], prefixes=", ".join(RESERVED_TAGS))
    is_plain = re.fullmatch(r"[/\w.\- ]+", name) and posixpath.normpath(name) == name
    if not is_plain or name[0] in "/. " or name[-1] == " ":
        raise BadRequestError("tag.name", name=name[:100])
    if len(name) > MAX_TAG_NAME:
        raise BadRequestError("tag.name_long", length=len(name), limit=MAX_TAG_NAME)
    if value is not None and len(value) > MAX_TAG_VALUE:
        raise BadRequestError("tag.value_long", name=name, length=len(value), limit=MAX_TAG_VALUE)


def _is_word(char: str) -> bool:
    return char in "_-" or unicodedata.category(char)[0] in {"L", "M"} or unicodedata.category(char) == "Nd"


# How a version came to its stage: moved there, put back there, or made to leave it by another.
ChangeKind = Literal["move", "rollback", "replaced"]
# What comparing a candidate with the version in Production came to; `first`: nobody is there.
GateWord = Literal["first", "better", "unclear", "worse", "untested"]


class GateRecord(Frozen):
    """What the gate said at a promotion: the words as data, who was in Production, and what was typed to go on."""

    word: GateWord
    holder: int | None = None
    result: Fault
    confirmed: str = ""


class StageChange(Frozen):
    """One entry of a version's audit record.

    `by` is the version that took its place, and `why` then that one's reason; `gate` is None where nothing was
    compared.
    """

    who: str
    at: datetime
    from_stage: Stage
    to_stage: Stage
    why: str = ""
    kind: ChangeKind = "move"
    by: int | None = None
    gate: GateRecord | None = None


class ModelVersion(Frozen):
    """A version of a registered model; `model_uri` is `models:/NAME/VERSION`.

    `stage` is the one that counts: the alias's, else MLflow's own (`mlflow_stage`). `unreadable_history` are the names
    of audit tags that hold something else.
    """

    name: str
    version: int
    stage: Stage
    description: str
    run_id: str | None
    created_at: datetime
    model_uri: str
    url: str
    tags: dict[str, str]
    history: tuple[StageChange, ...] = ()
    unreadable_history: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mlflow_stage: Stage = "None"

    @property
    def free_aliases(self) -> tuple[str, ...]:
        """Those that do not belong to a stage."""
        return tuple(alias for alias in self.aliases if alias not in STAGE_ALIASES.values())

    @property
    def is_changed_outside(self) -> bool:
        """Whether alias and stage disagree: DSPyUI moves both, so somebody else has moved one."""
        mine = {alias for alias in self.aliases if alias in STAGE_ALIASES.values()}
        return self.stage != self.mlflow_stage or mine != {
            alias for stage, alias in STAGE_ALIASES.items() if stage == self.stage
        }

    @property
    def is_ours(self) -> bool:
        """Whether DSPyUI registered it, as its tags say; only reading it shows for certain."""
        return "dspyui.signature_digest" in self.tags or "dspyui.registered_by" in self.tags


class RegisteredModel(Frozen):
    """A model with the versions people look for. `aliases` are all of them, with the numbers they stand for."""

    name: str
    description: str
    tags: dict[str, str]
    url: str
    updated_at: datetime
    aliases: dict[str, int]
    newest: ModelVersion | None
    staging: ModelVersion | None
    production: ModelVersion | None


ModelSort = Literal["updated", "name"]
MODEL_SORTS: tuple[ModelSort, ...] = get_args(ModelSort)


class ModelQuery(Frozen):
    """Which models, in which order: `name` is contained in the name, whatever the case."""

    name: str = Field(default="", max_length=MAX_MODEL_NAME)
    sort: ModelSort = "updated"
    size: int = Field(default=PAGE_MODELS, ge=1, le=1000)


class ModelPage(Frozen):
    """Some models, and what to ask with for those after them."""

    models: tuple[RegisteredModel, ...] = ()
    next_token: str | None = None


class VersionPage(Frozen):
    """Some versions of a model, newest first, and what to ask with for those after them."""

    versions: tuple[ModelVersion, ...] = ()
    next_token: str | None = None


class RegisterRequest(Frozen):
    """What a person asks for when registering a Run's program."""

    run_id: str
    name: str
    description: str = ""
    stage: Stage = "None"
    who: str
    why: str = ""
    gate: GateRecord | None = None


class ModelRegistry(Protocol):
    """MLflow's model registry. Every method raises UnavailableError when the server does not answer."""

    def register(
        self,
        request: RegisterRequest,
        program: CompiledProgram,
        *,
        tags: dict[str, str],
        input_example: dict[str, Any],
    ) -> ModelVersion:
        """Log the program as a model of the Run and make a version of it.

        Raises ConflictError when the Run is already registered under that name.
        """
        ...

    def get_version(self, name: str, version: int) -> ModelVersion:
        """Raises NotFoundError."""
        ...

    def get_by_stage(self, name: str, stage: Stage) -> ModelVersion:
        """The version that holds the stage: by alias, else by MLflow's own stage. Raises NotFoundError."""
        ...

    def get_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that holds an alias. Raises NotFoundError."""
        ...

    def search_versions(self, name: str | None = None, *, promoted: bool = False) -> Sequence[ModelVersion]:
        """All versions, newest first; `promoted`: those that were in Production, as far as they are marked as such.

        What left Production before DSPyUI marked versions is not.
        """
        ...

    def page(self, query: ModelQuery, token: str | None = None) -> ModelPage:
        """A page of the models, no prompts. Raises BadRequestError for a token that is none."""
        ...

    def get_model(self, name: str) -> RegisteredModel:
        """Raises NotFoundError."""
        ...

    def version_page(self, name: str, token: str | None = None, *, size: int = PAGE_MODELS) -> VersionPage:
        """A page of a model's versions. Raises BadRequestError for a token that is none."""
        ...

    def set_stage(
        self,
        name: str,
        version: int,
        stage: Stage,
        *,
        who: str,
        why: str = "",
        kind: ChangeKind = "move",
        gate: GateRecord | None = None,
    ) -> ModelVersion:
        """Move a version; the one that held Staging or Production before moves to Archived.

        However many do that at once, from however many servers, one version holds the stage in the end, and each
        one's entry is in the audit record. Raises NotFoundError.
        """
        ...

    def set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Give a version an alias, taking it from another. Raises NotFoundError."""
        ...

    def delete_alias(self, name: str, alias: str) -> None:
        """Raises NotFoundError when no version has it."""
        ...

    def describe(self, name: str, version: int | None, description: str) -> None:
        """Give a version, or with None the model, a description. Raises NotFoundError."""
        ...

    def set_tags(self, name: str, version: int | None, tags: Mapping[str, str | None]) -> None:
        """Set tags of a version or of the model; None takes one away. Raises NotFoundError."""
        ...

    def delete_version(self, name: str, version: int) -> None:
        """For good. Raises NotFoundError."""
        ...

    def delete_model(self, name: str) -> None:
        """With all its versions, for good. Raises NotFoundError."""
        ...

    def program(self, version: ModelVersion) -> CompiledProgram:
        """The version's program, read from its JSON; nothing is unpickled.

        Raises NotFoundError, whose code says whether it holds a pickle (`registry.only_pickle`) or something else.
        """
        ...

    def unloadable(self, version: ModelVersion) -> Fault | None:
        """Why the version's program cannot be loaded here; None when it can. No file of it is opened but `MLmodel`."""
        ...
