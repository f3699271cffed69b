"""What every error owes a person: a sentence in each language that names the thing concerned."""

import re

from dspyui.errors import DSPyUIError
from dspyui.i18n import LANGUAGES

_PLACEHOLDER = re.compile(r"\{\w+(![rsa])?(:[^}]*)?\}")


def told(error: DSPyUIError, *parts: str) -> None:
    """Both sentences are there, in their language, hold every part, and have nothing left to fill in."""
    said = {language: error.text(language) for language in LANGUAGES}
    assert said["zh_CN"] != said["en_US"]
    assert re.search("[\u4e00-\u9fff]", said["zh_CN"])
    for sentence in said.values():
        assert not sentence.startswith(error.code), sentence  # how an error without a sentence shows itself
        assert not _PLACEHOLDER.search(sentence), sentence
        for part in parts:
            assert part in sentence, (part, sentence)
