"""Jobs as MLflow Runs."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dspyui.adapters.mlflow_store.client import Connection, MlflowAccess
from dspyui.adapters.mlflow_store.traces import send_segments
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.runs import NOTE_TAG, DatasetInput, RunInfo, RunLink, RunRecord, TrackingServer
from dspyui.domain.signatures import Row
from dspyui.domain.splits import SplitName, Splits
from dspyui.errors import FailedError, NotFoundError
from dspyui.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

JOB_ID_TAG = "dspyui.job_id"
PROGRAM = "program/program.json"
SPEC = "spec/compile.yaml"
TEST_ROWS = "dataset/test.jsonl"

# MLflow's limits (mlflow/utils/validation.py). A batch's own limit is 1,000,000 bytes of JSON.
_MAX_PARAM, _MAX_TAG, _MAX_DIGEST, _MAX_DATASET_NAME = 6000, 8000, 36, 500
_BATCH_ITEMS, _BATCH_BYTES = 100, 800_000
_BATCH_METRICS = 1000
_TABLES_TAG = "mlflow.loggedArtifacts"


class MlflowRunStore:
    """Implements `domain.runs.RunStore`."""

    def __init__(self, settings: Settings, tracking: TrackingServer) -> None:
        self._access = MlflowAccess(settings, tracking)
        self._experiment_name = settings.mlflow_experiment_name

    def send(self, record: RunRecord) -> RunLink:
        """Make the job's Run, or bring it up to date; sending again what is there changes nothing.

        A RUNNING record makes the Run with its params and tags; any other one adds the rest and ends it.
        Raises UnavailableError, or FailedError when the server refuses it for good.
        """
        with self._access.connected() as connection:
            client = connection.client
            experiment_id = ensure_experiment(client, self._experiment_name)
            run = _find(client, experiment_id, record.job_id) or _create(client, experiment_id, record)
            if record.status != "RUNNING":
                _Completion(client, run, record).send()
            return _link(connection, run)

    def get_run(self, run_id: str) -> RunInfo:
        """Raises NotFoundError, also for a Run that was deleted."""
        with self._access.connected() as connection:
            try:
                with connection.mapped_errors():
                    run = connection.client.get_run(run_id)
            except (NotFoundError, FailedError) as exc:
                # An id that cannot be one is refused as a bad parameter, not as missing.
                if exc.code in {"mlflow.not_found", "mlflow.refused"}:
                    raise NotFoundError(
                        "run.unknown", run_id=run_id[:64], address=connection.address
                    ) from exc
                raise
            if run.info.lifecycle_stage == "deleted":
                raise NotFoundError("run.deleted", run_id=run_id, address=connection.address)
            return to_info(connection, run)

    def search_runs(self, *, limit: int = 100) -> Sequence[RunInfo]:
        """The newest Runs of the experiment; none when there is no such experiment yet."""
        with self._access.connected() as connection:
            experiment = connection.client.get_experiment_by_name(self._experiment_name)
            if experiment is None:
                return ()
            refuse_deleted(experiment)
            runs = connection.client.search_runs(
                [experiment.experiment_id], max_results=limit, order_by=["attributes.start_time DESC"]
            )
            return tuple(to_info(connection, run) for run in runs)

    def program(self, run_id: str) -> str:
        """The text of `program/program.json`. Raises NotFoundError when the Run or the file is not there."""
        return self._artifact(run_id, PROGRAM, "run.no_program")

    def input_example(self, run_id: str) -> dict[str, Any]:
        """The inputs of the first test row. Raises NotFoundError, and FailedError when the artifact is damaged."""
        program = CompiledProgram.from_json(self.program(run_id), where=f"Run {run_id}")
        first = self._artifact(run_id, TEST_ROWS, "run.no_rows").partition("\n")[0]
        if not first.strip():
            raise NotFoundError("run.no_rows", run_id=run_id, path=TEST_ROWS)
        (row,) = _rows(run_id, TEST_ROWS, first)
        names = [field.name for field in program.spec.signature.inputs]
        if missing := [name for name in names if name not in row]:
            raise FailedError(
                "run.broken", run_id=run_id, path=TEST_ROWS, line=1, problem=f"no {', '.join(missing)}"
            )
        return {name: row[name] for name in names}

    def spec(self, run_id: str) -> str:
        """The text of `spec/compile.yaml`. Raises NotFoundError when the Run or the file is not there."""
        return self._artifact(run_id, SPEC, "run.no_spec")

    def splits(self, run_id: str) -> Splits:
        """The rows of the three splits; a missing file is an empty split.

        Raises NotFoundError when there are none, FailedError when a file is damaged.
        """
        names: Mapping[SplitName, str] = {
            name: f"dataset/{name}.jsonl" for name in ("train", "validation", "test")
        }
        found = self._artifacts(run_id, list(names.values()))
        rows = {name: _rows(run_id, path, found.get(path, "")) for name, path in names.items()}
        if not any(rows.values()):
            raise NotFoundError("run.no_data", run_id=run_id)
        return Splits(train=rows["train"], validation=rows["validation"], test=rows["test"])

    def describe(self, run_id: str, *, name: str, note: str | None) -> None:
        """Give the Run another name, and a note unless it is None. Raises NotFoundError."""
        self.get_run(run_id)
        with self._access.connected() as connection:
            connection.client.update_run(run_id, name=name)
            if note is not None:
                connection.client.set_tag(run_id, NOTE_TAG, note)

    def send_traces(
        self, folder: Path, link: RunLink, *, stop: Callable[[], bool] | None = None
    ) -> tuple[int, int]:
        """Post what lies in the folder and link it to the Run; gives (stored, refused)."""
        with self._access.connected() as connection:
            return send_segments(connection, folder, link, stop)

    def _artifact(self, run_id: str, path: str, missing: str) -> str:
        found = self._artifacts(run_id, [path])
        if path not in found:
            raise NotFoundError(missing, run_id=run_id, path=path)
        return found[path]

    def _artifacts(self, run_id: str, paths: Sequence[str]) -> dict[str, str]:
        """The texts of those of the files that are there; they lie in one folder."""
        self.get_run(run_id)
        with self._access.connected() as connection, tempfile.TemporaryDirectory() as folder:
            parent = str(PurePosixPath(paths[0]).parent)
            listed = {entry.path for entry in connection.client.list_artifacts(run_id, parent)}
            return {
                path: _text(run_id, path, connection.client.download_artifacts(run_id, path, folder))
                for path in paths
                if path in listed
            }


def ensure_experiment(client: "MlflowClient", name: str) -> str:
    """The id of the experiment, which is made when there is none. Raises FailedError when it was deleted."""
    found = client.get_experiment_by_name(name) or _create_experiment(client, name)
    refuse_deleted(found)
    return found.experiment_id


def refuse_deleted(experiment: Any) -> None:
    """Raises FailedError for an experiment that somebody has deleted."""
    # Restoring it by ourselves would bring back all the Runs that somebody meant to be rid of.
    if experiment.lifecycle_stage == "deleted":
        raise FailedError(
            "run.experiment_deleted", name=experiment.name, experiment_id=experiment.experiment_id
        )


def _text(run_id: str, path: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise FailedError("run.broken", run_id=run_id, path=path, line=line, problem=str(exc)) from exc


def _rows(run_id: str, path: str, text: str) -> tuple[Row, ...]:
    # Not `splitlines`: U+2028 and the like are line ends to it, and may stand in a row's text.
    lines = enumerate(text.split("\n"), start=1)
    return tuple(_row(run_id, path, number, line) for number, line in lines if line.strip())


def _row(run_id: str, path: str, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise FailedError("run.broken", run_id=run_id, path=path, line=number, problem=str(exc)) from exc
    if not isinstance(row, dict):
        raise FailedError(
            "run.broken",
            run_id=run_id,
            path=path,
            line=number,
            problem=f"{type(row).__name__}, not an object",
        )
    return row


def _create_experiment(client: "MlflowClient", name: str) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(client.create_experiment(name))
    except MlflowException as exc:
        # Another process was faster.
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return client.get_experiment_by_name(name)


def _find(client: "MlflowClient", experiment_id: str, job_id: str) -> "Run | None":
    """The job's Run. MLflow has no idempotency key: when an answer was lost, a late create may leave two."""
    runs = client.search_runs([experiment_id], filter_string=f"tags.`{JOB_ID_TAG}` = '{job_id}'")
    if not runs:
        return None
    best, *others = sorted(
        runs, key=lambda run: (-len(run.data.metrics), -len(run.data.params), run.info.run_id)
    )
    for other in others:
        client.delete_run(other.info.run_id)
    return best


