"""The documents that the pages can show: the files of `docs/`, found in a checkout and in a wheel."""

import re
from pathlib import Path
from typing import Final, Literal, get_args

from dspyui.errors import NotFoundError
from dspyui.i18n import Language

Topic = Literal[
    "data", "optimizers", "metrics", "models", "runs", "versions", "test", "batch", "traces", "spec", "settings", "cli",
]  # fmt: skip
TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries the files inside the package (pyproject.toml puts them there), a checkout beside `src`.
_PLACES = (_PACKAGE / "help_data", _PACKAGE.parents[1] / "docs")
_SUFFIXES: Final[dict[Language, str]] = {"en_US": "", "zh_CN": "_zh"}
# A line break between two of these is no space in Chinese: ideographs, and the marks that stand among them.
_CJK = "\u2014\u2018-\u201d\u2026\u3000-\u30ff\u3400-\u9fff\uff00-\uffef"
_SOFT_BREAK = re.compile(f"(?<=[{_CJK}])\n *(?=[{_CJK}])")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
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
    if language == "zh_CN":
        content = _joined(content)
    return _LINK.sub(r"](/help/\1)", content)


def _joined(content: str) -> str:
    """Chinese lines put together as they were before they were wrapped; what is fenced stays as it is."""
    parts = _FENCE.split(content)
    return "".join(part if part.startswith("```") else _SOFT_BREAK.sub("", part) for part in parts)
