"""`dspyui auth hash`."""

import io
import sys

import pytest

from dspyui.api.passwords import Accounts


def test_the_entry_opens_the_door(dspyui, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("s3cret 电池\n"))
    said = dspyui("auth", "hash", "ann")
    assert said.code == 0
    entry = said.out.strip()
    assert entry.startswith("ann:$argon2id$")
    Accounts.parse(entry).check("here", "ann", "s3cret 电池")
    assert (
        said.err
        == "Put this into DSPYUI_AUTH, in single quotes; several entries stand apart by a space or `;`.\n"
    )
    assert "s3cret" not in said.out + said.err


def test_as_json_for_the_system_user(dspyui, monkeypatch):
    monkeypatch.setenv("LOGNAME", "somebody")
    monkeypatch.setattr(sys, "stdin", io.StringIO("x"))
    said = dspyui("auth", "hash", "--json")
    assert said.document["user"] == "somebody"
    assert said.document["entry"].startswith("somebody:$argon2id$")


@pytest.mark.parametrize("password", ["", "\n"])
def test_an_empty_password_is_refused(dspyui, monkeypatch, password):
    monkeypatch.setattr(sys, "stdin", io.StringIO(password))
    said = dspyui("auth", "hash", "ann", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "cli.password_empty")


@pytest.mark.parametrize("name", ["a b", "a:b", "a;b", "<b>", "", "x" * 65])
def test_a_name_that_could_not_stand_in_the_setting(dspyui, monkeypatch, name):
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\n"))
    said = dspyui("auth", "hash", name, "--json")
    # An empty argument is as good as none: the system user's name is taken.
    assert said.code == (0 if name == "" else 2)


def test_on_a_terminal_it_is_asked_twice(dspyui, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    typed = iter(["one", "two", "one", "one"])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(typed))
    assert dspyui("auth", "hash", "ann", "--json").document["error"]["code"] == "cli.password_repeat"
    assert dspyui("auth", "hash", "ann").code == 0
