"""Traces on disk: nothing finished is lost, nothing torn is sent, a live writer is left alone."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dspyui.adapters.mlflow_store.otlp import to_otlp
from dspyui.adapters.mlflow_store.spool import (
    FileTraceSink,
    FileTraceSpool,
    TraceRoom,
    closed_segments,
    closed_size,
    read_frames,
    to_frame,
)
from dspyui.domain.traces import FULL_MARK, SpoolState
from tests.mlflow_world import make_trace
from tests.waiting import wait_until


def ids(folder):
    found = []
    for segment in closed_segments(folder):
        for content in read_frames(segment.read_bytes()):
            request = ExportTraceServiceRequest.FromString(content)
            found.append(request.resource_spans[0].scope_spans[0].spans[0].trace_id.hex())
    return found


def test_what_is_written_is_on_disk_at_once(tmp_path):
    sink, trace = FileTraceSink(tmp_path / "traces"), make_trace()
    sink.write(trace)
    (part,) = (tmp_path / "traces").glob("*.part")
    assert list(read_frames(part.read_bytes())) == [to_otlp(trace)]
    sink.close()
    assert ids(tmp_path / "traces") == [trace.trace_id]


def test_a_sink_that_got_nothing_leaves_nothing(tmp_path):
    FileTraceSink(tmp_path / "traces").close()
    assert list((tmp_path / "traces").iterdir()) == []


def test_a_segment_ends_at_a_hundred_traces_or_four_megabytes(tmp_path):
    sink = FileTraceSink(tmp_path / "many")
    for _ in range(201):
        sink.write(make_trace())
    sink.close()
    assert sorted(len(list(read_frames(s.read_bytes()))) for s in closed_segments(tmp_path / "many")) == [
        1,
        100,
        100,
    ]
    sink = FileTraceSink(tmp_path / "big")
    for _ in range(5):
        sink.write(make_trace(size=1_500_000))
    sink.close()
    assert sorted(len(list(read_frames(s.read_bytes()))) for s in closed_segments(tmp_path / "big")) == [2, 3]


def test_many_threads_and_two_sinks_share_a_folder(tmp_path):
    sinks = [FileTraceSink(tmp_path), FileTraceSink(tmp_path)]
    traces = [[make_trace() for _ in range(40)] for _ in range(6)]

    def write(number):
        for trace in traces[number]:
            sinks[number % 2].write(trace)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sink in sinks:
        sink.close()
    assert sorted(ids(tmp_path)) == sorted(trace.trace_id for some in traces for trace in some)


def test_a_torn_or_damaged_frame_ends_the_segment(tmp_path):
    whole, other = to_frame(b"one"), to_frame(b"two")
    for length in range(len(other)):
        assert list(read_frames(whole + other[:length])) == [b"one"]
    assert list(read_frames(whole + other[:-1] + b"X")) == [b"one"]
    assert list(read_frames(b"")) == []


WRITER = """
import sys, time
from pathlib import Path
from tests.mlflow_world import make_trace
from dspyui.adapters.mlflow_store.spool import FileTraceSink
sink = FileTraceSink(Path(sys.argv[1]))
for _ in range(3):
    trace = make_trace()
    sink.write(trace)
    print(trace.trace_id, flush=True)
