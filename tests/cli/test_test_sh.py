"""`test.sh`: what it installs for the tests and in which order, what it runs, and how it ends.

Everything it calls stands in as a small script that writes down what it is asked for; nothing is installed here.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_webui_sh import ROOT, Checkout

# A Chromium, a font or a Java is there once the file of its name is.
VENV_PYTHON = """#!/bin/sh
case "$1 $2" in
  "tests/chromium.py "*) [ -f "$BIN/has-chromium" ]; exit $? ;;
  "-m playwright") echo "playwright $3 $4" >>"$LOG"; case "$BRINGS" in *playwright*) : >"$BIN/has-chromium" ;; esac ;;
  "-m pytest") echo "$*" >>"$LOG"; exit "${PYTEST_ENDS:-0}" ;;
  *) [ "$1" = -V ] && echo "Python 3.11.9"; exit 0 ;;
esac
"""
TOOL = '#!/bin/sh\necho "${0##*/} $*" >>"$LOG"\ncase "$FAILS" in *"${0##*/}"*) exit 1 ;; esac\n'
APT = TOOL + (
    'case "$BRINGS $*" in *apt*"install"*chromium*) : >"$BIN/has-chromium" ;; esac\n'
    'case "$*" in *noto-cjk*) [ -n "$NO_FONTS" ] || : >"$BIN/has-font" ;; esac\n'
    'case "$*" in *"$JAVA_OF_APT"*) [ -z "$JAVA_OF_APT" ] || echo 21.0.2 >"$BIN/has-java" ;; esac\n'
)
JAVA = """#!/bin/sh
[ -f "$BIN/has-java" ] || exit 1
echo "openjdk version \\"$(cat "$BIN/has-java")\\" 2025-04-15" >&2
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path, "uv", "python3")
    shutil.copy(ROOT / "test.sh", made.root / "webui.sh")  # the name that `run` starts
    made.tool("venv-python", VENV_PYTHON)
    for name in ("ruff", "lint-imports", "basedpyright"):
        made.tool(name, TOOL)
    made.tool("apt-get", APT)
    made.tool("id", "#!/bin/sh\necho 0\n")
    made.tool("fc-list", '#!/bin/sh\n[ ! -f "$BIN/has-font" ] || echo "Noto Sans CJK"\n')
    made.tool("java", JAVA)
    (made.bin / "has-java").write_text("17.0.15\n", encoding="utf-8")
    return made


def has(checkout: Checkout, *things: str) -> None:
    for thing in things:
        (checkout.bin / f"has-{thing}").touch()


def test_all_locks_are_installed_and_every_check_runs(checkout: Checkout) -> None:
    has(checkout, "chromium", "font")
    done = checkout.run()
    assert done.returncode == 0, done.stderr
    for lock in ("base.lock", "local-lm.lock", "dev.lock"):
        assert any(lock in line and "--require-hashes" in line for line in checkout.asked)
    begin = checkout.asked.index("ruff check .")
    assert checkout.asked[begin:] == [
        "ruff check .",
        "ruff format --check .",
        "lint-imports ",
        "basedpyright ",
        "-m pytest -m not slow -n 2 --dist loadfile",
    ]
    assert not any(line.startswith(("apt-get", "playwright")) for line in checkout.asked)
    assert not any("spark" in line for line in checkout.asked)


def test_all_runs_the_slow_ones_too(checkout: Checkout) -> None:
    has(checkout, "chromium", "font")
    assert checkout.run("--all").returncode == 0
    assert checkout.asked[-2:] == ["-m pytest -m not slow -n 2 --dist loadfile", "-m pytest -m slow"]


def test_all_fails_when_the_fast_ones_fail_and_still_runs_the_slow_ones(checkout: Checkout) -> None:
    has(checkout, "chromium", "font")
    assert checkout.run("--all", PYTEST_ENDS="1").returncode == 1
    assert checkout.asked[-1] == "-m pytest -m slow"


def test_pytests_arguments_go_on(checkout: Checkout) -> None:
    has(checkout, "chromium", "font")
    checkout.run("tests/unit", "-x")
    assert checkout.asked[-1] == "-m pytest -m not slow -n 2 --dist loadfile tests/unit -x"
    checkout.run("--all", "-k", "some thing")
    assert checkout.asked[-1] == "-m pytest -k some thing"


