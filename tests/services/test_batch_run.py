"""A whole batch on real files against a server on loopback: rows, faults, taking up again, never paying twice."""

import errno
import json
import threading

import pytest

from dspyui.adapters.dspy_engine import gate
from dspyui.adapters.files import batch_results
from dspyui.adapters.mlflow_store.spool import closed_segments, read_frames
from dspyui.domain.batches import BatchSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import BadRequestError, ConflictError, FailedError, RefusedError
from tests.batch_world import Batches, asked, message, program, second_word, variant, write_rows
from tests.fake_openai import FakeOpenAI, Fault, chat, last_input


@pytest.fixture
def batches(tmp_path):
    return Batches(tmp_path / "data")


@pytest.fixture
def server():
    with FakeOpenAI(second_word) as fake:
        yield fake


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl", 20)


def test_every_row_is_answered_in_its_place(batches, server, rows, tmp_path):
    out = tmp_path / "out.jsonl"
    job_id, result = batches(program(server.base_url), rows, output=str(out))
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["id"], line["product"]) for line in lines] == [(n, f"thing{n}") for n in range(20)]
    first = lines[0]
    assert list(first) == [
        "id", "message", "product", "_error", "_latency_ms", "_tokens", "_cost", "_trace_id",
    ]  # fmt: skip
    assert (first["_error"], first["_cost"]) == (None, None)
    assert first["_latency_ms"] > 0
    assert (result.total_rows, result.success_count, result.error_count) == (20, 20, 0)
    assert result.usage.lm_calls == 20
    assert result.usage.total_tokens == sum(line["_tokens"] for line in lines) > 0
    assert result.latency_ms_p50 is not None
    assert result.latency_ms_p50 <= result.latency_ms_p95 <= result.latency_ms_p99
    assert sorted(asked(server)) == list(range(20))
    assert batches.store.progress(job_id).done == 20
    assert batches.store.find_result(job_id) == result


def test_every_traced_row_has_one_trace_that_knows_its_model(batches, server, rows):
    job_id, result = batches(program(server.base_url), rows, share=0.5)
    lines = batches.lines(job_id)
    ids = [line["_trace_id"] for line in lines if line["_trace_id"]]
    folder = batches.jobs.folder(job_id) / "traces"
    frames = b"".join(
        frame for segment in closed_segments(folder) for frame in read_frames(segment.read_bytes())
    )
    assert 0 < len(ids) < 20
    assert (len(set(ids)), result.traced, result.trace_sample) == (len(ids), len(ids), 0.5)
    for trace_id in ids:
        assert frames.count(b"mlflow.traceRequestId") >= len(ids)
        assert bytes.fromhex(trace_id.removeprefix("tr-")) in frames
    for tag in (b"dspyui.model_version", b"dspyui.model_digest", b"dspyui.row", job_id.encode()):
        assert tag in frames


