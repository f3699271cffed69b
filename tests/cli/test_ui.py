"""`dspyui ui` before it serves: a taken port, an open door. Nothing is started in any of these."""

import os
import socket
from pathlib import Path

import pytest

from dspyui.api.passwords import hash_password
from dspyui.errors import BadRequestError
from dspyui.server import bind, page_address
from tests.conftest import free_port


@pytest.fixture
def taken():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_taken_port_is_named_with_its_holder_and_the_flag(dspyui, taken):
    said = dspyui("ui", "--port", str(taken), "--json")
    assert said.code == 2
    assert said.document["error"]["code"] == "server.port_taken_by"
    for part in (str(taken), f"PID {os.getpid()}", "--port"):
        assert part in said.document["error"]["message"]
    assert said.err == f"error: {said.document['error']['message']}\n"
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104 - refused, not bound
def test_no_door_no_other_machines(dspyui, host):
    said = dspyui("ui", "--host", host, "--port", str(free_port()), "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "door.auth_needed")
    assert "--insecure" in said.err
    assert "dspyui auth hash" in said.err


@pytest.mark.parametrize("entries", ["ann:secret", "ann", f"ann:{hash_password('x')},bob"])
def test_accounts_that_are_none_stop_the_start(dspyui, monkeypatch, entries):
    monkeypatch.setenv("DSPYUI_AUTH", entries)
    said = dspyui("ui", "--port", str(free_port()), "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "door.auth_entry")
    assert entries not in said.err


def test_an_address_that_is_not_this_machines(dspyui):
    said = dspyui("ui", "--host", "192.0.2.1", "--insecure", "--port", str(free_port()), "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "server.host")


def test_a_name_that_is_none(dspyui):
    said = dspyui("ui", "--host", "no.such.name.invalid", "--insecure", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "server.host")


@pytest.mark.parametrize("port", ["0", "65536", "-1"])
def test_a_port_that_is_none(dspyui, port):
    said = dspyui("ui", f"--port={port}", "--json")
    assert said.code == 2
    assert "DSPYUI_PORT" in said.err


def test_binding_takes_the_port_at_once(taken):
    port = free_port()
    with bind("127.0.0.1", port) as sock:
        assert sock.getsockname() == ("127.0.0.1", port)
        with pytest.raises(BadRequestError):
            bind("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:1"),
        ("0.0.0.0", "http://127.0.0.1:1"),  # noqa: S104 - not bound
        ("::1", "http://[::1]:1"),
        ("name", "http://name:1"),
    ],
)
def test_the_address_a_browser_uses(host, address):
    assert page_address(host, 1) == address
