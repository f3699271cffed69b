"""What waits for MLflow: how much, how old, and an honest account of sending it."""

import threading
from datetime import timedelta

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.mlflow_store.feedback import calls_folder, open_calls
from dspyui.adapters.mlflow_store.spool import FileTraceSink, FileTraceSpool
from dspyui.bootstrap import _trace_room, make_app
from dspyui.cli import send
from dspyui.cli.console import Console
from dspyui.domain.jobs import RecordState
from dspyui.errors import FailedError, UnavailableError
from dspyui.services.record import RecordService
from dspyui.services.waiting import Waiting, WaitingService
from dspyui.settings import Settings
from tests.mlflow_world import make_trace
from tests.services.test_record import ROWS, START, Server, finished, spec
from tests.waiting import wait_until


class Tracked(Server):
    """With an address, as long as it is there."""

    def address(self):
        if self.away:
            raise UnavailableError("tracking.unreachable", address="http://x", detail="refused")
        return "http://x"


@pytest.fixture
def server():
    return Tracked()


@pytest.fixture
def store(tmp_path):
    return FileJobStore(tmp_path / "data")


@pytest.fixture
def make(store, server, tmp_path):
    def make(loose=None, **variables):
        settings = Settings.load(tmp_path / "none", {"DSPYUI_HOME": str(tmp_path / "data"), **variables})
        record = RecordService(settings, store, server, server)
        return WaitingService(settings, store, record, server, FileTraceSpool(), loose=loose)

    return make


def traced(store, count, **changes):
    """A finished job with so many traces in a segment of its own."""
    job = finished(store, **changes)
    folder = store.folder(job.id) / "traces"
    (folder / "1.otlp").unlink()
    sink = FileTraceSink(folder)
    for _ in range(count):
        sink.write(make_trace())
    sink.close()
    return job


def test_nothing_waits_at_first(make):
    found = make().look()
    assert found == Waiting(budget=2_000_000_000)
    assert found.is_empty
    assert not found.is_full


def test_records_and_traces_that_wait_are_counted_with_their_age_and_size(store, make):
    first = traced(store, 3, ended_at=START - timedelta(days=2))
    traced(store, 2)
    running = store.create(spec(), ROWS, title="t", who="anna")
    sink = FileTraceSink(store.folder(running.id) / "traces")
    sink.write(make_trace())
    for status in ("sent", "off"):
        store.write_record(traced(store, 5).id, RecordState(status=status))
    refused = traced(store, 1)
    store.write_record(refused.id, RecordState(status="refused", last_error="no"))
    (store.folder(first.id) / "traces/tr-1.refused").write_bytes(b"x")
    found = make(DSPYUI_TRACE_DISK_MB="0").look()
    sink.close()
    assert (found.records, found.traces) == (2, 6)
    assert (found.refused_records, found.refused_traces) == (1, 1)
    assert found.oldest == START - timedelta(days=2)
    segments = [
        path
        for job in (first.id, running.id)
        for path in (store.folder(job) / "traces").iterdir()
        if path.suffix in {".otlp", ".part"}
    ]
    assert found.size > sum(path.stat().st_size for path in segments)
    assert (found.budget, found.is_full) == (0, False)


def test_a_used_up_budget_is_told(store, make):
    job = traced(store, 1)
    (store.folder(job.id) / "traces/2.otlp").write_bytes(b"x" * 1_000_000)
    assert make(DSPYUI_TRACE_DISK_MB="1").look().is_full
    assert not make(DSPYUI_TRACE_DISK_MB="2").look().is_full


def test_sending_now_says_what_was_sent(store, server, make):
    jobs = [finished(store) for _ in range(2)]
    sent = make().send_now()
    assert (sent.records, sent.traces, sent.reasons) == (2, 2, ())
    assert sent.left.is_empty
    assert {job.id for job in jobs} == set(server.runs)
    assert (make().send_now().records, make().send_now().reasons) == (0, ())


def codes(sent):
    return [reason.code for reason in sent.reasons]


def test_what_still_waits_says_why(store, server, make):
    finished(store)
    server.away = True
    sent = make().send_now()
    assert (sent.records, sent.traces, sent.left.records, codes(sent)) == (0, 0, 1, ["tracking.unreachable"])
    assert "http://x 上的 MLflow 没有应答" in sent.reasons[0].sentence("zh_CN")
    assert codes(make(MLFLOW_ENABLED="false").send_now()) == ["record.tracking_off"]


