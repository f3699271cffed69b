"""The database over which machines share a batch: real PostgreSQL, real locks."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import pytest
from pydantic import SecretStr

from dspyui.adapters.shared_batches.board import PostgresBoard
from dspyui.domain.batches import BatchModel, BatchSpec, RowOutcome
from dspyui.domain.compiles import Usage
from dspyui.domain.limits import GateClosedError, PaceState
from dspyui.domain.lms import LOCAL_MODEL, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.sharing import Answer, SharedBatch, SharedRow
from dspyui.domain.traces import Span, Trace
from dspyui.errors import FailedError, UnavailableError
from dspyui.services.shared_gate import SharedGate
from tests.batch_world import program
from tests.postgres_world import running_postgres
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    with running_postgres(tmp_path_factory.mktemp("pg")) as server:
        yield server


@pytest.fixture
def address(postgres):
    return postgres.new_database()


@pytest.fixture
def board(address):
    with closing(PostgresBoard(SecretStr(address))) as made:
        yield made


@pytest.fixture
def stack():
    with ExitStack() as made:
        yield made


def batch(name="one", **more):
    spec = BatchSpec(**{"model": "m", "path": "rows.jsonl", "concurrency": 8, **more})
    model = BatchModel(program=program("http://127.0.0.1:9"), uri="m", name="m")
    return SharedBatch(
        id=name,
        made_by="1",
        total=100,
        spec=spec,
        model=model,
        columns=("message",),
        tags={"a": "b"},
        trace_share=1.0,
    )


def rows(*indexes):
    return [SharedRow(index=n, key=f"{n:032x}", values={"message": f"My thing{n} broke."}) for n in indexes]


def answer(index, *, trace=None, line='{"product": "x"}'):
    outcome = RowOutcome(
        index, bytes.fromhex(f"{index:032x}"), line, None, 12.5, Usage(lm_calls=1), 1.0, trace is not None
    )
    return Answer.of(outcome, trace)


def test_what_goes_out_comes_back_as_it_was(board, stack):
    host = stack.enter_context(board.host(batch()))
    worker = stack.enter_context(board.work("w"))
    strange = {"message": "half a pair \ud800, nothing \x00, 中文", "number": float("inf"), "none": None}
    row = SharedRow(index=7, key="ab" * 16, values=strange)
    host.hand_out([row])
    assert worker.wanted() == ["one"]
    assert worker.batch("one") == batch()
    chunk = worker.claim("one", held=(), calls=8)
    assert (chunk.rows, chunk.calls) == ((row,), 4)
    trace = Trace(trace_id="f" * 32, spans=(), tags={"dspyui.row": "7"})
    given = answer(7, trace=trace, line='{"a": "\\ud800", "b": "中"}')
    worker.answer(chunk, given)
    assert list(host.answers(10)) == [given]
    assert given.to_outcome().index == 7
    assert list(host.answers(10)) == [given]  # until it is kept
    host.kept([7])
    assert list(host.answers(10)) == []


class Holding:
    """A worker that knows which chunks it works on."""

    def __init__(self, seat):
        self.seat = seat
        self.held = set()

    def claim(self, calls=8):
        chunk = self.seat.claim("one", held=list(self.held), calls=calls)
        if chunk is not None:
            self.held.add(chunk.number)
        return chunk

    def is_through(self, chunk):
        self.seat.give_back(chunk, done=True)
        self.held.discard(chunk.number)


def test_no_chunk_goes_to_two_and_no_more_calls_are_made_than_the_batch_may(board, stack):
    host = stack.enter_context(board.host(batch(concurrency=10)))
    workers = [Holding(stack.enter_context(board.work(f"w{n}"))) for n in range(4)]
    for number in range(10):
        host.hand_out(rows(number))
    assert batch(concurrency=10).slots == (4, 3, 3)
    with ThreadPoolExecutor(4) as pool:
        # Each worker asks in one thread, as it does.
        asked = pool.map(lambda worker: [worker.claim() for _ in range(4)], workers)
        taken = [
            (worker, chunk)
            for worker, chunks in zip(workers, asked, strict=True)
            for chunk in chunks
            if chunk is not None
        ]
    assert sorted(chunk.calls for _, chunk in taken) == [3, 3, 4]
    assert {chunk.number for _, chunk in taken} == {0, 1, 2}
    assert host.workers() in {1, 2, 3}
    # One that is through makes room for the next, with the calls that it had.
    worker, chunk = taken[0]
    idle = next(one for one in workers if not one.held)
    assert idle.claim() is None
    worker.is_through(chunk)
    following = idle.claim()
    assert (following.number, following.calls) == (3, chunk.calls)


def test_every_worker_gets_its_share(board, stack):
    host = stack.enter_context(board.host(batch(concurrency=16)))
    greedy, late = (Holding(stack.enter_context(board.work(name))) for name in ("greedy", "late"))
    for number in range(12):
        host.hand_out(rows(number))
    alone = [greedy.claim() for _ in range(5)]
    assert [chunk is not None for chunk in alone] == [True, True, True, True, False]
    assert late.claim() is None  # all are taken; but from now on two share
    for chunk in alone[:3]:
        greedy.is_through(chunk)
    assert greedy.claim() is not None  # it has one left, and may have two
    assert greedy.claim() is None
    assert late.claim() is not None
    late.seat.withdraw("one")
    assert greedy.claim() is not None


def test_a_worker_takes_no_more_calls_than_it_has_left(board, stack):
    host = stack.enter_context(board.host(batch(concurrency=8)))
    host.hand_out(rows(0))
    assert Holding(stack.enter_context(board.work("w"))).claim(calls=2).calls == 2


def test_a_claim_whose_answer_was_lost_is_free_again(board, stack):
    """The worker never heard that it has the chunk, and lives."""
    host = stack.enter_context(board.host(batch()))
    worker = stack.enter_context(board.work("w"))
    host.hand_out(rows(0))
    lost = worker.claim("one", held=(), calls=8)
    again = worker.claim("one", held=(), calls=8)
    assert (again.number, again.rows) == (lost.number, lost.rows)
    # What comes of the lost one late changes nothing.
    worker.give_back(lost, done=True)
    assert worker.claim("one", held=(0,), calls=8) is None
    worker.give_back(again, done=False)
    # Nor is one taken twice on which this worker still works, though others take it for free.
    assert worker.claim("one", held=(0,), calls=8) is None


def test_an_answer_that_the_host_has_lost_is_brought_again(board, stack):
    """After a power cut: it had said that it was kept, and hands the row out once more."""
    host = stack.enter_context(board.host(batch()))
    worker = stack.enter_context(board.work("w"))
    host.hand_out(rows(0, 1))
    first = worker.claim("one", held=(), calls=8)
    worker.answer(first, answer(0))
    host.kept([0])
    host.hand_out(rows(0))
    second = worker.claim("one", held=(first.number,), calls=8)
    assert [row.index for row in second.rows] == [0]
    worker.answer(second, answer(0, line='{"product": "again"}'))
    assert [(given.index, given.line) for given in host.answers(10)] == [(0, '{"product": "again"}')]


def test_a_trace_that_json_cannot_hold_costs_the_trace_and_not_the_answer(board, stack):
    host = stack.enter_context(board.host(batch()))
    worker = stack.enter_context(board.work("w"))
    host.hand_out(rows(0))
    chunk = worker.claim("one", held=(), calls=8)
    span = Span(
        span_id="0" * 16,
        parent_id=None,
        name="x",
        kind="CHAIN",
        start_ns=0,
        end_ns=1,
        inputs={(1, 2): "a tuple"},
    )
    line = '{"product": "x", "_trace_id": "tr-f"}'
    worker.answer(chunk, answer(0, trace=Trace(trace_id="f" * 32, spans=(span,)), line=line))
    (given,) = host.answers(10)
    assert (given.trace, given.traced) == (None, False)
    assert given.line == '{"product": "x", "_trace_id": null}'


def test_what_a_dead_worker_had_is_taken_over_without_what_it_had_answered(board, stack):
    host = stack.enter_context(board.host(batch()))
    other = stack.enter_context(board.work("other"))
    host.hand_out(rows(0, 1, 2))
    with board.work("dies") as dies:
        chunk = dies.claim("one", held=(), calls=8)
        assert len(chunk.rows) == 3
        dies.answer(chunk, answer(1))
        assert other.claim("one", held=(), calls=8) is None
    taken = other.claim("one", held=(), calls=8)
    assert [row.index for row in taken.rows] == [0, 2]
    # It was not dead, only cut off: its answer changes nothing, and nobody gets a row twice.
    dies.answer(chunk, answer(1, line='{"product": "late"}'))
    other.answer(taken, answer(0))
    dies.answer(chunk, answer(0, line='{"product": "late"}'))
    other.answer(taken, answer(2))
    dies.give_back(chunk, done=False)
    other.give_back(taken, done=True)
    assert {given.index: given.line for given in host.answers(10)} == dict.fromkeys(
        (0, 1, 2), '{"product": "x"}'
    )


def test_a_batch_is_wanted_while_its_host_lives_and_can_be_gone_on_with(board, stack, address, postgres):
    worker = stack.enter_context(board.work("w"))
    with board.host(batch()) as host:
        host.hand_out(rows(0, 1))
        host.hand_out(rows(2))
        chunk = worker.claim("one", held=(), calls=8)
        worker.answer(chunk, answer(0))
        assert worker.wanted() == ["one"]
    assert worker.wanted() == []
    host = stack.enter_context(board.host(batch()))
    assert worker.wanted() == ["one"]
    assert sorted(host.outstanding()) == [0, 1, 2]
    assert host.outstanding()[1] == bytes.fromhex(f"{1:032x}")
    host.kept([0])
    assert sorted(host.outstanding()) == [1, 2]
    host.hand_out(rows(3))
    assert sorted(host.outstanding()) == [1, 2, 3]
    worker.answer(chunk, answer(1))
    worker.give_back(chunk, done=True)
    host.kept([1])
    database = address.partition("@/")[2].partition("?")[0]
    assert postgres.run(database, "select count(*) from dspyui.answers") == [(0,)]
    assert postgres.run(database, "select number from dspyui.chunks order by 1") == [(1,), (2,)]
    board.forget("one")
    assert worker.wanted() == []
    assert worker.batch("one") is None
    assert worker.claim("one", held=(), calls=8) is None
    worker.answer(chunk, answer(1))  # an answer to what is gone


def test_leaving_stops_the_work(board, stack):
    host = stack.enter_context(board.host(batch()))
    worker = stack.enter_context(board.work("w"))
    host.leave()
    assert worker.wanted() == []
    host.check_in()
    assert worker.wanted() == ["one"]


def test_a_lost_connection_is_made_anew(board, stack, address, postgres):
    stack.enter_context(board.host(batch())).hand_out(rows(0))
    worker = stack.enter_context(board.work("w"))
    database = address.partition("@/")[2].partition("?")[0]
    postgres.cut_off(database)
    worker.check_in()
    assert worker.wanted() == []  # the host has not looked yet


def test_one_pace_for_all(board, stack):
    made = batch(requests_per_minute=120)
    stack.enter_context(board.host(made))
    gates = [SharedGate(stack.enter_context(board.work(f"w{n}")), made) for n in range(3)]
    passed, lock = [], threading.Lock()

    def call(gate):
        try:
            while True:
                gate.enter(10)
                with lock:
                    passed.append(time.monotonic())
                gate.leave(10, 10)
        except GateClosedError:
            return

    threads = [threading.Thread(target=call, args=(gate,)) for gate in gates for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(passed) >= 9, seconds=60)
    for gate in gates:
        gate.close()
    for thread in threads:
        thread.join()
    # A burst of one second's worth, then two a second, whoever makes them.
    assert passed[8] - passed[0] >= 2.9


def test_a_refusal_holds_back_every_machine(board, stack):
    made = batch()
    stack.enter_context(board.host(made))
    first, second = (SharedGate(stack.enter_context(board.work(name)), made) for name in "ab")
    first.refused(1.5)
    second.refresh()
    begin = time.monotonic()
    second.enter(10)
    assert time.monotonic() - begin > 1.0
    second.leave(10, 10)
    state = []

    def look(found, now):
        state.append(found)
        return found

    with board.work("c") as seat:
        seat.pace("one", look)
    assert isinstance(state[0], PaceState)
    assert state[0].refusals == 0  # an answer came after it


def test_tables_of_another_layout_are_not_touched(board, address, postgres):
    board.forget("none")
    database = address.partition("@/")[2].partition("?")[0]
    postgres.run(database, "update dspyui.layout set number = 99")
    with closing(PostgresBoard(SecretStr(address))) as other, pytest.raises(FailedError) as caught:
        other.forget("one")
    assert caught.value.code == "sharing.layout"
    assert not isinstance(caught.value, UnavailableError)  # asking again would not help
    with closing(PostgresBoard(SecretStr(address))) as other, pytest.raises(FailedError):
        other.work("w").__enter__()


def test_a_database_that_is_not_there_is_told_without_its_password():
    board = PostgresBoard(SecretStr("postgresql://ann:canary-pass@127.0.0.1:9/x"))
    with closing(board), pytest.raises(UnavailableError) as caught:
        board.forget("one")
    sentence = caught.value.text("en_US")
    assert "127.0.0.1:9" in sentence
    assert "refused" in sentence
    assert "canary-pass" not in sentence + caught.value.text("zh_CN")


def test_what_only_this_machine_has_is_not_shared():
    own = MetricSpec(kind="custom", params={"name": "mine"})
    assert batch(metric=MetricSpec(kind="exact_match")).is_shareable
    assert not batch(metric=own).is_shareable
    assert not batch(lm=LMSpec(model=LOCAL_MODEL)).is_shareable
