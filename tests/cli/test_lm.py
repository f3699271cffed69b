"""`dspyui lm`: one real call from the command line, and the list of models and keys."""

import json

import pytest

from dspyui.domain.lms import LOCAL_MODEL
from tests.fake_openai import FakeOpenAI, Fault

KEY = "sk-0123456789abcdef"


def test_a_model_that_answers(dspyui) -> None:
    with FakeOpenAI(lambda _m: "OK") as server:
        said = dspyui("lm", "test", "openai/fake", "--api-base", server.base_url, "--json")
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    assert answer.pop("seconds") > 0
    tokens = {"input_tokens": 8, "output_tokens": 1}
    assert answer == {"model": "openai/fake", "status": "done", "reply": "OK", "cost": None, **tokens}


@pytest.mark.parametrize(
    ("lang", "words"), [("en", "did not accept the key of MINE"), ("zh", "服务商不接受变量 MINE 中的密钥")]
)
def test_a_key_that_is_refused_is_told_in_words_and_never_repeated(dspyui, monkeypatch, lang, words) -> None:
    monkeypatch.setenv("MINE", KEY)
    with FakeOpenAI(lambda _m: Fault(401, f"Incorrect API key provided: {KEY}")) as server:
        said = dspyui(
            "lm",
            "test",
            "openai/fake",
            "--api-base",
            server.base_url,
            "--api-key-env",
            "MINE",
            "--lang",
            lang,
        )
    assert (said.code, said.out) == (1, "")
    assert words in said.err
    # A page is no help here.
    assert "Settings" not in said.err
    assert "设置”页面" not in said.err
    assert KEY not in said.err


def test_a_server_that_wants_a_key_is_not_said_to_refuse_one(dspyui) -> None:
    with FakeOpenAI(lambda _m: Fault(401, "Who are you?")) as server:
        said = dspyui("lm", "test", "openai/fake", "--api-base", server.base_url, "--json", "--lang", "zh")
    assert (said.code, said.document["error"]["code"]) == (1, "engine.key_needed")
    for part in ("请求没有带密钥", "DSPYUI_LM_API_KEY", "--api-key-env", "Who are you?"):
        assert part in said.err
    assert "设置”页面" not in said.err


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_model_without_its_key_leads_to_no_page(dspyui, lang) -> None:
    said = dspyui("lm", "test", "groq/x", "--lang", lang)
    assert "GROQ_API_KEY" in said.err
    assert "Settings" not in said.err
    assert "设置”页面" not in said.err


def test_a_model_without_its_key_asks_nobody(dspyui) -> None:
    said = dspyui("lm", "test", "groq/x", "--json")
    assert said.code == 2
    assert json.loads(said.out)["error"]["code"] == "lm.key_unset"


def test_a_name_that_is_no_models(dspyui) -> None:
    said = dspyui("lm", "test", "gpt")
    assert said.code == 2
    assert "provider/model" in said.err


def test_the_list_tells_whose_key_is_there_and_no_key(dspyui, monkeypatch) -> None:
    monkeypatch.setenv("GROQ_API_KEY", KEY)
    answer = json.loads(dspyui("lm", "list", "--json").out)
    assert answer["models"][0] == LOCAL_MODEL
    assert "groq/openai/gpt-oss-20b" in answer["models"]
    found = {item["provider"]: item["key"] for item in answer["providers"]}
    assert (found["groq"], found["openai"]) == ("environment", "unset")
    said = dspyui("lm", "list")
    assert "Groq: GROQ_API_KEY: set in the environment" in said.out
    assert KEY not in said.out + said.err
