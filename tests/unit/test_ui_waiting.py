"""The Settings page's account of what waits for MLflow."""

from nicegui.testing import User

from dspyui.adapters.mlflow_store.spool import FileTraceSink
from dspyui.domain.jobs import RecordState
from dspyui.domain.runs import TrackingState
from dspyui.domain.traces import FULL_MARK
from dspyui.errors import UnavailableError
from dspyui.settings import Settings
from tests.api.world import T0, World
from tests.pages import element, exists, sees, until, visitor, words
from tests.trace_world import call


async def opened(user: User, address: str = "/settings") -> None:
    await user.open(address)
    await until(sees(user, marker="waiting"))


async def test_nothing_waits_and_nothing_can_be_sent(user: User):
    await opened(user)
    assert "MLflow has everything" in words(user, "waiting-none")
    assert not element(user, "send-now").enabled  # type: ignore[attr-defined]


async def test_what_waits_is_shown_and_sent_at_a_click(user: User, world: World):
    world.done()
    refused = world.done()
    world.jobs.write_record(refused, RecordState(status="refused", last_error="no"))
    await opened(user)
    said = words(user, "waiting")
    assert "Records 1" in said
    assert "0 B of at most 2.0 GB" in said
    assert "1 record, 0 traces" in said
    assert "11-23" in words(user, "waiting-oldest")
    user.find(marker="send-now").click()
    await until(sees(user, marker="waiting-outcome"))
    assert words(user, "waiting-outcome").strip() == "Sent: 1 record, 0 traces."
    assert exists(user, marker="waiting-none")
    assert not element(user, "send-now").enabled  # type: ignore[attr-defined]
    world.done()
    user.find(marker="waiting-look").click()
    await until(lambda: element(user, "send-now").enabled)  # type: ignore[attr-defined]


async def test_what_could_not_be_sent_says_why_in_the_visitors_language(
    user: User, world: World, monkeypatch
):
    world.done()
    world.tracking.now = TrackingState(status="unreachable", address="http://x", origin="given")

    def away():
        raise UnavailableError("tracking.unreachable", address="http://x", detail="refused")

    monkeypatch.setattr(world.tracking, "address", away)
    await opened(user, "/settings?lang=zh")
    user.find(marker="send-now").click()
    await until(sees(user, marker="waiting-outcome"))
    said = words(user, "waiting-outcome")
    assert "已发送：0 份记录" in said
    assert "仍在等待：1 份记录" in said
    assert "http://x" in said
    assert element(user, "send-now").enabled  # type: ignore[attr-defined]


async def test_traces_of_a_running_compile_are_said_to_be_sent_at_its_end(user: User, world: World):
    job_id = world.submitted()
    world.jobs.update(job_id, lambda job: job.model_copy(update={"status": "running", "started_at": T0}))
    sink = FileTraceSink(world.jobs.folder(job_id) / "traces")
    for number in range(2):
        sink.write(call(number=number))
    sink.close()
    await opened(user)
    assert "2 traces belong to a compile that still runs" in words(user, "waiting-later")
    assert not element(user, "send-now").enabled  # type: ignore[attr-defined]
    # A record of another can be sent, and the button with it.
    world.done()
    user.find(marker="waiting-look").click()
    await until(lambda: element(user, "send-now").enabled)  # type: ignore[attr-defined]
    assert exists(user, marker="waiting-later")
    # Where it waits for room they are sent at once, for else it could never end.
    (world.jobs.folder(job_id) / "traces" / FULL_MARK).touch()
    user.find(marker="waiting-look").click()
    await until(lambda: not exists(user, marker="waiting-later"))


async def test_jobs_that_are_held_up_are_told(settings: Settings, tmp_path):
    world = World(settings.model_copy(update={"trace_disk_mb": 1}))
    job_id = world.done()
    folder = world.jobs.folder(job_id) / "traces"
    folder.mkdir()
    (folder / "1.otlp").write_bytes(b"x" * 1_000_000)
    async with visitor(world.services, tmp_path) as user:
        await opened(user)
        assert "DSPYUI_TRACE_DISK_MB" in words(user, "waiting-full")
        assert "1.0 MB of at most 1.0 MB" in words(user, "waiting")
