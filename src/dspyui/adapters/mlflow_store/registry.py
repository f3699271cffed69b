"""Programs in MLflow's model registry.

A version is a models-from-code pyfunc around `program.json`, logged as a model of the Run it came from. Stages
are kept three times, so that they outlive MLflow's own: see `stages`.
"""

import json
import math
import posixpath
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import yaml

from dspyui.adapters.mlflow_store import packaging
from dspyui.adapters.mlflow_store.client import Connection, MlflowAccess
from dspyui.adapters.mlflow_store.filters import containing
from dspyui.adapters.mlflow_store.stages import (
    MARKS,
    StageMove,
    history_of,
    insisted,
    mlflow_stage,
    newest,
    numbers,
    quoted,
    search,
    stage_of,
)
from dspyui.domain.base import Fault
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import (
    PAGE_MODELS,
    STAGE_ALIASES,
    ChangeKind,
    GateRecord,
    ModelPage,
    ModelQuery,
    ModelSort,
    ModelVersion,
    RegisteredModel,
    RegisterRequest,
    Stage,
    VersionPage,
    check_model_name,
)
from dspyui.domain.runs import TrackingServer
from dspyui.errors import (
    BadRequestError,
    ConflictError,
    DSPyUIError,
    FailedError,
    NotFoundError,
    UnavailableError,
)
from dspyui.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.entities.model_registry import RegisteredModel as MlflowModel

_READY_SECONDS = 10
_MAX_MLMODEL = 4 * 1024 * 1024
_UNREADABLE_SECONDS = 60.0
_ORDERS: Mapping[ModelSort, str] = {"updated": "last_updated_timestamp DESC", "name": "name ASC"}
# Metrics of the Run that MLflow's page of the logged model shows too.
_SCORES = ("baseline_score", "evaluation_score", "score_improvement")


@dataclass(frozen=True, slots=True)
class _Content:
    """Why a version cannot be loaded here, or that it can; `until` when, on the monotonic clock, that is believed."""

    fault: Fault | None
    until: float