def _create(client: "MlflowClient", experiment_id: str, record: RunRecord) -> "Run":
    run = client.create_run(
        experiment_id,
        start_time=_milliseconds(record.started_at),
        tags=_tags(record),
        run_name=record.name,
    )
    _send_params(client, run, record)
    return client.get_run(run.info.run_id)


def _tags(record: RunRecord) -> dict[str, str]:
    tags = {name: _cut(value, _MAX_TAG) for name, value in record.tags.items()}
    return {**tags, JOB_ID_TAG: record.job_id}


def _send_params(client: "MlflowClient", run: "Run", record: RunRecord) -> None:
    from mlflow.entities import Param

    # A param cannot be changed once it is there; the first value stands.
    missing = {name: value for name, value in record.params.items() if name not in run.data.params}
    cut = {name: _cut(value, _MAX_PARAM) for name, value in missing.items()}
    for batch in _batches(cut):
        client.log_batch(run.info.run_id, params=[Param(name, value) for name, value in batch.items()])


def _batches(values: Mapping[str, str]) -> Iterator[dict[str, str]]:
    batch: dict[str, str] = {}
    size = 0
    for name, value in values.items():
        length = len(json.dumps({name: value}))
        if batch and (len(batch) >= _BATCH_ITEMS or size + length > _BATCH_BYTES):
            yield batch
            batch, size = {}, 0
        batch[name] = value
        size += length
    if batch:
        yield batch