def test_each_kind_of_reason_is_told_once_and_the_others_are_sent(store, server, make):
    busy, broken, fine = (finished(store) for _ in range(3))
    running = store.create(spec(), ROWS, title="t", who="anna")
    store.update(running.id, lambda j: j.model_copy(update={"status": "running", "started_at": START}))
    server.breaks_on = broken.id
    with store.lock_record(busy.id):
        sent = make().send_now()
    assert sorted(codes(sent)) == ["record.broken", "record.job_runs", "record.sending"]
    assert (sent.records, sent.left.records) == (1, 2)
    assert store.record(fine.id).status == "sent"


def test_a_record_that_mlflow_refuses_is_told_and_waits_no_longer(store, server, make):
    finished(store)
    server.refuses = True
    sent = make().send_now()
    assert (sent.records, sent.left.records, sent.left.refused_records) == (0, 0, 1)
    assert codes(sent) == ["record.busy"]


def test_very_much_is_sent_in_pieces_and_said_to_go_on(store, server, make):
    job = finished(store)
    for number in range(2, 6):
        (store.folder(job.id) / f"traces/{number}.otlp").write_text("x")
    sent = make().send_now(seconds=-1)
    assert (sent.records, sent.traces, codes(sent)) == (0, 0, ["record.goes_on"])
    assert sent.left.records == 1
    sent = make().send_now()
    assert (sent.records, sent.traces, codes(sent)) == (1, 5, [])


def test_the_command_goes_on_only_while_something_goes(store, make, monkeypatch):
    finished(store)
    monkeypatch.setattr(send, "PIECE_SECONDS", -1.0)
    sent = send.send_all(Console("en_US", as_json=False), make())
    assert (sent.left.records, codes(sent)) == (1, ["record.goes_on"])
    monkeypatch.undo()
    assert send.send_all(Console("en_US", as_json=False), make()).records == 1


def test_traces_that_belong_to_no_job_are_counted_and_sent_too(store, server, make, tmp_path):
    folder = tmp_path / "calls"
    sink = FileTraceSink(folder)
    for _ in range(2):
        sink.write(make_trace())
    sink.close()

    def send(_stop):
        found = list(folder.iterdir())
        for file in found:
            file.unlink()
        return 2 if found else 0

    service = make(loose={folder: send})
    found = service.look()
    assert (found.records, found.traces, found.is_empty) == (0, 2, False)
    assert found.size > 0
    sent = service.send_now()
    assert (sent.records, sent.traces, sent.left.traces, sent.reasons) == (0, 2, 0, ())


@pytest.mark.parametrize(
    ("problem", "code"),
    [(FailedError("run.experiment_deleted", name="x", experiment_id="1"), "run.experiment_deleted"),
     (PermissionError("spool"), "record.calls_broken")],
)  # fmt: skip
def test_calls_that_cannot_be_sent_hold_up_no_record(store, make, tmp_path, problem, code):
    finished(store)

    def send(_stop):
        raise problem

    sent = make(loose={tmp_path / "calls": send}).send_now()
    assert (sent.records, codes(sent)) == (1, [code])


def test_calls_are_sent_no_longer_than_the_piece_lasts(make, tmp_path):
    asked = []

    def send(stop):
        asked.append(stop())
        return 1

    service = make(loose={tmp_path / "calls": send})
    assert (codes(service.send_now(seconds=-1)), codes(service.send_now())) == (["record.goes_on"], [])
    assert asked == [True, False]


def test_the_traces_of_single_calls_wait_and_take_up_the_room_of_all(settings):
    settings = settings.model_copy(update={"trace_disk_mb": 1})
    sink = open_calls(settings.home)
    sink.write(make_trace(size=1_000_000))
    sink.close()
    assert make_app(settings).services.waiting.look().traces == 1
    jobs = FileJobStore(settings.home)
    job = jobs.create(spec(), ROWS, title="t", who="anna")
    folder = jobs.folder(job.id) / "traces"
    folder.mkdir()
    thread = threading.Thread(target=_trace_room(settings, jobs, job.id).wait, args=(folder,), daemon=True)
    thread.start()
    wait_until((folder / "full").exists)
    for segment in calls_folder(settings.home).glob("*.otlp"):
        segment.unlink()
    thread.join(60)
    assert not thread.is_alive()