class MlflowModelRegistry:
    """Implements `domain.registry.ModelRegistry`."""

    def __init__(
        self, settings: Settings, tracking: TrackingServer, *, unreadable_seconds: float = _UNREADABLE_SECONDS
    ) -> None:
        """`unreadable_seconds`: how long a version whose files could not be read is not asked for again."""
        self._access = MlflowAccess(settings, tracking)
        self._unreadable_seconds = unreadable_seconds
        # A double click must not make two versions, nor two stage changes write the same audit entry.
        self._writing = threading.Lock()
        self._contents: dict[tuple[str, int, datetime], _Content] = {}

    def register(
        self,
        request: RegisterRequest,
        program: CompiledProgram,
        *,
        tags: dict[str, str],
        input_example: dict[str, Any],
    ) -> ModelVersion:
        """Log the program as a model of the Run, make a version of it, and move it to the stage asked for.

        Raises ConflictError when the Run has a version under that name, also when another process has made
        one at the same time, and when the name is a prompt's; FailedError (`registry.stage_failed`) when the
        version was made but could not be moved.
        """
        name = check_model_name(request.name)
        with self._writing:
            with self._access.connected() as connection:
                _refuse_prompt(connection.client, name)
                _refuse_second(connection.client, name, request.run_id)
                version = _make_version(connection, name, request, program, tags, input_example)
                _keep_first(connection.client, version, request.run_id)
            if request.stage == "None":
                return version
            try:
                asked = {"who": request.who, "why": request.why, "gate": request.gate}
                return self._move(name, version.version, request.stage, **asked)
            except DSPyUIError as exc:
                raise FailedError(
                    "registry.stage_failed",
                    name=name,
                    version=version.version,
                    stage=request.stage,
                    problem=str(exc),
                ) from exc

    def get_version(self, name: str, version: int) -> ModelVersion:
        """Raises NotFoundError."""
        with self._access.connected() as connection:
            return self._version(connection, name, version)

    def get_by_stage(self, name: str, stage: Stage) -> ModelVersion:
        """The version with the stage's alias, else the newest in MLflow's own stage. Raises NotFoundError."""
        with self._access.connected() as connection:
            model = _model(connection, name)
            if (number := model.aliases.get(STAGE_ALIASES.get(stage, ""))) is not None:
                return self._version(connection, name, int(number))
            # MLflow sends the newest of each stage along: a model may have a thousand versions.
            held = newest([v for v in model.latest_versions or () if mlflow_stage(v) == stage])
            if held is None:
                raise NotFoundError("registry.no_stage", name=name, stage=stage)
            return self._version(connection, name, int(held.version))

    def get_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Raises NotFoundError when there is no such model, or nobody has the alias."""
        with self._access.connected() as connection:
            number = _model(connection, name).aliases.get(alias)
            if number is None:
                raise NotFoundError("registry.no_alias", name=name, alias=alias[:100])
            return self._version(connection, name, int(number))

    def search_versions(self, name: str | None = None, *, promoted: bool = False) -> Sequence[ModelVersion]:
        """Two requests while there are at most 1,000."""
        with self._access.connected() as connection:
            found = search(connection.client, name, mark=MARKS["Production"] if promoted else None)
            aliases = {model.name: numbers(model) for model in _models_of(connection, name, found)}
            return tuple(to_version(connection, each, aliases.get(each.name, {})) for each in found)

    def page(self, query: ModelQuery, token: str | None = None) -> ModelPage:
        """One request, and one more for each holder of a stage that MLflow does not send along."""
        text = f"name ILIKE {containing(query.name)}" if query.name.strip() else None
        with self._access.connected() as connection, _page_of(token):
            found = connection.client.search_registered_models(
                text, max_results=query.size, order_by=[_ORDERS[query.sort]], page_token=token
            )
            return ModelPage(
                models=tuple(_to_model(connection, model) for model in found),
                next_token=found.token or None,
            )

    def get_model(self, name: str) -> RegisteredModel:
        """Raises NotFoundError."""
        with self._access.connected() as connection:
            return _to_model(connection, _model(connection, name))

    def version_page(self, name: str, token: str | None = None, *, size: int = PAGE_MODELS) -> VersionPage:
        """Two requests. Raises NotFoundError when there is no such model."""
        with self._access.connected() as connection:
            aliases = numbers(_model(connection, name))
            with _page_of(token):
                found = connection.client.search_model_versions(
                    f"name = {quoted(name)}",
                    max_results=size,
                    order_by=["version_number DESC"],
                    page_token=token,
                )
            return VersionPage(
                versions=tuple(to_version(connection, version, aliases) for version in found),
                next_token=found.token or None,
            )

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
        """Move a version; whoever held Staging or Production before goes to Archived.

        It can be repeated after it failed half-way, and then completes. Raises NotFoundError, and ConflictError
        (`registry.contested`) when others keep moving versions meanwhile.
        """
        with self._writing:
            return self._move(name, version, stage, who=who, why=why, kind=kind, gate=gate)

    def set_alias(self, name: str, alias: str, version: int) -> ModelVersion:
        """Raises NotFoundError."""
        with self._access.connected() as connection:
            _get(connection, name, version)
            insisted(connection.client.set_registered_model_alias, name, alias, str(version))
            return self._version(connection, name, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Raises NotFoundError when nobody has it."""
        with self._access.connected() as connection:
            if alias not in _model(connection, name).aliases:
                raise NotFoundError("registry.no_alias", name=name, alias=alias[:100])
            connection.client.delete_registered_model_alias(name, alias)

    def describe(self, name: str, version: int | None, description: str) -> None:
        """Raises NotFoundError."""
        with self._access.connected() as connection:
            if version is None:
                _model(connection, name)
                connection.client.update_registered_model(name, description)
            else:
                _get(connection, name, version)
                connection.client.update_model_version(name, str(version), description)

    def set_tags(self, name: str, version: int | None, tags: Mapping[str, str | None]) -> None:
        """A request for each tag. Raises NotFoundError."""
        with self._access.connected() as connection:
            if version is None:
                _model(connection, name)
            else:
                _get(connection, name, version)
            for key, value in tags.items():
                _set_tag(connection.client, name, version, key, value)

    def delete_version(self, name: str, version: int) -> None:
        """MLflow forgets the version; the logged model and the Run it was made of stay. Raises NotFoundError."""
        with self._access.connected() as connection:
            _get(connection, name, version)
            connection.client.delete_model_version(name, str(version))

    def delete_model(self, name: str) -> None:
        """MLflow forgets its versions too. Raises NotFoundError."""
        with self._access.connected() as connection:
            _model(connection, name)
            connection.client.delete_registered_model(name)

    def program(self, version: ModelVersion) -> CompiledProgram:
        """Reads the version's `program.json`. Raises NotFoundError when it has none, with what it has instead."""
        with self._access.connected() as connection, tempfile.TemporaryDirectory() as folder:
            location = _location(connection.client, version)
            if _size_of(connection, location, packaging.PROGRAM_PATH) is None:
                fault = _not_loadable(version, _flavors(connection, version, folder) or {})
                raise NotFoundError(fault.code, **fault.values)
            local = _download(connection, location, packaging.PROGRAM_PATH, folder)
            return CompiledProgram.from_json(local.read_bytes(), where=version.model_uri)

    def unloadable(self, version: ModelVersion) -> Fault | None:
        """What lies in a version does not change: each that could be read is asked for once.

        One whose files MLflow does not hand out is told as such, and the others of a list are still shown; it is asked
        for again after a minute, for its files may come, or the rights to read them.
        """
        key = (version.name, version.version, version.created_at)
        known = self._contents.get(key)
        if known is None or known.until < time.monotonic():
            known = self._contents[key] = self._look_into(version)
        return known.fault

    def _look_into(self, version: ModelVersion) -> "_Content":
        soon = time.monotonic() + self._unreadable_seconds
        try:
            with self._access.connected() as connection, tempfile.TemporaryDirectory() as folder:
                flavors = _flavors(connection, version, folder)
        except UnavailableError:
            raise
        except DSPyUIError as exc:
            return _Content(Fault(code=exc.code, values=exc.values), until=soon)
        if flavors is None:
            return _Content(_not_loadable(version, {}), until=soon)
        return _Content(None if _holds_program(flavors) else _not_loadable(version, flavors), until=math.inf)

    def _version(self, connection: Connection, name: str, number: int) -> ModelVersion:
        found = _get(connection, name, number)
        aliases = dict.fromkeys(found.aliases, number)
        alias = STAGE_ALIASES.get(mlflow_stage(found))
        if alias is not None and alias not in aliases:
            # Whether another one holds it decides whether this one is in its stage.
            aliases = numbers(_model(connection, name))
        return to_version(connection, found, aliases)

    def _move(
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
        with self._access.connected() as connection:
            _get(connection, name, version)
            StageMove(connection.client, name, who=who, why=why, kind=kind).to(version, stage, gate)
            return self._version(connection, name, version)


@contextmanager
def _page_of(token: str | None) -> Iterator[None]:
    """Everything else of a question is of our own making: what is refused is the token."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as exc:
        if token is not None and exc.error_code == "INVALID_PARAMETER_VALUE":
            raise BadRequestError("registry.page_token", token=token[:64]) from exc
        raise


def _size_of(connection: Connection, location: str, path: str) -> int | None:
    """How many bytes a file of a version has; None when there is no such file."""
    import mlflow.artifacts

    folder, name = posixpath.split(f"{location}/{path}")
    try:
        with connection.mapped_errors():
            found = mlflow.artifacts.list_artifacts(artifact_uri=folder, tracking_uri=connection.address)
    except NotFoundError:
        return None
    sizes = [file.file_size or 0 for file in found if posixpath.basename(file.path) == name]
    return sizes[0] if sizes else None


def _download(connection: Connection, location: str, path: str, folder: str) -> Path:
    """A file of a version, copied into the folder. Raises UnavailableError, FailedError."""
    import mlflow.artifacts

    with connection.mapped_errors():
        return Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"{location}/{path}",
                dst_path=folder,
                tracking_uri=connection.address,
                registry_uri=connection.address,
            )
        )


def _flavors(connection: Connection, version: ModelVersion, folder: str) -> Mapping[str, Any] | None:
    """What MLflow's `MLmodel` says that the version is; nothing when it makes no sense, None when there is none."""
    location = _location(connection.client, version)
    size = _size_of(connection, location, "MLmodel")
    if size is None:
        return None
    if size > _MAX_MLMODEL:
        return {}
    file = _download(connection, location, "MLmodel", folder)
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8", errors="replace"))
    except (yaml.YAMLError, ValueError, RecursionError):  # of a date that cannot be, of brackets without end
        return {}
    flavors = found.get("flavors") if isinstance(found, dict) else None
    return flavors if isinstance(flavors, dict) else {}


def _holds_program(flavors: Mapping[str, Any]) -> bool:
    pyfunc = flavors.get("python_function")
    artifacts = pyfunc.get("artifacts") if isinstance(pyfunc, dict) else None
    program = artifacts.get("program") if isinstance(artifacts, dict) else None
    return isinstance(program, dict) and program.get("uri") == packaging.PROGRAM_PATH


def _not_loadable(version: ModelVersion, flavors: Mapping[str, Any]) -> Fault:
    where: dict[str, Any] = {"name": version.name, "version": version.version}
    file = _pickle_of(flavors)
    if file is None:
        return Fault(code="registry.no_program", values=where)
    return Fault(code="registry.only_pickle", values={**where, "file": file})


def _pickle_of(flavors: Mapping[str, Any]) -> str | None:
    """The pickle that a version says it is made of; None when it says nothing of the kind."""
    dspy = flavors.get("dspy")
    if isinstance(dspy, dict) and isinstance(path := dspy.get("model_path"), str):
        # MLflow's other way of saving a DSPy program is a folder with a pickle in it.
        return path if path.endswith(".pkl") else f"{path}/program.pkl"
    for flavor in flavors.values():
        for value in flavor.values() if isinstance(flavor, dict) else ():
            if isinstance(value, str) and value.endswith((".pkl", ".pickle")):
                return value
    return None


def _set_tag(client: "MlflowClient", name: str, version: int | None, key: str, value: str | None) -> None:
    if version is None and value is None:
        client.delete_registered_model_tag(name, key)
    elif version is None:
        client.set_registered_model_tag(name, key, value)
    elif value is None:
        client.delete_model_version_tag(name, str(version), key)
    else:
        client.set_model_version_tag(name, str(version), key, value)


def _refuse_second(client: "MlflowClient", name: str, run_id: str) -> None:
    for version in search(client, name, run_id=run_id):
        raise ConflictError("registry.exists", name=name, version=version.version, run_id=run_id)


def _refuse_prompt(client: "MlflowClient", name: str) -> None:
    """MLflow keeps prompts in the same registry, and would make the model a version of the prompt."""
    if client.get_prompt(name) is not None:
        raise ConflictError("registry.is_prompt", name=name)


def _keep_first(client: "MlflowClient", made: ModelVersion, run_id: str) -> None:
    """Of two versions that two processes made of one Run at once, the one with the lower number stays.

    MLflow has no lock; but it gives each version a number of its own, and by those both come to the same answer.
    """
    rivals = [int(v.version) for v in search(client, made.name, run_id=run_id)]
    first = min(rivals, default=made.version)
    if first == made.version:
        return
    source = client.get_model_version(made.name, str(made.version)).source or ""
    client.delete_model_version(made.name, str(made.version))
    if source.startswith("models:/m-"):
        client.delete_logged_model(source.removeprefix("models:/"))
    raise ConflictError("registry.exists", name=made.name, version=first, run_id=run_id)


def _make_version(
    connection: Connection,
    name: str,
    request: RegisterRequest,
    program: CompiledProgram,
    tags: dict[str, str],
    input_example: dict[str, Any],
) -> ModelVersion:
    client = connection.client
    model_id = _log_model(client, request.run_id, program, tags, input_example)
    _ensure_model(client, name)
    made = client.create_model_version(
        name,
        f"models:/{model_id}",
        run_id=request.run_id,
        tags={**tags, "dspyui.registered_by": request.who},
        description=request.description,
        await_creation_for=_READY_SECONDS,
        model_id=model_id,
    )
    # By this tag MLflow's page of the logged model links to the version.
    versions = [{"name": name, "version": made.version}]
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": json.dumps(versions, ensure_ascii=False)})
    return to_version(connection, _get(connection, name, int(made.version)), {})


def _log_model(
    client: "MlflowClient",
    run_id: str,
    program: CompiledProgram,
    tags: dict[str, str],
    input_example: dict[str, Any],
) -> str:
    """What `mlflow.pyfunc.log_model` does, without its globals; gives the logged model's id."""
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    experiment_id = client.get_run(run_id).info.experiment_id
    logged = client.create_logged_model(
        experiment_id,
        name=re.sub(r"[^\w-]+", "-", program.spec.name).strip("-") or "program",
        source_run_id=run_id,
        tags=tags,
        params={"lm": program.lm.model, "module": program.spec.module.info.label},
        model_type="dspyui",
    )
    model = Model(
        artifact_path=logged.artifact_location,
        model_uuid=logged.model_id,
        run_id=run_id,
        model_id=logged.model_id,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "model"
            packaging.save(target, program, model=model, input_example=input_example)
            client.log_model_artifacts(logged.model_id, str(target))
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        _copy_scores(client, run_id, logged.model_id)
        client.finalize_logged_model(logged.model_id, "READY")
    except Exception:
        # Half a model would stand in MLflow's list beside the whole one of the next try.
        client.finalize_logged_model(logged.model_id, "FAILED")
        raise
    return logged.model_id


def _copy_scores(client: "MlflowClient", run_id: str, model_id: str) -> None:
    from mlflow.entities import Metric

    metrics = [
        Metric(point.key, point.value, point.timestamp, point.step, model_id=model_id, run_id=run_id)
        for key in _SCORES
        for point in client.get_metric_history(run_id, key)
    ]
    if metrics:
        client.log_batch(run_id, metrics=metrics)


def _ensure_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        # A prompt that has just taken the name exists, but is not to be had as a model.
        _refuse_prompt(client, name)


def _get(connection: Connection, name: str, version: int) -> "MlflowVersion":
    try:
        with connection.mapped_errors():
            return connection.client.get_model_version(name, str(version))
    except UnavailableError:
        raise
    except DSPyUIError as exc:
        # A name that cannot be one is refused as a bad parameter, not as missing.
        raise NotFoundError("registry.no_version", name=name, version=version) from exc


def _location(client: "MlflowClient", version: ModelVersion) -> str:
    """Where the version's files are. MLflow would look a `models:/` address up on its global server, not on ours."""
    uri = client.get_model_version_download_uri(version.name, str(version.version))
    logged = re.fullmatch(r"models:/(m-\w+)", uri)
    return client.get_logged_model(logged[1]).artifact_location if logged else uri


def _model(connection: Connection, name: str) -> "MlflowModel":
    """Raises NotFoundError; a prompt is no model."""
    try:
        with connection.mapped_errors():
            found = connection.client.get_registered_model(name)
    except UnavailableError:
        raise
    except DSPyUIError as exc:
        # A name that cannot be one is refused as a bad parameter, not as missing.
        raise NotFoundError("registry.no_model", name=name) from exc
    if found._is_prompt():
        raise NotFoundError("registry.no_model", name=name)
    return found


def _models_of(
    connection: Connection, name: str | None, versions: "Sequence[MlflowVersion]"
) -> "list[MlflowModel]":
    """The models of some versions, for their aliases."""
    if name is not None:
        return [_model(connection, name)] if versions else []
    found: list[MlflowModel] = []
    token = None
    while True:
        page = connection.client.search_registered_models(max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def _to_model(connection: Connection, model: "MlflowModel") -> RegisteredModel:
    aliases, known = numbers(model), list(model.latest_versions or ())
    last = newest(known)

    def holder(stage: Stage) -> ModelVersion | None:
        """By the alias; MLflow sends the newest of each stage along, and that is nearly always the one."""
        number = aliases.get(STAGE_ALIASES[stage])
        if number is None:
            sent = next((version for version in known if mlflow_stage(version) == stage), None)
        else:
            sent = next((version for version in known if int(version.version) == number), None)
            sent = sent or connection.client.get_model_version(model.name, str(number))
        return None if sent is None else to_version(connection, sent, aliases)

    return RegisteredModel(
        name=model.name,
        description=model.description or "",
        tags=dict(model.tags),
        url=f"{connection.address}/#/models/{quote(model.name, safe='')}",
        updated_at=datetime.fromtimestamp((model.last_updated_timestamp or 0) / 1000, tz=UTC),
        aliases=aliases,
        newest=None if last is None else to_version(connection, last, aliases),
        staging=holder("Staging"),
        production=holder("Production"),
    )


def to_version(connection: Connection, version: "MlflowVersion", aliases: Mapping[str, int]) -> ModelVersion:
    """The version in our terms; `aliases` are those of its model that matter to it."""
    number = int(version.version)
    history, unreadable = history_of(version)
    return ModelVersion(
        name=version.name,
        version=number,
        stage=stage_of(version, aliases),
        description=version.description or "",
        run_id=version.run_id or None,
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, tz=UTC),
        model_uri=f"models:/{version.name}/{number}",
        url=f"{connection.address}/#/models/{quote(version.name, safe='')}/versions/{number}",
        tags=dict(version.tags),
        history=history,
        unreadable_history=unreadable,
        aliases=tuple(sorted(alias for alias, held in aliases.items() if held == number)),
        mlflow_stage=mlflow_stage(version),
    )
