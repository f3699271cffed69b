"""The compile over real job folders and the real engine, with a fake LM server: scores, splits, honesty."""

import json

import pyarrow.parquet as pq
import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.files.artifacts import FileArtifactWriter
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.adapters.files.programs import FileProgramStore
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.optimizers import OPTIMIZERS
from dspyui.errors import FailedError, RefusedError
from dspyui.services.compile import CompileRun
from tests import learner
from tests.fake_openai import FakeOpenAI, Fault, chat, last_input
from tests.waiting import wait_until

ROWS = [{"message": f"My thing{i}q broke.", "product": f"thing{i}q"} for i in range(30)]


def knowing(messages):
    """Right when it was shown an example, wrong otherwise; as small models are."""
    word = last_input(messages, "message").split()[1]
    return chat(product=word if len(messages) > 2 else "something")


class Collecting:
    def __init__(self):
        self.traces = []

    def write(self, trace):
        self.traces.append(trace)

    def close(self):
        pass


@pytest.fixture
def server():
    with FakeOpenAI(knowing) as fake:
        yield fake


@pytest.fixture
def store(tmp_path):
    return FileJobStore(tmp_path / "data")


def spec(server, **changes):
    document = {
        "program": {
            "name": "产品 extraction",
            "signature": {
                "instructions": "Name it.",
                "inputs": [{"name": "message"}],
                "outputs": [{"name": "product"}],
            },
        },
        "lms": {"task": {"model": "openai/fake", "api_base": server.base_url, "num_retries": 0}},
        "optimizer": {"kind": "labeled_few_shot", "params": {"k": 4}},
        "data": {"rows": ROWS},
        **changes,
    }
    return CompileSpec.model_validate(document)


def start(store, spec, rows=ROWS):
    job = store.create(spec, rows, title=spec.program.name, who="tester")
    return store.update(
        job.id, lambda j: j.model_copy(update={"status": "running", "attempt": j.attempt + 1})
    )


def run(store, job, tmp_path, sink=None):
    engine = DspyEngine(
        store.spec(job.id).lms,
        environment={},
        cache_folder=tmp_path / "cache",
        metric_files=FileMetrics(tmp_path / "data"),
    )
    return CompileRun(
        job.id,
        jobs=store,
        programs=FileProgramStore(tmp_path / "data"),
        artifacts=FileArtifactWriter(store),
        engine=engine,
        eval_sink=sink,
    ).run()


def test_a_split_that_the_data_brought_is_kept_over_a_restart(store, server, tmp_path):
    parts = [
        "test" if number % 3 == 0 else "validation" if number % 3 == 1 else "train" for number in range(30)
    ]
    asked = spec(server, data={"path": "gone.csv", "split_column": "part"}, optimizer={"kind": "none"})
    job = store.create(asked, ROWS, title="t", who="tester", parts=parts)
    store.update(job.id, lambda j: j.model_copy(update={"status": "running", "attempt": 1}))
    result = run(FileJobStore(tmp_path / "data"), job, tmp_path)
    assert {name: split.rows for name, split in result.splits.items()} == {
        "train": 10, "validation": 10, "test": 10,
    }  # fmt: skip
    assert [row.inputs["message"] for row in result.baseline.rows] == [row["message"] for row in ROWS[::3]]


