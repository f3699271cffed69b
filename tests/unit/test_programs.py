"""Programs and compiled programs as documents."""

import json
from typing import Any

import pytest

from dspyui.domain.lms import EmbedderSpec, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import (
    MAX_PROGRAM_NAME,
    MODULES,
    CompiledProgram,
    ModuleSpec,
    Neighbours,
    ProgramSpec,
)
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import BadRequestError

SIGNATURE = SignatureSpec(inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(name="b"),))


def compiled(**changes: Any) -> CompiledProgram:
    values: dict[str, Any] = {
        "spec": ProgramSpec(signature=SIGNATURE),
        "lm": LMSpec(),
        "optimizer": OptimizerSpec(),
        "state": {"self": {"demos": [{"a": "é", "b": "台灯"}]}},
        "signature_digest": SIGNATURE.digest(),
    }
    return CompiledProgram(**{**values, **changes})


@pytest.mark.parametrize("name", ["x", "产品提取", "../../x", "a/b: c", "🙂", "x" * MAX_PROGRAM_NAME])
def test_a_name_is_for_people(name: str) -> None:
    assert ProgramSpec(name=name, signature=SIGNATURE).name == name


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "a\x00", "a\u202eb", "a\u2028b", "\ud800", "x" * (MAX_PROGRAM_NAME + 1)]
)
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    with pytest.raises((BadRequestError, ValueError)) as caught:
        ProgramSpec(name=name, signature=SIGNATURE)
    if isinstance(caught.value, BadRequestError):
        assert caught.value.code == ("program.name" if name.strip() else "program.name_empty")


def test_every_module_has_its_own_entry_and_dspys_name() -> None:
    import dspy

    for kind, info in MODULES.items():
        assert kind == info.kind
        assert hasattr(dspy, info.label)


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ({"kind": "best_of_n"}, "module.reward_needed"),
        ({"kind": "refine"}, "module.reward_needed"),
        ({"kind": "best_of_n", "reward": {"kind": "exact_match"}}, "module.reward_expected"),
        (
            {"kind": "predict", "reward": {"kind": "regex", "params": {"pattern": "x"}}},
            "module.reward_unused",
        ),
        ({"kind": "multi_chain_comparison", "params": {"N": 3}}, "parameter.unknown"),
        ({"kind": "multi_chain_comparison", "params": {"M": 0}}, "parameter.range"),
        (
            {
                "kind": "best_of_n",
                "params": {"module": "refine"},
                "reward": {"kind": "regex", "params": {"pattern": "x"}},
            },
            "parameter.type",
        ),
    ],
)
def test_a_module_that_could_not_work_is_refused(module: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        ModuleSpec.model_validate(module)
    assert caught.value.code == code
    label = MODULES[module["kind"]].label
    assert label in str(caught.value)
    assert label in caught.value.text("zh_CN")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("multi_chain_comparison", "rationale"),
        ("multi_chain_comparison", "reasoning_attempt_2"),
        ("refine", "hint_"),
    ],
)
def test_names_that_a_module_uses_itself_are_refused(kind: Any, name: str) -> None:
    reward = MetricSpec(kind="regex", params={"pattern": "x"}) if MODULES[kind].rewards else None
    signature = SignatureSpec(inputs=(FieldSpec(name=name),), outputs=(FieldSpec(name="b"),))
    with pytest.raises(BadRequestError) as caught:
        ProgramSpec(signature=signature, module=ModuleSpec(kind=kind, reward=reward))
    assert caught.value.code == "program.field_taken"


def test_a_wrapper_adds_what_its_inner_module_adds() -> None:
    reward = MetricSpec(kind="regex", params={"pattern": "x"})
    assert ModuleSpec(kind="best_of_n", reward=reward).added_outputs() == ("reasoning",)
    plain = ModuleSpec(kind="best_of_n", params={"module": "predict"}, reward=reward)
    assert plain.added_outputs() == ()


def neighbouring() -> CompiledProgram:
    own = "http://127.0.0.1:8000/v1"
    neighbours = Neighbours(
        rows=({"a": "x", "b": "y"},),
        embedder=EmbedderSpec(model="openai/words", api_base=own),
        metric=MetricSpec(),
        teacher=LMSpec(model="anthropic/claude"),
    )
    return compiled(
        lm=LMSpec(model="openai/mine", api_base=own),
        optimizer=OptimizerSpec(kind="knn_few_shot"),
        neighbours=neighbours,
    )


def test_addresses_stay_behind_and_come_back_where_they_were() -> None:
    left = neighbouring().without_addresses()
    assert "127.0.0.1" not in left.to_json()
    assert left.moved == ("embedder",)
    roles = left.at("http://127.0.0.1:9000/v1").roles()
    assert roles.task.api_base == "http://127.0.0.1:9000/v1"
    assert roles.embedder is not None
    assert roles.embedder.api_base == "http://127.0.0.1:9000/v1"
    # A provider's own model is not asked at somebody else's address.
    assert roles.teacher == LMSpec(model="anthropic/claude")


def test_neighbours_belong_to_knn() -> None:
    with pytest.raises(BadRequestError) as caught:
        compiled(neighbours=neighbouring().neighbours)
    assert caught.value.code == "program.neighbours"


def test_an_unknown_module_parameter_is_refused() -> None:
    with pytest.raises(BadRequestError) as caught:
        ModuleSpec(kind="predict", params={"n": 3})
    assert caught.value.code == "parameter.unknown"


def test_a_compiled_program_reads_back_equal_and_has_equal_bytes() -> None:
    program = compiled()
    text = program.to_json()
    again = CompiledProgram.model_validate_json(text)
    assert again == program
    assert again.to_json() == text
    assert "台灯" in text


def test_a_program_whose_signature_was_changed_is_refused() -> None:
    document = json.loads(compiled().to_json())
    document["spec"]["signature"]["outputs"][0]["type"] = "int"
    with pytest.raises(BadRequestError) as caught:
        CompiledProgram.model_validate(document)
    assert caught.value.code == "program.digest"


@pytest.mark.parametrize("text", ["", "{}", "[1]", "{", "\ud83d", '{"format": 3}'])
def test_a_document_that_is_no_program_is_said(text: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        CompiledProgram.from_json(text.encode("utf-8", "replace"), where="Run 1")
    assert caught.value.code == "program.unreadable"
    assert "Run 1" in caught.value.text("zh_CN")


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="format"):
        compiled(format=3)