def test_an_expected_output_is_kept_apart_and_scored(batches, server, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("message,product\nMy thing1 broke.,thing1\nMy thing2 broke.,other\nMy thing3 broke.,\n")
    job_id, result = batches(program(server.base_url), path, metric=MetricSpec())
    lines = batches.lines(job_id)
    assert [(line["product"], line["predicted_product"], line["_score"]) for line in lines] == [
        ("thing1", "thing1", 1.0), ("other", "thing2", 0.0), ("", "thing3", 0.0),
    ]  # fmt: skip
    assert result.score is not None
    assert (result.score.rows, round(result.score.value, 3)) == (3, 0.333)


def test_a_column_of_another_name_and_columns_beyond(batches, server, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("Text,more,_error\nMy lamp broke,x,old\n")
    job_id, _ = batches(program(server.base_url), path, columns={"message": "Text"})
    (line,) = batches.lines(job_id)
    assert (line["Text"], line["more"], line["product"], line["_error"]) == (
        "My lamp broke",
        "x",
        "lamp",
        None,
    )


def test_a_file_without_a_needed_column_is_refused(batches, server, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text\nMy lamp broke\n")
    with pytest.raises(BadRequestError) as caught:
        batches(program(server.base_url), path)
    assert (caught.value.code, caught.value.values["missing"]) == ("batch.columns", "message")
    assert not server.requests


def test_broken_rows_are_errors_and_cost_nothing(batches, server, tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"message": message(n)}) for n in range(4)]
    lines[1], lines[2] = "{broken", '{"message": null}'
    path.write_text("\n".join(lines))
    job_id, result = batches(program(server.base_url), path)
    assert (result.success_count, result.errors) == (2, {"file.json": 1, "value.missing": 1})
    found = batches.lines(job_id)
    assert found[1]["_error"].startswith("file.json: ")
    assert "line 2" in found[1]["_error"]
    assert found[1]["_error"].endswith(" It reads: {broken")
    assert found[2]["_error"].startswith("value.missing: #3")
    assert sorted(asked(server)) == [0, 3]
    assert {event.values["row"] for event in batches.events(job_id, "batch.row_error")} == {2, 3}


def test_a_reply_that_cannot_be_read_is_that_row_s_error(batches, rows, server):
    server.reply = lambda m: "no idea" if "thing7 " in m[-1]["content"] else second_word(m)
    job_id, result = batches(program(server.base_url), rows)
    assert result.errors == {"batch.unreadable": 1}
    assert batches.lines(job_id)[7]["product"] is None
    assert batches.lines(job_id)[7]["_tokens"] > 0


def test_only_as_many_calls_at_once_as_asked_for(batches, rows, server):
    now, most, lock = 0, 0, threading.Lock()

    def reply(messages):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        threading.Event().wait(0.02)
        with lock:
            now -= 1
        return second_word(messages)

    server.reply = reply
    batches(program(server.base_url), rows, concurrency=3)
    assert most == 3


@pytest.fixture
def no_pause(monkeypatch):
    """DSPy's client, and the gate, wait as long as they must, but in no time."""
    slept = []
    monkeypatch.setattr(gate.execution, "time", type("T", (), {"sleep": staticmethod(slept.append)}))
    return slept


def test_a_busy_server_is_asked_again_until_it_answers(batches, rows, server, no_pause):
    left = [Fault(429, "slow down", headers={"Retry-After": "0.2"}) for _ in range(9)] + [
        Fault(503, "busy")
    ] * 2
    lock = threading.Lock()

    def reply(messages):
        with lock:
            fault = left.pop() if left else None
        return fault or second_word(messages)

    server.reply = reply
    _, result = batches(program(server.base_url, num_retries=0), rows)
    assert (result.success_count, result.error_count) == (20, 0)
    assert set(no_pause) <= {0.2, 1, 2, 4, 8, 16, 32, 60}
    assert no_pause.count(0.2) == 9


def test_a_model_that_refuses_ends_the_batch_and_keeps_what_was_answered(batches, rows, server):
    def reply(messages):
        number = int(last_input(messages, "message").split()[1].removeprefix("thing"))
        return second_word(messages) if number < 10 else Fault(401, "no such key")

    server.reply = reply
    job_id = batches.create(BatchSpec(model="m", path=str(rows), concurrency=2), program(server.base_url))
    with pytest.raises(RefusedError) as caught:
        batches.run(job_id)
    assert caught.value.code == "engine.key_needed"
    kept = [line["id"] for line in batches.lines(job_id)]
    assert kept == list(range(10))
    assert len(server.requests) < 14
    server.reply, before = second_word, len(server.requests)
    result = batches.run(job_id)
    assert (result.total_rows, result.error_count, result.reused) == (20, 0, 10)
    assert sorted(asked(server)[before:]) == list(range(10, 20))
    assert result.usage.lm_calls == 20


def test_one_request_that_is_refused_is_one_row(batches, rows, server):
    server.reply = lambda m: Fault(400, "bad content") if "thing3 " in m[-1]["content"] else second_word(m)
    _, result = batches(program(server.base_url), rows)
    assert result.errors == {"engine.invalid_request": 1}


def test_a_model_that_answers_nothing_stops_it(batches, tmp_path, server):
    server.reply = lambda _m: Fault(400, "never")
    with pytest.raises(FailedError) as caught:
        batches(program(server.base_url), write_rows(tmp_path / "many.jsonl", 500))
    assert caught.value.code == "batch.hopeless"
    assert "never" in str(caught.value)
    assert len(server.requests) < 100


def test_the_failed_rows_alone_are_asked_again(batches, rows, server, tmp_path):
    bad = {3, 11}

    def reply(messages):
        number = int(last_input(messages, "message").split()[1].removeprefix("thing"))
        return Fault(400, "not this one") if number in bad else second_word(messages)

    server.reply = reply
    out = tmp_path / "out.jsonl"
    first, result = batches(program(server.base_url), rows, output=str(out))
    assert result.error_count == 2
    bad.clear()
    before = len(server.requests)
    spec = batches.store.spec(first).model_copy(update={"earlier": first, "overwrite": True})
    again = batches.run(batches.create(spec, program(server.base_url)))
    assert sorted(asked(server)[before:]) == [3, 11]
    assert (again.total_rows, again.success_count, again.reused, again.usage.lm_calls) == (20, 20, 18, 2)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["product"] for line in lines] == [f"thing{n}" for n in range(20)]


