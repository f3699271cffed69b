"""Language models as people choose them: which can be called now, with whose key, and whether one answers."""

from collections.abc import Sequence
from threading import Event
from typing import Final

from pydantic import SecretStr

from dspyui.domain.base import Fault, Frozen
from dspyui.domain.engine import LMReply, LMTester
from dspyui.domain.estimates import Price, PriceList
from dspyui.domain.lms import LOCAL_MODEL, LMRoles, LMSpec, ModelSpec
from dspyui.domain.providers import PROVIDERS, KeyState, Provider, is_key_name, key_variables
from dspyui.errors import BadRequestError, FailedError
from dspyui.services.keys import KeyRules
from dspyui.settings import Settings

_LONGEST_KEY = 4096


# What a test may find of a key itself, and not of the model or the network.
_REFUSED: Final = frozenset({"engine.auth", "engine.billing"})


class ProviderState(Frozen):
    """A provider, and where the key for it is: `variable` is the one that holds it, or the usual one."""

    provider: Provider
    variable: str
    state: KeyState


class KeyTest(Frozen):
    """What the last call with a key said: it works, in so many seconds, or why not."""

    model: str
    seconds: float = 0.0
    problem: Fault | None = None

    @property
    def is_refused(self) -> bool:
        """Whether the provider has said that the key itself is no good; a network that is down says nothing of it."""
        return self.problem is not None and self.problem.code in _REFUSED


class LMService:
    """Keys and models. A key is taken and never given back: not its value, not a part of it."""

    def __init__(self, settings: Settings, tester: LMTester, prices: PriceList) -> None:
        self._settings = settings
        self._tester = tester
        self._prices = prices
        self._tests: dict[str, KeyTest] = {}

    def key_state(self, variable: str) -> KeyState:
        """Whether a variable holds a key, and whose."""
        if variable in self._settings.keys:
            return "typed"
        return "environment" if self._settings.child_environment.get(variable, "").strip() else "unset"

    def set_key(self, variable: str, key: SecretStr) -> None:
        """Keep a key in this process's memory, for child processes that start from now on.

        Raises BadRequestError for a name that is no key's and for a key that cannot be one.
        """
        name = variable.strip()
        if not is_key_name(name):
            raise BadRequestError("lm.key_name", variable=name[:100])
        value = key.get_secret_value().strip()
        if not value or len(value) > _LONGEST_KEY or not value.isascii() or not value.isprintable():
            raise BadRequestError("lm.key_value", variable=name)
        self._settings.keys.set(name, SecretStr(value))
        self._tests.pop(name, None)

    def clear_key(self, variable: str) -> None:
        """Forget a key that was typed in; what the environment holds counts again."""
        self._settings.keys.clear(variable)
        self._tests.pop(variable, None)

    def key_test(self, variable: str) -> KeyTest | None:
        """What the last test with this key said; None when it was not tested since it was set."""
        return self._tests.get(variable)

    def typed(self) -> Sequence[str]:
        """The variables that were typed in, by name."""
        return sorted(self._settings.keys.environment())

    def providers(self) -> Sequence[ProviderState]:
        """Every provider of the table."""
        return [self._state(provider) for provider in PROVIDERS.values()]

    def _state(self, provider: Provider) -> ProviderState:
        for variable in provider.key_variables:
            if (state := self.key_state(variable)) != "unset":
                return ProviderState(provider=provider, variable=variable, state=state)
        return ProviderState(provider=provider, variable=provider.key_variables[0], state="unset")

    def models(self) -> Sequence[str]:
        """Models that can be called now: of the providers whose key is set, and the bundled one."""
        offered = [
            model for found in self.providers() if found.state != "unset" for model in found.provider.models
        ]
        asked = self._settings.lm_model
        return list(dict.fromkeys([*([asked] if asked else []), LOCAL_MODEL, *offered]))

    def default(self) -> LMSpec:
        """The model a new form begins with: that of DSPYUI_LM_MODEL, else one whose key is set, else the bundled.

        A key that its provider was seen to refuse counts as none.
        """
        settings = self._settings
        if settings.lm_model:
            return LMSpec(model=settings.lm_model, api_base=settings.lm_api_base)
        ready = [
            found.provider
            for found in self.providers()
            if found.state != "unset" and found.provider.models and not self._is_refused(found.variable)
        ]
        return LMSpec(model=ready[0].models[0]) if ready else LMSpec()

    def _is_refused(self, variable: str) -> bool:
        test = self._tests.get(variable)
        return test is not None and test.is_refused

    def price(self, lm: ModelSpec) -> Price | None:
        """What a token of the model costs; None when it is not known.

        The bundled one costs nothing. A server of somebody's own may call its model as it likes: a provider's price
        says nothing about it.
        """
        if lm.is_local:
            return Price(input=0.0, output=0.0)
        return None if lm.api_base else self._prices.find(lm.model)

    def check(self, lms: LMRoles) -> None:
        """Raise BadRequestError for the first role whose key is missing, or may not go where it would."""
        KeyRules.of(self._settings).check(lms)

    def test(self, lm: LMSpec, cancelled: Event | None = None) -> LMReply:
        """Ask the model one thing, for real.

        Raises BadRequestError when its key is missing, FailedError when it fails, CancelledError soon after
        `cancelled` is set.
        """
        self.check(LMRoles(task=lm))
        try:
            reply = self._tester.test(lm, cancelled or Event())
        except FailedError as exc:
            self._note(lm, KeyTest(model=lm.model, problem=Fault.of(exc)))
            raise
        self._note(lm, KeyTest(model=lm.model, seconds=reply.seconds))
        return reply

    def _note(self, lm: LMSpec, test: KeyTest) -> None:
        used = key_variables(lm.model, lm.api_base, lm.api_key_env)
        held = [variable for variable in used if self.key_state(variable) != "unset"]
        # What a server of somebody's own makes of a provider's key says nothing about the key.
        elsewhere = lm.api_base is not None and any(
            held[:1] == [variable] for provider in PROVIDERS.values() for variable in provider.key_variables
        )
        if held and not elsewhere:
            self._tests[held[0]] = test
