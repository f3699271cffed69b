"""Language models: which one, with what settings, in which role. Never a key."""

import re
from typing import Literal, Protocol, Self

from pydantic import Field, model_validator

from dspyui.domain.base import Frozen
from dspyui.errors import BadRequestError

LOCAL_PROVIDER = "local"
LOCAL_MODEL = "local/smollm2-135m"
LMRole = Literal["task", "prompt", "teacher", "judge"]
# OpenAI's models that think before they answer, by the end of their name, whoever serves them. DSPy makes no LM of one
# with another temperature or fewer tokens; a test compares this with DSPy.
_REASONING = re.compile(r"o[1345](-mini|-nano|-pro)?(-\d{4}-\d\d-\d\d)?|gpt-5(\.\d+)*(-(?!chat).*)?")
_REASONING_TEMPERATURE, _REASONING_TOKENS = 1, 16_000


def _is_local(model: str) -> bool:
    return model.startswith(f"{LOCAL_PROVIDER}/")


def _check_model(model: str, api_base: str | None) -> None:
    provider, _, name = model.partition("/")
    if not provider.strip() or not name.strip() or model != model.strip():
        raise BadRequestError("lm.model", model=model)
    if _is_local(model) and model != LOCAL_MODEL:
        raise BadRequestError("lm.local_unknown", model=model, known=LOCAL_MODEL)
    if api_base is not None and not api_base.startswith(("http://", "https://")):
        raise BadRequestError("lm.api_base", address=api_base)
    if api_base is not None and "@" in api_base.split("/", 3)[2]:
        # A spec is recorded and shown; a key in an address would be too.
        raise BadRequestError("lm.api_base_key")


class ModelSpec(Frozen):
    """What every kind of model has: `provider/model` (LiteLLM's names), and where it is.

    `api_base` is the address of an OpenAI-compatible server (`openai/<its model>` goes with it).
    `api_key_env` names the environment variable that holds the key; unset means the provider's own.
    """

    model: str = LOCAL_MODEL
    api_base: str | None = None
    api_key_env: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_model(self.model, self.api_base)
        return self

    @property
    def is_local(self) -> bool:
        """Whether this is the bundled model."""
        return _is_local(self.model)

    def settings(self) -> dict[str, str | int | float | bool | None]:
        """Everything but the model's name, as recorded."""
        return self.model_dump(exclude={"model"}, exclude_none=True)


class LMSpec(ModelSpec):
    """One language model, with its settings.

    `max_tokens` bounds one reply. `cache` reuses the reply to a request that was made before. `timeout` is how
    long a server may be silent before the call counts as failed, in seconds; `num_retries` how often a call that
    failed for a while (rate limit, timeout, a server's own fault) or gave an empty reply is made again.
    """

    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    cache: bool = True
    num_retries: int = Field(default=3, ge=0, le=20)
    timeout: float = Field(default=180, gt=0, le=3600)

    @property
    def is_reasoning(self) -> bool:
        """Whether its name is that of one of OpenAI's models that think before they answer."""
        return bool(_REASONING.fullmatch(self.model.rpartition("/")[2].casefold()))

    def check_settings(self) -> None:
        """Raise BadRequestError for settings that the model does not take, and that DSPy would refuse."""
        if not self.is_reasoning:
            return
        is_hot = bool(self.temperature) and self.temperature != _REASONING_TEMPERATURE
        if is_hot or (self.max_tokens or _REASONING_TOKENS) < _REASONING_TOKENS:
            raise BadRequestError("lm.reasoning", model=self.model, tokens=_REASONING_TOKENS)


class EmbedderSpec(ModelSpec):
    """A model that turns text into vectors."""


class LMRoles(Frozen):
    """Who does what. A role that is None is played by the task LM.

    `task` answers the rows; `prompt` writes instructions and reflects on mistakes; `teacher` makes
    demonstrations; `judge` scores answers. `embedder` turns text into vectors; without one, what needs it
    cannot run.
    """

    task: LMSpec = LMSpec()
    prompt: LMSpec | None = None
    teacher: LMSpec | None = None
    judge: LMSpec | None = None
    embedder: EmbedderSpec | None = None

    def by_role(self) -> dict[LMRole, LMSpec]:
        """The LM of every role that is set."""
        roles: dict[LMRole, LMSpec | None] = {
            "task": self.task, "prompt": self.prompt, "teacher": self.teacher, "judge": self.judge,
        }  # fmt: skip
        return {role: lm for role, lm in roles.items() if lm is not None}

    def models(self) -> dict[str, ModelSpec]:
        """The same, and the embedder."""
        embedder = {} if self.embedder is None else {"embedder": self.embedder}
        return {**self.by_role(), **embedder}

    @property
    def uses_local(self) -> bool:
        """Whether any role needs the bundled model's server."""
        return any(model.is_local for model in self.models().values())


class LocalLMState(Frozen):
    """What is known of the bundled model's server. `base_url` ends in `/v1`."""

    status: Literal["off", "missing", "stopped", "starting", "ready", "failed"]
    base_url: str | None = None
    detail: str = ""


class LocalLM(Protocol):
    """The bundled language model behind its own OpenAI-compatible server on loopback."""

    def ensure(self) -> str:
        """Start the server if it is not running, wait until it answers, return its base URL (ends in `/v1`).

        Raises UnavailableError when it is switched off, not installed, damaged, or does not come up.
        """
        ...

    def state(self) -> LocalLMState:
        """What is known now; starts nothing and does not wait."""
        ...

    def close(self) -> None:
        """Let go of it; it ends when nobody holds it any more."""
        ...
