"""What a wheel carries, and that an installed package finds its examples without the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest

from dspyui import __version__
from dspyui.services.help import Topic

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (made,) = folder.glob("*.whl")
    return made


def test_a_wheel_carries_words_examples_and_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith(f"dspyui-{__version__}-")
    assert {"dspyui/locales/zh_CN.toml", "dspyui/locales/en_US.toml", "dspyui/py.typed"} <= names
    examples = {f"dspyui/examples_data/{path.name}" for path in (ROOT / "examples").iterdir()}
    assert examples <= names
    documents = {
        f"dspyui/help_data/{topic}{suffix}.md" for topic in get_args(Topic) for suffix in ("", "_zh")
    }
    assert documents <= names
    assert not any(name.startswith(("tests", "docs", "examples")) for name in names)


def test_an_installed_package_finds_its_demo(wheel: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    code = "from dspyui.services.examples import demo_spec; print(demo_spec().data.path)"
    # -P and PYTHONPATH: this package first, before the checkout that is installed editable.
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env={**environ, "PYTHONPATH": str(installed)},
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    path = Path(done.stdout.strip())
    assert path == installed / "dspyui" / "examples_data" / "product_extraction.csv"
    assert path.is_file()
