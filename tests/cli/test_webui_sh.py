"""`webui.sh`: what it installs and when, what it refuses, what it hands over.

uv, pip and Python stand in as small scripts that write down what they are asked for, so nothing is installed
here; the last test starts the real thing.
"""

import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from tests.conftest import end_process, free_port
from tests.waiting import wait_ended, wait_until

ROOT = Path(__file__).parents[2]
TOOLS = ("bash", "sh", "cat", "cksum", "dirname", "rm", "mkdir", "chmod", "env", "cp", "sed")

# What `.venv/bin/python` is once a stand-in has made it.
VENV_PYTHON = """#!/bin/sh
case "$1 $2" in
  "-m dspyui")
    shift 2
    echo "pid $$"
    echo "env ${PYTHONPATH-unset} ${VIRTUAL_ENV-unset} ${PIP_REQUIRE_VIRTUALENV-unset}"
    printf 'ran'; for a in "$@"; do printf ' <%s>' "$a"; done; echo ;;
  "-m pip")
    [ "$3" = --version ] || echo "$*" >>"$LOG"
    case "$*" in *"${FAIL_ON:-@never@}"*) exit 1 ;; esac ;;
  *) [ "$1" = -V ] && echo "Python 3.11.9"; exit 0 ;;
esac
"""

UV = """#!/bin/sh
echo "uv $*" >>"$LOG"
case "$*" in *"${FAIL_ON:-@never@}"*) exit 1 ;; esac
if [ "$1" = venv ]; then mkdir -p .venv/bin; cp "$BIN/venv-python" .venv/bin/python; fi
"""

PYTHON = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p .venv/bin; cp "$BIN/venv-python" .venv/bin/python ;;
  *) [ "$1" = -V ] && echo "Python 3.9.1"; exit ${TOO_OLD:-0} ;;
esac
"""


class Checkout:
    """A copy of what webui.sh reads, in a folder with a space, and a PATH with stand-ins alone."""

    def __init__(self, folder: Path, *tools: str) -> None:
        self.root = folder / "a 项目 folder"
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.elsewhere = folder / "elsewhere"
        for made in (self.root, self.bin, self.elsewhere):
            made.mkdir()
        shutil.copy(ROOT / "webui.sh", self.root)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        shutil.copytree(ROOT / "requirements", self.root / "requirements")
        for name in TOOLS:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        self.tool("uname", '#!/bin/sh\necho "${SYSTEM:-Linux}"\n')
        self.tool("venv-python", VENV_PYTHON)
        for name in tools:
            self.tool(name, UV if name == "uv" else PYTHON)

    def tool(self, name: str, content: str) -> None:
        path = self.bin / name
        path.write_text(content, encoding="utf-8")
        path.chmod(0o755)

    def run(self, *flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run it from another folder, and forget what was logged before."""
        self.log.write_text("")
        environment = {"PATH": str(self.bin), "BIN": str(self.bin), "LOG": str(self.log), "LANG": "C.UTF-8"}
        # Its input is open and silent, as a terminal that nobody types at: a question would wait for ever.
        reading, writing = os.pipe()
        try:
            return subprocess.run(
                ["bash", str(self.root / "webui.sh"), *flags],
                cwd=self.elsewhere, env={**environment, **variables}, stdin=reading,
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
        finally:
            os.close(reading)
            os.close(writing)

    @property
    def asked(self) -> list[str]:
        """What the stand-ins were asked for by the last run."""
        return self.log.read_text(encoding="utf-8").splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path, "uv", "python3")


def installed(checkout: Checkout) -> list[str]:
    return [line for line in checkout.asked if " install " in line]


def test_the_first_start_installs_the_locks_and_runs(checkout: Checkout) -> None:
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    base, project, model = installed(checkout)
    assert "--require-hashes" in base
    assert base.endswith("-r requirements/base.lock")
    assert project.endswith("--no-deps --no-build-isolation -e .")
    assert "--require-hashes --no-deps -r requirements/local-lm.lock" in model
    assert done.stdout.splitlines()[-1] == "ran <ui>"


def test_the_second_start_installs_nothing(checkout: Checkout) -> None:
    checkout.run()
    done = checkout.run()
    assert done.returncode == 0
    assert checkout.asked == []
    assert done.stderr == ""


@pytest.mark.parametrize("changed", ["requirements/base.lock", "pyproject.toml"])
def test_another_lock_or_version_is_installed(checkout: Checkout, changed: str) -> None:
    checkout.run()
    with (checkout.root / changed).open("a") as file:
        file.write("# another\n")
    checkout.run()
    assert any("base.lock" in line for line in installed(checkout))


