"""Language models as they are named in a spec."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from dspyui.domain.compiles import CompileSpec
from dspyui.domain.lms import LOCAL_MODEL, LMRoles, LMSpec, ModelSpec
from dspyui.errors import BadRequestError
from dspyui.ui.drafts import CompileDraft, LMDraft

# Where DSPyUI begins otherwise than DSPy, and with what. The documents say so, and why.
EXCEPTIONS = {"threads": 4, "timeout": 180}


def test_the_bundled_model_is_the_default() -> None:
    assert LMSpec().model == LOCAL_MODEL
    assert LMSpec().is_local
    assert LMRoles().uses_local


@pytest.mark.parametrize(
    "model",
    ["openai/gpt-4o-mini", "ollama_chat/qwen3:8b", "openrouter/meta-llama/llama-3-8b", "azure/我的部署"],
)
def test_any_provider_and_model(model: str) -> None:
    spec = LMSpec(model=model)
    assert not spec.is_local
    assert not LMRoles(task=spec).uses_local


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"model": ""}, "lm.model"),
        ({"model": "gpt-4o-mini"}, "lm.model"),
        ({"model": "/x"}, "lm.model"),
        ({"model": "openai/"}, "lm.model"),
        ({"model": " openai/x"}, "lm.model"),
        ({"model": "openai/x\n"}, "lm.model"),
        ({"model": "local/other"}, "lm.local_unknown"),
        ({"api_base": "localhost:8000", "model": "openai/x"}, "lm.api_base"),
        ({"api_base": "", "model": "openai/x"}, "lm.api_base"),
        ({"api_base": "file:///etc", "model": "openai/x"}, "lm.api_base"),
        ({"api_base": "https://anna:hunter2@h/v1", "model": "openai/x"}, "lm.api_base_key"),
        ({"api_base": "https://hunter2@h", "model": "openai/x"}, "lm.api_base_key"),
    ],
)
def test_what_is_no_model_or_address(values: dict[str, Any], code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        LMSpec(**values)
    assert caught.value.code == code


def test_a_teacher_counts_as_a_role() -> None:
    api = LMSpec(model="openai/x")
    assert LMRoles(task=api).by_role() == {"task": api}
    assert LMRoles(task=api, teacher=LMSpec()).uses_local


def test_settings_are_everything_but_the_name_and_what_is_unset() -> None:
    assert LMSpec(temperature=0, max_tokens=40).settings() == {
        "temperature": 0.0,
        "max_tokens": 40,
        "cache": True,
        "num_retries": 3,
        "timeout": 180,
    }


def test_a_key_has_no_place_in_a_spec() -> None:
    with pytest.raises(ValueError, match="api_key"):
        LMSpec.model_validate({"model": "openai/x", "api_key": "secret"})


def test_a_models_settings_begin_as_dspys_do() -> None:
    import dspy
    from dspy.lm15 import Timeouts

    theirs = {name: one.default for name, one in inspect.signature(dspy.LM.__init__).parameters.items()}
    ours = {name: one.default for name, one in LMSpec.model_fields.items()}
    settings = {name: value for name, value in ours.items() if name not in ModelSpec.model_fields}
    assert {name: getattr(LMDraft(), name) for name in settings} == settings
    # DSPy sets none; its client waits for 600 seconds.
    assert "timeout" not in theirs
    assert Timeouts().read == 600
    assert settings.pop("timeout") == EXCEPTIONS["timeout"]
    assert settings == {name: theirs[name] for name in settings}
    assert set(settings) == {"temperature", "max_tokens", "cache", "num_retries"}


def test_a_compile_begins_as_dspy_does_but_for_the_threads() -> None:
    from dspy.dsp.utils.settings import DEFAULT_CONFIG

    ours = {name: CompileSpec.model_fields[name].default for name in ("threads", "max_errors")}
    assert ours == {"threads": EXCEPTIONS["threads"], "max_errors": DEFAULT_CONFIG.max_errors}
    assert {name: getattr(CompileDraft(), name) for name in ours} == ours
    assert DEFAULT_CONFIG.num_threads == 8


@pytest.mark.parametrize("name", ["models.md", "models_zh.md"])
def test_the_documents_name_every_setting_with_its_default(name: str) -> None:
    document = (Path(__file__).parents[2] / "docs" / name).read_text(encoding="utf-8")
    lines = [line for line in document.splitlines() if line.startswith("| `")]
    for setting in [*LMSpec().settings(), "temperature", "max_tokens", "threads"]:
        assert any(line.startswith(f"| `{setting}` |") for line in lines), setting
    for setting, value in EXCEPTIONS.items():
        (line,) = [line for line in lines if line.startswith(f"| `{setting}` |")]
        assert f"| {value} |" in line
