"""Help, language and usage errors: whole outputs and exit codes."""

import json
import os
import subprocess
import sys

import pytest

from dspyui import __version__
from dspyui.cli.layout import width, wrap
from dspyui.cli.main import build

COMMANDS = [
    "ui",
    "compile",
    "register",
    "predict",
    "feedback",
    "batch",
    "worker",
    "send",
    "demo",
    "version",
    "jobs",
    "runs",
    "data",
    "auth",
    "lm",
    "models",
]


def test_version(dspyui):
    said = dspyui("version")
    assert (said.code, said.out, said.err) == (0, f"DSPyUI {__version__}\n", "")


LEAVES = [
    ["ui"],
    ["compile"],
    ["register"],
    ["predict"],
    ["feedback"],
    ["batch"],
    ["worker"],
    ["send"],
    ["demo"],
    ["version"],
    *(["jobs", name] for name in ("list", "show", "rename", "note", "again", "cancel", "delete")),
    *(["data", name] for name in ("list", "show", "add", "rename", "delete")),
    *(["runs", name] for name in ("list", "show")),
    ["auth", "hash"],
    ["lm", "test"],
    ["lm", "list"],
    *(["models", name] for name in ("list", "show", "promote", "rollback", "alias", "describe", "delete")),
]


def test_no_command_is_left_out_of_these():
    group = build("en_US")
    found = [
        [name, *inner]
        for name, command in group.commands.items()
        for inner in ([[each] for each in command.commands] if hasattr(command, "commands") else [[]])
    ]
    assert sorted(found) == sorted(LEAVES)


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_every_command_answers_in_json_even_what_it_does_not_understand(dspyui, command):
    said = dspyui(*command, "--no-such-flag", "--json")
    assert said.code == 2
    assert said.document["error"]["code"] == "cli.usage"
    assert "--json" in dspyui(*command, "--help").out


def test_version_as_json(dspyui):
    said = dspyui("version", "--json")
    assert (said.code, said.err, said.out.count("\n")) == (0, "", 1)
    assert said.document["version"] == __version__
    assert {"python", "dspy", "mlflow", "nicegui", "dbos"} <= set(said.document)


VERSION_HELP = {
    "en_US": """Usage: dspyui version [OPTIONS]

Show the version.

Options:
  --json              Answer with one JSON object on the last line of stdout; everything else goes
                      to stderr.
  --lang zh_CN|en_US  The language; otherwise DSPYUI_LANGUAGE, then the terminal's.
  --help              Show this help and exit.
""",
    "zh_CN": """用法：dspyui version [选项]

显示版本号。

选项：
  --json              在标准输出的最后一行给出一个 JSON 对象，其余内容都写到标准错误。
  --lang zh_CN|en_US  界面语言；未指定时依次取 DSPYUI_LANGUAGE 和终端的语言。
  --help              显示本帮助并退出。
""",
}


@pytest.mark.parametrize("language", VERSION_HELP)
def test_help_is_in_the_language_asked_for(dspyui, monkeypatch, language):
    monkeypatch.setenv("COLUMNS", "200")
    for arguments in (["version", "--help", "--lang", language], ["--lang", language, "version", "--help"]):
        said = dspyui(*arguments)
        assert (said.code, said.out, said.err) == (0, VERSION_HELP[language], "")


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh_CN"),
        ({"LANG": "de_DE.UTF-8"}, "en_US"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_GB.UTF-8"}, "en_US"),
        ({"LANG": "en_US.UTF-8", "DSPYUI_LANGUAGE": "zh_CN"}, "zh_CN"),
        ({}, "en_US"),
    ],
)
def test_the_language_comes_from_setting_then_terminal(dspyui, monkeypatch, environment, language):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert dspyui("version", "--help").out == VERSION_HELP[language]


@pytest.mark.parametrize("language", VERSION_HELP)
@pytest.mark.parametrize(
    "command", [[], *([name] for name in COMMANDS), *(leaf for leaf in LEAVES if len(leaf) > 1)]
)
def test_every_help_fits_the_terminal_and_mixes_no_languages(dspyui, monkeypatch, command, language):
    monkeypatch.setenv("COLUMNS", "60")
    said = dspyui(*command, "--help", "--lang", language)
    assert said.code == 0
    assert max(width(line) for line in said.out.splitlines()) <= 60
    for word in ("Options", "Usage", "Commands", "Show this"):
        assert (word in said.out) <= (language == "en_US")
    for word in ("选项", "用法", "显示本帮助"):
        assert (word in said.out) <= (language == "zh_CN")


