"""How one field of an answer is scored, one function a metric: 0.0 to 1.0 and a sentence of feedback.

The sentence is kept as data (`Notice`), and said twice: in English to the language model that reflects on mistakes, and
to a person in the person's language. What keeps a score from being made (a judge that gave no number, say) is a
`Fault`.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from dspyui.domain.base import Fault, Frozen, Notice
from dspyui.domain.signatures import FieldSpec, Row, SignatureSpec, type_label
from dspyui.errors import BadRequestError, FailedError

_EDGE_PUNCTUATION = ".,;:!?\"'`()[]{}…。，；：！？、“”‘’（）【】《》「」『』"
_ARTICLES = frozenset({"a", "an", "the"})
_CURRENCY = "$€£¥￥%‰"
# A pattern that has not come to an end by then tries combinations without end.
REGEX_SECONDS = 1.0
# How much of a value a sentence of feedback quotes, in characters.
_QUOTED = 200

CustomMetric = Callable[[Row, Row], Any]
"""A person's own metric: `metric(example, prediction)` gives a float, or a float and a sentence."""


class FieldScore(Frozen):
    """One field's score, 0.0 to 1.0, and why. With a `problem` there is no score, and `value` means nothing."""

    value: float
    remark: Notice | None = None
    problem: Fault | None = None

    @property
    def feedback(self) -> str:
        """The remark in English, as a language model reads it."""
        return self.remark.sentence("en_US") if self.remark else ""

    @property
    def error(self) -> str | None:
        """The problem in English."""
        return self.problem.sentence("en_US") if self.problem else None


class ScoreTools(Protocol):
    """What some metrics need beside the answer. Each call raises FailedError when the server behind it fails."""

    def judge(self, prompt: str) -> str:
        """What the judge says to a prompt."""
        ...

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text. Raises BadRequestError when no embedder is set."""
        ...

    def custom(self, name: str) -> CustomMetric:
        """A person's own metric by its name. Raises BadRequestError when there is none, or it cannot be loaded."""
        ...


@dataclass(frozen=True, slots=True)
class Case:
    """One field of one answer. `expected` is None when nothing is known of the right answer."""

    signature: SignatureSpec
    field: FieldSpec
    inputs: Row
    expected: Any
    predicted: Any
    tools: ScoreTools


Params = Mapping[str, Any]
ScoreField = Callable[[Case, Params], FieldScore]


