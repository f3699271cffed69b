"""Settings: the environment, `.env`, flags; who outranks whom, and what is refused."""

from pathlib import Path

import pytest

from dspyui.errors import BadRequestError
from dspyui.settings import DEFAULT_TRACKING_URI, Settings, language_said


def load(tmp_path: Path, env: str = "", environ: dict[str, str] | None = None, **flags: object) -> Settings:
    file = tmp_path / ".env"
    file.write_text(env, encoding="utf-8")
    return Settings.load(env_file=file, environ=environ or {}, **flags)


def test_nothing_said_is_all_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.mlflow_enabled
    assert settings.mlflow_tracking_uri is None
    assert settings.tracking_uri == DEFAULT_TRACKING_URI
    assert (settings.host, settings.port) == ("127.0.0.1", 7860)
    assert settings.language is None
    assert settings.is_loopback


def test_a_missing_file_is_no_mistake(tmp_path: Path) -> None:
    assert Settings.load(env_file=tmp_path / "none", environ={}).port == 7860


def test_flags_outrank_the_environment_and_that_the_file(tmp_path: Path) -> None:
    env = "DSPYUI_PORT=1001\nDSPYUI_HOST=127.0.0.2\nDSPYUI_WORKERS=3\n"
    settings = load(tmp_path, env, {"DSPYUI_PORT": "1002", "DSPYUI_HOST": "127.0.0.3"}, port=1003, host=None)
    assert (settings.port, settings.host, settings.workers) == (1003, "127.0.0.3", 3)


@pytest.mark.parametrize("word", ['"true"', "'TRUE'", "yes", "1", "on", " true # as said"])
def test_dotenv_is_parsed_as_dotenv(tmp_path: Path, word: str) -> None:
    assert load(tmp_path, f"MLFLOW_ENABLED={word}\n").mlflow_enabled is True
    assert load(tmp_path, "export MLFLOW_ENABLED='false'\n").mlflow_enabled is False


def test_dotenv_is_never_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    load(tmp_path, f"DSPYUI_LM_MODEL=$(touch {made})\n`touch {made}`\n")
    assert not made.exists()


def test_a_hash_survives_dotenv(tmp_path: Path) -> None:
    entry = "ada:$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"
    for line in (f"DSPYUI_AUTH={entry}", f"DSPYUI_AUTH='{entry}'", f'DSPYUI_AUTH="{entry}"'):
        auth = load(tmp_path, line + "\n").auth
        assert auth is not None
        assert auth.get_secret_value() == entry


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_value_counts_as_unset(tmp_path: Path, value: str) -> None:
    settings = load(
        tmp_path, environ={"DSPYUI_PORT": value, "MLFLOW_TRACKING_URI": value, "DSPYUI_AUTH": value}
    )
    assert settings.port == 7860
    assert settings.mlflow_tracking_uri is None
    assert settings.auth is None


@pytest.mark.parametrize(
    ("environ", "code", "named"),
    [
        ({"DSPYUI_PORT": "x"}, "settings.int", "DSPYUI_PORT"),
        ({"DSPYUI_PORT": "0"}, "settings.range", "≥ 1"),
        ({"DSPYUI_PORT": "65536"}, "settings.range", "≤ 65535"),
        ({"MLFLOW_ENABLED": "perhaps"}, "settings.bool", "MLFLOW_ENABLED"),
        ({"DSPYUI_LANGUAGE": "fr"}, "settings.choice", "en_US"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}, "settings.tracking_uri", "--mlflow"),
        ({"MLFLOW_TRACKING_URI": "file:///tmp/x"}, "settings.tracking_uri", "--mlflow"),
        ({"MLFLOW_TRACKING_URI": "localhost:5000"}, "settings.tracking_uri", "http"),
        ({"MLFLOW_TRACKING_URI": "http://"}, "settings.tracking_uri", "http"),
        (
            {"MLFLOW_TRACKING_URI": "https://anna:pw@h"},
            "settings.tracking_uri_login",
            "MLFLOW_TRACKING_PASSWORD",
        ),
        (
            {"MLFLOW_TRACKING_URI": "postgresql://anna:hunter2@h/db"},
            "settings.tracking_uri",
            "//anna:***@h/db",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, environ: dict[str, str], code: str, named: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        load(tmp_path, environ=environ)
    assert caught.value.code == code
    assert named in str(caught.value)
    assert named in caught.value.text("zh_CN")


@pytest.mark.parametrize("address", ["sqlite:///mlflow.db", "http://elsewhere:5000"])
def test_the_flag_outranks_the_address_even_one_that_cannot_be_used(tmp_path: Path, address: str) -> None:
    env = f"MLFLOW_TRACKING_URI={address}\n"
    settings = load(tmp_path, env, force_local_mlflow=True)
    assert settings.force_local_mlflow
    assert settings.mlflow_tracking_uri is None
    # A child is started without the flag, in the same folder.
    child = load(tmp_path, env, dict(settings.process_environment()))
    assert child.mlflow_tracking_uri is None


def test_the_language_is_known_although_something_else_is_wrong(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DSPYUI_LANGUAGE=zh\nDSPYUI_PORT=many\n", encoding="utf-8")
    assert language_said(tmp_path / ".env", {})[0] == "zh_CN"
    assert language_said(tmp_path / ".env", {"DSPYUI_LANGUAGE": "en"})[0] == "en_US"
    assert language_said(tmp_path / ".env", {"DSPYUI_LANGUAGE": "fr"})[0] is None


def test_an_address_loses_its_last_slash(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"MLFLOW_TRACKING_URI": "https://example.org/mlflow/"})
    assert settings.tracking_uri == "https://example.org/mlflow"


@pytest.mark.parametrize(("said", "language"), [("zh", "zh_CN"), ("zh_CN", "zh_CN"), ("en-GB", "en_US")])
def test_a_language_may_be_said_in_short(tmp_path: Path, said: str, language: str) -> None:
    assert load(tmp_path, environ={"DSPYUI_LANGUAGE": said}).language == language


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.1.2.3", True), ("localhost", True), ("::1", True),
     ("0.0.0.0", False),  # noqa: S104 - nothing is bound here
     ("::", False), ("192.168.1.2", False), ("127.example.org", False)],
)  # fmt: skip
def test_loopback_is_this_machine_alone(tmp_path: Path, host: str, loopback: bool) -> None:
    assert load(tmp_path, host=host).is_loopback is loopback


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    settings = load(tmp_path, environ={"DSPYUI_AUTH": "ada:secret", "OPENAI_API_KEY": "sk-secret"})
    assert "secret" not in repr(settings)
    assert settings.child_environment["OPENAI_API_KEY"] == "sk-secret"


def test_a_child_inherits_the_file_too(tmp_path: Path) -> None:
    settings = load(tmp_path, "OPENAI_API_KEY=sk-file\nA=file\n", {"A": "environment"})
    assert settings.child_environment["OPENAI_API_KEY"] == "sk-file"
    assert settings.child_environment["A"] == "environment"
