"""What every store of feedback does, the one in memory and MLflow's."""

import pytest

from dspyui.adapters.mlflow_store.feedback import MlflowFeedbackStore, open_calls
from dspyui.domain.feedback import Feedback
from dspyui.errors import NotFoundError, UnavailableError
from tests.contracts.fakes import MemoryFeedback
from tests.mlflow_world import make_trace

WHO = "李雷"


@pytest.fixture
def store(kind, settings, tracking):
    return MemoryFeedback() if kind == "memory" else MlflowFeedbackStore(settings, tracking)


@pytest.fixture
def call(kind, settings, store):
    """Makes a call as a runner does; gives the id of its trace, which waits."""

    def call(**tags):
        if kind == "memory":
            return store.call(tags)
        trace, sink = make_trace(tags=tags), open_calls(settings.home)
        sink.write(trace)
        sink.close()
        return trace.mlflow_id

    return call


@pytest.fixture
def sent(call, store):
    """A call whose trace has arrived."""
    trace_id = call(source="test")
    assert store.send_waiting() == 1
    return trace_id


def test_a_trace_waits_until_it_is_sent(call, store):
    one, other = call(), call(of="产品")
    assert store.waiting() == 2
    assert store.state(one).status == "waiting"
    assert store.send_waiting() == 2
    assert store.send_waiting() == store.waiting() == 0
    state = store.state(other)
    assert state.status == "stored"
    assert state.url.endswith(f"selectedEvaluationId={other}")
    assert store.tags(other)["of"] == "产品"


@pytest.mark.parametrize("is_up", [True, False])
def test_a_thumb_with_its_comment(store, sent, is_up):
    given = Feedback(thumbs_up=is_up, comment="第一行\nsecond 🙂")
    assert store.give(sent, given, who=WHO) == given
    assert store.get(sent, who=WHO) == given
    assert store.get(sent, who="somebody else") == Feedback()


def test_pressing_again_changes_the_opinion(store, sent):
    store.give(sent, Feedback(thumbs_up=True, comment="fine"), who=WHO)
    store.give(sent, Feedback(correction={"product": "lamp", "n": 3, "tags": ["a", "b"]}), who=WHO)
    changed = store.give(sent, Feedback(thumbs_up=False), who=WHO)
    assert changed == Feedback(thumbs_up=False, correction={"product": "lamp", "n": 3, "tags": ["a", "b"]})
    again = store.give(sent, Feedback(correction={"product": "台灯"}), who=WHO)
    assert again == store.get(sent, who=WHO) == Feedback(thumbs_up=False, correction={"product": "台灯"})


def test_two_people_have_two_opinions(store, sent):
    store.give(sent, Feedback(thumbs_up=True), who="a")
    store.give(sent, Feedback(thumbs_up=False), who="b")
    assert store.get(sent, who="a").thumbs_up is True
    assert store.get(sent, who="b").thumbs_up is False


@pytest.mark.parametrize(
    "trace_id",
    [
        "tr-0123456789abcdef0123456789abcdef",
        "tr-1",
        "",
        "../../runs/create",
        "MLFLOW_NO_OP_SPAN_TRACE_ID",
        "中文",
        "x" * 300,
    ],
)
def test_an_unknown_trace_is_an_error_and_nothing_is_stored(store, trace_id):
    for ask in (
        lambda: store.give(trace_id, Feedback(thumbs_up=True), who=WHO),
        lambda: store.get(trace_id, who=WHO),
        lambda: store.tags(trace_id),
        lambda: store.state(trace_id),
    ):
        with pytest.raises(NotFoundError) as caught:
            ask()
        assert caught.value.code == "feedback.no_trace"


def test_a_trace_that_still_waits_takes_no_opinion(call, store):
    with pytest.raises(NotFoundError):
        store.give(call(), Feedback(thumbs_up=True), who=WHO)


def test_while_mlflow_is_away_traces_wait(kind, call, store, tracking, settings):
    trace_id = call()
    away(kind, store, tracking, is_away=True)
    for ask in (store.send_waiting, lambda: store.give("tr-1", Feedback(thumbs_up=True), who=WHO)):
        with pytest.raises(UnavailableError):
            ask()
    assert (store.waiting(), store.state(trace_id).status) == (1, "waiting")
    away(kind, store, tracking, is_away=False)
    assert store.send_waiting() == 1


def away(kind, store, tracking, *, is_away):
    if kind == "memory":
        store.away = is_away
    else:
        tracking.away = is_away
