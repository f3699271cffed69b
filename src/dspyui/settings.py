"""Every setting: environment variables, and a `.env` file beside them that the environment outranks.

This is the only place that reads the environment. The entry point makes one frozen `Settings` and passes it on.
"""

import json
import os
import re
import threading
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, quote_plus, unquote, urlsplit

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails

from dspyui.errors import BadRequestError
from dspyui.i18n import Language, language_of

DEFAULT_TRACKING_URI = "http://localhost:5000"
# Whether a promotion to Production is compared with what is there: not at all, with a warning, or as a condition.
PromotionGate = Literal["off", "warn", "require"]
# MLflow's own variables for its login and its certificates; they are passed on to it as they are.
MLFLOW_LOGIN_VARIABLES = (
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_INSECURE_TLS",
)


class KeyRing:
    """Keys a person typed in, by the name of the variable they stand for: in this process's memory, nowhere else.

    Child processes get them with their environment when they start. Thread-safe.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._typed: dict[str, SecretStr] = {}
        self._secret_names: frozenset[str] = frozenset()

    def set(self, variable: str, key: SecretStr) -> None:
        """Keep a key; it goes before the environment's from now on."""
        with self._lock:
            self._typed = {**self._typed, variable: key}

    def clear(self, variable: str) -> None:
        """Forget it; nothing happens when there is none."""
        with self._lock:
            self._typed = {name: key for name, key in self._typed.items() if name != variable}

    def mark_secret(self, variables: Iterable[str]) -> None:
        """Variables whose values are to be hidden, whatever their names say."""
        with self._lock:
            self._secret_names |= frozenset(variables)

    def __contains__(self, variable: str) -> bool:
        return variable in self._typed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyRing) and self.environment() == other.environment()

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def environment(self) -> dict[str, str]:
        """The typed keys as variables, for a process that calls language models."""
        return {name: key.get_secret_value() for name, key in self._typed.items()}

    @property
    def secret_names(self) -> frozenset[str]:
        """Names of variables that hold a secret for certain."""
        return self._secret_names | frozenset(self._typed)


class _LMEnvironment(Mapping[str, str]):
    def __init__(self, given: Mapping[str, str], keys: KeyRing) -> None:
        self._given = given
        self._keys = keys

    def _now(self) -> dict[str, str]:
        return {**self._given, **self._keys.environment()}

    def __getitem__(self, name: str) -> str:
        return self._now()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())


