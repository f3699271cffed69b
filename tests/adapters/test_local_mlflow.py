"""The table of situations: which MLflow server is used, and what is said when it is away."""

import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from dspyui.adapters.local_stack import mlflow_server
from dspyui.adapters.local_stack.mlflow_server import MlflowServer, mlflow_environment, mlflow_spec
from dspyui.errors import UnavailableError
from dspyui.settings import Settings
from tests import fake_mlflow
from tests.conftest import free_port
from tests.fake_mlflow import FakeMlflow
from tests.waiting import wait_until

# The local server is a tiny one here, which is up in a fraction of MLflow's 20 s.
TINY = (sys.executable, "-P", str(Path(fake_mlflow.__file__).resolve()), "{port}")


@pytest.fixture
def make(tmp_path, environ):
    made: list[MlflowServer] = []

    def make(*, default=None, local=TINY, **names):
        force = names.pop("force_local", False)
        settings = Settings.load(
            env_file=tmp_path / "no.env",
            environ={**environ, **names},
            home=tmp_path / "data",
            force_local_mlflow=force,
        )
        default = default or f"http://localhost:{free_port()}"
        server = MlflowServer(
            settings, default_address=default, first_port=int(default.rsplit(":")[-1]), command=local
        )
        made.append(server)
        return server

    yield make
    for server in made:
        server.close()


# What is promised within three seconds is measured with a margin for a busy machine; what hangs does so for longer.
SOON = 15
HANGS = 60


def started(server: MlflowServer, seconds: float = 60):
    server.start()
    return server.wait(seconds)


def test_a_question_takes_less_than_the_three_seconds_that_are_promised():
    assert max(mlflow_server.ASK_SECONDS, mlflow_server.FIND_SECONDS) < 3


# Switched off.


@pytest.mark.parametrize("text", [b"user = x", b"[mlflow]\nmlflow_tracking_password = \xff"])
def test_a_damaged_file_of_logins_is_told_and_stops_nothing(make, environ, text):
    file = Path(environ["HOME"]) / ".mlflow" / "credentials"
    file.parent.mkdir()
    file.write_bytes(text)
    assert make(MLFLOW_ENABLED="false").state().status == "off"
    with FakeMlflow() as found:
        for state in (
            started(make(MLFLOW_TRACKING_URI=found.address)),
            started(make(force_local=True)),
        ):
            assert (state.status, state.problem) == ("unreachable", "denied")
            assert state.detail.startswith("~/.mlflow/credentials: ")


def test_off_nothing_is_looked_for(make, tmp_path):
    server = make(MLFLOW_ENABLED="false")
    assert started(server).status == "off"
    assert server.state().address is None
    with pytest.raises(UnavailableError) as caught:
        server.address()
    assert caught.value.code == "tracking.off"
    with pytest.raises(UnavailableError):
        server.start_local()
    assert not (tmp_path / "data" / "local").exists()


# Given.


def test_given_and_healthy_it_is_used(make, tmp_path):
    with FakeMlflow() as given:
        server = make(MLFLOW_TRACKING_URI=given.address)
        state = started(server)
    assert (state.status, state.origin, state.address, state.version) == (
        "ready",
        "given",
        given.address,
        "3.17.2",
    )
    assert not state.can_start_local
    assert not (tmp_path / "data" / "local").exists()


def test_given_it_outranks_one_at_the_default_address(make):
    with FakeMlflow() as given, FakeMlflow() as default:
        state = started(make(MLFLOW_TRACKING_URI=given.address, default=default.address))
    assert state.address == given.address


def test_before_it_has_answered_the_address_is_refused_at_once(make):
    with FakeMlflow() as given:
        given.seconds = 0.5
        server = make(MLFLOW_TRACKING_URI=given.address)
        server.start()
        with pytest.raises(UnavailableError) as caught:
            server.address()
        assert caught.value.code == "tracking.starting"
        assert server.wait(0).status == "starting"
        assert server.wait(60).status == "ready"
        assert server.address() == given.address


def test_given_and_dead_it_says_so_within_three_seconds_and_recovers_by_itself(make):
    port = free_port()
    server = make(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}/")
    before = time.monotonic()
    state = started(server)
    assert time.monotonic() - before < SOON
    assert (state.status, state.problem, state.can_start_local) == ("unreachable", "refused", True)
    assert "refused" in state.detail
    assert state.address == f"http://127.0.0.1:{port}"
    with pytest.raises(UnavailableError) as caught:
        server.address()
    assert caught.value.code == "tracking.unreachable"
    assert str(port) in caught.value.text("zh_CN")
    assert str(port) in caught.value.text("en_US")
    with FakeMlflow(port):
        wait_until(lambda: server.state().status == "ready")
        assert server.state().problem is None
    wait_until(lambda: server.state().status == "unreachable")
    with FakeMlflow(port, version="3.18.0"):
        wait_until(lambda: server.state().version == "3.18.0")


def test_given_and_silent_it_says_so_within_three_seconds(make):
    with FakeMlflow() as given:
        given.seconds = HANGS
        before = time.monotonic()
        state = started(make(MLFLOW_TRACKING_URI=given.address))
        assert time.monotonic() - before < SOON
    assert (state.status, state.problem) == ("unreachable", "timeout")


