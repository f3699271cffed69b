"""Programs in MLflow's model registry.

A version is a models-from-code pyfunc around `program.json`, logged as a model of the Run it came from. Stages
are kept three times: as MLflow's own stage (deprecated there), as an alias, and as an audit record in the
version's tags, so that they outlive MLflow's stages.
"""

import json
import re
import tempfile
import threading
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dspyui.adapters.mlflow_store import packaging
from dspyui.adapters.mlflow_store.client import Connection, MlflowAccess
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import (
    STAGE_ALIASES,
    STAGES,
    ModelVersion,
    RegisterRequest,
    Stage,
    StageChange,
    check_model_name,
)
from dspyui.domain.runs import TrackingServer
from dspyui.errors import ConflictError, DSPyUIError, FailedError, NotFoundError, UnavailableError
from dspyui.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

AUDIT_TAG = "dspyui.audit."
_READY_SECONDS = 10
_MAX_WHY = 2000
# Metrics of the Run that MLflow's page of the logged model shows too.
_SCORES = ("baseline_score", "evaluation_score", "score_improvement")


class MlflowModelRegistry:
    """Implements `domain.registry.ModelRegistry`."""

    def __init__(self, settings: Settings, tracking: TrackingServer) -> None:
        self._access = MlflowAccess(settings, tracking)
        # A double click must not make two versions, nor two stage changes write the same audit entry.
        self._writing = threading.Lock()

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
                return self._move(name, version.version, request.stage, request.who, "")
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
            return _to_version(connection, _get(connection, name, version))

    def get_by_stage(self, name: str, stage: Stage) -> ModelVersion:
        """The version with the stage's alias, else the newest in MLflow's own stage. Raises NotFoundError."""
        with self._access.connected() as connection:
            found = _alias_holder(connection, name, stage)
            if found is not None:
                return _to_version(connection, found)
            held = [v for v in _search(connection.client, name) if _stage_of(v) == stage]
            if not held:
                raise NotFoundError("registry.no_stage", name=name, stage=stage)
            return _to_version(connection, held[0])

    def get_by_alias(self, name: str, alias: str) -> ModelVersion:
        """Raises NotFoundError when there is no such model, or nobody has the alias."""
        with self._access.connected() as connection:
            number = _aliases(connection, name).get(alias)
            if number is None:
                raise NotFoundError("registry.no_alias", name=name, alias=alias[:100])
            return _to_version(connection, _get(connection, name, int(number)))

    def search_versions(self, name: str | None = None) -> Sequence[ModelVersion]:
        """All versions, newest first."""
        with self._access.connected() as connection:
            found = _search(connection.client, name)
            return tuple(_to_version(connection, version) for version in found)

    def set_stage(self, name: str, version: int, stage: Stage, *, who: str, why: str = "") -> ModelVersion:
        """Move a version; whoever held Staging or Production before goes to Archived.

        It can be repeated after it failed half-way, and then completes. Raises NotFoundError.
        """
        with self._writing:
            return self._move(name, version, stage, who, why)

    def program(self, version: ModelVersion) -> CompiledProgram:
        """Reads the version's `program.json` and no other file of it. Raises NotFoundError when it has none."""
        import mlflow.artifacts

        with self._access.connected() as connection, tempfile.TemporaryDirectory() as folder:
            try:
                with connection.mapped_errors():
                    local = mlflow.artifacts.download_artifacts(
                        artifact_uri=f"{_location(connection.client, version)}/{packaging.PROGRAM_PATH}",
                        dst_path=folder,
                        tracking_uri=connection.address,
                        registry_uri=connection.address,
                    )
            except UnavailableError:
                raise
            except DSPyUIError as exc:
                raise NotFoundError(
                    "registry.no_program", name=version.name, version=version.version
                ) from exc
            return CompiledProgram.from_json(Path(local).read_bytes(), where=version.model_uri)

    def _move(self, name: str, version: int, stage: Stage, who: str, why: str) -> ModelVersion:
        with self._access.connected() as connection:
            move = _Move(connection, who)
            move.to(_get(connection, name, version), stage, why)
            for other in _search(connection.client, name):
                if stage in STAGE_ALIASES and other.version != str(version) and _stage_of(other) == stage:
                    move.to(other, "Archived", f"replaced by version {version}")
            return _to_version(connection, _get(connection, name, version))