# Enough to run, and no more.
SMALL = {
    "bootstrap_few_shot_with_random_search": {"num_candidate_programs": 1},
    "copro": {"breadth": 2, "depth": 1},
    "simba": {"bsize": 4, "max_steps": 1, "num_candidates": 2},
    "gepa": {"max_metric_calls": 20},
    "infer_rules": {"num_candidates": 1},
}


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "none"])
def test_the_optimizer_never_sees_a_test_row(store, server, tmp_path, kind):
    lm = {"model": "openai/fake", "api_base": server.base_url}
    asked_of = {"task": lm, "embedder": {**lm, "model": "openai/words"}}
    optimizer = {"kind": kind, "params": SMALL.get(kind, {})}
    rows = learner.rows(30)
    job = start(store, spec(server, lms=asked_of, optimizer=optimizer, data={"rows": rows}), rows)
    seen = []

    def watching(messages):
        seen.append((store.progress(job.id).phase, messages))
        return learner.learn(messages)

    server.reply = watching
    run(store, job, tmp_path)
    folder = store.folder(job.id) / "dataset"
    parts = {
        name: [json.loads(line)["message"] for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "validation", "test")
    }
    assert sorted(m for part in parts.values() for m in part) == sorted(row["message"] for row in rows)
    held_out = parts["test"] + parts["validation"]
    for phase, messages in seen:
        everything = "\n".join(message["content"] for message in messages)
        if phase == "optimising":
            assert not any(message in everything for message in parts["test"])
        else:
            shown = "\n".join(message["content"] for message in messages[:-1])
            assert not any(message in shown for message in held_out), f"a demo in {phase} is a held-out row"
    assert store.find_result(job.id).optimised.score == 1.0
    trials = [trial.label for trial in store.progress(job.id).trials]
    assert trials[0] == "baseline"
    assert trials[-1] == OPTIMIZERS[kind].label
    compares = OPTIMIZERS[kind].uses_validation or kind in {"copro", "simba"}
    assert (len(trials) > 2) == compares
    told = [(trial.label, trial.rows) for trial in store.progress(job.id).trials]
    assert {told[0][1], told[-1][1]} == {"validation"}
    assert {on for _label, on in told[1:-1]} <= {"train" if kind in {"copro", "simba"} else "validation"}
    logged = [event.kind for event in store.events(job.id)[0] if event.kind.startswith("compile.trial")]
    assert ("compile.trial_train" in logged) == (kind in {"copro", "simba"})
    assert len(logged) == len(trials)
    assert {phase for phase, _ in seen} >= {"baseline", "evaluating"}


def test_both_programs_are_scored_on_the_same_rows(store, server, tmp_path):
    job = start(store, spec(server))
    sink = Collecting()
    result = run(store, job, tmp_path, sink)
    assert (result.baseline.score, result.optimised.score, result.improvement) == (0.0, 1.0, 1.0)
    assert [r.inputs for r in result.baseline.rows] == [r.inputs for r in result.optimised.rows]
    assert [r.index for r in result.optimised.rows] == list(range(9))
    assert {name: part.rows for name, part in result.splits.items()} == {
        "train": 15,
        "validation": 6,
        "test": 9,
    }
    assert result.usage.lm_calls == len(server.requests) == 2 * 9 + 2 * 6
    assert [(t.step, t.score) for t in result.trials] == [(0, 0.0), (1, 1.0)]
    assert len(sink.traces) == 30
    ids = {trace.mlflow_id for trace in sink.traces}
    assert len(ids) == 30
    assert {row.trace_id for row in result.optimised.rows} <= ids
    by_id = {trace.mlflow_id: trace for trace in sink.traces}
    for row in result.optimised.rows:
        told = by_id[row.trace_id].tags
        assert (told["dspyui.phase"], told["dspyui.score"]) == ("evaluating", "1.0000")
        assert json.loads(told["dspyui.expected"]) == row.expected
    assert {span.name for trace in sink.traces for span in trace.spans if span.kind == "LLM"} == {"LM"}
    assert store.find_result(job.id) == result
    table = pq.read_table(store.folder(job.id) / "evaluation/rows.parquet").to_pylist()
    assert [row["after_product"] for row in table] == [row["expected_product"] for row in table]
    assert {row["before_product"] for row in table} == {"something"}
    assert {row["score_before"] for row in table} == {0.0}
    # A dot in a column's name leaves the column empty in MLflow's own table view.
    assert not any("." in column for column in table[0])


