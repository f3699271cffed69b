"""What a compile counts."""

import pytest

from dspyui.domain.compiles import PHASES, CompileResult, Evaluation, Progress, RowResult, Usage
from dspyui.errors import BadRequestError
from dspyui.i18n import LANGUAGES, Text
from dspyui.services.documents import spec_of


def row(index: int, score: float, *, error: str | None = None) -> RowResult:
    return RowResult(
        index=index, inputs={"a": "x"}, expected={"b": "y"}, predicted=None if error else {"b": "y"},
        score=score, by_field={"b": score}, error=error, unreadable=int(error is not None),
    )  # fmt: skip


def test_usage_adds_up_and_keeps_hits_apart() -> None:
    usage = Usage(lm_calls=1, input_tokens=10, output_tokens=2) + Usage(lm_cache_hits=3, input_tokens=1)
    assert usage == Usage(lm_calls=1, lm_cache_hits=3, input_tokens=11, output_tokens=2)
    assert usage.total_tokens == 13


def test_unreadable_replies_are_counted() -> None:
    evaluation = Evaluation(score=0.5, rows=(row(0, 1.0), row(1, 0.0, error="no JSON")))
    assert evaluation.unreadable == 1


def test_the_improvement_may_be_a_loss() -> None:
    result = CompileResult(
        baseline=Evaluation(score=0.75, rows=()),
        optimised=Evaluation(score=0.5, rows=()),
        trials=(), usage=Usage(), splits={}, data_digest="", versions={},
    )  # fmt: skip
    assert result.improvement == -0.25


def test_every_phase_has_its_words() -> None:
    assert Progress().phase == "queued"
    for language in LANGUAGES:
        assert all(Text(language)(f"phase.{phase}") for phase in ("queued", *PHASES))


def test_knn_without_an_embedder_is_told() -> None:
    document = {
        "program": {"signature": {"inputs": [{"name": "a"}], "outputs": [{"name": "b"}]}},
        "optimizer": {"kind": "knn_few_shot"},
        "data": {"rows": [{"a": "x", "b": "y"}]},
    }
    with pytest.raises(BadRequestError) as caught:
        spec_of(document)
    assert caught.value.code == "optimizer.embedder"
    assert "embedder" in str(caught.value)
    assert "embedder" in caught.value.text("zh_CN")