class _Move:
    """Stage changes by one person."""

    def __init__(self, connection: Connection, who: str) -> None:
        self._client = connection.client
        self._who = who

    def to(self, version: "MlflowVersion", stage: Stage, why: str) -> None:
        before, after = STAGE_ALIASES.get(_stage_of(version)), STAGE_ALIASES.get(stage)
        # The alias goes first: it is what readers ask for, and it moves in one step.
        if after is not None:
            self._client.set_registered_model_alias(version.name, after, version.version)
        self._transition(version, stage)
        if before is not None and before != after and before in version.aliases:
            self._client.delete_registered_model_alias(version.name, before)
        self._note(version, stage, why)

    def _transition(self, version: "MlflowVersion", stage: Stage) -> None:
        # Stages are deprecated in MLflow, and kept here until they go; the alias is beside them.
        warnings.filterwarnings("ignore", message=".*transition_model_version_stage", category=FutureWarning)
        if version.current_stage != stage:
            self._client.transition_model_version_stage(version.name, version.version, stage)

    def _note(self, version: "MlflowVersion", stage: Stage, why: str) -> None:
        history = _history(version)
        last = history[-1].to_stage if history else "None"
        if last == stage:
            return
        entry = {
            "who": self._who,
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "from": _stage_of(version) if _stage_of(version) != stage else last,
            "to": stage,
            "why": why[:_MAX_WHY],
        }
        self._client.set_model_version_tag(
            version.name,
            version.version,
            f"{AUDIT_TAG}{len(history) + 1:04d}",
            json.dumps(entry, ensure_ascii=False),
        )


def _refuse_second(client: "MlflowClient", name: str, run_id: str) -> None:
    for version in _search(client, name):
        if version.run_id == run_id:
            raise ConflictError("registry.exists", name=name, version=version.version, run_id=run_id)


def _refuse_prompt(client: "MlflowClient", name: str) -> None:
    """MLflow keeps prompts in the same registry, and would make the model a version of the prompt."""
    if client.get_prompt(name) is not None:
        raise ConflictError("registry.is_prompt", name=name)


def _keep_first(client: "MlflowClient", made: ModelVersion, run_id: str) -> None:
    """Of two versions that two processes made of one Run at once, the one with the lower number stays.

    MLflow has no lock; but it gives each version a number of its own, and by those both come to the same answer.
    """
    rivals = [int(v.version) for v in _search(client, made.name) if v.run_id == run_id]
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
    return _to_version(connection, _get(connection, name, int(made.version)))


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


def _alias_holder(connection: Connection, name: str, stage: Stage) -> "MlflowVersion | None":
    alias = STAGE_ALIASES.get(stage)
    if alias is None:
        return None
    aliases = _aliases(connection, name)
    return _get(connection, name, int(aliases[alias])) if alias in aliases else None


def _aliases(connection: Connection, name: str) -> dict[str, str]:
    try:
        with connection.mapped_errors():
            return dict(connection.client.get_registered_model(name).aliases)
    except UnavailableError:
        raise
    except DSPyUIError as exc:
        raise NotFoundError("registry.no_model", name=name) from exc


def _search(client: "MlflowClient", name: str | None) -> "list[MlflowVersion]":
    """Versions, newest first."""
    text = None if name is None else f"name = {_quoted(name)}"
    found: list[MlflowVersion] = []
    token = None
    while True:
        page = client.search_model_versions(text, max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    # MLflow stores versions as text; "10" sorts before "9".
    return sorted(found, key=lambda v: (v.creation_timestamp, int(v.version)), reverse=True)


def _quoted(name: str) -> str:
    # The filter language has no escapes; a name with both kinds of quotes is none that it can ask for.
    return f"'{name}'" if "'" not in name else f'"{name}"'


def _stage_of(version: "MlflowVersion") -> Stage:
    for stage, alias in STAGE_ALIASES.items():
        if alias in version.aliases:
            return stage
    found: list[Stage] = [stage for stage in STAGES if stage == version.current_stage]
    return found[0] if found else "None"


def _history(version: "MlflowVersion") -> tuple[StageChange, ...]:
    entries = sorted((key, value) for key, value in version.tags.items() if key.startswith(AUDIT_TAG))
    return tuple(_to_change(json.loads(value)) for _, value in entries)


def _to_change(entry: dict[str, Any]) -> StageChange:
    return StageChange(
        who=entry["who"],
        at=datetime.fromisoformat(entry["at"]),
        from_stage=entry["from"],
        to_stage=entry["to"],
        why=entry.get("why", ""),
    )


def _to_version(connection: Connection, version: "MlflowVersion") -> ModelVersion:
    number = int(version.version)
    return ModelVersion(
        name=version.name,
        version=number,
        stage=_stage_of(version),
        description=version.description or "",
        run_id=version.run_id or None,
        created_at=datetime.fromtimestamp(version.creation_timestamp / 1000, tz=UTC),
        model_uri=f"models:/{version.name}/{number}",
        url=f"{connection.address}/#/models/{quote(version.name, safe='')}/versions/{number}",
        tags=dict(version.tags),
        history=_history(version),
    )
