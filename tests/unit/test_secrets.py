"""Hiding secrets by value, in every form they take, and keys that live in memory alone."""

import logging
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from dspyui.settings import Settings, redact

KEY = 'k3y+/with"odd\\chars=='


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        quote(KEY, safe=""),
        KEY.replace("\\", "\\\\").replace('"', '\\"'),
        b64encode(KEY.encode()).decode().rstrip("="),
    ],
)
def test_every_form_of_a_secret_is_hidden(form: str) -> None:
    said = redact(f"before {form} after", {"OPENAI_API_KEY": KEY})
    assert said.startswith("before ***")
    assert said.endswith("after")


def test_a_basic_login_is_hidden_as_it_is_sent() -> None:
    environment = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "enchantress"}
    header = b64encode(b"ada:enchantress").decode()
    assert header.rstrip("=") not in redact(f"Authorization: Basic {header}", environment)


def test_a_variable_that_is_named_as_a_keys_is_hidden_whatever_it_is_called() -> None:
    environment = {"MY_SERVER": "hush-hush-hush", "MY_PLACE": "open-to-everyone"}
    text = "hush-hush-hush open-to-everyone"
    assert redact(text, environment) == text
    assert redact(text, environment, ["MY_SERVER"]) == "*** open-to-everyone"


def test_a_secret_that_begins_another_leaves_no_rest() -> None:
    assert redact("abcdefgh-ijk", {"A_KEY": "abcdefgh", "B_KEY": "abcdefgh-ijk"}) == "***"


@pytest.mark.parametrize(
    "known", ["sk-proj-AbCdEf0123456789xyz", "gsk_AbCdEf0123456789xyz", "sk-abcdefgh********wxyz"]
)
def test_what_looks_like_a_key_is_hidden_though_nobody_knows_it(known: str) -> None:
    assert redact(f"the key {known}.", {}) == "the key ***."


def test_a_short_value_is_no_secret_and_tears_no_words_apart() -> None:
    assert redact("ollama/qwen", {"OPENAI_API_KEY": "ollama", "TOKEN": ""}) == "ollama/qwen"


def test_a_login_in_an_address_is_hidden() -> None:
    assert redact("postgresql://ada:hunter2@db/x", {}) == "postgresql://ada:***@db/x"


@pytest.fixture
def both(tmp_path: Path) -> Settings:
    settings = Settings.load(tmp_path / "no.env", {"OPENAI_API_KEY": "the-environments-own"})
    settings.keys.set("OPENAI_API_KEY", SecretStr("typed-in-by-hand"))
    return settings


def test_a_typed_key_goes_before_the_environments_and_to_workers_alone(both: Settings) -> None:
    assert both.lm_environment["OPENAI_API_KEY"] == "typed-in-by-hand"
    assert both.worker_environment()["OPENAI_API_KEY"] == "typed-in-by-hand"
    assert both.process_environment()["OPENAI_API_KEY"] == "the-environments-own"
    both.keys.clear("OPENAI_API_KEY")
    assert both.lm_environment["OPENAI_API_KEY"] == "the-environments-own"


def test_both_are_hidden(both: Settings) -> None:
    assert both.redact("the-environments-own typed-in-by-hand") == "*** ***"


def test_a_typed_key_is_in_no_dump_and_no_repr(both: Settings) -> None:
    shown = f"{both!r} {both.model_dump()} {both.keys!r}"
    assert "typed-in-by-hand" not in shown


def test_a_copy_of_the_settings_has_the_same_keys(both: Settings) -> None:
    copy = both.model_copy(update={"port": 1})
    copy.keys.set("GROQ_API_KEY", SecretStr("another-by-hand"))
    assert "GROQ_API_KEY" in both.keys


def test_the_servers_log_hides_what_is_typed_in_later(both: Settings) -> None:
    from dspyui.server import _Redacting

    formatter = _Redacting(both)
    both.keys.set("GROQ_API_KEY", SecretStr("another-by-hand"))
    try:
        raise ValueError("no: another-by-hand")
    except ValueError:
        record = logging.LogRecord(
            "x", logging.ERROR, "f", 1, "said %s", ("typed-in-by-hand",), sys.exc_info()
        )
    line = formatter.format(record)
    assert "said ***" in line
    assert "ValueError: no: ***" in line


def test_the_password_in_an_address_is_hidden_wherever_it_stands():
    environment = {"DSPYUI_DATABASE_URL": "postgresql://ann:s3cret-%40word@db.example:5432/batches"}
    said = redact(
        "s3cret-%40word, and s3cret-@word as it is; postgresql://ann:s3cret-%40word@db.example", environment
    )
    assert "s3cret" not in said
    assert "db.example" in said


def test_a_trials_password_tears_no_words_apart():
    environment = {"DSPYUI_DATABASE_URL": "postgresql://postgres:postgres@127.0.0.1/postgres"}
    assert redact("postgresql runs as postgres", environment) == "postgresql runs as postgres"
    assert (
        redact("at postgresql://postgres:postgres@127.0.0.1/x", environment)
        == "at postgresql://postgres:***@127.0.0.1/x"
    )
