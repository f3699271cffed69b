"""The documents that the pages can show: the files of `docs/`, found in a checkout and in a wheel."""

import re
from pathlib import Path
from typing import Final, Literal, get_args

from dspyui.errors import NotFoundError
from dspyui.i18n import Language

Topic = Literal["data", "optimizers", "metrics", "models", "test", "versions", "spec", "settings", "cli"]
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries the files inside the package (pyproject.toml puts them there), a checkout beside `src`.
_PLACES = (_PACKAGE / "help_data", _PACKAGE.parents[1] / "docs")
_SUFFIXES: Final[dict[Language, str]] = {"en_US": "", "zh_CN": "_zh"}
_LINK = re.compile(r"\]\((\w+?)(?:_zh)?\.md(?:#[^)]*)?\)")


def help_folder() -> Path:
    """The folder of the documents."""
    return next(place for place in _PLACES if place.is_dir())


def help_text(topic: str, language: Language) -> str:
    """A document as Markdown, below a page's own heading; its links to other documents lead to their pages.

    Raises NotFoundError.
    """
    if topic not in TOPICS:
        raise NotFoundError("help.unknown", topic=topic[:100])
    path = help_folder() / f"{topic}{_SUFFIXES[language]}.md"
    content = path.read_text(encoding="utf-8").replace("# ", "## ", 1)
    return _LINK.sub(r"](/help/\1)", content)
