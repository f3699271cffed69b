"""Registered models, their versions and stages."""

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from dspyui.domain.base import Frozen
from dspyui.domain.programs import CompiledProgram
from dspyui.errors import BadRequestError

Stage = Literal["None", "Staging", "Production", "Archived"]
STAGES: tuple[Stage, ...] = get_args(Stage)
STAGE_ALIASES: dict[Stage, str] = {"Staging": "staging", "Production": "production"}
MAX_MODEL_NAME = 200
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


def _is_word(char: str) -> bool:
    return char in "_-" or unicodedata.category(char)[0] in {"L", "M"} or unicodedata.category(char) == "Nd"


class StageChange(Frozen):
    """One entry of a version's audit record."""

    who: str
    at: datetime
    from_stage: Stage
    to_stage: Stage
    why: str = ""


class ModelVersion(Frozen):
    """A version of a registered model; `model_uri` is `models:/NAME/VERSION`."""

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


class RegisterRequest(Frozen):
    """What a person asks for when registering a Run's program."""

    run_id: str
    name: str
    description: str = ""
    stage: Stage = "None"
    who: str


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

    def search_versions(self, name: str | None = None) -> Sequence[ModelVersion]:
        """All versions, newest first."""
        ...

    def set_stage(self, name: str, version: int, stage: Stage, *, who: str, why: str = "") -> ModelVersion:
        """Move a version; the one that held Staging or Production before moves to Archived."""
        ...

    def program(self, version: ModelVersion) -> CompiledProgram:
        """The version's program, read from its JSON; nothing is unpickled."""
        ...
