"""Every optimizer and every module, run by DSPy against a fake server that can be taught."""

import json
import threading
from collections import Counter
from pathlib import Path

import dspy
import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec, score_row
from dspyui.domain.optimizers import OPTIMIZERS, OptimizerSpec
from dspyui.domain.programs import MODULES, CompiledProgram, ModuleSpec, ProgramSpec
from dspyui.errors import BadRequestError, FailedError, RefusedError
from tests.fake_openai import FakeOpenAI, Fault, chat, last_input
from tests.learner import LESSON, SIGNATURE, learn, rows

TRAIN, VALIDATION, TEST = rows(8), rows(6, start=20), rows(6, start=40)
# Enough to find something, and little enough for a test. MIPROv2 runs as it is: light, on small data.
SMALL = {
    "bootstrap_few_shot_with_random_search": {"num_candidate_programs": 1},
    "copro": {"breadth": 3, "depth": 2},
    "simba": {"bsize": 4, "max_steps": 2, "num_candidates": 2},
    "gepa": {"max_metric_calls": 30},
    "infer_rules": {"num_candidates": 2},
}
# What the prompt of the optimised program holds that the first did not.
BY_DEMOS = {
    "labeled_few_shot", "bootstrap_few_shot", "bootstrap_few_shot_with_random_search", "knn_few_shot", "miprov2",
}  # fmt: skip
# Only an answer of this shape is rewarded, so that an untaught model needs its further attempts.
REWARD = MetricSpec(kind="regex", params={"pattern": "thing[0-9]"})
# Any answer pleases, so that only the optimizer can help.
EASY = MetricSpec(kind="regex", params={"pattern": "thing"})


def module(kind, reward=REWARD, **params):
    return ModuleSpec(kind=kind, params=params, reward=reward if MODULES[kind].rewards else None)


class World:
    """One server, and engines on a cache folder of their own: a second engine is a fresh start that asked the same."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.lm = LMSpec(model="openai/fake", api_base=server.base_url, num_retries=0)
        self.roles = LMRoles(
            task=self.lm, embedder=EmbedderSpec(model="openai/words", api_base=server.base_url)
        )
        self.engine = self.fresh()
        self.trials = []

    def fresh(self, roles=None):
        return DspyEngine(roles or self.roles, environment={}, cache_folder=self.folder / "cache")

    def spec(self, optimizer, kind="predict", reward=REWARD, **more):
        return CompileSpec(
            program=ProgramSpec(name="p", signature=SIGNATURE, module=module(kind, reward)),
            lms=self.roles,
            optimizer=optimizer,
            data={"rows": TRAIN},
            **more,
        )

    def optimise(self, spec, *, train=TRAIN, validation=VALIDATION, engine=None):
        engine = engine or self.engine
        base = engine.build(spec.program)
        return engine.optimise(
            base, spec, train=train, validation=validation, on_trial=lambda *trial: self.trials.append(trial)
        )

    def score(self, live, engine=None):
        engine, found = engine or self.engine, {}
        inputs = [{"message": row["message"]} for row in TEST]
        engine.predict_all(live, inputs, threads=4, tags={}, on_done=found.__setitem__)
        right = [(found[i].outputs or {}).get("product") == row["product"] for i, row in enumerate(TEST)]
        return sum(right) / len(right)

    def dump(self, live, spec):
        return self.engine.dump(live, spec.program, spec.optimizer, spec.lms.task)


@pytest.fixture
def world(tmp_path):
    with FakeOpenAI(learn) as server:
        yield World(server, tmp_path)


def reloaded_elsewhere(world, kept):
    """A new engine on the program's document, and the program; what it may know is the document and the cache."""
    program = CompiledProgram.from_json(kept.to_json(), where="here")
    engine = world.fresh(program.roles())
    return engine, engine.load(program)


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "none"])
def test_every_optimizer_improves_prompt_and_score_and_reloads_the_same(world, kind):
    spec = world.spec(OptimizerSpec(kind=kind, params=SMALL.get(kind, {})))
    base = world.engine.build(spec.program)
    assert world.score(base) == 0.5
    first = world.engine.predict(base, {"message": TEST[1]["message"]}, tags={}).prompt

    optimised = world.optimise(spec)
    assert world.score(optimised) == 1.0
    assert world.score(base) == 0.5, "the program it began with is as it was"
    prompt = world.engine.predict(optimised, {"message": TEST[1]["message"]}, tags={}).prompt
    if kind in BY_DEMOS:
        assert len(prompt) > len(first)
    else:
        assert LESSON in prompt[0].content + prompt[-1].content or len(prompt) > len(first)
    assert world.engine.usage().lm_calls == len(world.server.requests)
    assert world.engine.lm_errors() == 0

    asked = len(world.server.requests)
    engine, again = reloaded_elsewhere(world, world.dump(optimised, spec))
    assert world.score(again, engine) == 1.0
    assert len(world.server.requests) == asked, "the very same requests, so that the cache knew them all"