@pytest.mark.parametrize("other", ["program", "lm"])
def test_rows_of_another_program_or_lm_are_not_taken_over(batches, rows, server, other):
    made = program(server.base_url)
    first, _ = batches(made, rows)
    before = len(server.requests)
    change = {"lm": made.lm.model_copy(update={"temperature": 0.5})} if other == "lm" else {}
    spec = batches.store.spec(first).model_copy(update={"earlier": first, **change})
    again = batches.create(spec, variant(made, "TWO") if other == "program" else made)
    with pytest.raises(ConflictError) as caught:
        batches.run(again)
    assert (caught.value.code, caught.value.values["names"]) == ("batch.earlier_other", other)
    assert len(server.requests) == before


def test_a_server_that_has_moved_is_the_same_program(batches, rows, server):
    server.reply = lambda m: Fault(400, "not this one") if "thing3 " in m[-1]["content"] else second_word(m)
    first, _ = batches(program(server.base_url), rows)
    spec = batches.store.spec(first).model_copy(update={"earlier": first})
    with FakeOpenAI(second_word) as moved:
        again = batches.run(batches.create(spec, program(moved.base_url)))
        assert asked(moved) == [3]
    assert (again.success_count, again.reused) == (20, 19)


def test_a_file_that_changed_under_the_batch_is_refused(batches, rows, server):
    spec = BatchSpec(model="m", path=str(rows), limit=5)
    job_id = batches.create(spec, program(server.base_url))
    assert batches.run(job_id).total_rows == 5
    rows.write_text(json.dumps({"message": "Another"}) + "\n" + rows.read_text())
    with pytest.raises(BadRequestError) as caught:
        batches.run(job_id)
    assert (caught.value.code, caught.value.values["row"]) == ("batch.input_changed", 1)


def test_two_batches_cannot_write_to_the_same_output(batches, rows, server, tmp_path):
    out = tmp_path / "out.csv"
    job_id = batches.create(BatchSpec(model="m", path=str(rows), output=str(out)), program(server.base_url))
    with batches.store.open_target(batches.store.spec(job_id), job_id):
        with pytest.raises(ConflictError) as caught:
            batches.run(job_id)
        assert caught.value.code == "batch.output_busy"
    assert batches.run(job_id).success_count == 20


def test_a_full_disk_is_said_and_nothing_is_paid_for_twice(batches, rows, server, monkeypatch):
    whole, written = batch_results._write_at, []

    def full(file, data, offset):
        written.append(data)
        if len(written) > 21:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(file, data, offset)

    job_id = batches.create(BatchSpec(model="m", path=str(rows), concurrency=1), program(server.base_url))
    monkeypatch.setattr(batch_results, "_write_at", full)
    with pytest.raises(FailedError) as caught:
        batches.run(job_id)
    assert caught.value.code == "storage.full"
    monkeypatch.setattr(batch_results, "_write_at", whole)
    before = len(server.requests)
    assert batches.run(job_id).success_count == 20
    # The row whose line found no room was asked again; none of those before it.
    assert asked(server)[before:] == list(range(10, 20))


def test_a_row_at_which_the_program_breaks_is_one_row(batches, rows, server, monkeypatch):
    from dspyui.adapters.dspy_engine import engine

    predict = engine._predict

    def broken(live, inputs, tags, traces):
        if "thing5" in inputs["message"]:
            raise ZeroDivisionError("by zero")
        return predict(live, inputs, tags, traces)

    monkeypatch.setattr(engine, "_predict", broken)
    job_id, result = batches(program(server.base_url), rows)
    assert result.errors == {"batch.row_broke": 1}
    assert "ZeroDivisionError: by zero" in batches.lines(job_id)[5]["_error"]


def test_reasoning_goes_before_the_answer(batches, server, rows):
    made = program(server.base_url)
    thinking = SignatureSpec(inputs=(FieldSpec(name="message"),), outputs=(FieldSpec(name="product"),))
    document = made.model_dump(mode="json")
    document["spec"]["module"] = {"kind": "chain_of_thought"}
    document["spec"]["signature"] = thinking.model_dump(mode="json")
    document["signature_digest"] = thinking.digest()
    state = document["state"]
    prefixes = [{"prefix": "Reasoning:", "description": "${reasoning}"}]
    state["signature"]["fields"] = [
        state["signature"]["fields"][0],
        *prefixes,
        state["signature"]["fields"][1],
    ]
    document["state"] = {"predict": state}
    server.reply = lambda _m: chat(reasoning="It is named.", product="lamp")
    job_id, _ = batches(type(made).model_validate(document), rows, limit=1)
    (line,) = batches.lines(job_id)
    assert list(line)[:4] == ["id", "message", "reasoning", "product"]
    assert line["reasoning"] == "It is named."
