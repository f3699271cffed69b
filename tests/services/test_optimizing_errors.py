"""What a model fails to give while an optimizer works: counted and told like any other, and never a silent 0.0."""

import pytest

from dspyui.domain.compiles import CompileSpec
from dspyui.domain.optimizers import OPTIMIZERS
from dspyui.errors import FailedError, RefusedError
from tests import learner
from tests.adapters.test_optimizers_run import SMALL
from tests.fake_openai import Fault
from tests.services.test_compile_run import run, server, spec, start, store  # noqa: F401 - fixtures among them

KINDS = [kind for kind in OPTIMIZERS if kind not in {"none", "labeled_few_shot", "knn_few_shot"}]
ROWS = learner.rows(30)
SPLIT = {"train": 8, "validation": 6, "test": 16}
LANGUAGES = ("zh_CN", "en_US")


def asked(server, kind, **changes):  # noqa: F811
    document = {
        "optimizer": {"kind": kind, "params": SMALL.get(kind, {})},
        "data": {"rows": ROWS, "split": SPLIT},
        "threads": 2,
        **changes,
    }
    return spec(server, **document)


def told(store, job):  # noqa: F811
    return [event for event in store.events(job.id)[0] if event.kind == "compile.optimising_error"]


def while_optimising(store, job, trouble, otherwise=learner.learn):  # noqa: F811
    """The model as ever, and in trouble as long as the optimizer works."""

    def reply(messages):
        if store.progress(job.id).phase == "optimising" and (said := trouble(messages)) is not None:
            return said
        return otherwise(messages)

    return reply


def judged(messages):
    if "You judge" in messages[-1]["content"]:
        return "Seen.\nSCORE: 5"
    return learner.learn(messages)


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_without_a_number_stops_every_optimizer_with_its_reason(store, server, tmp_path, kind):  # noqa: F811
    job = start(store, asked(server, kind, metric={"kind": "llm_judge"}, max_errors=3), ROWS)
    server.reply = while_optimising(
        store, job, lambda m: "Hard to say." if "You judge" in m[-1]["content"] else None, judged
    )
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "compile.too_many_errors_optimising"
    for language in LANGUAGES:
        for part in ("Hard to say", "max_errors", OPTIMIZERS[kind].label):
            assert part in caught.value.text(language)
        assert all("Hard to say" in event.sentence(language) for event in told(store, job))
    assert len(told(store, job)) >= 4
    assert store.find_result(job.id) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [429, 500])
def test_a_model_that_fails_stops_every_optimizer_with_its_reason(store, server, tmp_path, kind, status):  # noqa: F811
    job = start(store, asked(server, kind, max_errors=3), ROWS)
    server.reply = while_optimising(
        store, job, lambda m: Fault(status, "overloaded") if "`product`" in m[0]["content"] else None
    )
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "compile.too_many_errors_optimising"
    assert "overloaded" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_an_embedder_that_fails_stops_every_optimizer_with_its_reason(store, server, tmp_path, kind):  # noqa: F811
    document = asked(server, kind, max_errors=3).model_dump(mode="json")
    document["lms"]["embedder"] = {"model": "openai/embed", "api_base": server.base_url}
    document["metric"] = {"kind": "similarity"}
    # Equal texts are never looked up.
    rows = [{**row, "product": f"a red {row['product']}"} for row in ROWS]
    document["data"]["rows"] = rows
    job = start(store, CompileSpec.model_validate(document), rows)

    def reply(messages):
        if store.progress(job.id).phase == "optimising":
            server.embed_fault = Fault(401, "no such key")
        return learner.learn(messages)

    server.reply = reply
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert "no such key" in str(caught.value)
    assert isinstance(caught.value, RefusedError)


@pytest.mark.parametrize("kind", ["bootstrap_few_shot", "bootstrap_few_shot_with_random_search", "gepa"])
def test_a_few_that_are_missing_are_told_and_the_optimizer_goes_on(store, server, tmp_path, kind):  # noqa: F811
    job = start(store, asked(server, kind, metric={"kind": "llm_judge"}, max_errors=1000), ROWS)
    bad = []

    def trouble(messages):
        text = messages[-1]["content"]
        if "You judge" in text and len(bad) < 2:
            bad.append(text)
            return "Hard to say."
        return None

    server.reply = while_optimising(store, job, trouble, judged)
    result = run(store, job, tmp_path)
    assert len(told(store, job)) >= 2  # asked the same again, the cache gives the same reply
    assert result.optimised.score == 0.5
    assert result.optimised.score_errors == 0


def test_more_unreadable_answers_than_dspy_allows_are_named(store, server, tmp_path):  # noqa: F811
    """They are the model's mistakes and no failures; it is DSPy that stops, and it does not say at what."""
    kind = "bootstrap_few_shot_with_random_search"
    split = {"train": 10, "validation": 14, "test": 6}
    job = start(store, asked(server, kind, data={"rows": ROWS, "split": split}), ROWS)
    server.reply = while_optimising(store, job, lambda _messages: "I would rather not.")
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "optimizer.stopped"
    assert "I would rather not" in str(caught.value)