@pytest.mark.parametrize("optimizer", ["labeled_few_shot", "bootstrap_few_shot", "knn_few_shot", "gepa"])
@pytest.mark.parametrize("kind", [kind for kind in MODULES if kind != "predict"])
def test_every_module_learns_and_reloads_the_same(world, kind, optimizer):
    spec = world.spec(OptimizerSpec(kind=optimizer, params=SMALL.get(optimizer, {})), kind, EASY)
    base = world.engine.build(spec.program)
    assert world.score(base) == 0.5
    optimised = world.optimise(spec)
    assert world.score(optimised) == 1.0
    asked = len(world.server.requests)
    engine, again = reloaded_elsewhere(world, world.dump(optimised, spec))
    assert world.score(again, engine) == 1.0
    assert len(world.server.requests) == asked


@pytest.mark.parametrize("kind", ["best_of_n", "refine", "multi_chain_comparison"])
def test_modules_that_try_several_times_still_give_worked_examples(world, kind):
    """DSPy's own lose them: the steps of an attempt belong to a copy of the module that nobody knows."""
    spec = world.spec(OptimizerSpec(params={"max_labeled_demos": 0}), kind)
    optimised = world.optimise(spec)
    for predictor in optimised.predictors():
        assert predictor.demos
        assert all(demo["augmented"] and "hint_" not in demo for demo in predictor.demos)


# Trials.


@pytest.mark.parametrize(
    ("kind", "validation", "count", "on"),
    [
        ("bootstrap_few_shot_with_random_search", VALIDATION, 4, "validation"),
        ("bootstrap_few_shot_with_random_search", [], 4, "train"),
        ("infer_rules", VALIDATION, 2, "validation"),
        ("copro", VALIDATION, None, "train"),
        ("simba", VALIDATION, None, "train"),
        ("gepa", VALIDATION, None, "validation"),
        ("miprov2", VALIDATION, 11, "validation"),
    ],
)
def test_candidates_become_trials_as_they_are_evaluated(world, kind, validation, count, on):
    world.optimise(world.spec(OptimizerSpec(kind=kind, params=SMALL.get(kind, {}))), validation=validation)
    labels = [label for label, _score, _rows in world.trials]
    assert labels == [f"#{number}" for number in range(1, (count or len(labels)) + 1)]
    assert len(labels) > 1
    assert {rows for _label, _score, rows in world.trials} == {on}
    scores = [score for _label, score, _rows in world.trials]
    assert max(scores) == 1.0
    assert 0 <= min(scores) < 1.0 or kind in {"infer_rules", "simba"}


def test_minibatches_are_told_apart(world):
    params = {
        "auto": None,
        "num_candidates": 3,
        "num_trials": 4,
        "minibatch_size": 3,
        "minibatch_full_eval_steps": 2,
    }
    world.optimise(world.spec(OptimizerSpec(kind="miprov2", params=params)))
    found = [(label, rows) for label, _score, rows in world.trials]
    assert found[0] == ("#1", "validation")
    assert ("#2", "minibatch") in found


# Small data: what DSPy itself does without validation rows.


@pytest.mark.parametrize("kind", ["miprov2", "infer_rules", "gepa", "bootstrap_few_shot_with_random_search"])
def test_without_validation_rows_the_training_rows_serve(world, kind):
    train = rows(4)
    spec = world.spec(OptimizerSpec(kind=kind, params=SMALL.get(kind, {})))
    spec.optimizer.check_rows(train=len(train), validation=0)
    assert world.score(world.optimise(spec, train=train, validation=[])) == 1.0


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "none"])
def test_the_least_rows_that_are_let_through_run(world, kind):
    params = {**SMALL.get(kind, {}), **({"bsize": 1} if kind == "simba" else {})}
    spec = world.spec(OptimizerSpec(kind=kind, params=params))
    for validation in ([], VALIDATION[:1]):
        need = OPTIMIZERS[kind].needs_train
        if not validation:
            need = max(need, OPTIMIZERS[kind].needs_train_alone)
        spec.optimizer.check_rows(train=need, validation=len(validation))
        live = world.optimise(spec, train=rows(need), validation=validation)
        assert 0.5 <= world.score(live) <= 1.0


