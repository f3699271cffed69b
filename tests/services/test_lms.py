"""Which models can be called, which to begin with, and what is taken as a key."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from dspyui.adapters.dspy_engine.prices import ListedPrices
from dspyui.domain.lms import LOCAL_MODEL, LMSpec
from dspyui.errors import BadRequestError, FailedError
from dspyui.services.lms import LMService
from dspyui.settings import Settings
from tests.api.world import EchoTester


def service(tmp_path: Path, **environ: str) -> LMService:
    return LMService(Settings.load(tmp_path / "no.env", environ), EchoTester(), ListedPrices())


def test_without_a_key_there_is_the_bundled_model(tmp_path: Path) -> None:
    lms = service(tmp_path)
    assert list(lms.models()) == [LOCAL_MODEL]
    assert lms.default() == LMSpec()
    assert {found.state for found in lms.providers()} == {"unset"}


def test_a_key_offers_its_providers_models_and_becomes_the_default(tmp_path: Path) -> None:
    lms = service(tmp_path, GOOGLE_API_KEY="k" * 20)
    assert "gemini/gemini-2.5-flash" in lms.models()
    assert lms.default().model == "gemini/gemini-2.5-flash"
    (found,) = [state for state in lms.providers() if state.state != "unset"]
    assert (found.variable, found.state) == ("GOOGLE_API_KEY", "environment")
    lms.set_key("GROQ_API_KEY", SecretStr("typed-in"))
    assert any(model.startswith("groq/") for model in lms.models())
    assert lms.key_state("GROQ_API_KEY") == "typed"


def test_the_setting_goes_before_everything(tmp_path: Path) -> None:
    lms = service(
        tmp_path,
        OPENAI_API_KEY="k" * 20,
        DSPYUI_LM_MODEL="openai/qwen",
        DSPYUI_LM_API_BASE="http://127.0.0.1:1/v1",
    )
    assert lms.default() == LMSpec(model="openai/qwen", api_base="http://127.0.0.1:1/v1")
    assert lms.models()[0] == "openai/qwen"


@pytest.mark.parametrize(
    "name",
    ["", "LD_PRELOAD", "PATH", "SSLKEYLOGFILE", "openai_api_key", "A B_KEY", "DSPYUI_X_KEY",
     "MLFLOW_TRACKING_TOKEN", "X" * 200 + "_KEY"],
)  # fmt: skip
def test_only_a_keys_name_is_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        service(tmp_path).set_key(name, SecretStr("some-key-or-other"))
    assert caught.value.code == "lm.key_name"
    assert "some-key-or-other" not in str(caught.value)


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "DSPYUI_LM_API_KEY", "HF_TOKEN", " MY_KEY "])
def test_a_keys_name_is_taken(tmp_path: Path, name: str) -> None:
    lms = service(tmp_path)
    lms.set_key(name, SecretStr(" some-key\n"))
    assert lms.typed() == [name.strip()]


@pytest.mark.parametrize("key", ["", "  ", "two\nlines", "钥匙", "x" * 5000])
def test_what_cannot_be_a_key_is_refused(tmp_path: Path, key: str) -> None:
    lms = service(tmp_path)
    with pytest.raises(BadRequestError) as caught:
        lms.set_key("OPENAI_API_KEY", SecretStr(key))
    assert caught.value.code == "lm.key_value"
    assert not key.strip() or key not in str(caught.value)
    assert lms.typed() == []


def test_a_test_without_its_key_asks_nobody(tmp_path: Path) -> None:
    tester = EchoTester()
    lms = LMService(Settings.load(tmp_path / "no.env", {}), tester, ListedPrices())
    with pytest.raises(BadRequestError) as caught:
        lms.test(LMSpec(model="groq/x"))
    assert caught.value.code == "lm.key_unset"
    assert tester.asked == []
    lms.set_key("GROQ_API_KEY", SecretStr("typed-in"))
    assert lms.test(LMSpec(model="groq/x")).text == "OK"


def test_a_refused_key_is_not_what_a_form_begins_with(tmp_path: Path) -> None:
    lms = service(tmp_path, OPENAI_API_KEY="k" * 20)
    first = lms.default()
    with pytest.raises(FailedError):
        lms.test(LMSpec(model="openai/bad"))
    assert (first.model.partition("/")[0], lms.default()) == ("openai", LMSpec())
    lms.set_key("OPENAI_API_KEY", SecretStr("another"))
    assert lms.default() == first


def test_what_another_server_says_of_a_providers_key_is_no_verdict_on_it(tmp_path: Path) -> None:
    lms = service(tmp_path, OPENAI_API_KEY="k" * 20, MY_API_KEY="m" * 20)
    for variable in ("OPENAI_API_KEY", "MY_API_KEY"):
        with pytest.raises(FailedError):
            lms.test(LMSpec(model="openai/bad", api_base="http://127.0.0.1:1/v1", api_key_env=variable))
    assert lms.key_test("OPENAI_API_KEY") is None
    assert lms.key_test("MY_API_KEY") is not None
