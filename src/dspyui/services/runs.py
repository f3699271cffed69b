"""The Runs of MLflow as people handle them: list, open, compare, delete, restore."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from dspyui.domain.base import Frozen, Notice
from dspyui.domain.compiles import (
    ChatMessage,
    CompileResult,
    CompileSpec,
    Evaluation,
    RowResult,
    Usage,
)
from dspyui.domain.run_list import (
    BATCH_FILES,
    RESULT,
    ROWS_TABLE,
    RUN_FILES,
    Registration,
    RunLibrary,
    RunPage,
    RunQuery,
)
from dspyui.domain.runs import RunInfo
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.services.documents import parse_spec
from dspyui.services.run_comparison import RunComparison, compare_runs

MAX_COMPARED = 6


class ListedRun(Frozen):
    """A Run of the list, with the versions that were made of it."""

    info: RunInfo
    registrations: tuple[Registration, ...] = ()


class RunListing(Frozen):
    """A page of the list."""

    runs: tuple[ListedRun, ...]
    next_token: str | None = None


class RunDetail(Frozen):
    """All that a Run holds; `files` are those of `RUN_FILES`, or of a batch `BATCH_FILES`, that are there.

    What it does not hold, or what cannot be read here, is told in `notices`.
    """

    info: RunInfo
    spec: CompileSpec | None
    result: CompileResult | None
    registrations: tuple[Registration, ...]
    files: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()


class RunService:
    """Reads everything from MLflow, so that a Run made on another machine shows the same."""

    def __init__(self, library: RunLibrary) -> None:
        self._library = library

    def page(self, query: RunQuery, token: str | None = None) -> RunListing:
        """A page of Runs. Raises UnavailableError, BadRequestError for a page that is none."""
        found: RunPage = self._library.page(query, token)
        made = self._library.registrations([run.run_id for run in found.runs])
        return RunListing(
            runs=tuple(
                ListedRun(info=run, registrations=tuple(made.get(run.run_id, ()))) for run in found.runs
            ),
            next_token=found.next_token,
        )

    def detail(self, run_id: str) -> RunDetail:
        """One Run, also one that was deleted. Raises NotFoundError, UnavailableError."""
        info = self._library.get(run_id)
        spec, about_spec = self._spec(info)
        result, about_result = self._result(info)
        return RunDetail(
            info=info,
            spec=spec,
            result=result,
            registrations=tuple(self._library.registrations([run_id]).get(run_id, ())),
            files=self._files(info),
            notices=(*about_spec, *about_result),
        )

    def info(self, run_id: str) -> RunInfo:
        """What MLflow's list tells of one Run, also of a deleted one. Raises NotFoundError, UnavailableError."""
        return self._library.get(run_id)

    def compare(self, run_ids: Sequence[str]) -> RunComparison:
        """Two to six Runs side by side, in the order given; batches among two compiles or more are left out, for they
        hold no test rows. Raises BadRequestError, NotFoundError, UnavailableError."""
        wanted = list(dict.fromkeys(run_ids))
        if not 2 <= len(wanted) <= MAX_COMPARED:
            raise BadRequestError("run.compare_count", count=len(wanted), limit=MAX_COMPARED)
        infos = [self._library.get(run_id) for run_id in wanted]
        batches = tuple(info for info in infos if info.kind == "batch")
        if len(infos) - len(batches) < 2:
            # What is left could be compared with nothing: that is said of all of them.
            batches = ()
        compared = [info for info in infos if info not in batches]
        found = compare_runs([(info, self._result(info)[0]) for info in compared])
        return found.model_copy(update={"left_out": batches})

    def file(self, run_id: str, name: str) -> bytes:
        """A file of the Run by a name of `RUN_FILES` or `BATCH_FILES`. Raises NotFoundError."""
        known = {**RUN_FILES, **BATCH_FILES}
        if name not in known:
            raise NotFoundError("api.file", name=name[:100], known=", ".join(known))
        return self._library.file(run_id, known[name])

    def delete(self, run_id: str) -> None:
        """Delete it as MLflow does. Raises NotFoundError."""
        self._library.delete(run_id)

    def restore(self, run_id: str) -> None:
        """Undo `delete`. Raises NotFoundError."""
        self._library.restore(run_id)

    def _files(self, info: RunInfo) -> tuple[str, ...]:
        known = BATCH_FILES if info.kind == "batch" else RUN_FILES
        # A request for each folder.
        folders = sorted({path.rpartition("/")[0] for path in known.values()})
        there = self._library.paths(info.run_id, folders)
        return tuple(name for name, path in known.items() if path in there)

    def _spec(self, info: RunInfo) -> tuple[CompileSpec | None, tuple[Notice, ...]]:
        if info.kind == "batch":
            return None, ()
        text = self._find(info.run_id, RUN_FILES["spec.yaml"])
        if text is None:
            # One that other programs made has none, and one that still runs has none yet.
            return None, ()
        try:
            return parse_spec(text), ()
        except BadRequestError as exc:
            return None, (Notice(key="ui.run.spec_unreadable", values={"problem": str(exc)}),)

    def _result(self, info: RunInfo) -> tuple[CompileResult | None, tuple[Notice, ...]]:
        """The result as it was sent; of a Run of version 0.1, which did not send it, what the table of rows holds."""
        if info.job_id is None or "evaluation_score" not in info.metrics:
            return None, ()
        text = self._find(info.run_id, RESULT)
        if text is not None:
            try:
                return CompileResult.model_validate_json(text).compared(), ()
            except ValidationError as exc:
                problem = exc.errors()[0]["msg"]
                return None, (Notice(key="ui.run.result_unreadable", values={"problem": problem}),)
        table = self._find(info.run_id, ROWS_TABLE)
        if table is None:
            return None, (Notice(key="ui.run.no_result"),)
        try:
            return self._result_of_table(info, table), (Notice(key="ui.run.old_result"),)
        except (ValueError, KeyError, TypeError) as exc:
            problem = f"{type(exc).__name__}: {exc}"
            return None, (Notice(key="ui.run.result_unreadable", values={"problem": problem}),)

    def _result_of_table(self, info: RunInfo, table: str) -> CompileResult:
        prompts = {
            name: self._find(info.run_id, RUN_FILES[f"{name}_prompt.txt"])
            for name in ("baseline", "optimized")
        }
        return result_of_table(info, table, prompts)

    def _find(self, run_id: str, path: str) -> str | None:
        try:
            # A damaged text is shown as it is; a damaged document is told by whoever reads it.
            return self._library.file(run_id, path).decode("utf-8", errors="replace")
        except NotFoundError:
            return None


