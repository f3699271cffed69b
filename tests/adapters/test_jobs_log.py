"""The log of a child: what it writes arrives line by line and without secrets, however it is cut."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dspyui.adapters.dbos_jobs import log as module
from dspyui.adapters.dbos_jobs.log import RedactedLog
from dspyui.settings import Redactor
from tests.waiting import wait_until

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@pytest.fixture
def log(path: Path) -> RedactedLog:
    return RedactedLog(path, Redactor({"SOME_API_KEY": KEY}.items()))


def test_a_line_is_there_at_once_without_its_key(log: RedactedLog, path: Path) -> None:
    os.write(log.writing_end, f"key {KEY}\nbegun".encode())
    wait_until(lambda: path.exists() and path.read_text() == "key ***\n")
    log.close()
    assert path.read_text() == "key ***\nbegun"


def test_a_key_in_two_pieces_is_hidden(log: RedactedLog, path: Path) -> None:
    os.write(log.writing_end, b"first\n" + KEY[:9].encode())
    wait_until(lambda: path.exists() and path.read_text() == "first\n")
    os.write(log.writing_end, KEY[9:].encode() + b" rest\n")
    log.close()
    assert path.read_text() == "first\n*** rest\n"


def test_a_line_without_end_is_written_in_parts_and_a_key_across_them_is_hidden(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LINE_CHARACTERS", 500)
    log = RedactedLog(path, Redactor({"SOME_API_KEY": KEY}.items()))
    for _ in range(20):
        os.write(log.writing_end, b"." * 490 + KEY.encode())
    log.close()
    assert path.read_text() == ("." * 490 + "***") * 20


def test_bytes_that_are_no_text_stay_as_they_are(log: RedactedLog, path: Path) -> None:
    os.write(log.writing_end, b"\xff\xfe bar\r" + KEY.encode())
    log.close()
    assert path.read_bytes() == b"\xff\xfe bar\r***"


def test_an_earlier_attempts_log_stays(path: Path) -> None:
    path.write_text("attempt 1\n")
    log = RedactedLog(path, Redactor(()))
    os.write(log.writing_end, b"attempt 2\n")
    log.close()
    assert path.read_text() == "attempt 1\nattempt 2\n"


def test_closing_does_not_wait_for_who_holds_the_pipe_open(log: RedactedLog, path: Path) -> None:
    left_behind = os.dup(log.writing_end)
    os.write(log.writing_end, b"last words\n")
    log.close()
    assert path.read_text() == "last words\n"
    os.close(left_behind)


def test_a_full_disk_does_not_hold_up_the_child() -> None:
    log = RedactedLog(Path("/dev/full"), Redactor(()))
    # More than a pipe holds, so that a reader who gives up would leave it waiting.
    code = "import sys; sys.stderr.write('a line\\n' * 100_000)"
    with subprocess.Popen([sys.executable, "-c", code], stderr=log.writing_end) as child:
        log.child_started()
        assert child.wait(timeout=60) == 0
    log.close()