def test_the_prompts_are_those_that_were_sent(store, server, tmp_path):
    job = start(store, spec(server))
    result = run(store, job, tmp_path)
    sent = [[(m["role"], m["content"]) for m in request["messages"]] for request in server.requests]
    for evaluation in (result.baseline, result.optimised):
        assert [(m.role, m.content) for m in evaluation.prompt] in sent
    before, after = (
        (store.folder(job.id) / f"prompt/{name}_prompt.txt").read_text() for name in ("baseline", "optimized")
    )
    assert len(after) > len(before) > 100
    assert after.count("[assistant]") == 4


def test_progress_and_log_tell_the_story(store, server, tmp_path):
    job = start(store, spec(server))
    run(store, job, tmp_path)
    progress = store.progress(job.id)
    assert progress.phase == "saving"
    assert progress.baseline_curve == (0.0,) * 9
    assert progress.evaluation_curve == (1.0,) * 9
    assert progress.usage.lm_calls == 30
    events, _ = store.events(job.id)
    for language in ("en_US", "zh_CN"):
        said = [event.sentence(language) for event in events]
        assert len(said) > 8
    assert any("1.00" in sentence for sentence in said)


def test_calls_are_counted_while_an_optimizer_works(store, server, tmp_path):
    """Its fourth call gets no reply before the three others are seen, though no trial has ended by then."""
    optimizer = {"kind": "copro", "params": {"breadth": 2, "depth": 1}}
    rows = learner.rows(30)
    job = start(store, spec(server, optimizer=optimizer, data={"rows": rows}, threads=1), rows)
    before, seen = [], []

    def patient(messages):
        progress = store.progress(job.id)
        if progress.phase == "optimising":
            before.append(progress.usage.lm_calls)
            if len(before) == 4:
                wait_until(lambda: store.progress(job.id).usage.lm_calls >= before[0] + 3, seconds=30)
                seen.extend(trial.label for trial in store.progress(job.id).trials)
        return learner.learn(messages)

    server.reply = patient
    run(store, job, tmp_path)
    assert seen == ["baseline"]


def test_replies_that_cannot_be_read_score_zero_and_are_counted(store, server, tmp_path):
    server.reply = lambda m: "no idea" if "thing1" in m[-1]["content"] else knowing(m)
    job = start(store, spec(server))
    result = run(store, job, tmp_path)
    bad = [row for row in result.optimised.rows if "thing1" in row.inputs["message"]]
    assert bad
    assert result.optimised.unreadable == len(bad)
    assert all(row.score == 0.0 and row.predicted is None and row.error for row in bad)
    assert result.optimised.score == pytest.approx(1 - len(bad) / 9)


def test_replies_that_no_file_can_hold_do_not_fail_the_compile(store, server, tmp_path):
    # Right, a whole number of more than 64 bits, brackets without end; and half an emoji in each reason.
    counts = ["1", str(2**70), "[" * 100_000]
    server.reply = lambda _messages: chat(reasoning="So \ud83d.", count=counts[len(server.requests) % 3])
    signature = {"inputs": [{"name": "message"}], "outputs": [{"name": "count", "type": "int"}]}
    rows = [{"message": f"thing{i}", "count": 1} for i in range(30)]
    asked = spec(
        server,
        program={"signature": signature, "module": {"kind": "chain_of_thought"}},
        optimizer={"kind": "bootstrap_few_shot", "params": {"max_bootstrapped_demos": 2}},
        data={"rows": rows},
    )
    job = start(store, asked, rows)
    result = run(store, job, tmp_path)
    assert store.find_result(job.id) == result
    table = pq.read_table(store.folder(job.id) / "evaluation" / "rows.parquet").to_pylist()
    assert str(2**70) in {row["before_count"] for row in table}
    assert {row["before_reasoning"] for row in table} <= {"So ?.", None}
    assert "So ?." in FileProgramStore(tmp_path / "data").get(job.id).to_json()


