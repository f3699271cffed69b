"""A shared batch in this process, over a real PostgreSQL whose answers get lost now and then."""

import threading
from collections import Counter
from contextlib import closing, contextmanager

import pytest
from pydantic import SecretStr

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.files.batch_inputs import FileInputReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.adapters.shared_batches.board import PostgresBoard
from dspyui.domain.batches import BatchSpec
from dspyui.errors import RefusedError, UnavailableError
from dspyui.services.batch_run import BatchRun
from dspyui.services.batches import BatchFiles
from dspyui.services.chunk_worker import ChunkWorker
from dspyui.services.shared_hands import SharedCrew
from tests.batch_world import Batches, asked, program, second_word, write_rows
from tests.fake_openai import FakeOpenAI, Fault
from tests.postgres_world import running_postgres
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    with running_postgres(tmp_path_factory.mktemp("pg")) as server:
        yield server


@pytest.fixture
def board(postgres):
    with closing(PostgresBoard(SecretStr(postgres.new_database()))) as made:
        yield made


@pytest.fixture
def server():
    with FakeOpenAI(second_word) as fake:
        yield fake


class Unsteady:
    """Does what it is asked, and loses the answer to the first calls of some methods, or does not hear them at all."""

    def __init__(self, inner, lost):
        self._inner = inner
        self._lost = lost

    def __getattr__(self, name):
        method = getattr(self._inner, name)

        def call(*arguments, **named):
            found = method(*arguments, **named)
            if self._lost.get(name, 0) > 0:
                self._lost[name] -= 1
                raise UnavailableError(
                    "sharing.database", address="x", problem=f"the answer to {name} was lost"
                )
            return found

        return call

    def _fail(self, name):
        if self._lost.get(name, 0) > 0:
            self._lost[name] -= 1
            raise UnavailableError("sharing.database", address="x", problem=f"{name} was lost")


class UnsteadyBoard:
    def __init__(self, board, **lost):
        self._board = board
        self._lost = lost

    @contextmanager
    def host(self, batch):
        if self._lost.pop("at_start", 0):
            raise UnavailableError("sharing.database", address="x", problem="not up yet")
        with self._board.host(batch) as seat:
            yield Unsteady(seat, self._lost)

    @contextmanager
    def work(self, name):
        with self._board.work(name) as seat:
            yield Unsteady(seat, self._lost)


@contextmanager
def engine_of(home, batch, gate):
    with closing(DspyEngine(batch.lms, environment={}, cache_folder=home / "cache", gate=gate)) as engine:
        yield engine


def run(batches, job_id, board):
    lms = batches.store.spec(job_id).lms(batches.store.model(job_id).program)
    crew = SharedCrew(
        board,
        DspyEngine(lms, environment={}, cache_folder=batches.home / "cache"),
        lambda batch, gate: engine_of(batches.home, batch, gate),
    )
    return BatchRun(
        job_id,
        jobs=batches.jobs,
        batches=batches.store,
        open_input=BatchFiles(FileInputReader(), FileUploadStore(batches.home)).open,
        crew=crew,
        tracing=None,
    ).run()


@pytest.fixture
def make(settings, server, tmp_path):
    """A batch of so many rows; gives its store and its id."""

    def make(rows, **more):
        batches = Batches(settings.home)
        path = write_rows(tmp_path / "rows.jsonl", rows)
        spec = BatchSpec(**{"model": "m", "path": str(path), "concurrency": 8, **more})
        return batches, batches.create(spec, program(server.base_url))

    return make


@pytest.mark.parametrize(
    "lost",
    [
        {"claim": 2},
        {"give_back": 2},
        {"answer": 3},
        {"kept": 2},
        {"answers": 2},
        {"unheard_hand_out": 2},
        {"check_in": 2},
        {"at_start": 1},
    ],
    ids=lambda lost: next(iter(lost)),
)
def test_an_answer_of_the_database_that_is_lost_loses_no_row_and_doubles_none(board, make, server, lost):
    batches, job_id = make(60)
    result = run(batches, job_id, UnsteadyBoard(board, **lost))
    assert (result.total_rows, result.success_count, result.error_count) == (60, 60, 0)
    assert [line["product"] for line in batches.lines(job_id)] == [f"thing{n}" for n in range(60)]
    assert Counter(asked(server)) == dict.fromkeys(range(60), 1)
    assert result.usage.lm_calls == 60
    progress = batches.store.progress(job_id)
    assert (progress.done, progress.asked, progress.usage.lm_calls) == (60, 60, 60)


@pytest.mark.parametrize("calls", [5, 7, 10, 13])
def test_as_many_calls_are_made_at_once_as_were_asked_for(board, make, server, calls):
    batches, job_id = make(120, concurrency=calls)
    results = []
    server.hold(after=0)
    thread = threading.Thread(target=lambda: results.append(run(batches, job_id, board)))
    thread.start()
    wait_until(lambda: len(server.requests) >= calls, seconds=60)
    # Several looks for more chunks later it is still as many.
    assert not threading.Event().wait(1.5)
    assert len(server.requests) == calls
    server.release()
    thread.join()
    assert results[0].success_count == 120


def test_a_model_that_refuses_ends_it_and_what_was_answered_stays(board, make, server):
    def reply(messages):
        return Fault(401, "no such key") if len(server.requests) > 20 else second_word(messages)

    server.reply = reply
    batches, job_id = make(200)
    with pytest.raises(RefusedError):
        run(batches, job_id, board)
    done = batches.store.progress(job_id).done
    assert 10 <= done <= 28
    server.reply = second_word
    before = len(server.requests)
    result = run(batches, job_id, board)
    assert (result.success_count, result.error_count) == (200, 0)
    assert len(server.requests) - before == 200 - done
    assert [line["product"] for line in batches.lines(job_id)] == [f"thing{n}" for n in range(200)]


def test_a_helper_that_never_reaches_the_model_spoils_no_row(board, make, server):
    """Its own network is down; the others answer what it could not."""
    refused, stop = {}, threading.Event()

    def unreachable(batch, gate):
        lms = batch.lms.model_copy(
            update={
                "task": batch.lms.task.model_copy(
                    update={"api_base": "http://127.0.0.1:9/v1", "num_retries": 0}
                )
            }
        )
        return closing(DspyEngine(lms, environment={}, cache_folder=None, gate=gate))

    batches, job_id = make(80)
    server.seconds = 0.05
    with board.work("cut off") as seat:
        helper = ChunkWorker(
            seat,
            unreachable,
            calls=8,
            tell=lambda _notice: None,
            refused=lambda batch, why: refused.update({batch: why}),
        )
        thread = threading.Thread(target=helper.run, args=(stop,))
        thread.start()
        result = run(batches, job_id, board)
        wait_until(lambda: job_id in refused, seconds=30)
        stop.set()
        thread.join()
    assert (result.success_count, result.error_count, helper.rows) == (80, 0, 0)
    assert refused[job_id].code == "sharing.no_way"
