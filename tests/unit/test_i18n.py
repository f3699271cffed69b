"""The catalogue: equal in both languages, complete, and without a word too many."""

import ast
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import dspyui
from dspyui.errors import BadRequestError, DSPyUIError
from dspyui.i18n import LANGUAGES, Text, catalogue, language_of, system_language

SOURCE = Path(dspyui.__file__).parent
ERRORS = {"DSPyUIError", *(cls.__name__ for cls in DSPyUIError.__subclasses__())} | {
    cls.__name__ for parent in DSPyUIError.__subclasses__() for cls in parent.__subclasses__()
}
# Keys that are put together at run time: the part that stands in the source, and the words that follow it.
# `docs.`, `spec.` and `setting.` are read by docs/generate.py, which fails on one that is missing.
MADE_OF_PARTS = ("docs.", "spec.", "setting.", "setting_mlflow.")


def placeholders(template: str) -> set[str]:
    return {re.split(r"[.\[]", name)[0] for _, name, _, _ in string.Formatter().parse(template) if name}


@dataclass(frozen=True)
class Raised:
    """One place that makes an error with a literal code."""

    where: str
    code: str
    values: frozenset[str]
    is_open: bool


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def raised() -> list[Raised]:
    found = []
    for path, tree in modules():
        subclasses = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            and any(isinstance(b, ast.Name) and b.id in ERRORS for b in node.bases)
        }
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args):
                continue
            code = node.args[0]
            if node.func.id in ERRORS | subclasses and isinstance(code, ast.Constant):
                names = frozenset(keyword.arg for keyword in node.keywords if keyword.arg)
                is_open = any(keyword.arg is None for keyword in node.keywords)
                found.append(Raised(f"{path.name}:{node.lineno}", str(code.value), names, is_open))
    return found