class _Completion:
    """Adds to a Run everything that its record holds, and ends it."""

    def __init__(self, client: "MlflowClient", run: "Run", record: RunRecord) -> None:
        self._client = client
        self._run = run
        self._run_id: str = run.info.run_id
        self._record = record
        self._ended = _milliseconds(record.ended_at or record.started_at)

    def send(self) -> None:
        if self._run.info.run_name != self._record.name:
            self._client.update_run(self._run_id, name=self._record.name)
        _send_params(self._client, self._run, self._record)
        self._send_tags()
        self._send_metrics()
        self._send_datasets()
        self._send_artifacts()
        self._client.set_terminated(self._run_id, status=self._record.status, end_time=self._ended)

    def _send_tags(self) -> None:
        from mlflow.entities import RunTag

        there = self._run.data.tags
        changed = {name: value for name, value in _tags(self._record).items() if there.get(name) != value}
        for batch in _batches(changed):
            self._client.log_batch(self._run_id, tags=[RunTag(name, value) for name, value in batch.items()])

    def _send_metrics(self) -> None:
        from mlflow.entities import Metric

        # One fixed time, so that a point sent twice is the same point to MLflow.
        record = self._record
        metrics = [Metric(name, value, self._ended, 0) for name, value in record.metrics.items()]
        metrics += [
            Metric(name, point.value, self._ended, point.step)
            for name, points in record.series.items()
            for point in points
        ]
        for start in range(0, len(metrics), _BATCH_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[start : start + _BATCH_METRICS])

    def _send_datasets(self) -> None:
        inputs = self._run.inputs.dataset_inputs if self._run.inputs else []
        there = {(entry.dataset.name, entry.dataset.digest) for entry in inputs}
        new = [to_mlflow_input(split) for split in self._record.datasets]
        new = [entry for entry in new if (entry.dataset.name, entry.dataset.digest) not in there]
        if new:
            self._client.log_inputs(self._run_id, datasets=new)

    def _send_artifacts(self) -> None:
        uploads = _Uploads(self._client, self._run_id)
        for artifact in self._record.artifacts:
            uploads.send(artifact.file, artifact.artifact_path)
        if not self._record.tables:
            return
        with tempfile.TemporaryDirectory() as folder:
            for path, parquet in self._record.tables.items():
                uploads.send(_to_table(parquet, Path(folder) / PurePosixPath(path).name), path)
        self._mark_tables()

    def _mark_tables(self) -> None:
        # MLflow's pages show those artifacts as tables that this tag names.
        marked = _tables_in(self._run.data.tags.get(_TABLES_TAG, "[]"))
        wanted = [{"path": path, "type": "table"} for path in self._record.tables]
        new = [entry for entry in wanted if entry not in marked]
        if new:
            self._client.set_tag(self._run_id, _TABLES_TAG, json.dumps(marked + new))


