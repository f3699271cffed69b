"""What waits for MLflow, over the API."""

from dspyui.domain.runs import TrackingState
from dspyui.errors import UnavailableError

EN = {"accept-language": "en-US,en;q=0.9"}


def test_what_waits_is_told_and_sent(client, world):
    job_id = world.done()
    told = client.get("/api/waiting").json()
    assert (told["records"], told["traces"], told["held_up"]) == (1, 0, False)
    assert told["oldest"].startswith("2026-11-23T08:00:12")
    assert (told["size"], told["budget"], told["refused_records"], told["refused_traces"]) == (
        0,
        2 * 10**9,
        0,
        0,
    )
    sent = client.post("/api/waiting/send").json()
    assert (sent["records"], sent["traces"], sent["reasons"]) == (1, 0, [])
    assert sent["left"]["records"] == 0
    assert world.jobs.record(job_id).status == "sent"


def test_a_server_that_is_away_is_the_reason(client, world, monkeypatch):
    world.done()
    world.tracking.now = TrackingState(status="unreachable", address="http://x", origin="given")

    def away():
        raise UnavailableError("tracking.unreachable", address="http://x", detail="refused")

    monkeypatch.setattr(world.tracking, "address", away)
    sent = client.post("/api/waiting/send", headers=EN).json()
    assert (sent["records"], sent["left"]["records"]) == (0, 1)
    (reason,) = sent["reasons"]
    assert reason["code"] == "tracking.unreachable"
    assert reason["message"].startswith("MLflow at http://x does not answer")
