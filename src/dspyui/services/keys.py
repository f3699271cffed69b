"""Language models before a job runs: whether somebody offers them, whether the keys that are needed are there, and
where they may go. The values of the keys are never looked at."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from dspyui.domain.lms import LMRoles, LMSpec, ModelSpec
from dspyui.domain.providers import check_provider, is_key_name, key_variables, missing_key
from dspyui.errors import BadRequestError
from dspyui.settings import Settings


@dataclass(frozen=True, slots=True)
class KeyRules:
    """What is checked before a job runs, not while.

    `shared`: others than the one who started the program can reach it. They may not have a key of the environment, or
    one that somebody typed in, sent to an address of theirs: it goes to its provider, and to the `addresses` that the
    operator named.
    """

    environment: Mapping[str, str]
    shared: bool = False
    addresses: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The rules of this process."""
        named = re.split(r"[\s,;]+", settings.key_addresses or "")
        addresses = tuple(address for address in (settings.lm_api_base, *named) if address)
        return cls(settings.lm_environment, not settings.is_loopback, addresses)

    def check(self, lms: LMRoles) -> None:
        """Raise BadRequestError for the first role whose provider nobody knows, whose model does not take its settings,
        or whose key is missing or may not go where it would."""
        for role, lm in lms.models().items():
            check_provider(lm.model)
            if isinstance(lm, LMSpec):
                lm.check_settings()
            if self.shared:
                self._check_place(role, lm)
            if variable := missing_key(lm, self.environment):
                raise BadRequestError("lm.key_unset", variable=variable, role=role, model=lm.model)

    def check_reach(self, lms: LMRoles) -> None:
        """Raise BadRequestError for the first role whose server is on "this machine": on the one that asked, that is.

        Unless this one's operator has named the same address.
        """
        for role, lm in lms.models().items():
            if lm.api_base is None or self._allows(lm.api_base):
                continue
            host = urlsplit(lm.api_base).hostname or ""
            if host == "localhost" or host.startswith("127.") or host in {"::1", "0.0.0.0"}:  # noqa: S104 - compared with
                raise BadRequestError("sharing.loopback", role=role, address=lm.api_base)

    def _check_place(self, role: str, lm: ModelSpec) -> None:
        if lm.api_key_env and not is_key_name(lm.api_key_env):
            raise BadRequestError("lm.key_variable", variable=lm.api_key_env[:100], role=role)
        if lm.is_local or lm.api_base is None or self._allows(lm.api_base):
            return
        for variable in key_variables(lm.model, lm.api_base, lm.api_key_env):
            # Without a key nothing is sent that could be taken.
            if lm.api_key_env or self.environment.get(variable, "").strip():
                raise BadRequestError("lm.key_address", variable=variable, role=role, address=lm.api_base)

    def _allows(self, address: str) -> bool:
        return any(_is_within(address, allowed) for allowed in self.addresses)


def _is_within(address: str, allowed: str) -> bool:
    """Whether an address is the allowed one or below it."""
    given, known = urlsplit(address), urlsplit(allowed)
    if (given.scheme, _port(address), given.hostname) != (known.scheme, _port(allowed), known.hostname):
        return False
    path = given.path.rstrip("/") + "/"
    return ".." not in path and path.startswith(known.path.rstrip("/") + "/")


def _port(address: str) -> int | None:
    parts = urlsplit(address)
    try:
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
