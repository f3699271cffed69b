"""The documents against the program: generated ones equal, links alive, nothing of one machine in them."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import generate
from dspyui.adapters.files.tables import FileTableReader
from dspyui.api.job_routes import JOB_FILES
from dspyui.api.routers import create_routes
from dspyui.cli.main import build
from dspyui.i18n import LANGUAGES
from dspyui.services.help import help_text
from dspyui.settings import Settings
from tests.api.world import World

ROOT = Path(__file__).parents[2]
READMES = (ROOT / "README.md", ROOT / "README_zh.md")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> Iterator[tuple[Path, str]]:
    for path in tracked():
        try:
            yield path, path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_generated_documents_are_those_of_this_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    for path, content in generate.documents().items():
        assert path.read_text(encoding="utf-8") == content, f"{path.name}: run `python docs/generate.py`"


def test_help_puts_no_space_where_a_chinese_line_was_wrapped() -> None:
    assert "并且有 100 行以上数据，再换用 MIPROv2" in help_text("optimizers", "zh_CN")
    assert "训练行数少于 SIMBA\n的 `bsize`" in help_text("optimizers", "zh_CN")
    written = (ROOT / "docs" / "spec_zh.md").read_text(encoding="utf-8")
    fence = re.search(r"^```yaml.*?^```$", written, re.MULTILINE | re.DOTALL)
    assert fence is not None
    assert fence[0] in help_text("spec", "zh_CN")


def test_a_plain_copy_of_the_example_changes_nothing(tmp_path: Path) -> None:
    copy = tmp_path / ".env"
    copy.write_bytes((ROOT / ".env.example").read_bytes())
    assert Settings.load(env_file=copy, environ={}) == Settings.load(env_file=tmp_path / "none", environ={})


def test_the_example_holds_every_setting_with_its_default(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    uncommented = "\n".join(re.findall(r"^# ([A-Z_]+=.*)$", text, re.MULTILINE))
    copy = tmp_path / ".env"
    copy.write_text(uncommented, encoding="utf-8")
    settings, defaults = (
        Settings.load(env_file=copy, environ={}),
        Settings.load(env_file=tmp_path / "n", environ={}),
    )
    written = set(re.findall(r"^([A-Z_]+)=", uncommented, re.MULTILINE))
    for name, field in Settings.model_fields.items():
        if field.alias and field.alias != "MLFLOW_TRACKING_URI":
            assert getattr(settings, name) == getattr(defaults, name)
        assert field.alias is None or field.alias in written
    # Said aloud, the default address is one that was given, so nothing is looked for or started there.
    assert settings.mlflow_tracking_uri == defaults.tracking_uri


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_a_readme_opens_with_a_picture_and_the_two_commands(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    picture = text.index("](docs/images/")
    assert picture < text.index("bash webui.sh") < text.index("bash test.sh") < 1500


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_every_command_is_in_the_readme(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    commands = getattr(build("en_US"), "commands")  # noqa: B009 - typer's group, which is typed as any command
    assert {"ui", "compile", "register", "demo", "version", "auth"} <= set(commands)
    for name in commands:
        assert f"dspyui {name}" in text


@pytest.mark.parametrize("suffix", generate.SUFFIXES.values())
def test_every_route_is_in_the_document_of_the_api_and_no_other(suffix: str, settings: Settings) -> None:
    api = create_routes(World(settings).services, local_user="local")
    wanted = {(method.upper(), path) for path, found in api.openapi()["paths"].items() for method in found}
    text = (ROOT / "docs" / f"api{suffix}.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) (/api/[^`]*)`", text, re.MULTILINE)
    assert sorted(told) == sorted(wanted)


@pytest.mark.parametrize("suffix", generate.SUFFIXES.values())
def test_the_document_of_the_api_names_every_file_of_a_job(suffix: str) -> None:
    text = (ROOT / "docs" / f"api{suffix}.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if "/api/jobs/{job_id}/files/{name}" in line]
    assert re.findall(r"`([\w.]+)`", line) == list(JOB_FILES)


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.name)
def test_a_readme_tells_how_to_stop_what_a_csv_is_and_where_the_command_lies(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert "Ctrl+C" in text
    assert "GB" in text
    example = re.search(r"```csv\n(.*?)```", text, re.DOTALL)
    assert example is not None
    table = FileTableReader(max_bytes=1000).read("example.csv", example[1].encode())
    assert table.columns == ("message", "product")
    assert len(table.rows) == 2
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            assert line.startswith(("bash ", ".venv/bin/dspyui ")), line


def test_relative_links_lead_somewhere() -> None:
    link = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
    for path, text in texts():
        if path.suffix != ".md":
            continue
        for found in link.finditer(text):
            target = (found[1] or found[2]).partition("#")[0]
            if target and "://" not in target and not target.startswith("mailto:"):
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_locks_hold_hashes_and_no_address() -> None:
    locks = sorted((ROOT / "requirements").glob("*.lock"))
    assert len(locks) == 5
    for lock in locks:
        text = lock.read_text(encoding="utf-8")
        assert "://" not in text
        pins = re.findall(r"^[A-Za-z0-9._\[\]-]+==", text, re.MULTILINE)
        assert pins
        assert text.count("--hash=sha256:") >= len(pins)


def test_nothing_of_one_machine_is_kept() -> None:
    index = re.compile(r"(index-url|extra-index|find-links|trusted-host)[ =]+\S*://|registry\s*=\s*\"http")
    home = re.compile(r"(?<![\w.])/(home|Users|root)/(?!\.\.\.)[a-z]")
    for path, text in texts():
        if path == Path(__file__):
            continue
        assert not index.search(text), path
        assert not home.search(text), path


def test_every_language_has_its_document() -> None:
    for name in ("spec", "settings", "cli", "api"):
        for suffix in generate.SUFFIXES.values():
            assert (ROOT / "docs" / f"{name}{suffix}.md").is_file()
    assert set(generate.SUFFIXES) == set(LANGUAGES)
