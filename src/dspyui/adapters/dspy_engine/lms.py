"""Our LM specs as DSPy's LMs. Keys come from the environment that is passed in, and go nowhere else."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

import dspy
from dspy._vendor.lm15.transports import ReadTimeout
from dspy.clients import costs, execution
from dspy.clients.model_metadata import model_info
from dspy.lm15 import AccessPolicy, ModelSupport, OpenAIChatCompat, ProviderDefinition, register_provider
from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMError,
    LMInvalidRequestError,
    LMNotConfiguredError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
    LMUnsupportedModelError,
    is_retryable_lm_error,
)

from dspyui.adapters.dspy_engine.meter import LOCAL_ALIAS, OWN_ALIAS, Meter, shown_model
from dspyui.adapters.dspy_engine.provider_words import plain_words
from dspyui.domain.lms import LMSpec, ModelSpec
from dspyui.domain.providers import OWN_SERVER_KEY, key_variables
from dspyui.errors import BadRequestError, FailedError, RefusedError
from dspyui.settings import Redactor

_PLACEHOLDER_KEY = "none"

# A provider that asks for a longer wait than this gets no further try; in seconds. DSPy would sleep for whatever
# is asked, a day if need be, and nobody would know why the job stands still.
LONGEST_WAIT = 120.0

Price = Literal["listed", "free", "unknown"]


class EmptyReplyError(LMError):
    """The model answered, and said nothing."""

    default_code = "empty_reply"


class KeyRefusedError(LMAuthError):
    """The provider refused the key of `variable`; of "" when none was sent, of None when nobody knows whose it was."""

    def __init__(self, exc: LMAuthError, variable: str | None) -> None:
        super().__init__(
            exc.message,
            code=exc.code,
            model=exc.model,
            provider=exc.provider,
            provider_code=exc.provider_code,
            status=exc.status,
            request_id=exc.request_id,
            retry_after=exc.retry_after,
        )
        self.variable = variable


class PricedLM(dspy.LM):
    """A DSPy LM that tells the meter what each of its calls has cost, keeps no history, and takes no empty reply.

    DSPy works the cost out of the provider's own count of tokens and a list of prices that comes with it, and
    hands it over in the entry of its history alone.
    """

    price: Price = "listed"
    key_variable: str | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Ask; `num_retries` more times when the reply is empty, which a cached one may be too.

        Raises EmptyReplyError when it still is: no answer is no wrong answer. LiteLLM's errors know a model without
        its provider; they leave with both, and a refused key with its variable.
        """
        try:
            for again in range(self.num_retries + 1):
                said = super().__call__(*args, **(kwargs | {"cache": False} if again else kwargs))
                if not _is_empty(said):
                    return said
        except LMError as exc:
            exc.model = self.model
            if isinstance(exc, LMAuthError):
                raise KeyRefusedError(exc, self.key_variable) from exc
            raise
        meter = dspy.settings.usage_tracker
        if isinstance(meter, Meter):
            meter.add_error()
        raise EmptyReplyError("The reply was empty.", model=self.model)

    def update_history(self, entry: dict[str, Any]) -> None:
        """One call has ended well."""
        meter = dspy.settings.usage_tracker
        if isinstance(meter, Meter):
            cost = {"listed": entry.get("cost"), "free": 0.0, "unknown": None}[self.price]
            meter.add_cost(cost)


def _is_empty(said: Any) -> bool:
    """Whether none of the replies to one prompt holds anything."""
    return isinstance(said, list) and not any(map(_holds_anything, said))


def _holds_anything(reply: Any) -> bool:
    if not isinstance(reply, Mapping):
        return bool(str(reply or "").strip())
    return bool(str(reply.get("text") or "").strip() or reply.get("tool_calls"))


def limit_waits() -> None:
    """Keep DSPy's client from waiting longer than `LONGEST_WAIT` when a provider asks for it (Retry-After).

    The client has no setting for it; a test holds the place it is done at.
    """
    execution.is_retryable_lm_error = _is_worth_a_wait  # pyright: ignore[reportPrivateImportUsage]


def _is_worth_a_wait(error: Exception) -> bool:
    return is_retryable_lm_error(error) and (getattr(error, "retry_after", None) or 0) <= LONGEST_WAIT


