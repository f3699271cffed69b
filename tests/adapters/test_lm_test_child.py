"""A test of a model in a process of its own: one real call with the keys there are now, and an end to it."""

import threading

import psutil
import pytest
from pydantic import SecretStr

from dspyui.domain.lms import LMSpec
from dspyui.errors import CancelledError, FailedError
from tests.adapters.test_predict_child import app  # noqa: F401 - a fixture
from tests.fake_openai import FakeOpenAI, Fault
from tests.waiting import wait_until

KEY = "typed-in-0123456789"


def lm(server: FakeOpenAI, **more: object) -> LMSpec:
    return LMSpec.model_validate({"model": "openai/fake", "api_base": server.base_url, **more})


def test_it_answers_with_a_key_that_was_just_typed_in(app) -> None:  # noqa: F811
    app.services.lms.set_key("DSPYUI_LM_API_KEY", SecretStr(KEY))
    with FakeOpenAI(lambda _m: "OK") as server:
        reply = app.services.lms.test(lm(server))
        assert (reply.text, reply.usage.lm_calls) == ("OK", 1)
        assert reply.usage.total_tokens > 0
        assert reply.seconds > 0
        assert server.keys == [f"Bearer {KEY}"]


def test_it_tries_once_and_says_what_the_provider_said_without_the_key(app) -> None:  # noqa: F811
    app.services.lms.set_key("MY_KEY", SecretStr(KEY))
    with FakeOpenAI(lambda _m: Fault(429, f"slow down, {KEY}")) as server:
        with pytest.raises(FailedError) as caught:
            app.services.lms.test(lm(server, api_key_env="MY_KEY", num_retries=5))
        assert len(server.requests) == 1
    assert caught.value.code == "engine.rate_limit"
    assert "slow down, ***" in str(caught.value)


def test_an_empty_reply_is_told(app) -> None:  # noqa: F811
    with FakeOpenAI(lambda _m: "  ") as server, pytest.raises(FailedError) as caught:
        app.services.lms.test(lm(server))
    assert caught.value.code == "engine.empty_reply"


def test_who_leaves_ends_it(app) -> None:  # noqa: F811
    before = {child.pid for child in psutil.Process().children()}
    with FakeOpenAI(lambda _m: "late", seconds=30) as server:
        cancelled = threading.Event()
        failed: list[BaseException] = []

        def ask() -> None:
            try:
                app.services.lms.test(lm(server), cancelled)
            except CancelledError as exc:
                failed.append(exc)

        thread = threading.Thread(target=ask)
        thread.start()
        wait_until(lambda: server.requests, seconds=60)
        cancelled.set()
        thread.join(20)
    assert [error.code for error in failed] == ["predict.cancelled"]  # type: ignore[attr-defined]
    assert {child.pid for child in psutil.Process().children()} <= before
