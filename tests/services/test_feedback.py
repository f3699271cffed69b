"""Opinions on calls: nothing is said to be stored before MLflow holds it."""

import json

import pytest

from dspyui.domain.feedback import MAX_COMMENT, Feedback
from dspyui.errors import BadRequestError, NotFoundError, UnavailableError
from dspyui.services.feedback import FeedbackService
from tests.contracts.fakes import MemoryFeedback, StaticTracking
from tests.waiting import close_before_the_clear, wait_until

UP, DOWN = Feedback(thumbs_up=True), Feedback(thumbs_up=False, comment="no lamp")
FIELDS = json.dumps([{"name": "product"}, {"name": "count", "type": "int"}])


@pytest.fixture
def store():
    return MemoryFeedback()


@pytest.fixture
def tracking():
    return StaticTracking()


@pytest.fixture
def service(settings, tracking, store):
    made = FeedbackService(settings, tracking, store)
    yield made
    made.close()


def test_a_trace_that_waits_is_sent_before_an_opinion_on_it_is_kept(service, store):
    trace_id = store.call({})
    assert service.waiting() == 1
    assert service.give(trace_id, DOWN, who="李雷") == DOWN
    assert service.waiting() == 0
    assert store.held == {(trace_id, "李雷"): DOWN}


def test_while_mlflow_is_away_nothing_is_stored_and_that_is_said(service, store):
    trace_id = store.call({})
    store.away = True
    with pytest.raises(UnavailableError) as caught:
        service.give(trace_id, UP, who="a")
    assert caught.value.code == "feedback.waits"
    assert "nothing was stored" in str(caught.value)
    assert "没有保存任何内容" in caught.value.text("zh_CN")
    assert "does not answer" not in caught.value.text("zh_CN")
    assert (store.held, service.waiting()) == ({}, 1)


def test_an_unknown_trace_and_a_refused_one_are_errors(service, store):
    with pytest.raises(NotFoundError) as caught:
        service.give("tr-" + "0" * 32, UP, who="a")
    assert caught.value.code == "feedback.no_trace"
    refused = store.call({})
    store.refused.add(refused)
    service.send()
    with pytest.raises(NotFoundError) as caught:
        service.give(refused, UP, who="a")
    assert caught.value.code == "feedback.refused"


def test_a_trace_that_is_refused_as_it_is_sent_for_an_opinion_is_told_as_refused(service, store):
    trace_id = store.call({})
    store.refused.add(trace_id)
    with pytest.raises(NotFoundError) as caught:
        service.give(trace_id, UP, who="a")
    assert caught.value.code == "feedback.refused"


def test_a_correction_is_brought_into_the_types_of_the_outputs_and_knows_no_other_field(service, store):
    trace_id = store.call({"dspyui.outputs": FIELDS})
    held = service.give(trace_id, Feedback(correction={"product": "lamp", "count": "3"}), who="a")
    assert held.correction == {"product": "lamp", "count": 3}
    for correction, code, named in (
        ({"produkt": "lamp"}, "feedback.field", "produkt"),
        ({"count": "three"}, "value.type", "count"),
    ):
        with pytest.raises(BadRequestError) as caught:
            service.give(trace_id, Feedback(correction=correction), who="a")
        assert caught.value.code == code
        assert named in str(caught.value)
    assert store.held[trace_id, "a"] == held


@pytest.mark.parametrize("tag", [{}, {"dspyui.outputs": "["}, {"dspyui.outputs": "3"}])
def test_a_trace_of_another_program_takes_any_correction(service, store, tag):
    trace_id = store.call(tag)
    assert service.give(trace_id, Feedback(correction={"x": 1}), who="a").correction == {"x": 1}


def test_saying_nothing_is_an_error(service, store):
    with pytest.raises(BadRequestError) as caught:
        service.give(store.call({}), Feedback(), who="a")
    assert caught.value.code == "feedback.empty"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"comment": "good"}, "feedback.comment_alone"),
        ({"thumbs_up": True, "comment": "x" * (MAX_COMMENT + 1)}, "feedback.comment_long"),
        ({"thumbs_up": True, "comment": "\ud83d"}, "feedback.comment_text"),
    ],
)
def test_a_comment_goes_with_a_thumb_and_has_bounds(said, code):
    with pytest.raises(BadRequestError) as caught:
        Feedback(**said)
    assert caught.value.code == code


def test_without_tracking_there_is_nowhere_to_keep_it(settings, store):
    service = FeedbackService(settings.model_copy(update={"mlflow_enabled": False}), StaticTracking(), store)
    assert not service.is_tracing
    with pytest.raises(UnavailableError) as caught:
        service.give("tr-1", UP, who="a")
    assert caught.value.code == "feedback.off"


def test_what_waits_is_sent_by_itself_once_mlflow_answers(service, store, tracking):
    tracking.away = store.away = True
    trace_id = store.call({})
    service.start()
    assert service.trace(trace_id).status == "waiting"
    tracking.away = store.away = False
    service.wake()
    wait_until(lambda: service.waiting() == 0, seconds=30)
    state = service.trace(trace_id)
    assert state.status == "stored"
    assert trace_id in state.url


def test_a_surprise_does_not_end_the_sender(service, store):
    send, surprises = store.send_waiting, [ValueError("odd"), KeyError("odder")]

    def surprising(stop=None):
        if surprises:
            raise surprises.pop()
        return send(stop)

    store.send_waiting = surprising
    store.call({})
    service.start()
    for left in (1, 0):
        service.wake()
        wait_until(lambda left=left: len(surprises) <= left)
    service.wake()
    wait_until(lambda: store.waiting() == 0)


def test_what_the_last_call_has_left_is_still_sent_at_the_end(service, store, tracking):
    tracking.away = store.away = True
    service.start()
    store.call({})
    tracking.away = store.away = False
    service.close()
    assert service.waiting() == 0


def test_a_close_at_the_wrong_moment_is_not_slept_over(service):
    close_before_the_clear(service)
    service._loop()