def result_of_table(info: RunInfo, table: str, prompts: Mapping[str, str | None]) -> CompileResult:
    """A result from MLflow's table of its rows (`columns` and `data`), its metrics, and the texts of its prompts.

    What went wrong at a row is one English text there, and is shown as such.
    """
    document = json.loads(table)
    rows = [dict(zip(document["columns"], values, strict=True)) for values in document["data"]]
    metrics = info.metrics
    return CompileResult(
        baseline=_evaluation(rows, "before", metrics["baseline_score"], prompts.get("baseline")),
        optimised=_evaluation(rows, "after", metrics["evaluation_score"], prompts.get("optimized")),
        trials=(),
        usage=Usage(
            lm_calls=int(metrics.get("lm_calls", 0)),
            lm_cache_hits=int(metrics.get("lm_cache_hits", 0)),
            input_tokens=int(metrics.get("input_tokens", 0)),
            output_tokens=int(metrics.get("output_tokens", 0)),
            cost=metrics.get("cost"),
        ),
        splits={},
        data_digest=info.tags.get("dspyui.data_digest", ""),
        versions={
            name.removeprefix("version."): value
            for name, value in info.params.items()
            if name.startswith("version.")
        },
    ).compared()


def _evaluation(
    rows: Sequence[dict[str, Any]], side: Literal["before", "after"], score: float, prompt: str | None
) -> Evaluation:
    return Evaluation(
        score=score,
        rows=tuple(_row(row, side) for row in rows),
        prompt=() if prompt is None else (ChatMessage(role="prompt", content=prompt.rstrip("\n")),),
    )


def _row(row: dict[str, Any], side: Literal["before", "after"]) -> RowResult:
    expected = _part(row, "expected_")
    predicted = {name: value for name, value in _part(row, f"{side}_").items() if value is not None}
    return RowResult(
        index=row["row"],
        inputs=_part(row, "input_"),
        expected=expected,
        predicted=predicted or None,
        score=row[f"score_{side}"],
        by_field={
            name: value for name, value in _part(row, f"field_score_{side}_").items() if value is not None
        },
        feedback=row.get(f"feedback_{side}") or "",
        error=row.get(f"error_{side}"),
        trace_id=row.get(f"trace_id_{side}"),
    )


def _part(row: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