def as_text(value: Any) -> str:
    """A value as the text that is compared: items of a list on lines of their own, true and false in lower case."""
    match value:
        case str():
            return value
        case bool():
            return str(value).lower()
        case list() | tuple():
            return "\n".join(as_text(item) for item in value)
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def quoted(value: Any) -> str:
    """A value for a sentence of feedback, shortened."""
    text = as_text(value)
    return repr(text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…")


def normalise_answer(text: str) -> str:
    """Lower case, NFKC, single spaces, English articles and punctuation at the edge of a word removed.

    After SQuAD's answer normalisation (Rajpurkar et al. 2016), but keeping what changes a meaning inside a
    word or a number: `3.5` is not `35`, `-5` is not `5`, `C#` is not `C`. When nothing would be left, the
    text is only folded.
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    words = [word.strip(_EDGE_PUNCTUATION) for word in folded.split()]
    kept = [word for word in words if word and word not in _ARTICLES]
    return " ".join(kept) or folded


def _prepare(params: Params) -> Callable[[str], str]:
    return normalise_answer if params["normalise"] else str


RIGHT = Notice(key="feedback.right")


def own_words(said: str) -> Notice:
    """What a judge or a person's own metric said: nobody can put that into another language."""
    return Notice(key="feedback.own_words", values={"said": said})


def _passed(passed: bool, wrong: Notice) -> FieldScore:
    return FieldScore(value=float(passed), remark=RIGHT if passed else wrong)


def _expected(value: Any) -> Notice:
    return Notice(key="feedback.expected", values={"expected": quoted(value)})


def exact_match(case: Case, params: Params) -> FieldScore:
    """1.0 when the two are equal, else 0.0. Numbers and booleans are compared by value, lists item by item."""
    expected, predicted = case.expected, case.predicted
    prepare = _prepare(params)
    if case.field.type in {"int", "float", "bool"}:
        equal = expected == predicted
    elif case.field.type == "list[str]":
        equal = [prepare(str(e)) for e in expected] == [prepare(str(p)) for p in predicted]
    else:
        equal = prepare(str(expected)) == prepare(str(predicted))
    values = {"expected": quoted(expected), "got": quoted(predicted)}
    return _passed(equal, Notice(key="feedback.not_equal", values=values))


def contains(case: Case, params: Params) -> FieldScore:
    """1.0 when the expected text stands in the answer, else 0.0; of a list, the share of expected items found."""
    prepare = _prepare(params)
    if case.field.type != "list[str]":
        found = prepare(as_text(case.expected)) in prepare(as_text(case.predicted))
        values = {"expected": quoted(case.expected), "got": quoted(case.predicted)}
        return _passed(found, Notice(key="feedback.not_contained", values=values))
    text = prepare(as_text(case.predicted))
    missing = [item for item in case.expected if prepare(item) not in text]
    share = 1 - len(missing) / len(case.expected) if case.expected else 1.0
    remark = Notice(key="feedback.missing", values={"missing": ", ".join(map(quoted, missing))})
    return FieldScore(value=share, remark=remark if missing else RIGHT)


def tokens(text: str) -> list[str]:
    """The words of a normalised text; each Chinese, Japanese or Korean character is a word of its own."""
    spaced = "".join(f" {c} " if _is_cjk(c) else c for c in normalise_answer(text))
    return [word for word in (word.strip(_EDGE_PUNCTUATION) for word in spaced.split()) if word]


def _is_cjk(character: str) -> bool:
    return unicodedata.name(character, "").startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA", "HANGUL"))


def token_f1(case: Case, _params: Params) -> FieldScore:
    """SQuAD's F1 (Rajpurkar et al. 2016): 2PR/(P+R) over the words the two have in common, with repetition.

    P is the share of the answer's words that are expected, R the share of the expected words that were given.
    """
    expected, predicted = tokens(as_text(case.expected)), tokens(as_text(case.predicted))
    if not expected or not predicted:
        return _passed(expected == predicted, _expected(case.expected))
    left, shared = list(expected), 0
    for word in predicted:
        if word in left:
            left.remove(word)
            shared += 1
    f1 = 2 * shared / (len(expected) + len(predicted))
    if f1 == 1:
        return FieldScore(value=1.0, remark=RIGHT)
    values = {
        "expected": quoted(case.expected),
        "shared": shared,
        "words": len(expected),
        "extra": len(predicted) - shared,
    }
    return FieldScore(value=f1, remark=Notice(key="feedback.words", values=values))


def find_number(value: Any) -> float | None:
    """The number a value is: 3, "3.5", "1,200", "12 %", "$5"; None when it is none. The unit is not looked at."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _finite(value)
    text = unicodedata.normalize("NFKC", as_text(value)).strip().strip(_CURRENCY + " ").rstrip(".")
    whole, dot, rest = text.partition(".")
    groups = whole.split(",")
    if len(groups) > 1 and all(len(group) == 3 for group in groups[1:]):
        whole = "".join(groups)
    return None if "_" in text else _finite(whole + dot + rest)


def _finite(value: float | str) -> float | None:
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def numeric(case: Case, params: Params) -> FieldScore:
    """1.0 when the answer lies within the tolerance: |p - e| <= max(absolute, relative * |e|); else 0.0.

    An answer that is no number is the model's mistake and scores 0.0; an expected value that is none is refused
    before anything runs (`MetricSpec.check_rows`).
    """
    expected, predicted = find_number(case.expected), find_number(case.predicted)
    if expected is None:
        raise BadRequestError(
            "metric.expected_number", row="?", name=case.field.name, value=quoted(case.expected)
        )
    if predicted is None:
        remark = Notice(key="feedback.no_number", values={"got": quoted(case.predicted)})
        return FieldScore(value=0.0, remark=remark)
    allowed = max(params["absolute"], params["relative"] * abs(expected))
    # A limit that is met to the last digit is met: 1.1 - 1.0 is a little more than 0.1 in binary.
    within = abs(predicted - expected) <= allowed * (1 + 1e-12) + 1e-15
    values = {"expected": f"{expected:g}", "allowed": f"{allowed:g}", "got": f"{predicted:g}"}
    return _passed(within, Notice(key="feedback.not_within", values=values))


@lru_cache(maxsize=64)
def compiled_pattern(pattern: str, ignore_case: bool) -> Any:
    """The pattern, ready to search. Raises BadRequestError when it is empty or is no regular expression."""
    import regex

    if not pattern:
        raise BadRequestError("metric.pattern_empty")
    try:
        return regex.compile(pattern, regex.IGNORECASE if ignore_case else 0)
    except (regex.error, OverflowError, RecursionError) as exc:
        raise BadRequestError("metric.pattern", pattern=pattern[:200], problem=str(exc)) from exc


def matches(case: Case, params: Params) -> FieldScore:
    """1.0 when the pattern matches the answer (`whole`: all of it, else some part), else 0.0.

    A search is given up after `REGEX_SECONDS`: some patterns try combinations without end.
    """
    pattern = compiled_pattern(params["pattern"], params["ignore_case"])
    search = pattern.fullmatch if params["whole"] else pattern.search
    try:
        found = search(as_text(case.predicted), timeout=REGEX_SECONDS, concurrent=True)
    except TimeoutError:
        values = {"pattern": params["pattern"][:200], "seconds": f"{REGEX_SECONDS:g}"}
        return FieldScore(value=0.0, problem=Fault(code="metric.pattern_slow", values=values))
    values = {"got": quoted(case.predicted), "pattern": repr(params["pattern"])}
    return _passed(found is not None, Notice(key="feedback.no_match", values=values))


def find_json(value: Any) -> tuple[bool, Any]:
    """Whether the value is JSON, and what it holds. A text may stand in a Markdown code fence."""
    if not isinstance(value, str):
        return True, value
    text = value.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[:-3].partition("\n")[2]
    try:
        return True, json.loads(text)
    except (ValueError, RecursionError):
        return False, None


def json_accuracy(case: Case, params: Params) -> FieldScore:
    """The share of the expected JSON's leaves that the answer has at the same place with the same value.

    Leaves are what stands in objects and lists, by path (`a.b`, `a[0]`); numbers compare by value. With `strict`,
    leaves that are not expected count as well: the share is then of the leaves of both.
    """
    is_json, expected = find_json(case.expected)
    if not is_json:
        raise BadRequestError(
            "metric.expected_json", row="?", name=case.field.name, value=quoted(case.expected)
        )
    is_json, predicted = find_json(case.predicted)
    if not is_json:
        remark = Notice(key="feedback.no_json", values={"got": quoted(case.predicted)})
        return FieldScore(value=0.0, remark=remark)
    prepare = _prepare(params)
    wanted, given = dict(_leaves(expected, prepare)), dict(_leaves(predicted, prepare))
    wrong = [path or "$" for path, leaf in wanted.items() if path not in given or given[path] != leaf]
    extra = [path or "$" for path in given if path not in wanted] if params["strict"] else []
    total = len(wanted) + len(extra)
    remark = _leaves_remark(wrong, extra, case.expected)
    return FieldScore(value=1 - (len(wrong) + len(extra)) / total, remark=remark)


def _leaves_remark(wrong: Sequence[str], extra: Sequence[str], expected: Any) -> Notice:
    """What is wrong with an answer's JSON, by path; `$` is the whole of it, as in JSONPath."""
    values = {"wrong": ", ".join(wrong), "extra": ", ".join(extra), "expected": quoted(expected)}
    if not extra:
        return Notice(key="feedback.json_wrong", values=values) if wrong else RIGHT
    return Notice(key="feedback.json_both" if wrong else "feedback.json_extra", values=values)


def _leaves(value: Any, prepare: Callable[[str], str], path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, prepare, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, prepare, f"{path}[{index}]")
    elif isinstance(value, str):
        yield path, ("text", prepare(value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, ("number", value)
    else:
        # True equals 1 in Python and not in JSON.
        yield path, ("other", json.dumps(value))


def similarity(case: Case, _params: Params) -> FieldScore:
    """The cosine of the angle between the two texts' embeddings; a negative one counts as 0.0.

    Equal texts score 1.0 and a blank one 0.0 without asking the embedder.
    """
    expected, predicted = as_text(case.expected).strip(), as_text(case.predicted).strip()
    if expected == predicted:
        return FieldScore(value=1.0, remark=RIGHT)
    if not expected or not predicted:
        return FieldScore(value=0.0, remark=_expected(case.expected))
    value = max(0.0, min(1.0, cosine(*case.tools.embed([expected, predicted]))))
    values = {"similarity": f"{value:.2f}", "expected": quoted(case.expected)}
    return FieldScore(value=value, remark=Notice(key="feedback.similarity", values=values))


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors. Raises FailedError when they have none."""
    length = math.hypot(*one) * math.hypot(*other)
    if len(one) != len(other) or not length or not math.isfinite(length):
        raise FailedError("metric.vectors", one=len(one), other=len(other))
    return sum(a * b for a, b in zip(one, other, strict=True)) / length


def judged(case: Case, params: Params) -> FieldScore:
    """What the judge says of the answer on its scale, mapped to 0.0-1.0: (n - lowest) / (highest - lowest).

    A reply without a number, or with one off the scale, is a problem and no score.
    """
    reply = case.tools.judge(judge_prompt(case, params))
    number, reason = read_judgement(reply)
    low, high = params["lowest"], params["highest"]
    if number is None:
        return FieldScore(
            value=0.0, problem=Fault(code="metric.judge_number", values={"reply": quoted(reply)})
        )
    if not low <= number <= high:
        values = {"number": f"{number:g}", "low": f"{low:g}", "high": f"{high:g}"}
        return FieldScore(value=0.0, problem=Fault(code="metric.judge_range", values=values))
    values = {"number": f"{number:g}", "low": f"{low:g}", "high": f"{high:g}"}
    remark = own_words(reason) if reason else Notice(key="feedback.judged", values=values)
    return FieldScore(value=(number - low) / (high - low), remark=remark)


def judge_prompt(case: Case, params: Params) -> str:
    """What the judge is asked."""
    parts = ["You judge the answer of another program.", f"Rubric:\n{params['rubric'].strip()}"]
    if case.signature.instructions:
        parts.append(f"What the program was told:\n{case.signature.instructions}")
    described = {field.name: field for field in case.signature.inputs}
    parts += [f"Input {name}:\n{as_text(case.inputs[name])}" for name in described if name in case.inputs]
    if params["use_expected"] and case.expected is not None:
        parts.append(f"Reference answer:\n{as_text(case.expected)}")
    about = f" ({case.field.description})" if case.field.description else ""
    parts.append(f"Answer to judge, {case.field.name}{about}, of type {type_label(case.field)}:")
    parts.append(f"<answer>\n{as_text(case.predicted)}\n</answer>")
    parts.append(
        f"Write one sentence on what is right and wrong with the answer. Then, on a line of its own, write "
        f"SCORE: and a number from {params['lowest']:g} (worst) to {params['highest']:g} (best)."
    )
    return "\n\n".join(parts)


def read_judgement(reply: str) -> tuple[float | None, str]:
    """The number of a judge's reply and what it said beside it; None when it holds no score.

    The score is the last line `SCORE: 7` (or `7/10`; the word in Chinese or in bold will do), or the whole reply when
    that is a number. A number somewhere in a sentence is none: nobody can tell what it counts.
    """
    score: float | None = None
    said: list[str] = []
    for line in reply.splitlines():
        number = _score_of(line)
        if number is None:
            said.append(line.strip())
        else:
            score = number
    if score is None:
        score = _lone_number(reply)
        said = []
    return score, " ".join(part for part in said if part)


_SCORE_WORDS = ("score", "rating", "grade", "分数", "得分", "评分")


def _score_of(line: str) -> float | None:
    text = unicodedata.normalize("NFKC", line).replace("*", "").replace("#", "").strip().casefold()
    for word in _SCORE_WORDS:
        if text.startswith(word):
            return _lone_number(text.removeprefix(word).strip().removeprefix(":").removeprefix("="))
    return None


def _lone_number(text: str) -> float | None:
    number = unicodedata.normalize("NFKC", text).replace("*", "").strip().rstrip(".")
    return find_number(number.partition("/")[0]) if number else None