def test_a_failing_lm_fails_the_compile_and_leaves_no_result(store, server, tmp_path):
    server.reply = lambda m: Fault(401, "bad key") if len(server.requests) > 12 else knowing(m)
    job = start(store, spec(server))
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "engine.key_needed"
    assert store.find_result(job.id) is None


def test_evaluate_only_scores_once(store, server, tmp_path):
    job = start(
        store,
        spec(
            server,
            optimizer={"kind": "none"},
            data={"rows": ROWS, "split": {"train": 0, "validation": 0, "test": 1}},
        ),
    )
    result = run(store, job, tmp_path)
    assert result.improvement == 0.0
    assert result.usage.lm_calls == 30
    assert result.trials == ()


def test_a_second_attempt_reuses_replies_and_counts_what_was_paid(store, server, tmp_path):
    job = start(store, spec(server))
    server.reply = lambda m: Fault(400, "no") if len(server.requests) > 12 else knowing(m)
    with pytest.raises(FailedError):
        run(store, job, tmp_path)
    paid = store.progress(job.id).usage.lm_calls
    server.reply = knowing
    job = store.update(job.id, lambda j: j.model_copy(update={"attempt": 2}))
    result = run(store, job, tmp_path)
    assert result.usage.lm_cache_hits >= 9
    assert result.usage.lm_calls >= paid
    assert result.optimised.score == 1.0


def test_many_output_fields_are_scored_each(store, server, tmp_path):
    rows = [{"message": f"My thing{i}q broke.", "product": f"thing{i}q", "count": i} for i in range(10)]
    server.reply = lambda m: chat(product=last_input(m, "message").split()[1], count=3)
    document = spec(server).model_dump(mode="json")
    document["program"]["signature"]["outputs"].append({"name": "count", "type": "int"})
    document["data"] = {"rows": rows}
    job = start(store, CompileSpec.model_validate(document), rows)
    result = run(store, job, tmp_path)
    for row in result.baseline.rows:
        assert row.by_field == {"product": 1.0, "count": float(row.expected["count"] == 3)}
        assert row.score == sum(row.by_field.values()) / 2


# Metrics that ask, repeats, and what fails while scoring.


def judging(messages):
    """A judge that likes an answer as far as it stands in the message; otherwise the program above."""
    text = messages[-1]["content"]
    if "You judge" not in text:
        return knowing(messages)
    answer = text.split("<answer>\n")[1].split("\n</answer>")[0]
    return f"Seen.\nSCORE: {8 if answer in text.split('Input message:')[1].splitlines()[1] else 2}"


def table(store, job):
    return pq.read_table(store.folder(job.id) / "evaluation/rows.parquet").to_pylist()


def test_a_judge_scores_both_programs_and_the_optimizer_asks_it_too(store, server, tmp_path):
    server.reply = judging
    asked = spec(
        server,
        metric={"kind": "llm_judge", "params": {"rubric": "Is it named?"}},
        optimizer={
            "kind": "bootstrap_few_shot",
            "params": {"max_bootstrapped_demos": 2, "metric_threshold": 0.1},
        },
    )
    job = start(store, asked)
    result = run(store, job, tmp_path)
    assert (result.baseline.score, result.optimised.score) == (pytest.approx(0.2), pytest.approx(0.8))
    assert result.difference is not None
    assert (result.difference.word, result.difference.method) == ("better", "bootstrap")
    judged = [m for m in server.prompts() if "You judge" in m]
    assert all("Is it named?" in prompt for prompt in judged)
    train = (store.folder(job.id) / "dataset/train.jsonl").read_text().splitlines()
    trained = {json.loads(line)["message"] for line in train}
    assert any(message in prompt for prompt in judged for message in trained)
    assert result.usage.lm_calls == len(server.requests)
    assert {row["feedback_before"] for row in table(store, job)} == {"Seen."}