@pytest.mark.parametrize(
    ("kind", "params", "train", "validation", "said"),
    [
        ("bootstrap_few_shot", {}, 0, 5, "example_idx"),
        ("bootstrap_few_shot_with_random_search", {}, 0, 5, "example_idx"),
        ("knn_few_shot", {}, 0, 5, "shapes"),
        ("copro", {}, 0, 5, "at least one example"),
        ("miprov2", {}, 0, 5, "Trainset cannot be empty"),
        ("miprov2", {}, 1, 0, "at least 2 examples"),
        ("miprov2", {"auto": None, "num_candidates": 3, "num_trials": 3}, 9, 34, "Minibatch size cannot"),
        ("miprov2", {"minibatch_size": 52}, 9, 51, "Minibatch size cannot"),
        ("miprov2", {"minibatch_size": 60}, 70, 0, "Minibatch size cannot"),
        ("simba", {"bsize": 8}, 7, 5, "Trainset too small: 7 < 8"),
        ("gepa", {}, 0, 5, "non-empty"),
        ("infer_rules", {}, 0, 5, "example_idx"),
        ("infer_rules", {}, 1, 0, "example_idx"),
    ],
)
def test_what_is_refused_is_what_dspy_itself_cannot_run_on(world, kind, params, train, validation, said):
    spec = world.spec(OptimizerSpec(kind=kind, params={**SMALL.get(kind, {}), **params}))
    with pytest.raises(BadRequestError):
        spec.optimizer.check_rows(train=train, validation=validation)
    with pytest.raises(
        (FailedError, ValueError)
    ) as caught:  # KNNFewShot begins its work with the first question
        world.score(world.optimise(spec, train=rows(train), validation=rows(validation, start=100)))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "params", "said"),
    [
        ("miprov2", {"num_candidates": 5}, "If auto is not None"),
        ("miprov2", {"num_trials": 5}, "If auto is not None"),
        ("miprov2", {"auto": None}, "num_candidates must also be provided"),
        ("miprov2", {"auto": None, "num_candidates": 5}, "num_trials must also be provided"),
        ("miprov2", {"auto": None, "num_trials": 5}, "num_candidates must also be provided"),
        ("miprov2", {"max_bootstrapped_demos": 0}, "empty range"),
        ("gepa", {}, "Exactly one of"),
        ("gepa", {"auto": "light", "max_full_evals": 3}, "Exactly one of"),
    ],
)
def test_parameters_that_are_refused_together_are_refused_by_dspy(world, kind, params, said):
    with pytest.raises(BadRequestError):
        OptimizerSpec(kind=kind, params=params)
    unchecked = OptimizerSpec.model_construct(kind=kind, params=params)
    with pytest.raises(FailedError) as caught:
        world.optimise(world.spec(OptimizerSpec(kind="none")).model_copy(update={"optimizer": unchecked}))
    assert said in str(caught.value)


# Roles.


def wavering():
    """The same model, but right every second time where it would be wrong: SIMBA learns from such rows alone."""
    asked, lock = Counter(), threading.Lock()

    def reply(messages):
        said = learn(messages)
        if "something" not in said:
            return said
        word = last_input(messages, "message").split()[1]
        with lock:
            asked[word] += 1
            return chat(product=word) if asked[word] % 2 else said

    return reply


@pytest.mark.parametrize("kind", ["copro", "miprov2", "simba", "gepa"])
def test_a_prompt_writer_of_its_own_writes_the_instructions(world, kind):
    world.server.reply = wavering()
    with FakeOpenAI(learn) as writer:
        roles = world.roles.model_copy(
            update={"prompt": LMSpec(model="openai/writer", api_base=writer.base_url)}
        )
        engine = world.fresh(roles)
        # Without demos SIMBA has nothing but rules to try.
        params = {**SMALL.get(kind, {}), **({"max_demos": 0} if kind == "simba" else {})}
        spec = world.spec(OptimizerSpec(kind=kind, params=params)).model_copy(update={"lms": roles})
        world.optimise(spec, engine=engine)
        written = [
            prompt for prompt in writer.prompts() if "`product`" not in prompt.split("All interactions")[0]
        ]
        assert written
        assert len(written) == len(writer.requests)
        assert not [p for p in world.server.prompts() if "proposed_instruction" in p or "module_advice" in p]


# What GEPA reads.

OWN = """
def metric(example, prediction):
    return 0.25, f"Not {prediction['product']}! Look at the {example['message']}"
"""


