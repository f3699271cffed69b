"""Traces on disk: nothing finished is lost, nothing torn is sent, a live writer is left alone."""

import os
import subprocess
import sys
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from dspyui.adapters.mlflow_store.otlp import to_otlp
from dspyui.adapters.mlflow_store.spool import (
    FileTraceSink,
    closed_segments,
    read_frames,
    to_frame,
)
from tests.mlflow_world import make_trace


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