def test_a_folder_that_was_moved_is_installed_again(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run()
    checkout.root = checkout.root.rename(tmp_path / "moved")
    checkout.run()
    assert any(line.endswith("-e .") for line in installed(checkout))


@pytest.mark.parametrize("at", ["base.lock", "-e .", "local-lm.lock"])
def test_an_installation_that_broke_off_is_done_again(checkout: Checkout, at: str) -> None:
    broken = checkout.run(FAIL_ON=at)
    assert broken.returncode == 1
    assert "ran" not in broken.stdout
    assert broken.stderr.strip()
    again = checkout.run()
    assert again.returncode == 0
    assert any(at in line for line in installed(checkout))


def test_a_broken_installation_of_the_model_names_the_way_out(checkout: Checkout) -> None:
    assert "--no-local-lm" in checkout.run(FAIL_ON="local-lm.lock").stderr


def test_without_the_model_it_is_neither_installed_nor_started(checkout: Checkout) -> None:
    done = checkout.run("--no-local-lm")
    assert not any("local-lm" in line for line in installed(checkout))
    assert done.stdout.splitlines()[-1] == "ran <ui> <--no-local-lm>"
    checkout.run()
    assert [line for line in installed(checkout) if "local-lm.lock" in line]


def test_setup_only_starts_nothing(checkout: Checkout) -> None:
    done = checkout.run("--setup-only")
    assert done.returncode == 0
    assert len(installed(checkout)) == 3
    assert "ran" not in done.stdout
    assert "bash webui.sh" in done.stdout


def test_flags_are_handed_over(checkout: Checkout) -> None:
    done = checkout.run("--lang=zh_CN", "--host", "0.0.0.0", "--port=7861", "--mlflow", "--insecure")  # noqa: S104
    expected = "ran <ui> <--lang> <zh_CN> <--host> <0.0.0.0> <--port> <7861> <--mlflow> <--insecure>"
    assert done.stdout.splitlines()[-1] == expected


@pytest.mark.parametrize(
    "flags", [["--nope"], ["--port"], ["--port", "x"], ["--port="], ["--lang", "fr"], ["extra"]]
)
def test_a_wrong_flag_is_told_before_anything_is_installed(checkout: Checkout, flags: list[str]) -> None:
    done = checkout.run(*flags)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert checkout.asked == []


def test_sentences_come_in_the_persons_language(checkout: Checkout) -> None:
    assert "选项" in checkout.run("--nope", LANG="zh_CN.UTF-8").stderr
    assert "选项" in checkout.run("--nope", DSPYUI_LANGUAGE="zh_CN").stderr
    assert "选项" in checkout.run("--lang", "zh_CN", "--nope").stderr
    assert "flag" in checkout.run("--lang", "en_US", "--nope", LANG="zh_CN.UTF-8").stderr


def test_help_is_in_both_languages_and_names_every_flag(checkout: Checkout) -> None:
    done = checkout.run("--help")
    assert done.returncode == 0
    assert checkout.asked == []
    english, _, chinese = done.stdout.partition("用法")
    for flag in (
        "--lang",
        "--mlflow",
        "--host",
        "--port",
        "--no-local-lm",
        "--insecure",
        "--setup-only",
        "--help",
    ):
        assert flag in english
        assert flag in chinese


@pytest.mark.parametrize("system", ["MINGW64_NT-10.0", "MSYS_NT-10.0", "CYGWIN_NT-10.0"])
def test_plain_windows_gets_a_sentence(checkout: Checkout, system: str) -> None:
    done = checkout.run(SYSTEM=system)
    assert done.returncode == 1
    assert "WSL" in done.stderr
    assert checkout.asked == []


@pytest.mark.parametrize("tools", [("python3",), ()])
def test_an_old_python_or_none_gets_a_sentence(tmp_path: Path, tools: tuple[str, ...]) -> None:
    done = Checkout(tmp_path, *tools).run(TOO_OLD="1")
    assert done.returncode == 1
    assert "3.11" in done.stderr
    assert "uv" in done.stderr


def test_uv_brings_a_python_when_there_is_none(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "uv")
    assert checkout.run().returncode == 0
    assert "--python 3.11" in checkout.asked[0]


def test_without_uv_pip_installs_the_same(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path, "python3")
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    base, project, model = installed(checkout)
    for line in (base, project, model):
        assert "--no-input" in line
    assert base.endswith("--require-hashes -r requirements/base.lock")
    assert "--no-deps" in project
    assert "--require-hashes --no-deps" in model


def test_what_is_set_for_other_projects_does_not_steer_it(checkout: Checkout) -> None:
    done = checkout.run(PYTHONPATH="elsewhere", VIRTUAL_ENV="other", PIP_REQUIRE_VIRTUALENV="1")
    assert "env unset unset unset" in done.stdout


def test_nothing_comes_from_the_internet_but_by_the_installers() -> None:
    for name in ("webui.sh", "test.sh", "requirements/install.sh"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"\b(curl|wget|eval)\b|\|\s*(ba)?sh\b|https?://(?!127\.0\.0\.1)", text), name


def test_dotenv_is_never_sourced(checkout: Checkout) -> None:
    (checkout.root / ".env").write_text('touch made\nMLFLOW_ENABLED="$(touch made)"\nexit 3\n')
    assert checkout.run().returncode == 0
    assert not (checkout.root / "made").exists()


def test_the_program_takes_the_scripts_place_so_that_signals_reach_it(checkout: Checkout) -> None:
    checkout.run("--setup-only")
    environment = {"PATH": str(checkout.bin), "BIN": str(checkout.bin), "LOG": str(checkout.log)}
    script = ["bash", str(checkout.root / "webui.sh")]
    with subprocess.Popen(script, env=environment, stdout=subprocess.PIPE, text=True) as process:
        output, _ = process.communicate(timeout=60)
    assert f"pid {process.pid}\n" in output


def _page(port: int) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/", timeout=5) as reply:
            return reply.status
    except urllib.error.URLError:
        return 0


@pytest.mark.slow
def test_the_real_one_serves_a_page_and_ends_with_its_children(
    tmp_path: Path, environ: Mapping[str, str]
) -> None:
    port = free_port()
    settings = {"DSPYUI_HOME": str(tmp_path / "data"), "MLFLOW_ENABLED": "false"}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", str(ROOT / "webui.sh"), "--port", str(port)],
            cwd=tmp_path, env={**environ, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_until(lambda: process.poll() is not None or _page(port) == 200, seconds=200)
        assert process.poll() is None, (tmp_path / "log").read_text()
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
        wait_ended(children)
    finally:
        if process.poll() is None:
            end_process(process)
