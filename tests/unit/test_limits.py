"""Calls held back: at once, by the minute, after a refusal. Time is a number here; nothing sleeps."""

import threading

import pytest

from dspyui.domain.limits import Bucket, CallLimiter, GateClosedError
from tests.waiting import wait_until


@pytest.mark.parametrize("limit", [1, 2, 7, 60, 600, 6000])
def test_no_minute_sees_more_than_the_limit(limit):
    bucket, now, taken = Bucket(limit, 0.0), 0.0, []
    while now < 300:
        wait = bucket.wait(now)
        if wait > 0:
            now += wait + 1e-9
            continue
        bucket.take(1)
        taken.append(now)
    most = max(sum(start <= at < start + 60 for at in taken) for start in taken[:: max(1, len(taken) // 200)])
    assert limit / 2 <= most <= limit


def test_an_overdrawn_bucket_pays_its_debt_first():
    bucket = Bucket(600, 0.0)
    bucket.take(100)
    assert bucket.wait(0.0) == pytest.approx((100 - 10 + 1) / (590 / 60))


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def entered(limiter, tokens=1):
    """A thread that waits to enter, and whether it has."""
    through = threading.Event()

    def enter():
        limiter.enter(tokens)
        through.set()

    threading.Thread(target=enter, daemon=True).start()
    return through


def test_only_so_many_calls_at_once():
    limiter = CallLimiter(2)
    limiter.enter(1)
    limiter.enter(1)
    third = entered(limiter)
    assert not third.wait(0.1)
    limiter.leave(1, 1)
    assert third.wait(5)


def test_a_refusal_holds_everybody_back_for_as_long_as_the_server_asks():
    clock = Clock()
    limiter = CallLimiter(4, clock=clock)
    limiter.refused(30)
    assert limiter._wait() == 30
    clock.now = 29.5
    assert limiter._wait() == 0.5
    clock.now = 30
    assert limiter._wait() == 0


def test_refusals_without_a_time_wait_longer_each_time_until_one_is_answered():
    clock = Clock()
    limiter = CallLimiter(4, clock=clock)
    waits = []
    for _ in range(9):
        limiter.refused(None)
        limiter.refused(None)  # another that was under way: the same refusal
        waits.append(limiter._wait())
        clock.now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    limiter.enter(1)
    limiter.leave(1, 10)
    limiter.refused(None)
    assert limiter._wait() == 1


def test_tokens_are_estimated_and_then_corrected():
    clock = Clock()
    limiter = CallLimiter(8, tokens=6000, clock=clock)
    limiter.enter(100)
    assert limiter._wait() > 0
    limiter.leave(100, 20)
    assert limiter._wait() == 0


def test_a_closed_gate_sends_away_whoever_waits():
    limiter = CallLimiter(1)
    limiter.enter(1)
    raised = []

    def enter():
        try:
            limiter.enter(1)
        except GateClosedError as exc:
            raised.append(exc)

    threading.Thread(target=enter, daemon=True).start()
    limiter.close()
    wait_until(lambda: raised)