def judging(messages):
    """A judge that wants the thing by its name; else the learner."""
    text = messages[-1]["content"]
    if "You judge" not in text:
        return learn(messages)
    return "The thing has a number.\nSCORE: 2" if "something" in text else "Fine.\nSCORE: 10"


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ({"kind": "exact_match"}, "Expected 'thing1', got 'something'."),
        ({"kind": "token_f1"}, None),
        ({"kind": "llm_judge"}, "The thing has a number."),
        (
            {"kind": "custom", "params": {"name": "mine"}},
            "Not something! Look at the My thing1 broke on Tuesday.",
        ),
    ],
)
def test_the_metrics_sentence_reaches_gepas_reflection(world, tmp_path, metric, said):
    folder = tmp_path / "home" / "metrics"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(OWN, encoding="utf-8")
    world.server.reply = judging
    with FakeOpenAI(learn) as writer:
        roles = world.roles.model_copy(
            update={"prompt": LMSpec(model="openai/writer", api_base=writer.base_url)}
        )
        engine = DspyEngine(
            roles,
            environment={},
            cache_folder=tmp_path / "cache",
            metric_files=FileMetrics(tmp_path / "home"),
        )
        optimizer = OptimizerSpec(kind="gepa", params={"max_metric_calls": 20})
        asked = world.spec(optimizer, metric=metric).model_copy(update={"lms": roles})
        world.optimise(asked, engine=engine)
        wrong = score_row(
            asked.metric, SIGNATURE, inputs={"message": TRAIN[1]["message"]}, expected=TRAIN[1],
            predicted={"product": "something"}, tools=engine.score_tools(),
        )  # fmt: skip
        reflections = "\n".join(writer.prompts())
    assert wrong.feedback == (said or wrong.feedback) != ""
    assert wrong.feedback in reflections


@pytest.mark.parametrize(
    "kind", ["bootstrap_few_shot_with_random_search", "knn_few_shot", "miprov2", "simba", "infer_rules"]
)
def test_a_teacher_of_its_own_makes_the_demos(world, kind):
    with FakeOpenAI(learn) as teacher:
        roles = world.roles.model_copy(
            update={"teacher": LMSpec(model="openai/teacher", api_base=teacher.base_url)}
        )
        engine = world.fresh(roles)
        spec = world.spec(OptimizerSpec(kind=kind, params=SMALL.get(kind, {}))).model_copy(
            update={"lms": roles}
        )
        live = world.optimise(spec, engine=engine)
        engine.predict(live, {"message": TEST[1]["message"]}, tags={})
        assert teacher.requests
        if kind == "knn_few_shot":
            assert engine.dump(live, spec.program, spec.optimizer, world.lm).roles().teacher == roles.teacher


# Failures.


def test_an_lm_that_refuses_a_prompt_writer_is_told_as_such(world):
    world.server.reply = lambda m: learn(m) if "`product`" in m[0]["content"] else Fault(401, "no such key")
    with pytest.raises(FailedError) as caught:
        world.optimise(world.spec(OptimizerSpec(kind="infer_rules", params=SMALL["infer_rules"])))
    assert caught.value.code == "engine.key_needed"


def test_an_optimizer_that_gives_up_is_named(world):
    world.server.reply = lambda m: "nothing of the kind" if len(world.server.requests) > 1 else learn(m)
    spec = world.spec(OptimizerSpec(kind="bootstrap_few_shot", params={"max_errors": 2}))
    with pytest.raises(FailedError) as caught:
        world.optimise(spec)
    assert caught.value.code == "optimizer.stopped"
    assert caught.value.values["optimizer"] == "BootstrapFewShot"


@pytest.mark.parametrize("kind", ["best_of_n", "refine"])
@pytest.mark.parametrize("attempts", [1, 2, 3])
def test_an_answer_that_no_attempt_could_read_is_the_models_mistake(world, kind, attempts):
    world.server.reply = lambda _messages: "I cannot help with that."
    live = world.engine.build(ProgramSpec(signature=SIGNATURE, module=module(kind, N=attempts)))
    for _ in range(5):  # DSPy's own count of failures would be used up by the earlier ones
        found = world.engine.predict(live, {"message": TEST[0]["message"]}, tags={})
        assert found.outputs is None
        assert "product" in found.error


@pytest.mark.parametrize("kind", ["best_of_n", "refine"])
def test_a_refusal_in_every_attempt_is_a_refusal(world, kind):
    world.server.reply = lambda _messages: Fault(401, "no")
    live = world.engine.build(ProgramSpec(signature=SIGNATURE, module=module(kind)))
    with pytest.raises(RefusedError):
        world.engine.predict(live, {"message": TEST[0]["message"]}, tags={})


# What a module does.


