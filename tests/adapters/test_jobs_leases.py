"""Leases: who holds one is alive, and nobody who cleans up takes it away."""

import threading
import time

import pytest

from dspyui.adapters.dbos_jobs.leases import Leases


@pytest.fixture
def leases(tmp_path):
    return Leases(tmp_path / "executors")


def test_a_held_lease_is_alive_until_it_is_released(leases):
    lease = leases.take("ui-1")
    assert lease.is_held()
    assert not leases.is_dead("ui-1")
    lease.release()
    assert not lease.is_held()
    assert leases.is_dead("ui-1")


def test_cleaning_removes_what_the_dead_left_and_nothing_else(leases, tmp_path):
    living = leases.take("ui-1")
    (tmp_path / "executors" / "ui-2.lease").touch()
    leases.clean()
    assert [path.name for path in (tmp_path / "executors").iterdir()] == ["ui-1.lease"]
    assert living.is_held()
    living.release()


def test_cleaning_never_takes_a_lease_that_is_just_being_taken(leases):
    leases.take("first").release()
    over = threading.Event()

    def clean():
        while not over.is_set():
            leases.clean()

    cleaners = [threading.Thread(target=clean) for _ in range(3)]
    for cleaner in cleaners:
        cleaner.start()
    try:
        end = time.monotonic() + 3
        number = 0
        while time.monotonic() < end:
            lease = leases.take(f"ui-{number}")
            # Whoever saw the file before it was locked has had the time to act on it.
            time.sleep(0.0005)
            assert lease.is_held(), number
            lease.release()
            number += 1
    finally:
        over.set()
        for cleaner in cleaners:
            cleaner.join()