def remember_prices() -> None:
    """Let DSPy look a model up in its price list once, not at each call.

    For a model that is not listed it searches the whole list twice a call, which is two fifths of the time that a call
    takes in this process. A test holds the place it is done at.
    """
    costs.model_info = _remembered_info  # pyright: ignore[reportPrivateImportUsage]


def _remembered_info(
    provider: str, model: str, *, namespaces: Iterable[str] | None = None
) -> Mapping[str, Any]:
    return _info(provider, model, None if namespaces is None else tuple(namespaces))


@lru_cache(maxsize=256)
def _info(provider: str, model: str, namespaces: tuple[str, ...] | None) -> Mapping[str, Any]:
    return model_info(provider, model, namespaces=namespaces)


def register_local(base_url: str) -> None:
    """Tell DSPy of the bundled model's server, before any LM of it is built.

    Only a registered provider is sent the JSON schema (`response_format`); without it the small model's
    replies cannot be read.
    """
    register_provider(
        ProviderDefinition.chat(
            AccessPolicy(provider=LOCAL_ALIAS, env_keys=(), base_url=base_url),
            compat=OpenAIChatCompat(json_schema="send"),
            placeholder_key="local",
        ),
        supports=ModelSupport(response_schema=True),
        # Another server than the one before, when it was started anew on another port.
        replace=True,
    )


def _register_own() -> None:
    """Tell DSPy how servers of people's own take the longest reply: as `max_tokens`.

    What DSPy sends to OpenAI itself, `max_completion_tokens`, is passed over in silence by Ollama
    (ollama/ollama#7125), llamafile and older llama.cpp, whose replies would then have no end.
    """
    register_provider(
        ProviderDefinition.chat(
            # Every LM of it brings an address of its own.
            AccessPolicy(provider=OWN_ALIAS, env_keys=(), base_url="http://localhost/v1"),
            compat=replace(OpenAIChatCompat.preset("openai"), max_tokens_field="max_tokens"),
            placeholder_key=_PLACEHOLDER_KEY,
        ),
        metadata_namespaces=("openai",),
    )


def _own_name(spec: LMSpec) -> str | None:
    """What DSPy is told to call the model of an OpenAI-compatible server that is not OpenAI's; None for any other.

    A model that thinks before it answers is OpenAI's, whoever stands in between, and knows the new name alone.
    """
    provider, _, name = spec.model.partition("/")
    host = urlsplit(spec.api_base or "").hostname or ""
    if provider != "openai" or not host or spec.is_reasoning or f".{host}".endswith(".openai.com"):
        return None
    return f"{OWN_ALIAS}/{name}"


def to_dspy(spec: LMSpec, environment: Mapping[str, str]) -> dspy.LM:
    """A DSPy LM. Raises BadRequestError when the variable that should hold the key is not set.

    A key of a provider is never sent to an address of the person's own: with `api_base`, only the variable
    named in `api_key_env`, else `DSPYUI_LM_API_KEY`, is used.
    """
    options: dict[str, Any] = {
        "cache": spec.cache,
        "num_retries": spec.num_retries,
        "temperature": spec.temperature,
        "max_tokens": spec.max_tokens,
        "timeout": spec.timeout,
    }
    if spec.is_local:
        return _priced(f"{LOCAL_ALIAS}/{spec.model.partition('/')[2]}", "free", options)
    if key := find_key(spec, environment):
        options["api_key"] = key
    if spec.api_base:
        options["api_base"] = spec.api_base
    if own := _own_name(spec):
        _register_own()
    # A server of somebody's own may call its model as it likes: a provider's price says nothing about it.
    price: Price = "unknown" if spec.api_base else "listed"
    return _priced(own or spec.model, price, options, key_variable(spec, environment))


def _priced(model: str, price: Price, options: Mapping[str, Any], variable: str | None = None) -> dspy.LM:
    made = PricedLM(model, **options)
    made.price = price
    made.key_variable = variable
    return made


