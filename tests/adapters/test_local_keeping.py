"""A kept server lives as long as somebody holds it: whoever is killed, whenever, one server or none is left."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import psutil
import pytest

from dspyui.adapters.local_stack import keeper as keeping
from dspyui.adapters.local_stack.hold import Hold
from dspyui.adapters.local_stack.kept import (
    KeptSpec,
    KeptState,
    is_kept,
    open_lock,
    read_state,
    try_lock,
    write_state,
)
from tests import fake_mlflow
from tests.conftest import free_port
from tests.waiting import wait_until

SERVER = (sys.executable, "-P", str(Path(fake_mlflow.__file__).resolve()))
# Another process that holds the server until it is killed.
HOLDER = """
import os, sys, time
from dspyui.adapters.local_stack.hold import Hold
from dspyui.adapters.local_stack.kept import KeptSpec
hold = Hold(KeptSpec.from_json(sys.argv[1]), os.environ)
assert hold.take()
while True:
    print(hold.look().status, flush=True)
    time.sleep(0.05)
"""


def make_spec(tmp_path, *, delay="0", **changes) -> KeptSpec:
    folder = tmp_path / "local"
    return KeptSpec(
        **{
            "name": "tiny",
            "folder": str(folder),
            "command": (*SERVER, "{port}", delay),
            "log": str(tmp_path / "tiny.log"),
            "health": "/health",
            **changes,
        }
    )


@pytest.fixture
def spec(tmp_path) -> KeptSpec:
    return make_spec(tmp_path)


@pytest.fixture
def hold(spec, environ):
    hold = Hold(spec, environ)
    yield hold
    hold.release()


def ready(hold: Hold) -> KeptState:
    wait_until(lambda: hold.look().status != "starting")
    state = hold.look()
    assert state.status == "ready", state.reason
    return state


def get(address: str | None, path: str) -> str:
    assert address is not None
    with urllib.request.urlopen(f"{address}{path}", timeout=60) as reply:
        return reply.read().decode()


def server_pid(state: KeptState) -> int:
    return int(get(state.address, "/pid"))


def gone(*pids: int | None) -> bool:
    return not any(_lives(pid) for pid in pids if pid is not None)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_server_runs_while_held_and_is_gone_when_let_go(hold, spec):
    assert hold.take()
    state = ready(hold)
    server = server_pid(state)
    assert get(state.address, "/health") == "OK"
    hold.release()
    assert gone(server, state.keeper, state.server)
    assert not spec.address_file.exists()
    assert not is_kept(spec)


def test_the_address_file_tells_where_it_is_and_is_private(hold, spec):
    hold.take()
    state = ready(hold)
    written = json.loads(spec.address_file.read_text())
    assert written["address"] == state.address
    assert {"keeper", "server", "at", "version"} <= set(written)
    assert spec.address_file.stat().st_mode & 0o077 == 0


def test_looking_is_not_holding(hold, spec):
    assert not hold.is_running()
    assert not spec.keeper_lock.exists()


def test_two_holders_share_one_server_which_ends_with_the_second(hold, spec, environ):
    other = Hold(spec, environ)
    hold.take()
    other.take()
    first, second = ready(hold), ready(other)
    assert first == second
    hold.release()
    assert get(first.address, "/health") == "OK"
    other.release()
    assert gone(first.keeper, first.server)


def test_many_that_start_at_once_start_one_server(spec, environ):
    holds = [Hold(spec, environ) for _ in range(6)]
    found: list[KeptState] = []

    def use(hold: Hold) -> None:
        hold.take()
        found.append(ready(hold))

    threads = [threading.Thread(target=use, args=(hold,)) for hold in holds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert len(found) == 6
        assert len(set(found)) == 1
    finally:
        for hold in holds:
            hold.release()


def start_holder(spec: KeptSpec, environ) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-c", HOLDER, spec.to_json()]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def test_killing_the_only_holder_ends_the_server(spec, environ):
    holder = start_holder(spec, environ)
    assert holder.stdout is not None
    wait_until(lambda: holder.stdout.readline() == "ready\n")
    state = read_state(spec)
    assert state is not None
    server = server_pid(state)
    kill(holder)
    wait_until(lambda: gone(server, state.keeper, state.server))
    wait_until(lambda: not spec.address_file.exists())


def test_killing_one_of_two_holders_leaves_the_server_to_the_other(hold, spec, environ):
    holder = start_holder(spec, environ)
    hold.take()
    state = ready(hold)
    server = server_pid(state)
    kill(holder)
    # The keeper looks four times a second; it must have looked, and left the server alone.
    pending = iter(range(30))
    wait_until(lambda: next(pending) == 29)
    assert server_pid(state) == server
    assert hold.look() == state


def test_a_killed_keeper_takes_the_server_with_it_and_is_replaced(hold):
    hold.take()
    before = ready(hold)
    server = server_pid(before)
    psutil.Process(before.keeper).kill()
    wait_until(lambda: gone(before.keeper))
    assert hold.look().status == "starting"  # at once: the old server's address is not given out any more
    wait_until(lambda: gone(server, before.server))
    after = ready(hold)
    assert after.keeper != before.keeper
    assert server_pid(after) != server


def test_a_killed_guard_takes_the_server_with_it_and_both_come_back(hold):
    hold.take()
    before = ready(hold)
    server = server_pid(before)
    os.kill(before.server, signal.SIGKILL)
    wait_until(lambda: gone(server))
    wait_until(lambda: hold.look().status == "ready" and hold.look().server != before.server)
    assert hold.look().keeper == before.keeper


def test_a_server_that_crashes_comes_back_at_the_same_address(hold):
    hold.take()
    before = ready(hold)
    server = server_pid(before)
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: hold.look().status == "ready" and hold.look().server != before.server)
    assert hold.look().address == before.address
    assert server_pid(hold.look()) != server


def test_a_server_that_crashes_again_and_again_is_given_up_and_can_be_asked_for_again(hold):
    hold.take()
    for _ in range(keeping.CRASHES):
        before = ready(hold)
        os.kill(server_pid(before), signal.SIGKILL)
        wait_until(lambda seen=before: hold.look().server != seen.server)
    wait_until(lambda: hold.look().status == "failed")
    hold.retry()
    assert ready(hold).address is not None


def test_a_server_that_falls_silent_is_replaced(tmp_path, environ, monkeypatch):
    spec = make_spec(tmp_path, hang_seconds=0.2)
    spec.lock.parent.mkdir()
    users = open_lock(spec.lock)
    assert try_lock(users, fcntl.LOCK_SH)
    monkeypatch.setattr(keeping, "HEALTH_EVERY", 0.1)
    monkeypatch.setattr(keeping, "HEALTH_TIMEOUT", 0.2)
    thread = threading.Thread(target=keeping.Keeper(spec, threading.Event()).run)
    thread.start()
    try:
        wait_until(lambda: (state := read_state(spec)) is not None and state.status == "ready")
        before = read_state(spec)
        assert before is not None
        server = server_pid(before)
        with pytest.raises(OSError, match="timed out"):
            urllib.request.urlopen(f"{before.address}/hang", timeout=0.3)
        wait_until(lambda: gone(server))
        wait_until(lambda: (state := read_state(spec)) is not None and state.server != before.server)
    finally:
        os.close(users)
        thread.join(60)
    assert not spec.address_file.exists()


def test_a_server_that_cannot_start_fails_once_with_its_last_words(tmp_path, environ):
    spec = make_spec(
        tmp_path, command=(sys.executable, "-c", "print('no such database'); raise SystemExit(1)")
    )
    hold = Hold(spec, environ)
    hold.take()
    wait_until(lambda: hold.look().status == "failed")
    try:
        assert "no such database" in hold.look().reason
        assert "Ended with code 1" in hold.look().reason
        assert Path(spec.log).read_text().count("no such database") == 1
    finally:
        hold.release()


def test_an_old_failure_does_not_keep_the_next_start_from_trying(spec, environ, hold):
    spec.address_file.parent.mkdir()
    write_state(spec, KeptState(status="failed", reason="last week", at=1.0))
    hold.take()
    assert ready(hold).reason == ""


@pytest.mark.parametrize(
    "left", ['{"status": "ready", "address": "http://127.0.0.1:9", "keeper": 1}', "", "{half"]
)
def test_an_address_file_left_by_a_power_loss_is_not_believed(spec, hold, left):
    spec.address_file.parent.mkdir()
    spec.address_file.write_text(left)
    spec.lock.touch()
    spec.keeper_lock.touch()
    assert not hold.is_running()
    hold.take()
    assert get(ready(hold).address, "/health") == "OK"


def test_a_process_that_comes_while_the_keeper_gives_up_gets_a_server_of_its_own(spec, environ, hold):
    first = Hold(spec, environ)
    first.take()
    before = ready(first)
    leaving = threading.Thread(target=first.release)
    leaving.start()
    assert hold.take()
    leaving.join()
    # Either the old one was still wanted in time, or it is gone and a new one runs: never an address without one.
    after = ready(hold)
    assert get(after.address, "/health") == "OK"
    assert after.keeper == before.keeper or gone(before.keeper)


def test_taking_waits_for_a_keeper_that_holds_the_lock_alone(spec, hold):
    spec.lock.parent.mkdir()
    alone = open_lock(spec.lock)
    assert try_lock(alone, fcntl.LOCK_EX)
    taken: list[bool] = []
    waiting = threading.Thread(target=lambda: taken.append(hold.take()))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    os.close(alone)
    waiting.join(60)
    assert taken == [True]


def test_taking_can_be_called_off(spec, hold):
    spec.lock.parent.mkdir()
    alone = open_lock(spec.lock)
    assert try_lock(alone, fcntl.LOCK_EX)
    stop = threading.Event()
    stop.set()
    assert not hold.take(stop)
    os.close(alone)


def test_a_taken_port_is_left_alone_and_the_next_one_used(tmp_path, environ):
    with fake_mlflow.FakeMlflow() as other:
        hold = Hold(make_spec(tmp_path, port=other.port), environ)
        hold.take()
        try:
            state = ready(hold)
            assert state.address != other.address
            assert other.port < int(state.address.rsplit(":")[-1]) <= other.port + 100
        finally:
            hold.release()


def served_once(spec: KeptSpec, environ) -> int:
    """Start the server and let it go; its port."""
    hold = Hold(spec, environ)
    hold.take()
    try:
        return int(str(ready(hold).address).rsplit(":")[-1])
    finally:
        hold.release()


def test_the_next_start_gets_the_same_port_even_when_an_earlier_one_is_free_again(tmp_path, environ):
    with fake_mlflow.FakeMlflow() as other:
        spec = make_spec(tmp_path, port=other.port)
        first = served_once(spec, environ)
    assert first != other.port
    assert served_once(spec, environ) == first


def test_a_remembered_port_that_is_taken_is_replaced_by_the_first_free_one(tmp_path, environ):
    port = free_port()
    spec = make_spec(tmp_path, port=port)
    with fake_mlflow.FakeMlflow() as other:
        spec.port_file.parent.mkdir()
        spec.port_file.write_text(str(other.port))
        found = served_once(spec, environ)
    assert found != other.port
    assert port <= found <= port + 100
    assert int(spec.port_file.read_text()) == found


@pytest.mark.parametrize("left", ["", "five", "-1", "70000", "\x00"])
def test_a_damaged_memory_of_the_port_does_no_harm(tmp_path, environ, left):
    port = free_port()
    spec = make_spec(tmp_path, port=port)
    spec.port_file.parent.mkdir()
    spec.port_file.write_text(left)
    assert port <= served_once(spec, environ) <= port + 100


def test_a_server_on_any_port_remembers_none(tmp_path, environ):
    spec = make_spec(tmp_path)
    served_once(spec, environ)
    assert not spec.port_file.exists()


def test_a_port_lost_to_another_server_while_starting_is_not_taken_for_ours(tmp_path, environ):
    port = free_port()
    hold = Hold(make_spec(tmp_path, port=port, delay="1"), environ)
    hold.take()
    wait_until(lambda: (state := hold.look()).status == "starting" and state.keeper is not None)
    with fake_mlflow.FakeMlflow(port) as thief:
        try:
            state = ready(hold)
            assert state.address != thief.address
            assert server_pid(state) != os.getpid()
        finally:
            hold.release()


def test_a_slow_start_is_told_as_starting(tmp_path, environ):
    hold = Hold(make_spec(tmp_path, delay="0.5"), environ)
    hold.take()
    try:
        assert hold.look().status == "starting"
        ready(hold)
    finally:
        hold.release()


def test_a_start_that_takes_for_ever_is_ended(tmp_path, environ):
    hold = Hold(make_spec(tmp_path, delay="60", ready_seconds=0.3), environ)
    hold.take()
    try:
        wait_until(lambda: hold.look().status == "failed")
    finally:
        hold.release()


def test_a_log_that_has_grown_is_set_aside(tmp_path, environ):
    spec = make_spec(tmp_path)
    Path(spec.log).write_bytes(b"x" * (keeping.LOG_LIMIT_BYTES + 1))
    hold = Hold(spec, environ)
    hold.take()
    try:
        ready(hold)
        assert Path(spec.log).stat().st_size < 1000
        assert Path(f"{spec.log}.1").stat().st_size > keeping.LOG_LIMIT_BYTES
    finally:
        hold.release()


def test_a_module_in_the_working_folder_is_not_run(tmp_path, environ, hold):
    Path("json.py").write_text("raise SystemExit('run by mistake')")
    hold.take()
    ready(hold)
