"""A program as an MLflow model on disk: its code, its JSON, its signature; no pickle anywhere."""

import ast
import hashlib
import re
import threading
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspyui.adapters.mlflow_store.client import settle
from dspyui.domain.lms import LMSpec, ModelSpec
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.signatures import FieldSpec, FieldType
from dspyui.errors import BadRequestError

if TYPE_CHECKING:
    from mlflow.models import Model, ModelSignature

# Travels inside the model and runs where DSPyUI is not installed.
MODEL_CODE = Path(__file__).parent / "resources" / "model_code.py"
# Where `save` puts the program among the model's files.
PROGRAM_PATH = "artifacts/program.json"

# What `model_code` runs programs with: this module and all of ours that it imports travel too, under a name of their
# own, so that a program predicts there as it does here, whatever is installed.
ENGINE_MODULE = "dspyui.adapters.dspy_engine.modules"
_SOURCES = Path(__file__).parents[2]
_OURS = re.compile(r"^(\s*(?:from|import) )dspyui\b", re.MULTILINE)

# MLflow hands the code's model over in a global.
_LOCK = threading.Lock()


def save(target: Path, program: CompiledProgram, *, model: "Model", input_example: dict[str, Any]) -> None:
    """Write the model into the folder `target`, which must not exist.

    `model` holds the ids under which MLflow knows it. No language model is called and DSPy is not imported.
    Raises BadRequestError for a program that asks a metric of a person's own at each call: its code stays here.
    """
    _refuse_own_metrics(program)
    settle()
    import mlflow.pyfunc
    import pandas as pd

    package = write_engine(target.parent)
    source = target.parent / "program.json"
    source.write_text(program.without_addresses().to_json(), encoding="utf-8")
    _silence()
    with _LOCK:
        mlflow.pyfunc.save_model(
            path=str(target),
            python_model=str(MODEL_CODE),
            artifacts={"program": str(source)},
            signature=to_signature(program),
            input_example=pd.DataFrame([input_example]),
            pip_requirements=requirements(),
            code_paths=[str(package)],
            model_config={**model_config(program), "package": package.name},
            mlflow_model=model,
        )
    _forget_paths(model)
    model.save(str(target / "MLmodel"))


def _forget_paths(model: "Model") -> None:
    """MLflow notes where on this machine the files came from; it finds them by name inside the model."""
    flavor = model.flavors["python_function"]
    flavor["model_code_path"] = MODEL_CODE.name
    flavor["artifacts"]["program"]["uri"] = PROGRAM_PATH


def requirements() -> list[str]:
    """Published packages that the model runs with. The bundled LM's own are named by the model's code."""
    return [f"{name}=={version(name)}" for name in ("dspy", "mlflow")]


def _refuse_own_metrics(program: CompiledProgram) -> None:
    for metric in program.metrics:
        if metric.kind == "custom":
            raise BadRequestError("register.custom_metric", metric=metric.resolved()["name"])


def write_engine(parent: Path) -> Path:
    """Write the package that runs programs into a folder of `parent`, and return the folder; its name is the package's.

    The name holds a digest of the content: models of different versions of DSPyUI can be loaded into one process.
    """
    sources = _imported_by(ENGINE_MODULE)
    digest = hashlib.sha256(
        "\0".join(f"{name}\0{sources[name]}" for name in sorted(sources)).encode()
    ).hexdigest()
    folder = parent / f"dspyui_program_{digest[:12]}"
    for name, source in sources.items():
        path = folder.joinpath(*name.split(".")[1:]).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_OURS.sub(rf"\1{folder.name}", source), encoding="utf-8")
        for package in (path.parent, *path.parent.parents):
            if package == parent:
                break
            # Not empty: an empty file is uploaded in chunks of unknown length, which not every proxy takes.
            (package / "__init__.py").write_text(
                '"""Part of what runs a DSPyUI program."""\n', encoding="utf-8"
            )
    # The sentences of errors.
    words = folder / "locales" / "en_US.toml"
    words.parent.mkdir()
    words.write_bytes((_SOURCES / "locales" / "en_US.toml").read_bytes())
    return folder


def _imported_by(name: str) -> dict[str, str]:
    """The sources of a module of ours and of all of ours that it imports, by their names."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        name = waiting.pop()
        path = _SOURCES.joinpath(*name.split(".")[1:]).with_suffix(".py")
        # `from package import module`: the module is found under its own name.
        if name in found or not path.is_file():
            continue
        found[name] = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(found[name])):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "dspyui":
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def model_config(program: CompiledProgram) -> dict[str, Any]:
    """Every role's provider, model and settings; no key, no address, no port."""
    config = _lm_config(program.lm)
    roles = program.roles()
    for role, lm in (("teacher", roles.teacher), ("judge", roles.judge)):
        if lm is not None:
            config[role] = _lm_config(lm)
    if roles.embedder is not None:
        config["embedder"] = _shared_config(roles.embedder)
    return config


def _lm_config(lm: LMSpec) -> dict[str, Any]:
    settings = {
        name: value
        for name, value in lm.settings().items()
        if name in {"temperature", "max_tokens", "num_retries"}
    }
    return {**_shared_config(lm), "settings": settings}


def _shared_config(model: ModelSpec) -> dict[str, Any]:
    config: dict[str, Any] = {"model": model.model}
    if model.api_key_env:
        config["api_key_env"] = model.api_key_env
    if model.api_base and not model.is_local:
        config["needs_api_base"] = True
    return config


def to_signature(program: CompiledProgram) -> "ModelSignature":
    """MLflow's signature: the inputs, and the outputs with those that the module adds before them."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    spec = program.spec
    added = tuple(FieldSpec(name=name) for name in spec.module.added_outputs())
    return ModelSignature(
        inputs=Schema([_column(field) for field in spec.signature.inputs]),
        outputs=Schema([_column(field) for field in added + spec.signature.outputs]),
    )


_TYPES: dict[FieldType, str] = {
    "str": "string",
    "int": "long",
    "float": "double",
    "bool": "boolean",
    "choice": "string",
}


def _column(field: FieldSpec) -> Any:
    from mlflow.types import ColSpec, DataType
    from mlflow.types.schema import Array

    if field.type == "list[str]":
        return ColSpec(Array(DataType.string), field.name)
    return ColSpec(_TYPES[field.type], field.name)


def _silence() -> None:
    # Whole numbers cannot be missing, says MLflow; a program's inputs never are.
    warnings.filterwarnings("ignore", message=".*integer column", category=UserWarning)
    # MLflow's own way of looking at the input example.
    warnings.filterwarnings(
        "ignore", message="Operation with range is deprecated", category=DeprecationWarning
    )