def test_judgements_without_a_number_are_counted_and_left_out_of_both_means(store, server, tmp_path):
    def unsure(messages):
        said = judging(messages)
        is_judgement = "You judge" in messages[-1]["content"]
        return (
            "Hard to say." if is_judgement and "thing1" in messages[-1]["content"] and "8" in said else said
        )

    server.reply = unsure
    job = start(store, spec(server, metric={"kind": "llm_judge"}))
    result = run(store, job, tmp_path)
    unscored = [row for row in result.optimised.rows if row.score is None]
    assert unscored
    assert result.optimised.score_errors == len(unscored) == result.uncounted
    assert result.baseline.score_errors == 0
    assert result.optimised.score == pytest.approx(0.8)
    assert result.difference is not None
    assert result.difference.pairs == 9 - len(unscored)
    assert {row.problems[0].code for row in unscored} == {"metric.judge_number"}
    rows = table(store, job)
    assert sum(row["score_after"] is None for row in rows) == len(unscored)
    assert sum("Hard to say" in (row["error_after"] or "") for row in rows) == len(unscored)
    events, _ = store.events(job.id)
    assert any(
        "Hard to say" in event.sentence("zh_CN") and "第" in event.sentence("zh_CN") for event in events
    )


def test_a_field_that_the_judge_failed_at_after_is_no_gain(store, server, tmp_path):
    """Before, the mean is over both fields; after, over the one that is left: the two cannot be compared."""
    rows = [{"message": f"My thing{i}q broke.", "product": f"thing{i}q", "kind": "x"} for i in range(20)]

    def reply(messages):
        text = messages[-1]["content"]
        if "You judge" not in text:
            return chat(product="p", kind="k2" if len(messages) > 2 else "k1")
        answer = text.split("<answer>\n")[1].split("\n</answer>")[0]
        failed = answer == "k2" and "thing1" in text
        return "Hard to say." if failed else f"SCORE: {0 if answer.startswith('k') else 10}"

    server.reply = reply
    document = spec(server, metric={"kind": "llm_judge"}, max_errors=100).model_dump(mode="json")
    document["program"]["signature"]["outputs"].append({"name": "kind"})
    document["data"] = {"rows": rows}
    job = start(store, CompileSpec.model_validate(document), rows)
    result = run(store, job, tmp_path)
    assert 0 < result.uncounted < len(result.baseline.rows)
    assert (result.baseline.score, result.optimised.score) == (0.5, 0.5)
    assert result.difference is not None
    assert (result.difference.differing, result.difference.pairs) == (0, 6 - result.uncounted)
    assert result.by_field == {"product": (1.0, 1.0), "kind": (0.0, 0.0)}


def test_embeddings_score_a_compile(store, server, tmp_path):
    rows = [{"message": f"My thing{i}q broke.", "product": f"red thing{i}q"} for i in range(30)]
    document = spec(server).model_dump(mode="json")
    document["lms"]["embedder"] = {"model": "openai/embed", "api_base": server.base_url}
    document |= {"metric": {"kind": "similarity"}, "data": {"rows": rows}}
    # Its example is known by what follows a name in the demonstrations: it says the colour too then.
    server.reply = lambda m: chat(
        product=f"red {last_input(m, 'message').split()[1]}"
        if len(m) > 2
        else last_input(m, "message").split()[1]
    )
    job = start(store, CompileSpec.model_validate(document), rows)
    result = run(store, job, tmp_path)
    assert (result.baseline.score, result.optimised.score) == (pytest.approx(2**-0.5), pytest.approx(1.0))
    assert result.difference is not None
    assert result.difference.word == "better"
    assert server.embedded


