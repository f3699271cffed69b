"""Where the drafts of the compile form come from: a spec, the visitor's storage, a file's columns, or nothing. Pure."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from dspyui.domain.columns import field_name_for
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.datasets import DataSpec, FileSource
from dspyui.domain.lms import EmbedderSpec, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.programs import MAX_PROGRAM_NAME
from dspyui.domain.signatures import FieldSpec
from dspyui.ui.drafts import (
    OTHER_ROLES,
    SPLIT_CELL,
    Cells,
    CompileDraft,
    DataDraft,
    FieldDraft,
    FileDraft,
    LMDraft,
    RewardDraft,
)


def draft_of(spec: CompileSpec) -> CompileDraft:
    """The form that would give this spec; values of rows become text."""
    draft = CompileDraft(
        name=spec.program.name,
        instructions=spec.program.signature.instructions,
        module=spec.program.module.kind,
        optimizer=spec.optimizer.kind,
        params={spec.optimizer.kind: dict(spec.optimizer.resolved())},
        metric=spec.metric.kind,
        metric_params={spec.metric.kind: dict(spec.metric.resolved())},
        task=lm_draft(spec.lms.task),
        prompt=_role_draft(spec.lms.prompt),
        teacher=_role_draft(spec.lms.teacher),
        judge=_role_draft(spec.lms.judge),
        embedder=_role_draft(spec.lms.embedder),
        seed=spec.seed,
        threads=spec.threads,
        repeats=spec.repeats,
        max_errors=spec.max_errors,
    )
    signature = spec.program.signature
    for role, given in (("inputs", signature.inputs), ("outputs", signature.outputs)):
        side = draft.inputs if role == "inputs" else draft.outputs
        side.extend(_field_draft(draft, made) for made in given)
    scored = spec.metric.fields or tuple(made.name for made in signature.outputs)
    draft.metric_fields = [made.key for made in draft.outputs if made.name in scored]
    weights = spec.metric.weights
    draft.metric_weights = {made.key: weights[made.name] for made in draft.outputs if made.name in weights}
    module = spec.program.module
    draft.module_params = {module.kind: dict(module.resolved())}
    if module.reward is not None:
        draft.reward = _reward_draft(draft, module.reward)
    draft.data = _data_draft(draft, spec.data)
    return draft


def _reward_draft(draft: CompileDraft, reward: MetricSpec) -> RewardDraft:
    return RewardDraft(
        metric=reward.kind,
        params={reward.kind: dict(reward.resolved())},
        fields=[made.key for made in draft.outputs if made.name in reward.fields],
        weights={
            made.key: reward.weights[made.name] for made in draft.outputs if made.name in reward.weights
        },
    )


def _field_draft(draft: CompileDraft, made: FieldSpec) -> FieldDraft:
    return draft.new_field(
        name=made.name, type=made.type, choices=", ".join(made.choices), description=made.description
    )


def lm_draft(lm: LMSpec | EmbedderSpec) -> LMDraft:
    """The form of one model."""
    made = LMDraft(model=lm.model, api_base=lm.api_base or "", api_key_env=lm.api_key_env or "")
    if isinstance(lm, LMSpec):
        made.temperature, made.max_tokens = lm.temperature, lm.max_tokens
        made.cache, made.num_retries, made.timeout = lm.cache, lm.num_retries, lm.timeout
    return made


def _role_draft(lm: LMSpec | EmbedderSpec | None) -> LMDraft | None:
    return None if lm is None else lm_draft(lm)


def _data_draft(draft: CompileDraft, data: DataSpec) -> DataDraft:
    made = DataDraft(
        train=data.split.train,
        validation=data.split.validation,
        test=data.split.test,
        seed=data.split.seed,
        allow_shared=data.allow_shared,
    )
    if data.split_column is not None:
        made.dealing, made.split_column = "column", data.split_column
    elif data.own_files:
        made.dealing = "files"
        made.validation_file, made.test_file = _file_draft(data.validation), _file_draft(data.test)
    if data.rows is not None:
        made.rows = cells_of(draft, data.rows, columns=data.columns, split_column=data.split_column)
        return made
    keys = {field.name: field.key for field in draft.all_fields()}
    made.columns = {keys[name]: column for name, column in data.columns.items() if name in keys}
    if data.upload is not None:
        made.source, made.upload = "upload", data.upload
    else:
        made.source, made.path = "path", data.path or ""
    return made


def _file_draft(source: FileSource | None) -> FileDraft:
    return FileDraft() if source is None else FileDraft(path=source.path or "", upload=source.upload or "")


def cells_of(
    draft: CompileDraft,
    rows: Sequence[Mapping[str, Any]],
    *,
    columns: Mapping[str, str] | None = None,
    split_column: str | None = None,
) -> list[Cells]:
    """Rows of a file or a spec as the grid keeps them. Columns that are no field are left out.

    `columns` names the column of a field that has another name, `split_column` the one of splits.
    """
    mapped = columns or {}
    named = [(made.key, mapped.get(made.name, made.name)) for made in draft.all_fields()]
    if split_column is not None:
        named.append((SPLIT_CELL, split_column))
    return [{key: _cell(row.get(name)) for key, name in named} for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def draft_from_store(stored: Mapping[str, Any]) -> CompileDraft:
    """A draft that was kept. Raises TypeError, KeyError or AttributeError when it is from another version."""
    values = dict(stored)
    unknown = set(values) - {made.name for made in fields(CompileDraft)}
    if unknown:
        raise KeyError(*unknown)
    values["inputs"] = [FieldDraft(**made) for made in values["inputs"]]
    values["outputs"] = [FieldDraft(**made) for made in values["outputs"]]
    values["data"] = DataDraft.from_store(values["data"])
    values["reward"] = RewardDraft(**values["reward"])
    values["task"] = LMDraft(**values["task"])
    for role in OTHER_ROLES:
        values[role] = LMDraft(**values[role]) if values[role] else None
    return CompileDraft(**values)


def name_of_file(data: DataDraft) -> str:
    """A program's name after the file of its data: without folders and ending; empty when there is no file."""
    path = data.upload_name if data.source == "upload" else data.path
    stem = PurePath(path.strip().replace("\\", "/")).stem
    words = "".join(character if character.isprintable() else " " for character in stem)
    return " ".join(words.split())[:MAX_PROGRAM_NAME]


