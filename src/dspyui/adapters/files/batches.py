"""What only a batch has, in its job's folder."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from dspyui.adapters.files.atomic import write_atomic
from dspyui.adapters.files.batch_outputs import FileOutputTarget, clear_target, output_target
from dspyui.adapters.files.batch_results import RESULTS, FileEarlierRows, FileResultLog
from dspyui.adapters.files.documents import read_document
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.domain.batches import BatchModel, BatchProgress, BatchResult, BatchSpec
from dspyui.domain.jobs import Job
from dspyui.errors import NotFoundError

_SPEC: Final = "batch.json"
_MODEL: Final = "model.json"


class FileBatchStore:
    """Implements `domain.batches.BatchStore` beside the jobs' own store."""

    def __init__(self, jobs: FileJobStore) -> None:
        self._jobs = jobs

    def create(self, spec: BatchSpec, model: BatchModel, *, title: str, who: str) -> Job:
        """A new queued batch; its folder appears in one step, with a copy of the program."""

        def fill(folder: Path) -> None:
            write_atomic(folder / _SPEC, spec.model_dump_json(indent=2), durable=True)
            write_atomic(folder / _MODEL, model.model_dump_json(indent=2), durable=True)

        return self._jobs.make("batch", fill, title=title, who=who)

    def spec(self, job_id: str) -> BatchSpec:
        """Raises NotFoundError, also when the job is no batch."""
        with self._only_batches(job_id) as folder:
            return read_document(folder / _SPEC, BatchSpec)

    def model(self, job_id: str) -> BatchModel:
        """The program, as it was when the batch was made. Raises NotFoundError."""
        with self._only_batches(job_id) as folder:
            return read_document(folder / _MODEL, BatchModel)

    @contextmanager
    def _only_batches(self, job_id: str) -> Iterator[Path]:
        folder = self._jobs.folder(job_id)
        try:
            yield folder
        except FileNotFoundError as exc:
            raise NotFoundError("batch.no_batch", job_id=job_id) from exc

    def progress(self, job_id: str) -> BatchProgress:
        """Where it stands; the start when nothing was written yet. Raises NotFoundError."""
        try:
            return read_document(self._jobs.folder(job_id) / "progress.json", BatchProgress)
        except FileNotFoundError:
            return BatchProgress()

    def write_progress(self, job_id: str, progress: BatchProgress) -> None:
        """Raises NotFoundError."""
        path = self._jobs.folder(job_id) / "progress.json"
        write_atomic(path, progress.model_dump_json(), durable=False)

    def find_result(self, job_id: str) -> BatchResult | None:
        """The result, or None while there is none. Raises NotFoundError for an unknown job."""
        try:
            return read_document(self._jobs.folder(job_id) / "result.json", BatchResult)
        except FileNotFoundError:
            return None

    def write_result(self, job_id: str, result: BatchResult) -> None:
        """Raises NotFoundError."""
        path = self._jobs.folder(job_id) / "result.json"
        write_atomic(path, result.model_dump_json(indent=2), durable=True)

    def results(self, job_id: str) -> Path:
        """The file of results, which grows while the batch runs. Raises NotFoundError."""
        return self._jobs.folder(job_id) / RESULTS

    def open_log(self, job_id: str) -> FileResultLog:
        """For writing, by the batch's own process alone. Raises NotFoundError."""
        return FileResultLog(self._jobs.folder(job_id))

    def open_earlier(self, job_id: str) -> FileEarlierRows:
        """The finished rows of a batch. Raises NotFoundError when there are none."""
        with self._only_batches(job_id) as folder:
            return FileEarlierRows(folder)

    def open_target(self, spec: BatchSpec, job_id: str) -> AbstractContextManager[FileOutputTarget]:
        """See the protocol. Without an output of the person's own it is a file in the job's folder."""
        return output_target(self.output(spec, job_id), spec.written_format)

    def clear_target(self, job_id: str) -> None:
        """See the protocol. Raises NotFoundError."""
        clear_target(self.output(self.spec(job_id), job_id))

    def output(self, spec: BatchSpec, job_id: str) -> Path:
        """Where the output will be. Raises NotFoundError."""
        if spec.output is not None:
            return Path(spec.output)
        return self._jobs.folder(job_id) / f"output.{spec.written_format}"