def test_a_metric_of_ones_own_scores_a_compile_and_its_mistakes_are_told_by_row(store, server, tmp_path):
    folder = tmp_path / "data" / "metrics"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(
        "def metric(example, prediction):\n"
        "    assert 'thing1q' not in example['message'], 'not this one'\n"
        "    return float(example['product'] == prediction['product']), 'looked'\n"
    )
    metric = {"kind": "custom", "params": {"name": "mine"}}
    test_all = {"rows": ROWS, "split": {"train": 0, "validation": 0, "test": 1}}
    job = start(store, spec(server, metric=metric, optimizer={"kind": "none"}, data=test_all))
    result = run(store, job, tmp_path)
    (bad,) = [row for row in result.baseline.rows if row.score is None]
    assert bad.inputs["message"] == "My thing1q broke."
    assert "metrics/mine.py" in bad.problems[0].sentence("en_US")
    assert "not this one" in bad.problems[0].sentence("zh_CN")
    assert (result.baseline.score, result.baseline.score_errors, result.uncounted) == (0.0, 1, 1)
    job = start(store, spec(server, metric=metric, optimizer={"kind": "none"}, data=test_all, max_errors=0))
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "compile.too_many_errors"
    assert f"row {bad.index + 1}" in str(caught.value)
    assert "metrics/mine.py" in str(caught.value)


def test_a_metric_of_ones_own_that_exits_ends_no_compile(store, server, tmp_path):
    folder = tmp_path / "data" / "metrics"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(
        "import sys\n"
        "def metric(example, prediction):\n"
        "    if 'thing1q' in example['message']:\n"
        "        sys.exit(0)\n"
        "    return float(example['product'] == prediction['product'])\n"
    )
    metric = {"kind": "custom", "params": {"name": "mine"}}
    test_all = {"rows": ROWS, "split": {"train": 0, "validation": 0, "test": 1}}
    job = start(store, spec(server, metric=metric, optimizer={"kind": "none"}, data=test_all))
    result = run(store, job, tmp_path)
    (bad,) = [row for row in result.baseline.rows if row.score is None]
    assert bad.inputs["message"] == "My thing1q broke."
    assert all("SystemExit: 0" in bad.problems[0].sentence(language) for language in ("zh_CN", "en_US"))
    assert result.baseline.score_errors == 1


def test_repeats_ask_again_and_average(store, server, tmp_path):
    said = {}

    def wavering(messages):
        """Right at the second and the fourth time it is asked, once it was shown an example."""
        key = json.dumps(messages)
        said[key] = said.get(key, 0) + 1
        return knowing(messages) if said[key] % 2 == 0 else chat(product="something")

    server.reply = wavering
    sink = Collecting()
    job = start(
        store, spec(server, repeats=4, data={"rows": ROWS, "split": {"train": 1, "validation": 0, "test": 1}})
    )
    result = run(store, job, tmp_path, sink)
    rows = len(result.optimised.rows)
    assert result.repeats == 4
    assert len(server.requests) == result.usage.lm_calls == 2 * 4 * rows
    assert {row.scores for row in result.optimised.rows} == {(0.0, 1.0, 0.0, 1.0)}
    assert (result.baseline.score, result.optimised.score) == (0.0, 0.5)
    assert {row.by_field["product"] for row in result.optimised.rows} == {0.5}
    assert result.difference is not None
    assert result.difference.method == "bootstrap"
    progress = store.progress(job.id)
    assert len(progress.evaluation_curve) == rows
    assert len(sink.traces) == 2 * 4 * rows
    assert {trace.tags["dspyui.repeat"] for trace in sink.traces} == {"1", "2", "3", "4"}