def test_help_lists_every_command(dspyui):
    listed = dspyui("--help").out.split("Commands:")[1]
    assert [
        line.split()[0] for line in listed.splitlines() if line.startswith("  ") and line[2] != " "
    ] == COMMANDS


USAGE = [
    (["foo"], f"There is no command 'foo'. Name one of the commands: {', '.join(COMMANDS)}.", "dspyui"),
    (["auth", "foo"], "There is no command 'foo'. Name one of the commands: hash.", "dspyui auth"),
    (["version", "--foo"], "There is no option --foo here.", "dspyui version"),
    (["register", "--run", "r"], "--name is missing.", "dspyui register"),
]


@pytest.mark.parametrize(("arguments", "problem", "command"), USAGE)
def test_a_usage_error_is_one_line_and_2(dspyui, arguments, problem, command):
    said = dspyui(*arguments)
    assert (said.code, said.out) == (2, "")
    assert said.err == f"error: {problem} `{command} --help` lists what there is.\n"


@pytest.mark.parametrize(("arguments", "problem", "command"), USAGE)
def test_a_usage_error_is_said_in_json_too(dspyui, arguments, problem, command):
    said = dspyui(*arguments, "--json")
    if arguments[0] != "foo" and arguments != ["auth", "foo"]:
        message = f"{problem} `{command} --help` lists what there is."
        assert said.document == {"status": "failed", "error": {"code": "cli.usage", "message": message}}
    assert said.code == 2
    assert said.document["error"]["code"] == "cli.usage"


def test_nothing_asked_shows_the_help_and_says_so(dspyui):
    said = dspyui()
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("Usage: dspyui [OPTIONS] COMMAND [ARGS]...\n")
    assert said.err.endswith("error: No command was given. `dspyui --help` lists what there is.\n")


def test_a_value_that_does_not_fit(dspyui):
    said = dspyui("demo", "--seed", "x")
    assert said.code == 2
    assert said.err.startswith("error: The value of --seed does not fit: ")


def test_an_unknown_language(dspyui):
    said = dspyui("version", "--lang", "de", "--json")
    assert said.code == 2
    assert said.document["error"]["code"] == "cli.language"


def test_a_wrong_setting_is_2_and_names_it(dspyui, monkeypatch):
    monkeypatch.setenv("DSPYUI_PORT", "many")
    said = dspyui("ui", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "settings.int")
    assert "DSPYUI_PORT" in said.err
    monkeypatch.setenv("DSPYUI_LANGUAGE", "zh")
    assert "DSPYUI_PORT 的值是 'many'" in dspyui("ui", "--json").err