def field_columns(draft: CompileDraft, columns: Sequence[str]) -> list[str]:
    """The columns of a file that may become fields: all but the one that says the split."""
    data = draft.data
    return [name for name in columns if data.dealing != "column" or name != data.split_column]


def fields_from_columns(
    draft: CompileDraft, columns: Sequence[str], outputs: Collection[str] | None = None
) -> None:
    """Make the fields those of a file: `outputs` (else its last column) are the outputs, all others are inputs.

    A column whose name no field can have gives its field a name like it, and stays mapped to it. A program without a
    name is called after the file.
    """
    draft.name = draft.name.strip() or name_of_file(draft.data)
    for made in draft.all_fields():
        draft.remove_field("inputs" if made in draft.inputs else "outputs", made)
    data = draft.data
    used = field_columns(draft, columns)
    expected = set(used[-1:] if outputs is None else outputs)
    taken: set[str] = set()
    for column in used:
        name = field_name_for(column, taken)
        taken.add(name)
        made = draft.new_field(name=name)
        draft.side("outputs" if column in expected else "inputs").append(made)
        if name != column:
            data.columns[made.key] = column
    draft.metric_fields = [made.key for made in draft.outputs]


def empty_draft() -> CompileDraft:
    """A form with one nameless field on each side."""
    draft = CompileDraft()
    draft.inputs.append(draft.new_field())
    draft.outputs.append(draft.new_field())
    draft.metric_fields = [draft.outputs[0].key]
    draft.data.rows = [{}, {}, {}]
    return draft