def words() -> set[str]:
    """Every literal of the source, with the fixed parts of its f-strings."""
    return {
        node.value
        for _, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def asked_for() -> Iterator[tuple[str, str]]:
    """The key of every `text("key")`."""
    for path, tree in modules():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            key = node.args[0].value
            if name in {"text", "say"} and isinstance(key, str) and re.fullmatch(r"[\w-]+(\.[\w-]+)+", key):
                yield f"{path.name}:{node.lineno}", key


def test_both_languages_have_the_same_keys() -> None:
    chinese, english = (set(catalogue(language)) for language in LANGUAGES)
    assert chinese == english


def test_a_sentence_has_the_same_placeholders_in_both_languages() -> None:
    chinese, english = (catalogue(language) for language in LANGUAGES)
    differing = [key for key in english if placeholders(chinese[key]) != placeholders(english[key])]
    assert differing == []


def test_no_sentence_is_empty_and_only_a_prompt_ends_in_a_space() -> None:
    for language in LANGUAGES:
        for key, sentence in catalogue(language).items():
            assert sentence.strip() == sentence.removesuffix(" "), key
            assert sentence.strip(), key
            assert not sentence.endswith(" ") or sentence.endswith((": ", "：")), key


def test_every_error_has_its_sentence_and_all_its_values() -> None:
    assert len(raised()) > 50
    for found in raised():
        key = f"error.{found.code}"
        assert key in catalogue("en_US"), f"{found.where}: no sentence for {found.code}"
        missing = placeholders(catalogue("en_US")[key]) - found.values
        assert not missing or found.is_open, f"{found.where}: {found.code} lacks {missing}"


def test_the_command_lines_own_sentences_stand_for_errors_and_know_no_more_than_they_do() -> None:
    for language in LANGUAGES:
        said = catalogue(language)
        own = {key: key.removeprefix("cli.instead.") for key in said if key.startswith("cli.instead.")}
        assert own
        for key, code in own.items():
            known = [found for found in raised() if found.code == code]
            assert f"error.{code}" in said
            assert all(placeholders(said[key]) <= found.values or found.is_open for found in known), key


@pytest.mark.parametrize("about", ["batch", "gate", "registry", "run", "data", "lm", "file"])
def test_what_pages_say_names_no_flag_of_the_command_line(about: str) -> None:
    for language in LANGUAGES:
        sentences = {
            key: said for key, said in catalogue(language).items() if key.startswith(f"error.{about}.")
        }
        assert sentences
        assert [key for key, said in sentences.items() if re.search(r"(?<!\w)--[a-z]", said)] == []


def test_every_key_that_is_asked_for_is_there() -> None:
    for where, key in asked_for():
        assert key in catalogue("en_US"), f"{where}: {key}"


def test_every_key_is_used() -> None:
    said = words()
    # `f"optimizer.{kind}.label"` and `f"{owner}.param"` leave their parts among the literals.
    heads = {word for word in said if re.fullmatch(r"([\w-]+\.)+", word)}
    tails = {word for word in said if re.fullmatch(r"(\.[\w-]+)+", word)}

    def is_used(key: str) -> bool:
        names = {key, key.removeprefix("error."), key.removeprefix("event.")}
        return (
            key.startswith(MADE_OF_PARTS)
            or bool(names & said)
            or any(name.startswith(head) for head in heads for name in names)
            or any(key.endswith(tail) and key.partition(".")[0] in said for tail in tails)
            or _stands_by_a_name(key, said)
        )

    assert [key for key in catalogue("en_US") if not is_used(key)] == []


def _stands_by_a_name(key: str, said: set[str]) -> bool:
    """Keys of a table of ours, such as `optimizer.KIND.param.NAME.help`: each part is a word of the source."""
    return all(part in said or part in {"param", "label", "help"} for part in key.split("."))


def test_a_missing_key_or_value_is_seen() -> None:
    text = Text("en_US")
    with pytest.raises(KeyError):
        text("no.such.key")
    with pytest.raises(KeyError):
        text("event.compile.trial")
    assert text.has("app.name")
    assert not text.has("no.such.key")


@pytest.mark.parametrize(
    ("tag", "language"),
    [
        ("zh_CN", "zh_CN"),
        ("zh-TW", "zh_CN"),
        ("ZH", "zh_CN"),
        ("en", "en_US"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en_US"),
        ("fr,zh;q=0.5,en;q=0.4", "zh_CN"),
        ("en;q=0.2,zh;q=0.9", "zh_CN"),
        ("en;q=0,zh;q=0.1", "zh_CN"),
        ("en;q=0", None),
        ("en; q=0.2, zh; q=0.9", "zh_CN"),
        ("en;q=x", None),
        ("fr", None),
        ("*", None),
        ("", None),
        (None, None),
        ("C", None),
    ],
)
def test_a_language_tag_is_mapped_to_one_of_ours(tag: str | None, language: str | None) -> None:
    assert language_of(tag) == language


def test_the_terminals_language_follows_posix() -> None:
    assert system_language({}) == "en_US"
    assert system_language({"LANG": "zh_CN.UTF-8"}) == "zh_CN"
    assert system_language({"LANG": "zh_CN.UTF-8", "LC_ALL": "en_US.UTF-8"}) == "en_US"
    assert system_language({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}) == "zh_CN"


def test_an_error_speaks_both_languages_and_carries_its_codes() -> None:
    error = BadRequestError("signature.twice", name="问题")
    assert "问题" in error.text("zh_CN")
    assert error.text("zh_CN") != str(error)
    assert (error.exit_code, error.http_status) == (2, 400)


@pytest.mark.parametrize(
    ("count", "said"), [(1, "call"), ("1", "call"), (0, "calls"), (2, "calls"), ("1,001", "calls")]
)
def test_an_english_noun_follows_its_number(
    count: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = {"calls": "{calls:n|call|calls}", "share": "{share:.2f} {name!r}"}
    monkeypatch.setattr("dspyui.i18n.catalogue", lambda language: sentences)
    assert Text("en_US")("calls", calls=count) == said
    assert Text("en_US")("share", share=0.5, name="x") == "0.50 'x'"


def test_a_short_sentence_of_feedback_stands_for_a_long_one() -> None:
    keys = catalogue("en_US")
    short = [key.removeprefix("feedback_short.") for key in keys if key.startswith("feedback_short.")]
    assert [name for name in short if f"feedback.{name}" not in keys] == []