@pytest.mark.parametrize(
    "command", [["ui"], ["compile", "--from-run", "r"], ["register", "--run", "r", "--name", "n"], ["demo"]]
)
@pytest.mark.parametrize("address", ["sqlite:///mlflow.db", "file:///tmp/mlruns"])
def test_an_address_that_is_no_server_is_refused_by_every_command(dspyui, monkeypatch, command, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    said = dspyui(*command, "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "settings.tracking_uri")
    assert "--mlflow" in said.err


@pytest.mark.parametrize("language", ["en_US", "zh_CN"])
@pytest.mark.parametrize(
    "command",
    [["ui"], ["compile", "no.yaml"], ["register", "--run", "r", "--name", "n"], ["demo"],
     ["batch", "--model", "m", "--input", "i"], ["jobs", "again", "j"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_a_flag_that_tracking_off_makes_void_is_said(dspyui, monkeypatch, command, language):
    monkeypatch.setenv("MLFLOW_ENABLED", "false")
    monkeypatch.setattr("dspyui.cli.compile.read_spec", lambda _file: None)
    monkeypatch.setattr("dspyui.bootstrap.make_app", lambda _settings: 1 / 0)
    monkeypatch.setattr("dspyui.server.serve", lambda *_, **__: None)
    word = {"en_US": "goes before --mlflow", "zh_CN": "优先于 --mlflow"}[language]
    assert dspyui(*command, "--mlflow", "--lang", language).err.count(word) == 1
    assert word not in dspyui(*command, "--lang", language).err
    monkeypatch.setenv("MLFLOW_ENABLED", "true")
    assert word not in dspyui(*command, "--mlflow", "--lang", language).err


@pytest.mark.parametrize("arguments", [[], ["spec.yaml", "--from-run", "r"], ["--save-spec", "x.yaml"]])
def test_a_compile_wants_one_source(dspyui, arguments):
    said = dspyui("compile", *arguments, "--json")
    assert (said.code, json.loads(said.out.splitlines()[-1])["error"]["code"]) == (2, "cli.compile_source")


def test_registering_wants_one_source_a_name_and_a_stage(dspyui):
    for arguments, code in (
        (["--name", "m"], "cli.register_source"),
        (["--name", "m", "--run", "r", "--job", "j"], "cli.register_source"),
        (["--name", "a/b", "--run", "r"], "model_name.character"),
        (["--name", "m", "--run", "r", "--stage", "Live"], "cli.stage"),
    ):
        said = dspyui("register", *arguments, "--json")
        assert (said.code, said.document["error"]["code"]) == (2, code)


def test_registering_with_tracking_off_fails(dspyui, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLED", "false")
    said = dspyui("register", "--name", "m", "--run", "r", "--stage", "staging", "--why", "w", "--json")
    assert said.code == 1
    assert said.document["status"] == "failed"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "cli.spec_missing"),
        (b"\xff\xfe", "cli.spec_unreadable"),
        (b"- 1", "spec.not_mapping"),
        (b"program: 1", "spec.mapping"),
    ],
)
def test_a_spec_that_is_none(dspyui, tmp_path, content, code):
    file = tmp_path / "spec.yaml"
    if content is not None:
        file.write_bytes(content)
    said = dspyui("compile", str(file), "--json")
    assert (said.code, said.document["error"]["code"]) == (2, code)


def test_an_error_nobody_thought_of_is_1_and_said(dspyui, monkeypatch):
    monkeypatch.setattr("dspyui.cli.version.libraries", lambda: 1 / 0)
    said = dspyui("version", "--json")
    assert said.code == 1
    assert said.document["error"]["code"] == "cli.unexpected"
    assert "ZeroDivisionError" in said.document["error"]["message"]
    assert "Traceback" in said.err


def test_the_light_commands_import_nothing_heavy():
    code = (
        "import sys\nfrom dspyui.cli.main import run\nrun(['version'])\n"
        "print(sorted({'nicegui', 'fastapi', 'dspy', 'mlflow', 'dbos', 'httpx', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_python_m_dspyui():
    done = subprocess.run(
        [sys.executable, "-m", "dspyui", "version", "--json"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["version"] == __version__


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "three"]),
        ("中文很长的一句话", ["中文很长", "的一句话"]),
        ("中文很长，句话", ["中文很", "长，句话"]),
        ("abcdefghijk", ["abcdefghijk"]),
        ("", [""]),
    ],
)
def test_wrap(text, lines):
    assert wrap(text, 9 if text.isascii() else 8) == lines


@pytest.mark.parametrize(("encoding", "name"), [("ascii", "é.yaml"), ("utf-8", "\udcff.yaml")])
def test_json_comes_whatever_stdout_can_write(encoding, name):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "dspyui", "compile", name, "--json"]
    said = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert said.returncode == 2, said.stderr
    assert json.loads(said.stdout.splitlines()[-1])["error"]["code"] == "cli.spec_missing"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--model", "m"), ("--input", "i.csv"), ("--map", "a=b"), ("--lm", "openai/x"),
     ("--api-base", "http://127.0.0.1:9/v1"), ("--metric", "exact_match"), ("--limit", "5")],
)  # fmt: skip
def test_what_an_earlier_batch_has_settled_cannot_be_given_with_retry(dspyui, option, value):
    said = dspyui("batch", "--retry", "20260101-000000-00000000", option, value, "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "cli.batch_retry")
    assert f"so {option} cannot be given" in said.document["error"]["message"]
