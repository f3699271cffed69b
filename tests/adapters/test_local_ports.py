"""Which ports are free, and who holds the others."""

import os
import socket

import psutil
import pytest

from dspyui.adapters.local_stack.ports import free_port, is_free, listens, port_holder

EVERYWHERE = "0.0.0.0"  # noqa: S104 - that is what is tested


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_is_listened_on_is_not_free_and_its_holder_is_named(taken):
    assert not is_free("127.0.0.1", taken)
    assert not is_free("localhost", taken)
    assert not is_free(EVERYWHERE, taken)
    assert not is_free("", taken)
    assert port_holder("127.0.0.1", taken) == f"{psutil.Process().name()} (PID {os.getpid()})"
    assert (
        port_holder(EVERYWHERE, taken) == port_holder("localhost", taken) == port_holder("127.0.0.1", taken)
    )
    assert listens(os.getpid(), taken)


def test_a_server_on_every_address_holds_loopback_too():
    with socket.socket() as server:
        server.bind((EVERYWHERE, 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        assert str(os.getpid()) in str(port_holder("127.0.0.1", port))


def test_a_free_port_is_free_and_nobody_holds_it(taken):
    port = free_port(taken)
    assert taken < port <= taken + 100
    assert is_free("127.0.0.1", port)
    assert port_holder("127.0.0.1", port) is None
    assert not listens(os.getpid(), port)


def test_any_port_will_do_for_zero():
    assert is_free("127.0.0.1", free_port(0))


def test_the_end_of_the_ports_is_not_overrun():
    assert 0 < free_port(65535) <= 65535


def test_a_host_that_is_not_this_machine_is_not_free():
    assert not is_free("no-such-host.invalid", 7860)
    assert not is_free("192.0.2.1", 7860)
    assert port_holder("no-such-host.invalid", 7860) is None


def test_a_process_that_is_gone_listens_on_nothing():
    assert not listens(2**22 + 1, 80)