class Settings(BaseModel):
    """What the program was told. The alias of a field is the name of its environment variable."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, arbitrary_types_allowed=True)

    mlflow_enabled: bool = Field(default=True, alias="MLFLOW_ENABLED")
    mlflow_tracking_uri: str | None = Field(default=None, alias="MLFLOW_TRACKING_URI")
    mlflow_experiment_name: str = Field(default="dspyui-experiments", alias="MLFLOW_EXPERIMENT_NAME")
    mlflow_log_traces: bool = Field(default=True, alias="MLFLOW_LOG_TRACES")
    mlflow_log_traces_from_compile: bool = Field(default=False, alias="MLFLOW_LOG_TRACES_FROM_COMPILE")
    mlflow_log_traces_from_eval: bool = Field(default=True, alias="MLFLOW_LOG_TRACES_FROM_EVAL")
    mlflow_log_compiles: bool = Field(default=True, alias="MLFLOW_LOG_COMPILES")
    mlflow_log_evals: bool = Field(default=True, alias="MLFLOW_LOG_EVALS")
    mlflow_backend_store_uri: str = Field(
        default="sqlite:///mlflow_data/mlflow.db", alias="MLFLOW_BACKEND_STORE_URI"
    )
    mlflow_artifact_root: str = Field(default="mlartifacts", alias="MLFLOW_ARTIFACT_ROOT")
    mlflow_log_file: Path = Field(default=Path("mlflow_data/mlflow.log"), alias="MLFLOW_LOG_FILE")

    home: Path = Field(default=Path("dspyui_data"), alias="DSPYUI_HOME")
    host: str = Field(default="127.0.0.1", alias="DSPYUI_HOST")
    port: int = Field(default=7860, ge=1, le=65535, alias="DSPYUI_PORT")
    language: Language | None = Field(default=None, alias="DSPYUI_LANGUAGE")
    auth: SecretStr | None = Field(default=None, alias="DSPYUI_AUTH")
    allowed_hosts: str | None = Field(default=None, alias="DSPYUI_ALLOWED_HOSTS")
    max_upload_mb: int = Field(default=100, ge=1, alias="DSPYUI_MAX_UPLOAD_MB")
    local_lm: bool = Field(default=True, alias="DSPYUI_LOCAL_LM")
    lm_model: str | None = Field(default=None, alias="DSPYUI_LM_MODEL")
    lm_api_base: str | None = Field(default=None, alias="DSPYUI_LM_API_BASE")
    key_addresses: str | None = Field(default=None, alias="DSPYUI_KEY_ADDRESSES")
    allow_code: bool = Field(default=False, alias="DSPYUI_ALLOW_CODE")
    workers: int = Field(default=2, ge=1, le=64, alias="DSPYUI_WORKERS")
    database_url: SecretStr | None = Field(default=None, alias="DSPYUI_DATABASE_URL")
    trace_sample: float = Field(default=1.0, ge=0, le=1, alias="DSPYUI_TRACE_SAMPLE")
    promotion_gate: PromotionGate = Field(default="warn", alias="DSPYUI_PROMOTION_GATE")
    trace_disk_mb: int = Field(default=2000, ge=0, alias="DSPYUI_TRACE_DISK_MB")

    # Not settings of their own: how the program was started, and what its children inherit.
    force_local_mlflow: bool = False
    insecure: bool = False
    child_environment: Mapping[str, str] = Field(default_factory=dict, repr=False)
    keys: KeyRing = Field(default_factory=KeyRing, repr=False, exclude=True)

    @field_validator("language", mode="before")
    @classmethod
    def _language(cls, value: Any) -> Any:
        return language_of(value) or value

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, value: SecretStr | None) -> SecretStr | None:
        kind = urlsplit(value.get_secret_value()).scheme.partition("+")[0] if value else "postgresql"
        if kind not in {"postgresql", "postgres"}:
            raise BadRequestError("settings.database_url")
        return value

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _tracking_uri(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise BadRequestError("settings.tracking_uri", value=without_passwords(value))
        if "@" in parts.netloc:
            # The address is shown, and recorded with every job.
            raise BadRequestError("settings.tracking_uri_login")
        return value.rstrip("/")

    @classmethod
    def load(
        cls,
        env_file: Path = Path(".env"),
        environ: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Self:
        """Read the environment and `.env` (parsed, never run). `overrides` are command-line flags, by field name.

        An empty value counts as unset. Raises BadRequestError naming the variable that is wrong.
        """
        merged = _merged(env_file, environ)
        if overrides.get("force_local_mlflow"):
            # The flag outranks the setting, also one that could not be used. Empty, not left out: a child reads `.env`
            # too, and its environment outranks that.
            merged["MLFLOW_TRACKING_URI"] = ""
        names = {field.alias for field in cls.model_fields.values() if field.alias}
        given: dict[str, Any] = {name: merged[name] for name in names if merged.get(name, "").strip()}
        by_name = {name: field.alias or name for name, field in cls.model_fields.items()}
        given |= {by_name[name]: value for name, value in overrides.items() if value is not None}
        try:
            return cls.model_validate({**given, "child_environment": merged})
        except ValidationError as exc:
            raise _said(exc.errors()[0]) from exc

    @property
    def tracking_uri(self) -> str:
        """The address asked for, or the default one."""
        return self.mlflow_tracking_uri or DEFAULT_TRACKING_URI

    @property
    def trace_budget(self) -> int:
        """How many bytes traces may take on disk while they wait for MLflow; 0: as many as there are."""
        return self.trace_disk_mb * 1_000_000

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def process_environment(self) -> dict[str, str]:
        """What every process of ours is started with: nothing is looked up on the internet at import."""
        home = self.home.resolve()
        return {
            **self.child_environment,
            "DSPYUI_HOME": str(home),
            "DSPY_CACHEDIR": str(home / "cache" / "dspy"),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }

    def worker_environment(self) -> dict[str, str]:
        """What a process is started with that calls language models: the keys typed in here join it."""
        return {**self.process_environment(), **self.keys.environment()}

    @property
    def lm_environment(self) -> Mapping[str, str]:
        """What a process that calls language models will find: a live view, keys that are typed in later included."""
        return _LMEnvironment(self.child_environment, self.keys)

    def redactor(self) -> "Redactor":
        """Hides every secret this process was given up to now."""
        typed = self.keys.environment()
        # A typed key does not make the one it goes before any less secret.
        both = (*self.child_environment.items(), *typed.items())
        return Redactor(both, self.keys.secret_names)

    def redact(self, text: str) -> str:
        """The text without any secret this process was given."""
        return self.redactor()(text)


def _merged(env_file: Path, environ: Mapping[str, str] | None) -> dict[str, str]:
    from_file = {name: value for name, value in dotenv_values(env_file).items() if value is not None}
    return {**from_file, **(os.environ if environ is None else environ)}


def language_said(
    env_file: Path = Path(".env"), environ: Mapping[str, str] | None = None
) -> tuple[Language | None, Mapping[str, str]]:
    """DSPYUI_LANGUAGE if it names a language, and all variables: enough to say what is wrong with another setting."""
    merged = _merged(env_file, environ)
    return language_of(merged.get("DSPYUI_LANGUAGE", "")), merged


def set_environment(variables: Mapping[str, str]) -> None:
    """Set variables of this process, for a library that can be told in no other way."""
    os.environ.update(variables)


_PASSWORD = re.compile(r"(?<=://)([^\s:/@]*):[^\s/@]+@")


# An address with a password of its own, which is group 1.
_ADDRESS = re.compile(r"[\w+.-]+://[^\s:/@]*:([^\s/@]+)@")


def without_passwords(text: str) -> str:
    """The text with the password in every address replaced by `***`."""
    return _PASSWORD.sub(r"\1:***@", text)


_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "AUTH")
# A shorter value is no secret worth the name, and blotting it out would tear words apart.
_SECRET_LENGTH = 8
# How the keys of well-known providers look, whole or masked by a provider that repeats one: `sk-abc***xyz`.
_KEY_SHAPES = re.compile(r"\b(?:sk-|gsk_|xai-|hf_|pplx-|nvapi-|r8_|AIza)[\w*-]{16,}")


class Redactor:
    """Replaces secrets by `***`: by value, also as they stand in an address, in JSON or in a Basic login; and by shape.

    A secret is the value (of 8 characters or more) of a variable whose name says so, or is among `names`; and the
    password in an address that a variable holds.
    """

    def __init__(self, variables: Iterable[tuple[str, str]], names: Iterable[str] = ()) -> None:
        given, certain = list(variables), frozenset(names)
        found = {
            form
            for name, value in given
            if name in certain or any(word in name.upper() for word in _SECRET_WORDS)
            for form in _forms(name, value, dict(given))
        }
        for name, value in given:
            # A password that is the user's or the database's name too is a trial's, and a word like any other.
            if (address := _ADDRESS.match(value)) and address[1] not in value.replace(f":{address[1]}@", "@"):
                found.update(_forms(name, unquote(address[1]), {}))
        # Longest first: a secret may be the beginning of another.
        forms = sorted(found, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, forms))) if forms else None
        self.longest = max((len(form) for form in forms), default=0)

    def __call__(self, text: str) -> str:
        """The text without the secrets."""
        if self._pattern is not None:
            text = self._pattern.sub("***", text)
        return _KEY_SHAPES.sub("***", without_passwords(text))


def _forms(name: str, value: str, environment: Mapping[str, str]) -> Iterator[str]:
    for plain in {value, value.strip()}:
        if len(plain) < _SECRET_LENGTH:
            continue
        yield plain
        yield quote(plain, safe="")
        yield quote_plus(plain)
        yield json.dumps(plain)[1:-1]
        yield b64encode(plain.encode()).decode().rstrip("=")
        user = environment.get(name.replace("PASSWORD", "USERNAME"), "") if "PASSWORD" in name else ""
        if user:
            yield b64encode(f"{user}:{plain}".encode()).decode().rstrip("=")


def redact(text: str, environment: Mapping[str, str], names: Iterable[str] = ()) -> str:
    """The text with every secret of an environment replaced by `***`; see `Redactor`."""
    return Redactor(environment.items(), names)(text)


# What pydantic calls a mistake -> the code of our sentence for it; any other is told in pydantic's words.
_CODES = {
    "bool_parsing": "settings.bool",
    "int_parsing": "settings.int",
    "greater_than_equal": "settings.range",
    "less_than_equal": "settings.range",
    "literal_error": "settings.choice",
}


def _said(details: ErrorDetails) -> BadRequestError:
    context = details.get("ctx", {})
    limit = f"≥ {context['ge']}" if "ge" in context else f"≤ {context['le']}" if "le" in context else ""
    return BadRequestError(
        _CODES.get(details["type"], "settings.value"),
        name=str(details["loc"][0]),
        value=str(details["input"]),
        problem=details["msg"],
        limit=limit,
        expected=str(context.get("expected", "")).replace(" or ", ", "),
    )