time.sleep(60)
"""


def test_a_killed_process_loses_no_finished_trace_and_a_live_one_is_left_alone(tmp_path, request):
    folder = tmp_path / "traces"
    environment = {**os.environ, "PYTHONPATH": str(request.config.rootpath)}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        written = [process.stdout.readline().strip() for _ in range(3)]
        alive = closed_segments(folder)
        process.kill()
        process.wait(10)
    assert alive == []
    assert ids(folder) == written


def just_before_a_lock(monkeypatch, kind, act):
    """Has `act` done once, right before somebody takes a lock of that kind."""
    lock, acts = fcntl.flock, [act]

    def locked(file, asked):
        if asked == kind and acts:
            acts.pop()()
        lock(file, asked)

    monkeypatch.setattr(fcntl, "flock", locked)


def test_a_segment_that_is_just_being_opened_is_not_taken_for_an_abandoned_one(tmp_path, monkeypatch):
    looked, sink, trace = [], FileTraceSink(tmp_path), make_trace()
    just_before_a_lock(monkeypatch, fcntl.LOCK_EX, lambda: looked.append(closed_segments(tmp_path)))
    sink.write(trace)
    sink.close()
    assert looked == [[]]
    assert ids(tmp_path) == [trace.trace_id]


def test_a_segment_that_is_closed_while_it_is_looked_at_is_found(tmp_path, monkeypatch):
    sink, trace = FileTraceSink(tmp_path), make_trace()
    sink.write(trace)
    # As one that was listed and is gone when it is opened.
    (tmp_path / "gone.part").symlink_to("nowhere")
    just_before_a_lock(monkeypatch, fcntl.LOCK_EX | fcntl.LOCK_NB, sink.close)
    assert ids(tmp_path) == [trace.trace_id]


def test_odd_values_do_not_break_a_trace(tmp_path):
    trace = make_trace(tags={"k" * 300: "v" * 9000})
    root = trace.spans[0].model_copy(
        update={
            "name": "bad \ud800 name\x00",
            "inputs": {"nan": float("nan"), "when": object(), "text": "a\x00b\ud800", "deep": [{"a": ()}]},
        }
    )
    request = ExportTraceServiceRequest.FromString(
        to_otlp(trace.model_copy(update={"spans": (root, *trace.spans[1:])}))
    )
    span = request.resource_spans[0].scope_spans[0].spans[0]
    assert span.name == "bad ? name�"
    keys = {attribute.key: attribute.value for attribute in span.attributes}
    assert len(keys["mlflow.traceTag." + "k" * 250].string_value) == 8000


@pytest.mark.parametrize("module", ["mlflow", "dspy"])
def test_the_child_that_writes_traces_imports_neither(module, tmp_path):
    code = (
        "import sys, pathlib; from dspyui.adapters.mlflow_store.spool import FileTraceSink;"
        f"FileTraceSink(pathlib.Path({str(tmp_path / 't')!r})); sys.exit({module!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_waits_is_counted_and_a_torn_frame_is_not(tmp_path):
    folder, spool = tmp_path / "traces", FileTraceSpool()
    assert spool.measure(folder) == SpoolState()
    sink = FileTraceSink(folder)
    for _ in range(103):
        sink.write(make_trace())
    found = spool.measure(folder)
    assert (found.traces, found.refused) == (103, 0)
    assert found.size == sum(path.stat().st_size for path in folder.iterdir())
    assert found.oldest.timestamp() == pytest.approx(min(path.stat().st_mtime for path in folder.iterdir()))
    sink.close()
    with next(iter(closed_segments(folder))).open("ab") as segment:
        segment.write(to_frame(b"torn")[:-1])
    (folder / "tr-1.refused").write_bytes(to_frame(b"x"))
    (folder / "tr-1.refused.txt").write_text("422")
    (folder / FULL_MARK).touch()
    found = spool.measure(folder)
    assert (found.traces, found.refused) == (103, 1)


class Told(list):
    """What the room says, and how far a writer has come."""

    def __init__(self):
        super().__init__()
        self.written = []


def writer(sink, told, count, size):
    def write():
        for _ in range(count):
            trace = make_trace(size=size)
            sink.write(trace)
            told.written.append(trace.trace_id)
        sink.close()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_a_full_disk_budget_holds_up_the_writer_and_drops_nothing(tmp_path):
    folder, told, sent = tmp_path / "traces", Told(), []
    room = TraceRoom(6_000_000, lambda: [folder], told.append)
    # A segment takes three of them.
    thread = writer(FileTraceSink(folder, room), told, 20, 1_500_000)
    while thread.is_alive():
        wait_until(lambda: (folder / FULL_MARK).exists() or not thread.is_alive())
        if thread.is_alive():
            assert closed_size(folder) >= 6_000_000
            assert len(told.written) % 3 == 0
            for segment in closed_segments(folder):
                sent += [len(frame) for frame in read_frames(segment.read_bytes())]
                segment.unlink()
            wait_until(lambda: not (folder / FULL_MARK).exists())
    assert len(sent) + len(ids(folder)) == len(told.written) == 20
    assert told[::2] == [size for size in told[::2] if size >= 6_000_000]
    assert set(told[1::2]) == {None}
    assert len(told) >= 4
    assert not (folder / FULL_MARK).exists()


def test_the_budget_is_one_for_all_folders(tmp_path):
    mine, other, told = tmp_path / "mine", tmp_path / "other", Told()
    other.mkdir()
    (other / "1.otlp").write_bytes(b"x" * 1000)
    folders = [mine, other]
    thread = writer(FileTraceSink(mine, TraceRoom(1000, lambda: folders, told.append)), told, 1, 0)
    wait_until((mine / FULL_MARK).exists)
    assert (told, told.written) == ([1000], [])
    # It is sent, or its job is deleted: either way it no longer counts.
    folders.remove(other)
    thread.join(60)
    assert (told, len(told.written)) == ([1000, None], 1)


def test_all_that_take_up_the_room_are_marked_until_there_is_some(tmp_path):
    """Another job's traces may be the ones that have to go, and that job may write nothing for an hour."""
    mine, other, told = tmp_path / "mine", tmp_path / "other", Told()
    other.mkdir()
    (other / "1.otlp").write_bytes(b"x" * 1000)
    room = TraceRoom(1000, lambda: [mine, other, tmp_path / "of a job without traces"], told.append)
    thread = writer(FileTraceSink(mine, room), told, 1, 0)
    wait_until(lambda: (mine / FULL_MARK).exists() and (other / FULL_MARK).exists())
    # Another one that waited, and goes on, takes them away.
    (other / FULL_MARK).unlink()
    wait_until((other / FULL_MARK).exists)
    (other / "1.otlp").unlink()
    thread.join(60)
    assert len(told.written) == 1
    assert not any(tmp_path.rglob(FULL_MARK))


def test_an_open_segment_is_waited_for_by_nobody(tmp_path):
    """It cannot be sent, and its writer may be the very job that waits."""
    told = Told()
    room = TraceRoom(1000, lambda: [tmp_path], told.append)
    open_one, other = FileTraceSink(tmp_path, room), FileTraceSink(tmp_path, room)
    open_one.write(make_trace(size=2000))
    thread = writer(other, told, 1, 0)
    thread.join(60)
    assert (told, len(told.written)) == ([], 1)
    open_one.close()
    assert len(ids(tmp_path)) == 2


def test_no_budget_is_no_bound(tmp_path):
    def never():
        raise AssertionError

    sink = FileTraceSink(tmp_path, TraceRoom(0, never, never))
    sink.write(make_trace())
    sink.close()
    assert len(ids(tmp_path)) == 1
