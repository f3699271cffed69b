"""What can go wrong with a model, and what a person is told: the model, what happened, what to do."""

import pytest

from dspyui.adapters.dspy_engine import lms
from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.domain.lms import LMRoles, LMSpec
from dspyui.errors import FailedError, RefusedError
from dspyui.i18n import Text
from dspyui.services.batches import error_kind
from tests.fake_openai import FakeOpenAI, Fault

CANARY = "sk-canary-0123456789abcdef"


@pytest.fixture
def ask(tmp_path):
    """Asks a server that gives the replies in order, the last one again and again."""

    def ask(*replies, seconds=0.0, environment=None, **lm):
        left = list(replies)
        with FakeOpenAI(lambda _m: left.pop(0) if len(left) > 1 else left[0], seconds) as server:
            spec = LMSpec(**{"model": "openai/fake", "api_base": server.base_url, "num_retries": 0, **lm})
            engine = DspyEngine(
                LMRoles(task=spec), environment=environment or {}, cache_folder=tmp_path / "cache"
            )
            try:
                return engine.ask("Say it."), server, engine
            except FailedError as exc:
                return exc, server, engine

    return ask


@pytest.mark.parametrize(
    ("fault", "code", "remedy"),
    [
        (Fault(404, "no model `fake`", body='{"error": {"message": "no", "code": "model_not_found"}}'),
         "engine.model_unknown", ("Check the model's name", "请检查模型名")),
        (Fault(404, "nothing here", body="<html>nothing here</html>"), "engine.not_found", ("/v1", "/v1")),
        (Fault(401, f"Incorrect API key provided: {CANARY}."), "engine.auth", ("Check the key", "检查")),
        (Fault(403, "not for you"), "engine.auth", ("Check the key", "检查")),
        (Fault(402, "pay first"), "engine.billing", ("no credit", "余额")),
        (Fault(429, "slow down"), "engine.rate_limit", ("fewer threads", "减少线程数")),
        (Fault(500, "broken"), "engine.server", ("Try again later", "稍后再试")),
        (Fault(503, "overloaded"), "engine.server", ("Try again later", "稍后再试")),
        (Fault(400, "no such option"), "engine.invalid_request", ("Check the LM's settings", "检查 LM 设置")),
    ],
)  # fmt: skip
def test_every_fault_says_model_cause_and_remedy(ask, fault, code, remedy):
    error, *_ = ask(fault, environment={"MINE": CANARY}, api_key_env="MINE")
    assert error.code == code
    for language, words in zip(("en_US", "zh_CN"), remedy, strict=True):
        said = error.text(language)
        assert words in said
        assert "openai/fake" in said
        assert CANARY not in said
        assert "lm15" not in said


def test_a_refusal_names_the_variable_of_the_key_or_says_that_none_was_sent(ask):
    fault = Fault(401, "no")
    for environment, options, code, variable in (
        ({"MINE": CANARY}, {"api_key_env": "MINE"}, "engine.auth", "MINE"),
        ({"DSPYUI_LM_API_KEY": CANARY, "OPENAI_API_KEY": CANARY}, {}, "engine.auth", "DSPYUI_LM_API_KEY"),
        ({"OPENAI_API_KEY": CANARY}, {}, "engine.key_needed", None),
    ):
        error, server, _ = ask(fault, environment=environment, **options)
        assert (error.code, error.values.get("variable")) == (code, variable)
        assert isinstance(error, RefusedError)
        assert (CANARY in server.keys[0]) is (code == "engine.auth")
        for language in ("en_US", "zh_CN"):
            assert ("DSPYUI_LM_API_KEY" in error.text(language)) is (code == "engine.key_needed")


def test_a_model_that_is_silent_too_long(ask):
    error, server, _ = ask("late", seconds=2, timeout=0.2, num_retries=1)
    assert error.code == "engine.timeout"
    assert len(server.requests) == 2
    assert "timeout" in error.text("en_US")
    assert "超时" in error.text("zh_CN")


def test_an_answer_that_is_no_reply(ask):
    error, *_ = ask(Fault(200, "", body="<html>a login page</html>"))
    assert error.code == "engine.no_reply"
    assert "OpenAI" in error.text("en_US")