def find_key(spec: ModelSpec, environment: Mapping[str, str]) -> str | None:
    """The key that goes with a model; None leaves it to the provider's own variable."""
    if spec.api_key_env:
        if not environment.get(spec.api_key_env):
            raise BadRequestError("engine.key_unset", variable=spec.api_key_env, model=spec.model)
        return environment[spec.api_key_env]
    if spec.api_base:
        return environment.get(OWN_SERVER_KEY) or _PLACEHOLDER_KEY
    return None


def key_variable(spec: ModelSpec, environment: Mapping[str, str]) -> str | None:
    """The variable whose key goes with a model: "" when none is sent, None when that is left to LiteLLM."""
    known = key_variables(spec.model, spec.api_base, spec.api_key_env)
    held = [variable for variable in known if environment.get(variable, "").strip()]
    if held:
        return held[0]
    return "" if spec.api_base else None


def adapter_for(spec: LMSpec) -> dspy.Adapter:
    """The bundled model needs its replies held to a JSON schema; others get DSPy's default."""
    return dspy.JSONAdapter() if spec.is_local else dspy.ChatAdapter()


# Specific classes before their parents.
_CODES: tuple[tuple[type[LMError], str], ...] = (
    (EmptyReplyError, "engine.empty_reply"),
    (LMAuthError, "engine.auth"),
    (LMBillingError, "engine.billing"),
    (LMRateLimitError, "engine.rate_limit"),
    (LMTimeoutError, "engine.timeout"),
    (LMUnsupportedModelError, "engine.model_unknown"),
    (ContextWindowExceededError, "engine.context_window"),
    (LMInvalidRequestError, "engine.invalid_request"),
    (LMServerError, "engine.server"),
    (LMTransportError, "engine.transport"),
    (LMNotConfiguredError, "engine.not_configured"),
    (LMConfigurationError, "engine.configuration"),
    (LMProviderError, "engine.no_reply"),
)
_NOT_FOUND = 404


# What no later call will change.
_FINAL = frozenset(
    {
        "engine.auth",
        "engine.key_needed",
        "engine.billing",
        "engine.model_unknown",
        "engine.not_found",
        "engine.invalid_request",
        "engine.not_configured",
        "engine.configuration",
        "engine.rate_limit_long",
    }
)


def failed(
    exc: LMError, redact: Redactor, *, model: str | None = None, variable: str | None = None
) -> FailedError:
    """The error a person reads for a failure of the LM, its own words included, every key blotted out.

    `model` is the name to show; None takes the one that the error knows. `variable` is the one whose key was sent
    (see `key_variable`), when the error does not know it.
    """
    code = next((code for kind, code in _CODES if isinstance(exc, kind)), "engine.unexpected")
    wait = exc.retry_after or 0
    if code == "engine.transport" and _timed_out(exc):
        code = "engine.timeout"
    elif code == "engine.invalid_request" and exc.status == _NOT_FOUND:
        # What most servers answer for a model they do not have, and for an address that is not theirs.
        code = "engine.not_found"
    elif code == "engine.rate_limit" and wait > LONGEST_WAIT:
        code = "engine.rate_limit_long"
    more: dict[str, Any] = {"minutes": round(wait / 60)} if code == "engine.rate_limit_long" else {}
    if code == "engine.auth":
        sent = exc.variable if isinstance(exc, KeyRefusedError) else variable
        # Without a key there is none that could be wrong.
        code, more = ("engine.key_needed", {}) if sent == "" else (code, {"variable": sent} if sent else {})
    kind = RefusedError if code in _FINAL else FailedError
    # Cut after the keys are gone: half a key would not be found any more.
    problem = redact(" ".join(_said(exc).split()))[:500]
    return kind(code, model=shown_model(model or exc.model or "LM"), problem=problem, **more)


def _said(exc: LMError) -> str:
    """The provider's words; when it had none, its HTTP status or what kind of error it is."""
    bare = f"HTTP {exc.status}" if exc.status else type(exc).__name__
    # Half a character, which JSON can hold, can be written to no file.
    return plain_words(str(exc.message or "")).encode("utf-8", "replace").decode() or bare


def _timed_out(exc: BaseException) -> bool:
    """Whether a reply did not come in time: DSPy's own client counts that among the faults of the network."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ReadTimeout):
            return True
        cause = cause.__cause__
    return False
