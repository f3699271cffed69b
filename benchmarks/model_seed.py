"""Registered models for `run_pages.py`, written into MLflow's database and beside it before the server starts.

`ours`: versions as DSPyUI registers them, with tags, stages, aliases and audit entries, around one real package.
`foreign`: versions that another tool logged, each with files of its own, a real `MLmodel` and a pickle. `lost`: those
of another tool whose files are gone. And a hundred models of one version, so that the list has pages.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from common import write

OURS, FOREIGN, LOST = "ours", "foreign", "lost"
# A page of versions, and some more.
FOREIGN_VERSIONS: Final = 60
SMALL_MODELS: Final = 100
MLMODEL: Final = """\
flavors:
  dspy:
    model_path: data/model.pkl
  python_function:
    data: data/model.pkl
    loader_module: mlflow.dspy
    python_version: 3.11.7
mlflow_version: 3.17.2
"""


def seed_models(connection: Any, tables: Any, versions: int, runs: list[str], start: int) -> None:
    """Write all of them; `versions` is how many `ours` has, each made of one of the Runs."""
    names = [OURS, FOREIGN, LOST, *(f"model-{number}" for number in range(SMALL_MODELS))]
    write(connection, tables, "registered_models", (model_row(name, start) for name in names))
    write(connection, tables, "logged_models", logged_rows(start))
    counts = {OURS: versions, FOREIGN: FOREIGN_VERSIONS, LOST: FOREIGN_VERSIONS}
    counts |= {name: 1 for name in names if name not in counts}
    rows = (
        version_row(name, number, runs[number % len(runs)], start, versions)
        for name, count in counts.items()
        for number in range(1, count + 1)
    )
    write(connection, tables, "model_versions", rows)
    tagged = (row for number in range(1, versions + 1) for row in tag_rows(number, versions))
    write(connection, tables, "model_version_tags", tagged)
    held = {"production": production(versions), "staging": production(versions) + 1, "champion": 1}
    aliases = (
        {"name": OURS, "alias": alias, "version": number, "workspace": "default"}
        for alias, number in held.items()
    )
    write(connection, tables, "registered_model_aliases", aliases)


def production(versions: int) -> int:
    """The version that is in Production; the one after it is in Staging."""
    return versions - versions % 10 - 10


def write_files(artifacts: Path) -> None:
    """What the server hands out: the package of `ours`, and what the other tool logged for each of its versions."""
    from mlflow.models import Model

    from batch import program
    from dspyui.adapters.mlflow_store import packaging
    from dspyui.domain.programs import CompiledProgram

    made = CompiledProgram.from_json(program("http://127.0.0.1:9/v1"), where="benchmark")
    target = artifacts / OURS
    packaging.save(target, made, model=Model(), input_example={"message": "My lamp broke."})
    for number in range(1, FOREIGN_VERSIONS + 1):
        folder = artifacts / f"{FOREIGN}-{number}"
        (folder / "data").mkdir(parents=True)
        (folder / "MLmodel").write_text(MLMODEL)
        (folder / "data" / "model.pkl").write_bytes(b"\x80\x04.")


def model_row(name: str, start: int) -> dict[str, Any]:
    """A registered model."""
    return {
        "name": name, "creation_time": start, "last_updated_time": start, "description": "", "workspace": "default",
    }  # fmt: skip


def logged_rows(start: int) -> Iterator[dict[str, Any]]:
    """The logged models that the versions stand for; where their files lie is told as the server's own address."""
    for model_id in (OURS, *(f"{FOREIGN}-{number}" for number in range(1, FOREIGN_VERSIONS + 1))):
        yield {
            "model_id": logged_id(model_id), "experiment_id": 1, "name": "program",
            "artifact_location": f"mlflow-artifacts:/{model_id}", "creation_timestamp_ms": start,
            "last_updated_timestamp_ms": start, "status": 2, "lifecycle_stage": "active", "model_type": "",
        }  # fmt: skip


def logged_id(model_id: str) -> str:
    """In MLflow's form: no hyphens after the first one."""
    return f"m-{model_id.replace('-', '')}"


def version_row(name: str, version: int, run_id: str, start: int, versions: int) -> dict[str, Any]:
    """A version; the files of `lost` are those of a logged model that there is not."""
    shared = name not in {FOREIGN, LOST}
    source = logged_id(OURS if shared else f"{name}-{version}")
    return {
        "name": name, "version": version, "creation_time": start + version, "last_updated_time": start,
        "description": "", "user_id": "bench", "current_stage": stage(version, versions) if name == OURS else "None",
        "source": f"models:/{source}", "run_id": run_id, "run_link": "", "status": "READY", "status_message": "",
        "workspace": "default", "storage_location": "",
    }  # fmt: skip


def stage(version: int, versions: int) -> str:
    """One in ten was promoted once."""
    now = production(versions)
    if version in {now, now + 1}:
        return "Production" if version == now else "Staging"
    return "Archived" if version % 10 == 0 and version < now else "None"


def tag_rows(version: int, versions: int) -> Iterator[dict[str, Any]]:
    """What a version's own tags tell, and the audit entries of one that was promoted."""
    known = {
        "dspyui.program": f"program {version}", "dspyui.module": "Predict", "dspyui.optimizer": "GEPA",
        "dspyui.lm": "openai/model", "dspyui.signature": "message -> product", "dspyui.signature_digest": "s" * 64,
        "dspyui.data_digest": "d" * 64, "dspyui.job_id": f"20260101-000000-{version:08x}",
        "dspyui.registered_by": "bench", "dspyui.baseline_score": "0.5", "dspyui.evaluation_score": "0.75",
        "dspyui.score_improvement": "0.25", "dspyui.verdict": "better", "dspyui.metric": "exact_match",
    }  # fmt: skip
    if stage(version, versions) in {"Production", "Archived"}:
        known["dspyui.was_production"] = "true"
        known["dspyui.audit.00"] = audit(
            "None", "Production", f"2026-01-01T00:00:00.{version % 1000:03d}+00:00"
        )
    if stage(version, versions) == "Archived":
        known["dspyui.audit.01"] = audit(
            "Production", "Archived", f"2026-01-02T00:00:00.{version % 1000:03d}+00:00"
        )
    return (
        {"name": OURS, "version": version, "key": key, "value": value, "workspace": "default"}
        for key, value in known.items()
    )


def audit(before: str, after: str, at: str) -> str:
    """An entry as DSPyUI writes it."""
    return json.dumps({"who": "bench", "at": at, "from": before, "to": after, "why": "Scores more."})
