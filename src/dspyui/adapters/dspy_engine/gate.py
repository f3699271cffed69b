"""Holds back calls to language models at the one place where each of them goes out.

DSPy has no setting for a rate. Around a whole LM call its cache and its retries would be inside too: a reply from the
cache would use up the limit, and a call that waits for its next try would count as one that is under way.
"""

import threading
from collections.abc import Callable
from typing import Any

import dspy
from dspy.clients import execution
from dspy.lm15 import RateLimitError

from dspyui.adapters.dspy_engine.meter import Meter

# Of a prompt, when nothing better is known: English has about four characters a token, Chinese fewer than two.
_CHARACTERS_A_TOKEN = 3
_REPLY_TOKENS = 256

_setting = threading.Lock()


def limit_calls() -> None:
    """Let DSPy's client ask the meter's gate before each attempt. A test holds the place it is done at."""
    with _setting:
        attempt = execution._attempt
        if not isinstance(attempt, _Gated):
            execution._attempt = _Gated(attempt)  # pyright: ignore[reportAttributeAccessIssue]


class _Gated:
    """One attempt at one call, through the gate of whoever makes it."""

    def __init__(self, attempt: Callable[..., None]) -> None:
        self._attempt = attempt

    def __call__(
        self,
        lm: dspy.LM,
        call: execution.PreparedCall,
        backend: Any,
        request: Any,
        provider: Any,
        state: Any,
        results: Any,
    ) -> None:
        meter = dspy.settings.usage_tracker
        gate = meter.gate if isinstance(meter, Meter) else None
        if gate is None:
            self._attempt(lm, call, backend, request, provider, state, results)
            return
        estimated = _estimate(call)
        tokens: int | None = None
        gate.enter(estimated)
        try:
            self._attempt(lm, call, backend, request, provider, state, results)
            usage = state.result.usage or {}
            tokens = int(usage.get("prompt_tokens") or 0) + int(usage.get("completion_tokens") or 0)
        except RateLimitError as exc:
            gate.refused(exc.retry_after)
            raise
        finally:
            gate.leave(estimated, tokens)


def _estimate(call: execution.PreparedCall) -> int:
    characters = sum(len(str(message.get("content", ""))) for message in call.legacy.get("messages", ()))
    reply = call.legacy.get("max_tokens") or _REPLY_TOKENS
    return characters // _CHARACTERS_A_TOKEN + min(int(reply), _REPLY_TOKENS)
