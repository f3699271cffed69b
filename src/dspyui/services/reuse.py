"""The way back: a spec that can be compiled here, from a job, a Run of any machine, a spec file or a program file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from dspyui.domain.base import Notice
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.datasets import DataSpec
from dspyui.domain.jobs import JobStore
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.runs import RunStore
from dspyui.domain.signatures import Row
from dspyui.domain.splits import SplitName, Splits
from dspyui.errors import BadRequestError, DSPyUIError, NotFoundError
from dspyui.services.data import DataService
from dspyui.services.documents import parse_spec
from dspyui.services.metrics import MetricService

DATA_DIGEST_TAG = "dspyui.data_digest"
# No field can be called so.
SPLIT_COLUMN = "_split"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A spec that was loaded. One whose data is still to be chosen has no rows."""

    spec: CompileSpec
    notices: tuple[Notice, ...] = ()

    @property
    def has_data(self) -> bool:
        """Whether it names data, or holds some."""
        return self.spec.data.rows is None or bool(self.spec.data.rows)


class ReuseService:
    """Loads what was compiled before, wherever it was, so that it can be changed and compiled again."""

    def __init__(self, jobs: JobStore, runs: RunStore, data: DataService, metrics: MetricService) -> None:
        self._jobs = jobs
        self._runs = runs
        self._data = data
        self._metrics = metrics

    def job(self, job_id: str) -> Loaded:
        """The spec of a job; its own rows when its file is gone. Raises NotFoundError."""
        spec = self._jobs.spec(job_id)
        came = (Notice(key="loaded.job", values={"job": job_id}), *self.metric_notices(spec))
        if self._digest(spec) is not None:
            return Loaded(spec, came)
        rows = self._jobs.rows(job_id)
        notice = Notice(key="loaded.rows_of_job", values={"rows": len(rows)})
        return Loaded(_with_rows(spec, rows, self._jobs.parts(job_id)), (*came, notice))

    def run(self, run_id: str) -> Loaded:
        """The spec of a Run, also of one made on another machine.

        Its files are found again when its job is here. Data that is not here, or is not what it was, is taken from the
        Run. Raises NotFoundError, BadRequestError when what the Run holds is no spec of a version that is known here,
        UnavailableError.
        """
        spec = _parsed(self._runs.spec(run_id), f"Run {run_id}")
        came = (Notice(key="loaded.run", values={"run_id": run_id}), *self.metric_notices(spec))
        if spec.data.rows is not None:
            return Loaded(spec, came)
        run = self._runs.get_run(run_id)
        spec = self._placed(spec, run.job_id or "")
        digest, wanted = self._digest(spec), run.tags.get(DATA_DIGEST_TAG) or spec.digests.get("data")
        if digest is not None and wanted in {None, digest}:
            return Loaded(spec, came)
        return self._with_rows_of(run_id, spec, came, is_other=digest is not None)

    def _placed(self, spec: CompileSpec, job_id: str) -> CompileSpec:
        """The spec with its paths as its job has them: a Run holds the files' names alone."""
        try:
            own = self._jobs.spec(job_id)
        except DSPyUIError:
            return spec
        return spec.model_copy(update={"data": own.data}) if own.data.portable() == spec.data else spec

    def metric_notices(self, spec: CompileSpec) -> tuple[Notice, ...]:
        """What is to be said of people's own metrics that are not, or not any more, what the spec was compiled with."""
        here = self._metrics.digests(spec.metrics)
        return tuple(
            Notice(
                key="loaded.metric_other" if file in here else "loaded.metric_missing", values={"file": file}
            )
            for file in dict.fromkeys(metric.own_file for metric in spec.metrics)
            if file is not None and here.get(file) != spec.digests.get(file, here.get(file))
        )

    def file(self, content: bytes) -> Loaded:
        """A spec file (YAML or JSON), or a program file (`program.json`), whose data is left to choose.

        Raises BadRequestError.
        """
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as exc:
            raise BadRequestError("spec.yaml", problem=str(exc)) from exc
        if is_program(text):
            return spec_of_program(CompiledProgram.from_json(text, where="program.json"))
        spec = parse_spec(text)
        told = self.metric_notices(spec)
        if spec.data.upload is not None and self._digest(spec) is None:
            missing = Notice(key="loaded.upload_missing", values={"digest": spec.data.upload[:12]})
            return Loaded(_with_rows(spec, ()), (*told, missing))
        return Loaded(spec, told)

    def _with_rows_of(
        self, run_id: str, spec: CompileSpec, came: tuple[Notice, ...], *, is_other: bool
    ) -> Loaded:
        source = {"source": spec.data.path or f"{(spec.data.upload or '')[:12]}…"}
        try:
            splits = self._runs.splits(run_id)
        except NotFoundError:
            # It failed or was cancelled before its rows were split.
            if is_other:
                return Loaded(spec, (*came, Notice(key="loaded.data_other", values=source)))
            return Loaded(_with_rows(spec, ()), (*came, Notice(key="loaded.data_missing", values=source)))
        notice = Notice(
            key="loaded.rows_of_run", values={**source, "rows": sum(map(len, splits.by_name().values()))}
        )
        return Loaded(_with_splits(spec, splits), (*came, notice))

    def _digest(self, spec: CompileSpec) -> str | None:
        """The digest of the data that the spec names; None when it is not here, or does not fit any more."""
        try:
            return self._data.load(spec.program.signature, spec.data).digest
        except DSPyUIError:
            return None


def _parsed(text: str, where: str) -> CompileSpec:
    try:
        return parse_spec(text)
    except BadRequestError as exc:
        raise BadRequestError("reuse.spec", where=where, problem=str(exc)) from exc


def is_program(text: str) -> bool:
    """Whether the text is a document of a compiled program, and not a spec."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and {"spec", "state", "signature_digest"} <= set(document)


def spec_of_program(program: CompiledProgram) -> Loaded:
    """Signature, module, LM and optimizer as the program was made with; the data is left to choose."""
    spec = CompileSpec(
        program=program.spec,
        lms=program.roles(),
        optimizer=program.optimizer,
        data=DataSpec(rows=()),
    )
    return Loaded(spec, (Notice(key="loaded.program", values={"name": program.spec.name}),))


def _with_rows(
    spec: CompileSpec, rows: Sequence[Row], parts: Sequence[SplitName] | None = None
) -> CompileSpec:
    """The spec with rows of its own. With `parts`, a column says which split each row belongs to."""
    old, column = spec.data, None
    if parts is not None:
        column = SPLIT_COLUMN
        rows = [{**row, SPLIT_COLUMN: part} for row, part in zip(rows, parts, strict=True)]
    data = DataSpec(rows=tuple(rows), split=old.split, split_column=column, allow_shared=old.allow_shared)
    return spec.model_copy(update={"data": data})


def _with_splits(spec: CompileSpec, splits: Splits) -> CompileSpec:
    rows: list[Row] = []
    parts: list[SplitName] = []
    for name, part in splits.by_name().items():
        rows += part
        parts.extend(name for _row in part)
    return _with_rows(spec, rows, parts)