@pytest.mark.parametrize("fails", ["ruff", "lint-imports", "basedpyright", "pytest"])
def test_one_check_that_fails_fails_the_whole_and_the_others_still_run(
    checkout: Checkout, fails: str
) -> None:
    has(checkout, "chromium", "font")
    done = checkout.run(**({"PYTEST_ENDS": "1"} if fails == "pytest" else {"FAILS": fails}))
    assert done.returncode == 1
    told = {line.split()[0] for line in done.stdout.splitlines() if "FAILED" in line}
    assert told == {{"lint-imports": "import-linter"}.get(fails, fails)}
    assert checkout.asked[-1].startswith("-m pytest")


def test_all_installs_spark_in_a_folder_of_its_own_after_what_builds_it(checkout: Checkout) -> None:
    has(checkout, "chromium", "font")
    assert checkout.run("--all").returncode == 0
    *_, dev, spark, model = (line for line in checkout.asked if ".lock" in line)
    assert dev.endswith("-r requirements/dev.lock")
    assert (
        "--require-hashes --no-build-isolation --upgrade --target .venv/spark -r requirements/spark.lock"
        in spark
    )
    assert "--require-hashes --upgrade --target .venv/model -r requirements/model.lock" in model
    assert not any(line.startswith("apt-get") for line in checkout.asked)


@pytest.mark.parametrize("found", [None, "11.0.2", "1.8.0_442"])
@pytest.mark.parametrize("brings", ["default-jre-headless", "openjdk-17-jre-headless"])
def test_all_asks_apt_for_a_java_that_is_new_enough(
    checkout: Checkout, found: str | None, brings: str
) -> None:
    has(checkout, "chromium", "font")
    java = checkout.bin / "has-java"
    if found:
        java.write_text(f"{found}\n", encoding="utf-8")
    else:
        java.unlink()
    assert checkout.run("--all", JAVA_OF_APT=brings).returncode == 0
    asked = [line.split()[-1] for line in checkout.asked if line.startswith("apt-get install")]
    assert asked == ["default-jre-headless", "openjdk-17-jre-headless"][: 1 + brings.startswith("openjdk")]


def test_where_nobody_brings_a_java_all_says_so_before_any_test(checkout: Checkout) -> None:
    has(checkout, "chromium", "font")
    (checkout.bin / "has-java").unlink()
    done = checkout.run("--all")
    assert done.returncode == 1
    assert "Java 17" in done.stderr
    assert not any(line.startswith("-m pytest") for line in checkout.asked)
    assert checkout.run().returncode == 0, "without --all nobody needs it"


@pytest.mark.parametrize(
    ("brings", "asked"),
    [
        ("playwright", ["playwright install chromium"]),
        ("apt", ["playwright install chromium", "apt-get update -qq"]),
    ],
)
def test_without_chromium_playwright_is_asked_and_then_apt(
    checkout: Checkout, brings: str, asked: list[str]
) -> None:
    has(checkout, "font")
    assert checkout.run(BRINGS=brings).returncode == 0
    found = [line for line in checkout.asked if line.startswith(("playwright", "apt-get"))]
    assert found[: len(asked)] == asked
    assert any(line.endswith("chromium") for line in found[len(asked) :]) == (brings == "apt")


def test_where_nobody_brings_chromium_it_says_so_before_any_test(checkout: Checkout) -> None:
    has(checkout, "font")
    done = checkout.run()
    assert done.returncode == 1
    assert "Chromium" in done.stderr
    assert not any(line.startswith("-m pytest") for line in checkout.asked)


def test_a_chinese_font_is_installed(checkout: Checkout) -> None:
    has(checkout, "chromium")
    assert checkout.run(CI="true").returncode == 0
    assert any("fonts-noto-cjk" in line for line in checkout.asked)


def test_without_a_chinese_font_ci_fails_and_others_are_told(checkout: Checkout) -> None:
    has(checkout, "chromium")
    done = checkout.run(CI="true", NO_FONTS="1")
    assert done.returncode == 1
    assert "fonts-noto-cjk" in done.stderr
    assert not any(line.startswith("-m pytest") for line in checkout.asked)
    done = checkout.run(NO_FONTS="1")
    assert done.returncode == 0
    assert "fonts-noto-cjk" in done.stdout


def test_ci_runs_everything() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "export CI=true" in script
    assert script.rstrip().endswith("exec bash test.sh --all")


@pytest.mark.parametrize(("ci", "outcome"), [("true", "1 failed"), ("", "1 skipped")])
def test_a_skipped_test_is_a_failed_one_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_runtest_makereport\n")
    (tmp_path / "test_it.py").write_text(
        "import unittest\ndef test_it():\n    raise unittest.SkipTest('no time')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "CI": ci}, cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert outcome in done.stdout, done.stdout