def test_repeats_in_which_the_judge_failed_at_a_field_do_not_tilt_the_mean(store, server, tmp_path):
    """The easy field scores 1.0 and the hard one 0.0; half the time the judge says nothing of the hard one."""
    rows = [{"message": f"My thing{i}q broke.", "product": "p", "kind": "k"} for i in range(8)]
    asked = {}

    def reply(messages):
        text = messages[-1]["content"]
        if "You judge" not in text:
            return chat(product="p", kind="k")
        if "Answer to judge, product" in text:
            return "SCORE: 10"
        asked[text] = asked.get(text, 0) + 1
        return "Hard to say." if asked[text] % 2 else "SCORE: 0"

    server.reply = reply
    document = spec(server).model_dump(mode="json")
    document["program"]["signature"]["outputs"].append({"name": "kind"})
    document |= {"metric": {"kind": "llm_judge", "weights": {"kind": 3}}, "repeats": 2, "max_errors": 100}
    document["optimizer"] = {"kind": "none"}
    document["data"] = {"rows": rows, "split": {"train": 0, "validation": 0, "test": 1}}
    job = start(store, CompileSpec.model_validate(document), rows)
    result = run(store, job, tmp_path)
    assert result.baseline.score == 0.25
    for row in result.baseline.rows:
        assert (row.by_field, row.score) == ({"product": 1.0, "kind": 0.0}, 0.25)
        assert row.scores == (None, 0.25)
        assert row.score_errors == 1


def test_a_call_that_fails_scores_zero_is_counted_and_scoring_goes_on(store, server, tmp_path):
    server.reply = lambda m: Fault(503, "overloaded") if "thing1q" in m[-1]["content"] else knowing(m)
    test_all = {"rows": ROWS, "split": {"train": 0, "validation": 0, "test": 1}}
    job = start(store, spec(server, optimizer={"kind": "none"}, data=test_all))
    result = run(store, job, tmp_path)
    (bad,) = [row for row in result.baseline.rows if row.failure]
    assert (bad.score, bad.predicted, bad.failed, bad.unreadable) == (0.0, None, 1, 0)
    assert (result.baseline.failed, result.baseline.unreadable) == (1, 0)
    assert [row["error_before"] for row in table(store, job) if row["error_before"]] == [
        bad.failure.sentence("en_US")
    ]
    assert store.find_result(job.id) == result
    events, _ = store.events(job.id)
    assert any("overloaded" in event.sentence("en_US") for event in events)


def test_more_failures_than_allowed_stop_it_and_the_last_one_is_named(store, server, tmp_path):
    server.reply = lambda m: Fault(503, "overloaded") if len(server.requests) > 5 else knowing(m)
    job = start(store, spec(server, max_errors=2, threads=1))
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "compile.too_many_errors"
    for language in ("en_US", "zh_CN"):
        assert "overloaded" in caught.value.text(language)
        assert "2" in caught.value.text(language)
    assert len(server.requests) == 5 + 3
    assert store.find_result(job.id) is None


def test_a_model_that_answers_no_row_at_all_is_a_failure_and_not_a_zero(store, server, tmp_path):
    server.reply = lambda _messages: Fault(500, "down")
    job = start(store, spec(server, max_errors=1000))
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "compile.all_failed"
    assert "down" in str(caught.value)
    # Nor is it drawn as one while it runs.
    assert store.progress(job.id).baseline_curve == ()


def test_a_judge_that_never_gives_a_number_is_a_failure_and_not_a_zero(store, server, tmp_path):
    server.reply = lambda m: "Hm." if "You judge" in m[-1]["content"] else knowing(m)
    job = start(store, spec(server, max_errors=1000, metric={"kind": "llm_judge"}))
    with pytest.raises(FailedError) as caught:
        run(store, job, tmp_path)
    assert caught.value.code == "compile.none_scored"
    assert "Hm." in str(caught.value)


@pytest.mark.parametrize("status", [401, 404, 400])
def test_a_model_that_refuses_stops_it_at_once(store, server, tmp_path, status):
    server.reply = lambda _messages: Fault(status, "no")
    job = start(store, spec(server, threads=1))
    with pytest.raises(RefusedError):
        run(store, job, tmp_path)
    assert len(server.requests) == 1


def test_the_interval_of_a_clear_gain_is_kept_with_the_result(store, server, tmp_path):
    job = start(store, spec(server))
    result = run(store, job, tmp_path)
    found = result.difference
    assert found is not None
    assert (found.word, found.method, found.value, found.pairs) == ("better", "tango", 1.0, 9)
    assert 0 < found.low < 1 == found.high
