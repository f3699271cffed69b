"""`dspyui ui` as a real process: the door before pages and sockets, the login, starting and stopping."""

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys

import httpx
import psutil
import pytest
import websockets
from argon2 import PasswordHasher

from tests.conftest import free_port
from tests.waiting import wait_ended, wait_until

pytestmark = pytest.mark.slow

SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


class Server:
    """A running server, and a client that keeps cookies."""

    def __init__(self, folder, *flags, **settings):
        self.folder = folder
        self.port = free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "MLFLOW_ENABLED": "false",
            **settings,
        }
        self.log = folder / "err.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dspyui", "ui", "--port", str(self.port), "--json", *flags],
                env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.ready = json.loads(self.process.stdout.readline() or "{}")
        assert self.ready, self.log.read_text()
        self.client = httpx.Client(base_url=self.ready["url"], trust_env=False, timeout=30)

    def knock(self, **headers):
        """Open the pages' own socket; the first word of the server, or the status it refuses with."""

        async def knock():
            address = f"ws://127.0.0.1:{self.port}{SOCKET}"
            try:
                async with websockets.connect(address, additional_headers=headers, proxy=None) as socket:
                    return str(await socket.recv())
            except websockets.InvalidStatus as exc:
                return exc.response.status_code

        return asyncio.run(knock())

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(60)
        self.process.stdout.close()
        self.client.close()
        return code


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    assert running.stop() == 0


def test_it_says_where_it_is(server):
    assert server.ready == {"status": "ready", "url": f"http://127.0.0.1:{server.port}"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/jobs", 200),
        ("/runs", 200),
        ("/models", 200),
        ("/settings", 200),
        ("/jobs/20260101-000000-00000000", 404),
    ],
)
def test_pages_and_api_share_one_address(server, path, status):
    answer = server.client.get(path)
    assert answer.status_code == status
    assert "DSPyUI" in answer.text


def test_pages_load_nothing_from_elsewhere(server):
    text = server.client.get("/").text
    for word in ("cdn.", "googleapis", "unpkg", "jsdelivr"):
        assert word not in text


def test_its_own_socket_opens(server):
    assert server.knock(Origin=server.ready["url"]).startswith("0{")
    assert server.knock().startswith("0{")


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}],
)
def test_a_foreign_page_gets_no_socket(server, headers):
    assert server.knock(**headers) == 403
    polling = server.client.get(SOCKET.replace("websocket", "polling"), headers=headers)
    assert polling.status_code == 403


def test_a_foreign_name_gets_nothing(server):
    for path in ("/", "/api/jobs", SOCKET.replace("websocket", "polling")):
        assert server.client.get(path, headers={"host": "evil.example"}).status_code == 403


def test_the_secret_is_private_and_stays(server):
    file = server.folder / "dspyui_data" / "session_secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_visitors_choices_lie_in_the_data_folder(server):
    assert server.client.get("/?lang=en_US").status_code == 200
    wait_until(lambda: list((server.folder / "dspyui_data" / "visitors").glob("*.json")))
    assert not (server.folder / ".nicegui").exists()


def test_an_upload_beyond_the_limit_is_refused(tmp_path):
    server = Server(tmp_path, DSPYUI_MAX_UPLOAD_MB="1")
    try:
        files = {"file": ("rows.csv", b"x" * 3 * 1024**2)}
        answer = server.client.post("/_nicegui/client/x/upload/1", files=files)
        assert answer.status_code == 413
        assert server.client.get("/api/health").status_code == 200
    finally:
        server.stop()


def test_other_machines_may_come_when_told_so(tmp_path):
    server = Server(tmp_path, "--host", "0.0.0.0", "--insecure", "--lang", "en_US")  # noqa: S104 - that is the test
    try:
        assert "without a login" in server.log.read_text()
        assert server.client.get("/").status_code == 200
    finally:
        server.stop()


def test_with_accounts_page_and_socket_demand_the_login(tmp_path):
    entry = f"ann:{PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash('secret')}"
    server = Server(tmp_path, "--host", "0.0.0.0", DSPYUI_AUTH=entry)  # noqa: S104 - that is the test
    try:
        client = server.client
        assert client.get("/jobs").headers["location"] == "/login?next=%2Fjobs"
        assert server.knock(Origin=server.ready["url"]) == 403
        assert client.get("/login").status_code == 200
        assert client.post("/login", data={"user": "ann", "password": "nope"}).status_code == 400
        answer = client.post("/login?next=/jobs", data={"user": "ann", "password": "secret"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs")
        assert client.get("/jobs").status_code == 200
        cookies = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        assert server.knock(Origin=server.ready["url"], Cookie=cookies).startswith("0{")
    finally:
        server.stop()
    again = Server(tmp_path, "--host", "0.0.0.0", DSPYUI_AUTH=entry)  # noqa: S104 - that is the test
    try:
        # The secret was kept, so the login outlives a restart.
        assert again.client.get("/jobs", headers={"cookie": cookies}).status_code == 200
    finally:
        again.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_even_while_it_starts(tmp_path, number):
    server = Server(tmp_path)
    children = psutil.Process(server.process.pid).children(recursive=True)
    assert server.stop(number) == 0
    assert "Traceback" not in server.log.read_text()
    wait_ended(children)


def test_an_open_socket_does_not_hold_it_up(tmp_path):
    server = Server(tmp_path)

    async def hold():
        address = f"ws://127.0.0.1:{server.port}{SOCKET}"
        async with websockets.connect(address, proxy=None) as socket:
            await socket.recv()
            server.process.send_signal(signal.SIGTERM)
            await socket.wait_closed()

    asyncio.run(asyncio.wait_for(hold(), 60))
    assert server.stop() == 0
