"""The experiment's Runs a page at a time; MLflow filters and sorts them."""

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from dspyui.adapters.mlflow_store.client import Connection, MlflowAccess
from dspyui.adapters.mlflow_store.filters import containing
from dspyui.adapters.mlflow_store.runs import refuse_deleted, to_info
from dspyui.domain.run_list import Registration, RunPage, RunQuery, RunSort
from dspyui.domain.runs import KIND_TAG, RunInfo, TrackingServer
from dspyui.errors import BadRequestError, FailedError, NotFoundError
from dspyui.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ORDERS: Final[Mapping[RunSort, str]] = {
    "started": "attributes.start_time",
    "name": "attributes.run_name",
    "program": "tags.`dspyui.program`",
    "module": "params.`module`",
    "optimizer": "params.`optimizer`",
    "lm": "params.`lm.task.model`",
    "baseline": "metrics.`baseline_score`",
    "score": "metrics.`evaluation_score`",
    "difference": "metrics.`score_improvement`",
    "cost": "metrics.`cost`",
    "duration": "metrics.`duration_seconds`",
}


class MlflowRunLibrary:
    """Implements `domain.run_list.RunLibrary`."""

    def __init__(self, settings: Settings, tracking: TrackingServer) -> None:
        self._access = MlflowAccess(settings, tracking)
        self._experiment_name = settings.mlflow_experiment_name

    def page(self, query: RunQuery, token: str | None = None) -> RunPage:
        """One request to the server, after one that finds the experiment. Raises BadRequestError for a wrong token."""
        with self._access.connected() as connection:
            experiment = connection.client.get_experiment_by_name(self._experiment_name)
            if experiment is None:
                return RunPage()
            refuse_deleted(experiment)
            found = _search(connection, experiment.experiment_id, query, token)
            return RunPage(
                runs=tuple(to_info(connection, run) for run in found), next_token=found.token or None
            )

    def get(self, run_id: str) -> RunInfo:
        """Raises NotFoundError."""
        with self._access.connected() as connection, known_run(connection, run_id):
            return to_info(connection, connection.client.get_run(run_id))

    def registrations(self, run_ids: Sequence[str]) -> Mapping[str, tuple[Registration, ...]]:
        """All in one question."""
        wanted = [run_id for run_id in run_ids if re.fullmatch(r"[\w-]+", run_id)]
        if not wanted:
            return {}
        with self._access.connected() as connection:
            found = sorted(
                _versions(connection.client, wanted),
                key=lambda version: (version.creation_timestamp, int(version.version)),
                reverse=True,
            )
        return {
            run_id: tuple(
                Registration(run_id=run_id, name=version.name, version=int(version.version))
                for version in found
                if version.run_id == run_id
            )
            for run_id in wanted
        }

    def file(self, run_id: str, path: str) -> bytes:
        """Raises NotFoundError when the Run or the file is not there."""
        with self._access.connected() as connection, tempfile.TemporaryDirectory() as folder:
            with known_run(connection, run_id):
                client = connection.client
                parent = str(PurePosixPath(path).parent)
                is_there = path in {entry.path for entry in client.list_artifacts(run_id, parent)}
            if not is_there:
                raise NotFoundError("run.no_file", run_id=run_id, path=path)
            return Path(connection.client.download_artifacts(run_id, path, folder)).read_bytes()

    def paths(self, run_id: str, folders: Sequence[str]) -> frozenset[str]:
        """A request for each folder; one that is not there holds nothing. Raises NotFoundError for the Run."""
        with self._access.connected() as connection, known_run(connection, run_id):
            client = connection.client
            return frozenset(
                entry.path for folder in folders for entry in client.list_artifacts(run_id, folder)
            )

    def delete(self, run_id: str) -> None:
        """One that is deleted already stays so."""
        with self._access.connected() as connection, known_run(connection, run_id):
            if connection.client.get_run(run_id).info.lifecycle_stage != "deleted":
                connection.client.delete_run(run_id)

    def restore(self, run_id: str) -> None:
        """One that is there already stays so."""
        with self._access.connected() as connection, known_run(connection, run_id):
            if connection.client.get_run(run_id).info.lifecycle_stage == "deleted":
                connection.client.restore_run(run_id)


@contextmanager
def known_run(connection: Connection, run_id: str) -> Iterator[None]:
    """Inside, a server that does not know the Run raises NotFoundError (`run.unknown`)."""
    try:
        with connection.mapped_errors():
            yield
    except (NotFoundError, FailedError) as exc:
        # An id that cannot be one is refused as a bad parameter, not as missing.
        if exc.code in {"mlflow.not_found", "mlflow.refused"}:
            raise NotFoundError("run.unknown", run_id=run_id[:64], address=connection.address) from exc
        raise


def _search(connection: Connection, experiment_id: str, query: RunQuery, token: str | None) -> Any:
    from mlflow.entities import ViewType

    try:
        with connection.mapped_errors():
            return connection.client.search_runs(
                [experiment_id],
                filter_string=run_filter(query),
                run_view_type=ViewType.DELETED_ONLY if query.deleted else ViewType.ACTIVE_ONLY,
                max_results=query.size,
                order_by=[f"{_ORDERS[query.sort]} {'DESC' if query.descending else 'ASC'}"],
                page_token=token,
            )
    except FailedError as exc:
        # Everything else of the question is of our own making.
        if token is not None and exc.code == "mlflow.refused":
            raise BadRequestError("run.page_token", token=token[:64]) from exc
        raise


def run_filter(query: RunQuery) -> str:
    """The query in MLflow's filter language."""
    parts = [
        f"{place} ILIKE {containing(wanted)}"
        for place, wanted in (
            ("attributes.run_name", query.name),
            ("tags.`dspyui.program`", query.program),
            ("params.`lm.task.model`", query.lm),
        )
        if wanted.strip()
    ]
    parts += [
        f"{place} = '{wanted}'"
        for place, wanted in (
            (f"tags.`{KIND_TAG}`", query.kind),
            ("attributes.status", query.state),
            ("params.`module`", _label(query.module)),
            ("params.`optimizer`", _label(query.optimizer)),
        )
        if wanted
    ]
    return " AND ".join(parts)


def _label(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(r"[\w ()-]{1,100}", text):
        raise BadRequestError("run.filter", value=text[:64])
    return text


def _versions(client: "MlflowClient", run_ids: Sequence[str]) -> Iterator[Any]:
    wanted = ", ".join(f"'{run_id}'" for run_id in run_ids)
    token = None
    while True:
        page = client.search_model_versions(f"run_id IN ({wanted})", max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
