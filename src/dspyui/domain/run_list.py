"""The Runs of an experiment as people go through them: a page at a time, filtered and sorted by MLflow."""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

from pydantic import Field

from dspyui.domain.base import Frozen
from dspyui.domain.jobs import JobKind
from dspyui.domain.runs import RunInfo, RunStatus

PAGE_RUNS = 50
MAX_FILTER = 200
RunSort = Literal[
    "started", "name", "program", "module", "optimizer", "lm", "baseline", "score", "difference", "cost", "duration"
]  # fmt: skip
SORTS: tuple[RunSort, ...] = get_args(RunSort)

# What a Run holds, and where among its artifacts. `ROWS_TABLE` is MLflow's own form of the rows.
RESULT, ROWS_TABLE = "evaluation/result.json", "evaluation/rows.json"
# Names under which a Run's files can be asked for: a name never becomes a path.
RUN_FILES: Mapping[str, str] = {
    "program.json": "program/program.json",
    "spec.yaml": "spec/compile.yaml",
    "result.json": RESULT,
    "rows.parquet": "evaluation/rows.parquet",
    "optimized_prompt.txt": "prompt/optimized_prompt.txt",
    "baseline_prompt.txt": "prompt/baseline_prompt.txt",
    "train.jsonl": "dataset/train.jsonl",
    "validation.jsonl": "dataset/validation.jsonl",
    "test.jsonl": "dataset/test.jsonl",
}
# The same of a batch's Run.
BATCH_FILES: Mapping[str, str] = {"batch.json": "spec/batch.json", "errors.jsonl": "errors/errors.jsonl"}


class RunQuery(Frozen):
    """Which Runs, in which order. `name`, `program` and `lm` are contained in what they look at, whatever the case.

    `kind` is what DSPyUI did in them: compiles or batches. `module` and `optimizer` are the labels that Runs are
    recorded with. `deleted`: those that were deleted, instead
    of those that are there. Runs without the value that is sorted by come last.
    """

    name: str = Field(default="", max_length=MAX_FILTER)
    program: str = Field(default="", max_length=MAX_FILTER)
    lm: str = Field(default="", max_length=MAX_FILTER)
    kind: JobKind | None = None
    state: RunStatus | None = None
    module: str | None = None
    optimizer: str | None = None
    deleted: bool = False
    sort: RunSort = "started"
    descending: bool = True
    size: int = Field(default=PAGE_RUNS, ge=1, le=1000)

    @property
    def is_filtered(self) -> bool:
        """Whether anything but the order is asked for."""
        return bool(
            self.name
            or self.program
            or self.lm
            or self.kind
            or self.state
            or self.module
            or self.optimizer
            or self.deleted
        )


class RunPage(Frozen):
    """Some Runs, and what to ask with for those after them; None when there are none."""

    runs: tuple[RunInfo, ...] = ()
    next_token: str | None = None


class Registration(Frozen):
    """A model version that was made of a Run."""

    run_id: str
    name: str
    version: int


class RunLibrary(Protocol):
    """MLflow's Runs as a list. Every method raises UnavailableError when the server does not answer."""

    def page(self, query: RunQuery, token: str | None = None) -> RunPage:
        """A page of the experiment's Runs; empty when there is no such experiment yet.

        `token` is the `next_token` of the page before, for the same query. Raises BadRequestError for one that is none.
        """
        ...

    def get(self, run_id: str) -> RunInfo:
        """A Run, also one that was deleted. Raises NotFoundError."""
        ...

    def registrations(self, run_ids: Sequence[str]) -> Mapping[str, tuple[Registration, ...]]:
        """What was registered of each of the Runs, newest first."""
        ...

    def file(self, run_id: str, path: str) -> bytes:
        """An artifact of a Run. Raises NotFoundError."""
        ...

    def paths(self, run_id: str, folders: Sequence[str]) -> frozenset[str]:
        """The paths of the artifacts that lie in some folders of a Run. Raises NotFoundError for the Run."""
        ...

    def delete(self, run_id: str) -> None:
        """Delete it as MLflow does: it can be restored until MLflow's garbage collection. Raises NotFoundError."""
        ...

    def restore(self, run_id: str) -> None:
        """Undo `delete`. Raises NotFoundError."""
        ...
