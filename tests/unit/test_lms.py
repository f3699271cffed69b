"""Language models as they are named in a spec."""

from typing import Any

import pytest

from dspyui.domain.lms import LOCAL_MODEL, LMRoles, LMSpec
from dspyui.errors import BadRequestError


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