@pytest.mark.parametrize("blank", ["", " \n"])
def test_an_empty_reply_is_asked_for_again_and_is_no_answer(ask, blank):
    error, server, engine = ask(blank, num_retries=2)
    assert error.code == "engine.empty_reply"
    assert len(server.requests) == engine.usage().lm_calls == 3
    assert engine.lm_errors() == 1
    for language, word in (("en_US", "empty"), ("zh_CN", "为空")):
        assert word in error.text(language)
        assert "openai/fake" in error.text(language)


def test_an_empty_reply_that_was_kept_is_asked_for_anew(tmp_path):
    replies = ["", "at last"]
    with FakeOpenAI(lambda _messages: replies.pop(0)) as server:
        for retries, answers in ((0, False), (1, True)):
            spec = LMSpec(model="openai/fake", api_base=server.base_url, num_retries=retries)
            engine = DspyEngine(LMRoles(task=spec), environment={}, cache_folder=tmp_path / "cache")
            if answers:
                assert engine.ask("Say it.") == "at last"
                assert (engine.usage().lm_cache_hits, engine.usage().lm_calls) == (1, 1)
            else:
                with pytest.raises(FailedError):
                    engine.ask("Say it.")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_passes_is_tried_again_with_growing_waits(ask, waits, status):
    text, server, engine = ask(Fault(status, "not now"), Fault(status, "not now"), "at last", num_retries=2)
    assert text == "at last"
    assert len(server.requests) == 3
    assert waits == [1, 2]
    assert engine.usage().lm_calls == 1
    assert engine.lm_errors() == 0


def test_the_providers_own_wait_is_kept_to(ask, waits):
    text, *_ = ask(Fault(429, "slow down", {"Retry-After": "7"}), "at last", num_retries=1)
    assert text == "at last"
    assert waits == [7]


def test_nobody_waits_an_hour_in_silence(ask, waits):
    error, server, _ = ask(Fault(429, "daily limit", {"Retry-After": "3600"}), num_retries=3)
    assert error.code == "engine.rate_limit_long"
    assert "60 min" in error.text("en_US")
    assert "60 分钟" in error.text("zh_CN")
    assert waits == []
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 404, 400])
def test_what_does_not_pass_is_not_tried_again(ask, waits, status):
    error, server, _ = ask(Fault(status, "no"), num_retries=3)
    assert isinstance(error, FailedError)
    assert waits == []
    assert len(server.requests) == 1


def test_a_key_is_gone_before_the_words_are_cut(ask):
    error, *_ = ask(Fault(401, "x" * 490 + CANARY), environment={"MINE": CANARY}, api_key_env="MINE")
    assert CANARY[:8] not in str(error)


def test_a_failure_in_a_trace_holds_no_key(tmp_path):
    from dspyui.adapters.dspy_engine.meter import FINISHED
    from tests.adapters.test_engine import program

    kept = []
    with FakeOpenAI(lambda _m: Fault(401, f"Incorrect API key provided: {CANARY}.")) as server:
        spec = LMSpec(model="openai/fake", api_base=server.base_url, api_key_env="MINE")
        engine = DspyEngine(LMRoles(task=spec), environment={"MINE": CANARY}, cache_folder=tmp_path)
        token = FINISHED.set(kept.append)
        try:
            with pytest.raises(FailedError), engine._working():
                engine.build(program())(message="x")
        finally:
            FINISHED.reset(token)
    (trace,) = kept
    assert CANARY not in trace.model_dump_json()
    assert "***" in trace.model_dump_json()


@pytest.mark.parametrize("language", ["en_US", "zh_CN"])
def test_every_failure_that_may_cost_a_batch_a_row_has_a_few_words(language):
    """Those that no later call will change end the batch, but for one request that is refused."""
    codes = {code for _kind, code in lms._CODES} - lms._FINAL | {
        "engine.invalid_request",
        "engine.unexpected",
    }
    for code in codes:
        assert error_kind(Text(language), code) != code, code
    assert error_kind(Text(language), "engine.no_such") == "engine.no_such"