def test_a_name_lookup_that_hangs_is_told_within_three_seconds(make, monkeypatch):
    release = threading.Event()

    def hang(*_args, **_kwargs):
        release.wait(HANGS)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    server = make(MLFLOW_TRACKING_URI="http://mlflow.example:5000")
    before = time.monotonic()
    state = started(server)
    assert time.monotonic() - before < SOON
    assert (state.status, state.problem, state.can_start_local) == ("unreachable", "timeout", False)
    release.set()
    wait_until(lambda: server.state().problem == "dns")


def test_an_unknown_name_is_told(make):
    state = started(make(MLFLOW_TRACKING_URI="http://no-such-host.invalid:5000"))
    assert (state.status, state.problem, state.can_start_local) == ("unreachable", "dns", False)


@pytest.mark.parametrize(
    ("answers", "problem"),
    [
        ({"health": "<html>a router</html>"}, "not_mlflow"),
        ({"version": "<html>a router</html>"}, "not_mlflow"),
        ({"status": 403, "health": "Invalid Host header"}, "http"),
    ],
)
def test_what_is_not_mlflow_is_told(make, answers, problem):
    with FakeMlflow(**answers) as given:
        state = started(make(MLFLOW_TRACKING_URI=given.address))
    assert (state.status, state.problem) == ("unreachable", problem)
    assert any(word in state.detail for word in ("a router", "403"))


