"""A provider's own words, out of what the libraries between it and us have put around them."""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

# DSPy's client appends advice for people who program with it, LiteLLM how often it tried and where it was.
_ADVICE = re.compile(
    r"\s*\n\s*To fix:.*|; this is lm15's.*|\s*\n?\s*credential came from: .*|\.? Handle with `litellm\..*"
    r"|\s*LiteLLM Retried: .*|\s*\n\s*Traceback \(most recent call last\):.*",
    re.DOTALL,
)
# `litellm.AuthenticationError: AuthenticationError: MistralException - `, `litellm.APIError: AzureException
# APIError - `, and what else is made of these parts (litellm/litellm_core_utils/exception_mapping_utils.py).
_CLASSES = re.compile(
    r"(?:litellm\.\w+: +)+(?:(?:\w+(?: Error)?: +)?\w+ ?(?:Exception|Error)(?:(?::? [A-Z][\w /]{1,40})? - |: ))?"
)
_STATUS = re.compile(r"Error code: \d{3} - ")
# Where a provider's document says what is wrong, the likeliest place first.
_PLACES = ("error", "message", "detail", "msg", "error_message", "errors", "title")
_LONGEST_DOCUMENT = 100_000


def plain_words(said: str) -> str:
    """What the provider said: without the names of LiteLLM's classes, and without the JSON around it.

    >>> plain_words('litellm.AuthenticationError: MistralException - {"message": "Unauthorized"}')
    'Unauthorized'
    """
    text = _ADVICE.sub("", said).strip()
    if wrapped := _CLASSES.match(text):
        text = text[wrapped.end() :]
    if status := _STATUS.match(text):
        text = text[status.end() :]
    return _in_document(text.strip()) or text.strip()


def _in_document(text: str) -> str:
    start = text.removeprefix("b'")[:1]
    if start not in {"{", "["} or len(text) > _LONGEST_DOCUMENT:
        return ""
    try:
        return _words(_document(text))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""


def _document(text: str) -> Any:
    if not text.startswith("b'"):
        try:
            return json.loads(text)
        except ValueError:
            # OpenAI's client shows the document as Python writes it.
            return ast.literal_eval(text)
    return json.loads(ast.literal_eval(text))


def _words(found: Any) -> str:
    match found:
        case str():
            return found.strip()
        case list():
            return next(filter(None, map(_words, found)), "")
        case Mapping():
            return next(filter(None, (_words(found.get(place)) for place in _PLACES)), "")
        case _:
            return ""