def _tables_in(tag: str) -> list[Any]:
    """What the tag names; nothing when somebody has made of it what MLflow cannot read either."""
    try:
        found = json.loads(tag)
    except ValueError:
        return []
    return found if isinstance(found, list) else []


class _Uploads:
    """Uploads files that are not there yet with the same size; an upload that broke off is done again."""

    def __init__(self, client: "MlflowClient", run_id: str) -> None:
        self._client = client
        self._run_id = run_id
        self._sizes: dict[str, dict[str, int | None]] = {}

    def send(self, file: Path, artifact_path: str) -> None:
        path = PurePosixPath(artifact_path)
        parent = "" if str(path.parent) == "." else str(path.parent)
        if self._listed(parent).get(artifact_path) == file.stat().st_size:
            return
        if file.name == path.name:
            self._client.log_artifact(self._run_id, str(file), parent or None)
            return
        with tempfile.TemporaryDirectory() as folder:
            renamed = Path(folder) / path.name
            renamed.write_bytes(file.read_bytes())
            self._client.log_artifact(self._run_id, str(renamed), parent or None)

    def _listed(self, parent: str) -> dict[str, int | None]:
        if parent not in self._sizes:
            entries = self._client.list_artifacts(self._run_id, parent or None)
            self._sizes[parent] = {entry.path: entry.file_size for entry in entries}
        return self._sizes[parent]


def _to_table(parquet: Path, target: Path) -> Path:
    """The file as `mlflow.log_table` would write it: JSON with columns and data."""
    import pandas as pd

    frame = pd.read_parquet(parquet)
    frame.to_json(target, orient="split", index=False, date_format="iso", force_ascii=False)
    return target


def to_mlflow_input(split: DatasetInput) -> Any:
    """A split as MLflow's dataset input. Its digest is cut to MLflow's 36 characters; the profile has it whole."""
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowDatasetInput

    dataset = Dataset(
        name=_cut(split.name, _MAX_DATASET_NAME),
        digest=split.digest[:_MAX_DIGEST],
        source_type="local",
        source=json.dumps({"uri": split.source}, ensure_ascii=False),
        schema=_schema(split.file),
        profile=json.dumps({"num_rows": split.rows, "sha256": split.digest}),
    )
    return MlflowDatasetInput(dataset, tags=[InputTag("mlflow.data.context", split.context)])


_COLUMN_TYPES = {bool: "boolean", int: "long", float: "double", str: "string"}


def _schema(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open(encoding="utf-8") as lines:
        first = json.loads(next(lines, "{}"))
    columns = [
        {"name": name, "type": _COLUMN_TYPES.get(type(value), "object"), "required": True}
        for name, value in first.items()
    ]
    return json.dumps({"mlflow_colspec": columns}, ensure_ascii=False)


def _cut(text: str, limit: int) -> str:
    """The text, or its beginning and an ellipsis; the whole stands in `spec/compile.yaml`."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _at(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


def _link(connection: Connection, run: "Run") -> RunLink:
    info = run.info
    return RunLink(
        run_id=info.run_id,
        experiment_id=info.experiment_id,
        url=f"{connection.address}/#/experiments/{info.experiment_id}/runs/{info.run_id}",
    )


def to_info(connection: Connection, run: "Run") -> RunInfo:
    """MLflow's Run as ours."""
    link = _link(connection, run)
    return RunInfo(
        run_id=link.run_id,
        experiment_id=link.experiment_id,
        url=link.url,
        name=run.info.run_name or "",
        status=run.info.status,
        job_id=run.data.tags.get(JOB_ID_TAG),
        started_at=_at(run.info.start_time),
        ended_at=_at(run.info.end_time),
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
        deleted=run.info.lifecycle_stage == "deleted",
    )