def test_what_does_not_speak_http_is_told(make):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def greet():
            client, _ = other.accept()
            client.recv(10_000)
            client.sendall(b"220 mail.example ESMTP\r\n")
            client.close()

        threading.Thread(target=greet, daemon=True).start()
        state = started(make(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{other.getsockname()[1]}"))
    assert (state.status, state.problem) == ("unreachable", "not_mlflow")


def test_https_to_a_plain_server_is_told(make):
    with FakeMlflow() as given:
        state = started(make(MLFLOW_TRACKING_URI=given.address.replace("http:", "https:")))
    assert (state.status, state.problem) == ("unreachable", "tls")


def test_a_certificate_file_that_is_missing_is_told(make):
    server = make(MLFLOW_TRACKING_URI="https://127.0.0.1:1", MLFLOW_TRACKING_SERVER_CERT_PATH="no-such.pem")
    assert started(server).status == "unreachable"
    assert "No such file" in server.state().detail


def test_one_late_answer_of_a_busy_server_is_forgiven(make, monkeypatch):
    monkeypatch.setattr(mlflow_server, "ASK_SECONDS", 1.0)
    monkeypatch.setattr(mlflow_server, "READY_EVERY", 0.05)
    with FakeMlflow() as given:
        server = make(MLFLOW_TRACKING_URI=given.address)
        assert started(server).status == "ready"
        seen = len(given.headers)
        given.late.append(1.5)
        states = set()
        wait_until(lambda: states.add(server.state().status) or len(given.headers) > seen + 4)
        assert given.late == []
        assert states == {"ready"}
        given.seconds = HANGS
        wait_until(lambda: server.state().status == "unreachable")


def test_no_proxy_is_asked_for_loopback_and_the_login_goes_with_the_question(make, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with FakeMlflow() as given:
        login = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "secret-word"}
        server = make(MLFLOW_TRACKING_URI=given.address, **login)
        assert started(server).status == "ready"
        assert given.headers[0]["Authorization"].startswith("Basic ")
        other = make(MLFLOW_TRACKING_URI=given.address, MLFLOW_TRACKING_TOKEN="secret-token")
        given.headers.clear()
        assert started(other).status == "ready"
        assert {headers["Authorization"] for headers in given.headers} & {"Bearer secret-token"}


def test_the_dead_address_can_be_given_up_for_the_local_server(make):
    server = make(MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert started(server).can_start_local
    server.start_local()
    assert server.state().status == "starting"
    state = server.wait(60)
    assert (state.status, state.origin) == ("ready", "local")
    assert server.address() == state.address


# Found.


def test_found_at_the_default_address_it_is_used(make, tmp_path):
    with FakeMlflow() as default:
        server = make(default=default.address)
        state = started(server)
        assert (state.status, state.origin, state.address) == ("ready", "found", default.address)
        assert not (tmp_path / "data" / "local").exists()
    wait_until(lambda: server.state().status == "unreachable")
    assert server.state().can_start_local


# Brought along.


def test_nothing_there_the_local_server_starts_on_the_default_port(make):
    port = free_port()
    server = make(default=f"http://localhost:{port}", local=(*TINY, "2"))
    server.start()
    assert server.state().status == "starting"
    state = server.wait(60)
    assert (state.status, state.origin, state.address) == ("ready", "local", f"http://127.0.0.1:{port}")


def test_forced_the_local_server_starts_whatever_is_set_or_found(make):
    with FakeMlflow() as given, FakeMlflow() as default:
        server = make(MLFLOW_TRACKING_URI=given.address, default=default.address, force_local=True)
        state = started(server)
        assert (state.status, state.origin) == ("ready", "local")
        assert state.address not in {given.address, default.address}


def test_what_is_not_mlflow_at_the_default_address_is_left_alone(make):
    with FakeMlflow(health="AirPlay", status=403) as other:
        state = started(make(default=other.address))
        assert (state.status, state.origin) == ("ready", "local")
        assert state.address != other.address


def test_a_second_process_on_the_same_data_folder_starts_none(make):
    default = f"http://localhost:{free_port()}"
    first, second = make(default=default), make(default=default)
    state = started(first)
    again = started(second)
    # Not "found": it must be held, else it would end under the second one's hands.
    assert again == state
    first.close()
    assert again.origin == "local"
    with pytest.raises(AssertionError):
        wait_until(lambda: second.state().status != "ready", seconds=3)


def test_a_local_server_that_is_started_elsewhere_is_waited_for(make):
    default = f"http://localhost:{free_port()}"
    slow = (*TINY, "1")
    first, second = make(default=default, local=slow), make(default=default, local=slow)
    first.start()
    second.start()
    assert first.wait(15) == second.wait(15)
    assert second.state().status == "ready"


def test_a_local_server_that_does_not_start_says_why_and_can_be_tried_again(make, tmp_path):
    once = "import os, sys; fresh = not os.path.exists('tried'); open('tried', 'w').close()"
    fails = "fresh and sys.exit('no database at postgresql://me:hunter22@db/x')"
    serves = "os.execv(sys.argv[1], sys.argv[1:])"
    server = make(local=(sys.executable, "-c", f"{once}; {fails}; {serves}", *TINY))
    state = started(server)
    assert (state.status, state.origin, state.problem) == ("unreachable", "local", "failed")
    assert "no database at postgresql://me:***@db/x" in state.detail
    assert state.can_start_local
    with pytest.raises(UnavailableError) as caught:
        server.address()
    assert caught.value.code == "tracking.failed"
    assert "mlflow.log" in str(caught.value)
    server.start_local()
    assert server.wait(60).status == "ready"


def test_folders_that_cannot_be_made_are_told(make, tmp_path):
    (tmp_path / "file").touch()
    server = make(MLFLOW_ARTIFACT_ROOT=str(tmp_path / "file" / "artifacts"))
    state = started(server)
    assert (state.status, state.problem) == ("unreachable", "failed")
    assert "file" in state.detail


def test_after_closing_nothing_is_left_and_closing_twice_is_harmless(make, tmp_path):
    server = make()
    started(server)
    server.close()
    assert not (tmp_path / "data" / "local" / "mlflow.json").exists()
    server.close()
    server.start()
    assert make().state().status == "starting"


def test_closing_without_starting_is_harmless(make):
    make().close()


# What the real server is told.


def test_paths_are_those_of_the_working_folder_at_the_start(settings, monkeypatch, tmp_path):
    work = Path.cwd()
    spec, environment = mlflow_spec(settings, 5000), mlflow_environment(settings)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{work}/mlflow_data/mlflow.db"
    assert spec.command[spec.command.index("--artifacts-destination") + 1] == str(work / "mlartifacts")
    assert spec.log == str(work / "mlflow_data" / "mlflow.log")


def test_settings_move_database_artifacts_and_log(environ, tmp_path):
    moved = {
        "MLFLOW_BACKEND_STORE_URI": "postgresql://me:hunter22@db/x",
        "MLFLOW_ARTIFACT_ROOT": "s3://bucket/there",
        "MLFLOW_LOG_FILE": str(tmp_path / "logs" / "m.log"),
    }
    settings = Settings.load(
        env_file=tmp_path / "no.env", environ={**environ, **moved}, home=tmp_path / "data"
    )
    spec, environment = mlflow_spec(settings, 5000), mlflow_environment(settings)
    assert environment["MLFLOW_BACKEND_STORE_URI"] == moved["MLFLOW_BACKEND_STORE_URI"]
    assert "s3://bucket/there" in spec.command
    assert spec.log == moved["MLFLOW_LOG_FILE"]
    assert not any("hunter22" in part for part in spec.command)


def test_the_server_gets_none_of_the_clients_settings_and_sends_nothing(environ, tmp_path):
    ours = {
        "MLFLOW_TRACKING_URI": "http://elsewhere:1",
        "MLFLOW_REGISTRY_URI": "http://elsewhere:2",
        "MLFLOW_ENABLED": "true",
        "MLFLOW_LOG_TRACES": "true",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "example.com",
        "MLFLOW_PORT": "1",
        "MLFLOW_S3_ENDPOINT_URL": "http://s3.example",
    }
    settings = Settings.load(
        env_file=tmp_path / "no.env", environ={**environ, **ours}, home=tmp_path / "data"
    )
    environment = mlflow_environment(settings)
    assert not set(environment) & (set(ours) - {"MLFLOW_S3_ENDPOINT_URL"})
    assert environment["MLFLOW_S3_ENDPOINT_URL"] == "http://s3.example"
    assert environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == environment["DO_NOT_TRACK"] == "true"
    assert environment["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"