def test_best_of_n_tries_until_the_reward_is_high_enough(world):
    answers = iter(["nothing", "something", "thing7"])
    world.server.reply = lambda _messages: chat(product=next(answers))
    live = world.engine.build(
        ProgramSpec(signature=SIGNATURE, module=module("best_of_n", module="predict", N=5))
    )
    found = world.engine.predict(live, {"message": TEST[0]["message"]}, tags={})
    assert found.outputs == {"product": "thing7"}
    assert len(world.server.requests) == 3


def test_refine_gives_its_advice_to_the_next_attempt_and_says_what_is_rewarded(world):
    live = world.engine.build(ProgramSpec(signature=SIGNATURE, module=module("refine", module="predict")))
    found = world.engine.predict(live, {"message": TEST[1]["message"]}, tags={})
    assert found.outputs == {"product": TEST[1]["product"]}
    first, advice, second = world.server.prompts()
    assert "The metric 'regex' over all output fields" in advice
    assert "thing[0-9]" in advice
    assert LESSON not in first
    assert LESSON in second


def test_multi_chain_comparison_compares_its_own_attempts(world):
    live = world.engine.build(ProgramSpec(signature=SIGNATURE, module=module("multi_chain_comparison", M=2)))
    found = world.engine.predict(live, {"message": TEST[0]["message"]}, tags={})
    assert found.outputs == {"rationale": "They agree.", "product": TEST[0]["product"]}
    assert [request.get("temperature") for request in world.server.requests] == [0.7, 0.7, 0.7]
    assert world.server.prompts()[-1].count("my prediction is thing40") == 2


def test_the_nearest_rows_are_what_knn_shows(world):
    train = [
        {"message": f"My thing{i} broke on {'Monday' if i % 2 else 'the moon'}.", "product": f"thing{i}"}
        for i in range(10)
    ]
    params = {"k": 2, "max_bootstrapped_demos": 0}
    spec = world.spec(OptimizerSpec(kind="knn_few_shot", params=params))
    live = world.optimise(spec, train=train)
    found = world.engine.predict(live, {"message": "My thing77 broke on the moon."}, tags={})
    shown = [message.content for message in found.prompt if message.role == "user"][:-1]
    assert len(shown) == 2
    assert all("moon" in text for text in shown)
    used = world.engine.usage()
    assert used.embedding_calls == len(world.server.embedded) == 2, (
        "all training rows at once, then the question"
    )
    assert used.embedding_tokens == len(train) + 1
    assert used.lm_calls == 1
    kept = world.dump(live, spec)
    assert kept.format == 2
    assert len(kept.neighbours.rows) == 10
    assert "moon" not in json.dumps(kept.state)


def test_the_seed_reaches_the_optimizers_that_take_one(world, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        dspy.MIPROv2, "compile", lambda self, student, **_: seen.update(mipro=self.seed) or student
    )
    monkeypatch.setattr(
        dspy.GEPA, "compile", lambda self, student, **_: seen.update(gepa=self.seed) or student
    )
    monkeypatch.setattr(
        dspy.SIMBA, "compile", lambda _self, student, seed, **_: seen.update(simba=seed) or student
    )
    for kind, params in (("miprov2", {}), ("gepa", {"auto": "light"}), ("simba", {})):
        world.optimise(world.spec(OptimizerSpec(kind=kind, params=params), seed=77))
    assert seen == {"mipro": 77, "gepa": 77, "simba": 77}


def test_optimizers_keep_no_other_thread_count_than_ours(world, monkeypatch):
    seen = set()

    class Watched(dspy.Evaluate):
        def __init__(self, *, num_threads=None, **options):
            seen.add(num_threads)
            super().__init__(num_threads=num_threads, **options)

    for place in ("copro_optimizer", "random_search", "mipro_optimizer_v2", "infer_rules"):
        monkeypatch.setattr(f"dspy.teleprompt.{place}.Evaluate", Watched)
    for kind in ("copro", "bootstrap_few_shot_with_random_search", "miprov2", "infer_rules"):
        world.optimise(world.spec(OptimizerSpec(kind=kind, params=SMALL.get(kind, {})), threads=3))
    assert seen == {3}


def test_a_program_of_format_1_still_loads(world):
    document = json.loads((Path(__file__).parent / "data" / "program_format_1.json").read_text("utf-8"))
    program = CompiledProgram.from_json(json.dumps(document), where="here")
    engine = world.fresh(LMRoles(task=world.lm))
    found = engine.predict(engine.load(program), {"message": TEST[1]["message"]}, tags={})
    assert found.outputs == {"product": TEST[1]["product"]}
