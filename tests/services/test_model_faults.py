"""A model that does not answer as it should, over a whole compile: asked again, counted, told, and gone on from."""

import threading

import pytest

from dspyui.domain.splits import SplitSpec, split_rows
from dspyui.errors import FailedError
from tests.adapters.conftest import waits  # noqa: F401 - a fixture
from tests.fake_openai import Fault, last_input
from tests.services.test_compile_run import ROWS, knowing, run, server, spec, start, store, table  # noqa: F401

LANGUAGES = ("zh_CN", "en_US")
SPLIT = {"train": 1, "validation": 0, "test": 1}
TEST_ROWS = split_rows(ROWS, ["message"], SplitSpec.model_validate(SPLIT)).test
SILENT = "silent"
# What the model does, the code of what is told, and words of it.
FAULTS = {
    "silent": (SILENT, "engine.timeout", ("timeout", "超时")),
    "429": (Fault(429, "slow down, please"), "engine.rate_limit", ("slow down, please",) * 2),
    "500": (Fault(500, "a wire came loose"), "engine.server", ("a wire came loose",) * 2),
    "empty": ("", "engine.empty_reply", ("empty", "为空")),
    "blank": ("\n \n", "engine.empty_reply", ("empty", "为空")),
}


@pytest.fixture
def faulty(server):  # noqa: F811
    """Makes the model fail at some messages, so many times each; it keeps how often it was asked for each."""
    ended = threading.Event()

    def faulty(fault, messages, times=10**6):
        asked = {}

        def reply(sent):
            message = last_input(sent, "message")
            # The same row is asked without and with an example.
            asked[message, len(sent)] = asked.get((message, len(sent)), 0) + 1
            if message not in messages or asked[message, len(sent)] > times:
                return knowing(sent)
            if fault == SILENT:
                ended.wait(60)
                return ""
            return fault

        server.reply = reply
        return asked

    yield faulty
    ended.set()


def asked_of(server, **changes):  # noqa: F811
    lm = {"model": "openai/fake", "api_base": server.base_url, "num_retries": 1, "timeout": 2}
    return spec(server, lms={"task": lm}, data={"rows": ROWS, "split": SPLIT}, **changes)


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("name", FAULTS)
def test_what_passes_is_asked_for_again_and_costs_no_row(store, server, tmp_path, faulty, name):  # noqa: F811
    bad = {row["message"] for row in TEST_ROWS[:3]}
    asked = faulty(FAULTS[name][0], bad, times=1)
    result = run(store, start(store, asked_of(server, max_errors=0)), tmp_path)
    assert (result.baseline.score, result.optimised.score) == (0.0, 1.0)
    assert (result.baseline.failed, result.optimised.failed) == (0, 0)
    assert {key[0] for key, times in asked.items() if times == 2} == bad
    assert max(asked.values()) == 2
    assert len(server.requests) == 2 * (len(TEST_ROWS) + len(bad))


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("name", FAULTS)
def test_what_stays_is_a_row_with_its_reason_and_the_compile_goes_on(store, server, tmp_path, faulty, name):  # noqa: F811
    fault, code, words = FAULTS[name]
    bad = TEST_ROWS[4]["message"]
    asked = faulty(fault, {bad})
    job = start(store, asked_of(server, max_errors=2))
    result = run(store, job, tmp_path)
    assert {times for key, times in asked.items() if key[0] == bad} == {2}
    for evaluation in (result.baseline, result.optimised):
        (row,) = [row for row in evaluation.rows if row.failure]
        assert (row.inputs["message"], row.index, row.failure.code) == (bad, 4, code)
        assert (row.score, row.predicted, row.failed, row.unreadable) == (0.0, None, 1, 0)
        assert (evaluation.failed, evaluation.unreadable) == (1, 0)
    assert result.optimised.score == pytest.approx(1 - 1 / len(TEST_ROWS))
    (kept,) = [row for row in table(store, job) if row["error_after"]]
    assert kept["input_message"] == bad
    assert store.find_result(job.id) == result
    told = [event for event in store.events(job.id)[0] if event.kind == "compile.row_error"]
    assert len(told) == 2
    for event in told:
        said = [event.sentence(language) for language in LANGUAGES]
        assert said[0] != said[1]
        for sentence, word in zip(reversed(said), words, strict=True):
            assert word in sentence
            assert "openai/fake" in sentence
            assert "5" in sentence  # its row


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("name", FAULTS)
def test_more_than_max_errors_stop_it_with_the_reason_and_lose_nothing(store, server, tmp_path, faulty, name):  # noqa: F811
    fault, _code, words = FAULTS[name]
    faulty(fault, {row["message"] for row in TEST_ROWS[2:]})
    job = start(store, asked_of(server, max_errors=1))
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "compile.too_many_errors"
    said = [caught.value.text(language) for language in reversed(LANGUAGES)]
    assert said[0] != said[1]
    for sentence, word in zip(said, words, strict=True):
        for part in (word, "openai/fake", "max_errors", "1"):
            assert part in sentence
        assert "{" not in sentence
    assert len(server.requests) < 2 * len(TEST_ROWS)
    assert store.find_result(job.id) is None
    assert len([event for event in store.events(job.id)[0] if event.kind == "compile.row_error"]) >= 2
    assert (len(store.rows(job.id)), store.spec(job.id).max_errors) == (len(ROWS), 1)
    assert store.progress(job.id).phase == "baseline"
    # What was answered was paid for, and is not asked for again.
    faulty(fault, set())
    job = store.update(job.id, lambda j: j.model_copy(update={"attempt": 2}))
    result = run(store, job, tmp_path)
    assert result.optimised.score == 1.0
    assert result.usage.lm_cache_hits >= 2


def test_replies_that_cannot_be_read_are_counted_and_gone_on_from(store, server, tmp_path, faulty):  # noqa: F811
    bad = {row["message"] for row in TEST_ROWS[:3]}
    asked = faulty("I would rather not.", bad)
    job = start(store, asked_of(server, max_errors=3))
    result = run(store, job, tmp_path)
    assert sum(asked.values()) == 2 * (len(TEST_ROWS) + len(bad))
    for evaluation in (result.baseline, result.optimised):
        assert (evaluation.unreadable, evaluation.failed) == (3, 0)
        for row in evaluation.rows[:3]:
            assert (row.score, row.predicted) == (0.0, None)
            assert "I would rather not." in row.error
    told = [event for event in store.events(job.id)[0] if event.kind == "compile.unreadable"]
    assert len(told) == 2
    assert all(event.sentence("zh_CN") != event.sentence("en_US") for event in told)


def test_a_model_of_which_nothing_can_be_read_is_stopped_early(store, server, tmp_path, faulty):  # noqa: F811
    faulty("I would rather not.", {row["message"] for row in ROWS})
    job = start(store, asked_of(server, max_errors=3, threads=1))
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "compile.none_readable"
    assert len(server.requests) == 2 * 4
    said = [caught.value.text(language) for language in LANGUAGES]
    assert said[0] != said[1]
    for sentence in said:
        for part in ("I would rather not.", "max_errors", "3", "4"):
            assert part in sentence
    assert store.find_result(job.id) is None
    assert store.progress(job.id).phase == "baseline"
