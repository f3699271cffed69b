"""Ports of this machine: which are free, and who holds the others."""

import errno
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

LOOPBACK = "127.0.0.1"


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now. Port 0 always is; a host that is not this machine's never is."""
    return all(_can_bind(family, address) for family, address in _addresses(host, port))


def _addresses(host: str, port: int) -> list[tuple[int, tuple[str, int]]]:
    """What the name stands for here; an empty host is every address, as servers take it."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror:
        return [(socket.AF_INET, (host, port))]
    return [(family, (str(address[0]), port)) for family, _, _, _, address in found]


def _can_bind(family: int, address: tuple[str, int]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # Connections that are only just closed do not keep a server from listening.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as exc:
        # A machine without IPv6 has nothing there that could be in the way.
        return family == socket.AF_INET6 and exc.errno in {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
    return True


def free_port(start: int, *, tries: int = 100) -> int:
    """The first free port of this machine from `start` on, or any free one (`start` 0, or none of `tries` is)."""
    # `localhost` means 127.0.0.1 and, on most machines, ::1 too: a server on either would be mistaken for ours.
    for port in range(start, min(start + tries, 65536)) if start else ():
        if is_free("localhost", port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def port_holder(host: str, port: int) -> str | None:
    """Who listens there, as `name (PID n)`; None when nobody does or the system does not tell."""
    import psutil

    hosts = {address for _, (address, _) in _addresses(host, port)}
    everywhere = {"0.0.0.0", "::", ""}  # noqa: S104 - compared with, not bound to
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.AccessDenied, PermissionError):
        return None  # macOS tells root alone
    for found in connections:
        if found.status != psutil.CONN_LISTEN or not found.laddr or found.laddr.port != port:
            continue
        if found.pid is not None and (found.laddr.ip in hosts | everywhere or hosts & everywhere):
            return _name(found.pid)
    return None


def _name(pid: int) -> str:
    import psutil

    try:
        return f"{psutil.Process(pid).name()} (PID {pid})"
    except psutil.Error:
        return f"PID {pid}"


def listens(pid: int, port: int) -> bool:
    """Whether the process or a descendant listens on the port; True when the system does not tell."""
    import psutil

    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in _connections(family))
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False


def _connections(family: "Iterable[psutil.Process]") -> Iterator[Any]:
    import psutil

    for process in family:
        with suppress(psutil.NoSuchProcess):
            yield from process.net_connections(kind="tcp")
