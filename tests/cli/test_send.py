"""`dspyui send`: what waits on disk goes to MLflow, and what does not says why."""

from datetime import UTC, datetime

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.i18n import Text
from tests.conftest import free_port
from tests.services.test_record import finished


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYUI_HOME", str(tmp_path / "data"))
    store = FileJobStore(tmp_path / "data")
    made = finished(store, ended_at=datetime(2026, 11, 23, tzinfo=UTC))
    (store.folder(made.id) / "traces/1.otlp").unlink()
    # The helper's other files are no data.
    (store.folder(made.id) / "dataset/test.jsonl").write_text('{"q": "1", "a": "1"}\n')
    (store.folder(made.id) / "evaluation/rows.parquet").unlink()
    return made


@pytest.mark.slow
def test_what_waits_is_sent(dspyui, job, mlflow_address, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_address)
    said = dspyui("send", "--json")
    assert (said.code, said.document["status"]) == (0, "done"), said.err
    assert (said.document["sent_records"], said.document["waiting_records"]) == (1, 0)
    assert said.document["reasons"] == []
    assert dspyui("send").out.splitlines() == ["Sent: 0 records, 0 traces."]


def test_a_server_that_is_away_is_the_reason(dspyui, job, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    said = dspyui("send", "--json")
    assert (said.code, said.document["status"]) == (1, "waiting")
    assert (said.document["waiting_records"], said.document["oldest"]) == (1, "2026-11-23T00:00:00+00:00")
    (reason,) = said.document["reasons"]
    assert reason["code"] == "tracking.unreachable"
    said = dspyui("send", "--lang", "zh")
    assert "仍在等待：1 份记录" in said.out


def test_with_tracking_off_the_flag_is_said_to_change_nothing(dspyui, job, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLED", "false")
    said = dspyui("send", "--mlflow")
    assert Text("en_US")("cli.mlflow_off") in said.err
    assert "MLFLOW_ENABLED" in said.out
