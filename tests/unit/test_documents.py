"""Spec documents: read, written, and what a mistake in one says."""

import json

import pytest

from dspyui.domain.compiles import CompileSpec
from dspyui.errors import BadRequestError
from dspyui.services.documents import dump_spec, parse_spec

MINIMAL = "{program: {signature: {inputs: [{name: a}], outputs: [{name: b}]}}, data: {path: a.csv}}"


def test_what_is_left_out_has_its_default() -> None:
    spec = parse_spec(MINIMAL)
    assert spec.optimizer.kind == "bootstrap_few_shot"
    assert spec.lms.task.is_local
    assert spec.data.split.test == 0.3


def test_json_is_yaml_too() -> None:
    document = json.dumps(parse_spec(MINIMAL).model_dump(mode="json"))
    assert parse_spec(document) == parse_spec(MINIMAL)


def test_a_spec_reads_back_equal() -> None:
    spec = parse_spec(
        """
        program:
          name: "工单: 分类 🙂"
          signature:
            instructions: "第一行\\n第二行: yes"
            inputs: [{name: 问题}]
            outputs: [{name: b, type: choice, choices: ["yes", "no", "1.0", "null"]}]
        data:
          rows: [{问题: "yes", b: "no"}, {问题: "2026-01-01", b: "1.0"}, {问题: "", b: "null"}]
        lms: {task: {model: openai/x, temperature: 0}, teacher: {model: openai/y}}
        """
    )
    assert parse_spec(dump_spec(spec)) == spec
    assert "问题" in dump_spec(spec)


@pytest.mark.parametrize(
    ("text", "code", "named"),
    [
        ("a: [", "spec.yaml", "line 1"),
        ("a: 2026-99-99", "spec.yaml", "month"),
        ("", "spec.not_mapping", "spec.md"),
        ("[1, 2]", "spec.not_mapping", "spec.md"),
        ("!!python/object/apply:os.system ['true']", "spec.yaml", "python"),
        ("{data: {path: x}}", "spec.missing", "program"),
        ("program: 3", "spec.mapping", "program"),
        (MINIMAL[:-1] + ", sed: 1}", "spec.extra_near", "sed"),
        (MINIMAL[:-1] + ", seed: -1}", "spec.invalid", "seed"),
        (MINIMAL[:-1] + ", seed: x}", "spec.number", "seed"),
        (MINIMAL[:-1] + ", threads: 1.5}", "spec.number", "threads"),
        (MINIMAL[:-1] + ", optimizer: {kind: magic}}", "spec.choice", "optimizer.kind"),
        (MINIMAL[:-1] + ", lms: {task: {cache: perhaps}}}", "spec.bool", "lms.task.cache"),
        (MINIMAL.replace("[{name: a}]", "a"), "spec.list", "program.signature.inputs"),
        (MINIMAL.replace("{name: a}", "{name: yes}"), "spec.text", "program.signature.inputs.0.name"),
        (MINIMAL.replace("{name: a}", "{name: ../../x}"), "field_name.identifier", "../../x"),
        (MINIMAL[:-1] + ", metric: {fields: [c]}}", "metric.field", "c"),
        (MINIMAL.replace("{path: a.csv}", "{path: a.csv, split: {train: 0}}"), "data.split_train", "BootstrapFewShot"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place(text: str, code: str, named: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_spec(text)
    assert caught.value.code == code
    assert named in str(caught.value)
    assert named in caught.value.text("zh_CN")


@pytest.mark.parametrize(
    ("text", "where", "near"),
    [
        # What is missing is only missing because of the slip.
        (MINIMAL.replace("program:", "progam:"), "progam", "program"),
        (MINIMAL[:-1] + ", sed: 1, thread: 2}", "sed, thread", "seed, threads"),
        (
            MINIMAL.replace("{name: a}", "{nam: a, typ: str}"),
            "program.signature.inputs.0.nam, ",
            "name, type",
        ),
        (MINIMAL[:-1] + ", lms: {teacher: {modell: openai/x}}}", "lms.teacher.modell", "model"),
    ],
)
def test_unknown_keys_go_before_missing_ones_and_name_the_nearest(text: str, where: str, near: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_spec(text)
    assert caught.value.code == "spec.extra_near"
    assert str(caught.value.values["where"]).startswith(where)
    assert caught.value.values["near"] == near
    for said in (str(caught.value), caught.value.text("zh_CN")):
        assert where in said
        assert near in said


def test_an_unknown_key_like_no_other_gets_the_list_of_known_ones() -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_spec(MINIMAL[:-1] + ", colour: red}")
    assert caught.value.code == "spec.extra"
    for said in (str(caught.value), caught.value.text("zh_CN")):
        assert "program, lms, optimizer, metric, data, seed, threads" in said


def test_a_deep_document_is_refused_like_any_other() -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_spec("[" * 100_000)
    assert caught.value.code == "spec.yaml"


def test_no_training_rows_are_fine_without_an_optimizer() -> None:
    text = MINIMAL.replace("a.csv", "a.csv, split: {train: 0}")[:-1] + ", optimizer: {kind: none}}"
    assert isinstance(parse_spec(text), CompileSpec)
