"""What a compile leaves in its job's folder for people and for MLflow."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspyui.adapters.files.atomic import write_atomic
from dspyui.domain.compiles import ChatMessage, CompileResult, RowResult, prompt_text
from dspyui.domain.jobs import JobStore
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.splits import Splits

if TYPE_CHECKING:
    import pyarrow as pa


class FileArtifactWriter:
    """Implements `domain.jobs.ArtifactWriter`. Only the job's child writes here, and only once an attempt."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs

    def write_splits(self, job_id: str, splits: Splits) -> None:
        """One JSON object a line, one file a split."""
        for name, rows in splits.by_name().items():
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            self._write(job_id, f"dataset/{name}.jsonl", lines)

    def write_programs(self, job_id: str, *, baseline: CompiledProgram, optimised: CompiledProgram) -> None:
        """Both programs as JSON."""
        self._write(job_id, "baseline_program.json", baseline.to_json())
        self._write(job_id, "program.json", optimised.to_json())

    def write_prompts(
        self, job_id: str, *, baseline: Sequence[ChatMessage], optimised: Sequence[ChatMessage]
    ) -> None:
        """Both prompts as they were sent for the first test row."""
        for name, messages in (("baseline", baseline), ("optimized", optimised)):
            self._write(job_id, f"prompt/{name}_prompt.txt", f"{prompt_text(messages)}\n")

    def write_rows(self, job_id: str, result: CompileResult) -> None:
        """A table with a row for each test row."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        pairs = zip(result.baseline.rows, result.optimised.rows, strict=True)
        rows = [_flat(before, after) for before, after in pairs]
        # A reply that could not be read has no `reasoning`.
        names = dict.fromkeys(name for row in rows for name in row)
        table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
        content = io.BytesIO()
        pq.write_table(table, content)
        self._write(job_id, "evaluation/rows.parquet", content.getvalue())

    def _write(self, job_id: str, name: str, content: str | bytes) -> None:
        write_atomic(self._path(job_id, name), content, durable=True)

    def _path(self, job_id: str, name: str) -> Path:
        path = self._jobs.folder(job_id) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _column(values: list[Any]) -> "pa.Array":
    """The values as a column; as text when they are of no one type that Parquet has.

    A model may answer with a whole number of any length; Parquet's have 64 bits.
    """
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())


# MLflow's table view takes a dot in a column's name for a path and shows nothing there; a name's first word keeps
# a field called `score` or `error` apart from ours.
def _flat(before: RowResult, after: RowResult) -> dict[str, Any]:
    row: dict[str, Any] = {"row": before.index}
    row |= {f"input_{name}": value for name, value in before.inputs.items()}
    row |= {f"expected_{name}": value for name, value in before.expected.items()}
    for label, outcome in (("before", before), ("after", after)):
        predicted = outcome.predicted or {}
        row |= {f"{label}_{name}": predicted.get(name) for name in outcome.expected}
        if "reasoning" in predicted:
            row[f"{label}_reasoning"] = predicted["reasoning"]
        row |= {
            f"score_{label}": outcome.score,
            **{f"field_score_{label}_{name}": score for name, score in outcome.by_field.items()},
            f"feedback_{label}": outcome.feedback or None,
            f"error_{label}": _error(outcome),
            f"trace_id_{label}": outcome.trace_id,
        }
    return row


def _error(outcome: RowResult) -> str | None:
    """Everything that went wrong at a row, in English: the table goes to MLflow."""
    faults = [*([outcome.failure] if outcome.failure else []), *outcome.problems]
    said = [*([outcome.error] if outcome.error else []), *(fault.sentence("en_US") for fault in faults)]
    return "\n".join(dict.fromkeys(said)) or None
