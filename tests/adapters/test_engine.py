"""The DSPy engine against a fake OpenAI-compatible server: what it sends, counts, traces, keeps and refuses."""

import json
import threading

import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.domain.compiles import CompileSpec, Usage
from dspyui.domain.lms import LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram, ModuleSpec, ProgramSpec
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import BadRequestError, FailedError, RefusedError
from tests.fake_openai import FakeOpenAI, Fault, chat, last_input

SIGNATURE = SignatureSpec(
    instructions="Name the product.",
    inputs=(FieldSpec(name="message"),),
    outputs=(FieldSpec(name="product", description="lower case"),),
)
ROWS = [{"message": f"My thing{i} broke.", "product": f"thing{i}"} for i in range(8)]


def reply(messages):
    word = last_input(messages, "message").split()[1]
    asked = messages[0]["content"]
    return chat(reasoning="Because.", product=word) if "`reasoning`" in asked else chat(product=word)


@pytest.fixture
def server():
    with FakeOpenAI(reply) as fake:
        yield fake


@pytest.fixture
def make(tmp_path, server):
    def make(environment=None, **lm):
        spec = LMSpec(**{"model": "openai/fake", "api_base": server.base_url, "num_retries": 0, **lm})
        return DspyEngine(LMRoles(task=spec), environment=environment or {}, cache_folder=tmp_path / "cache")

    return make


def program(kind="predict"):
    return ProgramSpec(name="p", signature=SIGNATURE, module=ModuleSpec(kind=kind))


def compile_spec(optimizer, kind="predict"):
    return CompileSpec(program=program(kind), optimizer=optimizer, data={"rows": ROWS})


def predict_all(engine, live, rows):
    found = {}
    engine.predict_all(live, rows, threads=4, tags={"t": "1"}, on_done=found.__setitem__)
    return [found[i] for i in range(len(rows))]


@pytest.mark.parametrize("kind", ["predict", "chain_of_thought"])
def test_predicts_and_counts_and_keeps_cache_hits_apart(make, server, kind):
    engine = make()
    live = engine.build(program(kind))
    inputs = [{"message": row["message"]} for row in ROWS]
    first = predict_all(engine, live, inputs)
    assert [p.outputs["product"] for p in first] == [row["product"] for row in ROWS]
    once = engine.usage()
    assert (once.lm_calls, once.lm_cache_hits) == (8, 0)
    assert once.output_tokens > 0
    again = predict_all(engine, live, inputs)
    assert [p.outputs for p in again] == [p.outputs for p in first]
    twice = engine.usage()
    assert twice == once + Usage(lm_cache_hits=8)
    assert len(server.requests) == 8


def test_servers_that_call_their_models_alike_do_not_answer_for_each_other(make, server):
    with FakeOpenAI(lambda _m: chat(product="another")) as other:
        for address, product in ((server.base_url, "lamp"), (other.base_url, "another")):
            engine = make(api_base=address)
            found = engine.predict(engine.build(program()), {"message": "My lamp broke."}, tags={})
            assert found.outputs == {"product": product}


def test_another_timeout_asks_for_nothing_anew(make, server):
    for timeout in (100, 200):
        engine = make(timeout=timeout)
        engine.predict(engine.build(program()), {"message": "My lamp broke."}, tags={})
    assert len(server.requests) == 1


def test_cache_off_asks_again(make, server):
    engine = make(cache=False)
    live = engine.build(program())
    for _ in range(2):
        engine.predict(live, {"message": "My lamp broke."}, tags={})
    assert engine.usage().lm_calls == len(server.requests) == 2


def test_a_trace_has_the_call_inside_the_module_with_its_tokens(make):
    engine = make()
    found = engine.predict(
        engine.build(program("chain_of_thought")), {"message": "My lamp broke."}, tags={"a": "b"}
    )
    root, *rest = found.trace.spans
    assert root.parent_id is None
    assert root.name == "ChainOfThought"
    assert root.inputs == {"message": "My lamp broke."}
    assert root.outputs == {"reasoning": "Because.", "product": "lamp"}
    known = {span.span_id for span in found.trace.spans}
    assert all(span.parent_id in known for span in rest)
    (call,) = [span for span in rest if span.kind == "LLM"]
    assert call.usage == engine.usage()
    assert found.trace.tags == {"a": "b"}
    assert found.prompt[0].role == "system"
    assert "Name the product." in found.prompt[0].content


def test_a_reply_that_cannot_be_read_is_the_models_mistake(make, server):
    server.reply = lambda _messages: "I cannot help with that."
    engine = make()
    found = engine.predict(engine.build(program()), {"message": "My lamp broke."}, tags={})
    assert found.outputs is None
    assert "product" in found.error


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "engine.auth"),
        (429, "engine.rate_limit"),
        (500, "engine.server"),
        (400, "engine.invalid_request"),
    ],
)
def test_a_failure_of_the_lm_is_an_error_without_the_key(make, server, status, code):
    key = "sk-canary-0123456789"
    server.reply = lambda _messages: Fault(status, f"no: {key}")
    engine = make(environment={"MY_KEY": key}, api_key_env="MY_KEY")
    live = engine.build(program())
    with pytest.raises(FailedError) as caught:
        engine.predict(live, {"message": "My lamp broke."}, tags={})
    assert caught.value.code == code
    assert key not in str(caught.value)
    assert "***" in str(caught.value)
    assert server.keys[0] == f"Bearer {key}"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_at_one_row_comes_back_with_it(make, server, status):
    server.reply = lambda m: Fault(status, "busy") if "thing1" in m[-1]["content"] else reply(m)
    engine = make()
    found = predict_all(engine, engine.build(program()), [{"message": row["message"]} for row in ROWS[:3]])
    assert [p.outputs and p.outputs["product"] for p in found] == ["thing0", None, "thing2"]
    failure = found[1].failure
    assert failure is not None
    assert failure.code in {"engine.rate_limit", "engine.server"}
    assert not isinstance(failure, RefusedError)
    assert found[1].trace.spans[0].error
    assert found[1].prompt


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_model_that_refuses_ends_it(make, server, status):
    server.reply = lambda _messages: Fault(status, "no")
    engine = make()
    with pytest.raises(RefusedError):
        predict_all(engine, engine.build(program()), [{"message": "My lamp broke."}] * 3)


@pytest.mark.parametrize("temperature", [None, 0.0, 1.0])
def test_a_repeat_asks_again_whatever_the_cache_knows(make, server, temperature):
    engine = make(temperature=temperature)
    live = engine.build(program())
    done = {}
    for repeat in range(3):
        engine.predict_all(
            live, [{"message": "My lamp broke."}], threads=1, tags={}, on_done=done.__setitem__, repeat=repeat
        )
    assert len(server.requests) == engine.usage().lm_calls == 3
    assert not any("rollout_id" in request for request in server.requests)


def test_no_server_there(make):
    engine = make(api_base="http://127.0.0.1:9/v1")
    with pytest.raises(FailedError) as caught:
        engine.predict(engine.build(program()), {"message": "x y"}, tags={})
    assert caught.value.code == "engine.transport"


def test_a_providers_key_is_not_sent_to_another_address(make, server):
    engine = make(environment={"OPENAI_API_KEY": "sk-canary-0123456789"})
    engine.predict(engine.build(program()), {"message": "My lamp broke."}, tags={})
    assert "canary" not in server.keys[0]


def test_an_unset_key_variable_is_named(make):
    with pytest.raises(BadRequestError) as caught:
        make(api_key_env="NOT_SET")
    assert "NOT_SET" in str(caught.value)


def test_optimizer_parameters_reach_dspy(make):
    engine = make()
    spec = compile_spec(OptimizerSpec(kind="labeled_few_shot", params={"k": 3}))
    optimised = engine.optimise(engine.build(spec.program), spec, train=ROWS, validation=[])
    assert [len(p.demos) for p in optimised.predictors()] == [3]
    spec = compile_spec(
        OptimizerSpec(kind="bootstrap_few_shot", params={"max_bootstrapped_demos": 2, "max_labeled_demos": 5})
    )
    optimised = engine.optimise(engine.build(spec.program), spec, train=ROWS, validation=[])
    (predictor,) = optimised.predictors()
    assert [bool(demo.get("augmented")) for demo in predictor.demos] == [True, True, False, False, False]


def test_a_teacher_of_its_own_does_the_bootstrapping(tmp_path, server):
    with FakeOpenAI(reply) as teacher:
        roles = LMRoles(
            task=LMSpec(model="openai/student", api_base=server.base_url),
            teacher=LMSpec(model="openai/teacher", api_base=teacher.base_url),
        )
        engine = DspyEngine(roles, environment={}, cache_folder=tmp_path)
        spec = compile_spec(OptimizerSpec(params={"max_bootstrapped_demos": 2, "max_labeled_demos": 2}))
        engine.optimise(engine.build(spec.program), spec, train=ROWS, validation=[])
        assert len(teacher.requests) == 2
        assert server.requests == []


def test_a_state_of_another_signature_is_refused(make):
    engine = make()
    kept = engine.dump(engine.build(program()), program(), OptimizerSpec(kind="none"), LMSpec())
    document = json.loads(kept.to_json())
    document["spec"]["signature"]["outputs"][0]["type"] = "int"
    with pytest.raises(BadRequestError) as caught:
        CompiledProgram.model_validate(document)
    assert caught.value.code == "program.digest"


def test_lm_errors_that_an_optimizer_passes_over_are_counted(make, server):
    server.reply = lambda m: Fault(400, "no") if "thing3" in m[-1]["content"] else reply(m)
    engine = make()
    spec = compile_spec(OptimizerSpec(params={"max_bootstrapped_demos": 8, "max_labeled_demos": 0}))
    engine.optimise(engine.build(spec.program), spec, train=ROWS, validation=[])
    assert engine.lm_errors() == 1


def test_metric_spec_is_what_the_optimizer_asks(make, server):
    server.reply = lambda m: chat(product="THE Thing0." if "thing0" in m[-1]["content"] else "wrong")
    engine = make()
    for normalise, demos in ((True, 1), (False, 0)):
        spec = compile_spec(OptimizerSpec(params={"max_labeled_demos": 0})).model_copy(
            update={"metric": MetricSpec(params={"normalise": normalise})}
        )
        optimised = engine.optimise(engine.build(spec.program), spec, train=ROWS, validation=[])
        assert [len(p.demos) for p in optimised.predictors()] == [demos]


@pytest.mark.parametrize("kind", ["labeled_few_shot", "bootstrap_few_shot"])
def test_the_seed_decides_which_rows_become_demos(make, kind):
    engine = make()
    found = {}
    for seed in (0, 0, 1, 2, 3):
        spec = compile_spec(OptimizerSpec(kind=kind)).model_copy(update={"seed": seed})
        optimised = engine.optimise(engine.build(spec.program), spec, train=ROWS, validation=[])
        demos = tuple(demo["product"] for p in optimised.predictors() for demo in p.demos)
        assert found.setdefault(seed, demos) == demos
    assert len(set(found.values())) > 1


# Every role's settings, as its own server meets them.


def ask_the_task(engine, _on_error):
    engine.predict(engine.build(program()), {"message": "My lamp broke."}, tags={})


def optimising(optimizer):
    """The optimizer asks the role; three rows are enough for it."""

    def ask(engine, on_error):
        spec = compile_spec(optimizer)
        engine.optimise(engine.build(spec.program), spec, train=ROWS[:3], validation=[], on_error=on_error)

    return ask


def ask_the_judge(engine, _on_error):
    engine.score_tools().judge("Say it.")


ASK = {
    "task": ask_the_task,
    "prompt": optimising(OptimizerSpec(kind="gepa", params={"max_metric_calls": 7})),
    "teacher": optimising(OptimizerSpec(params={"max_labeled_demos": 0})),
    "judge": ask_the_judge,
}


@pytest.fixture(params=ASK)
def own(request):
    """The server of a model that plays one role; `own.role` says which."""
    with FakeOpenAI(lambda _messages: chat(product="thing0")) as made:
        made.role = request.param
        yield made


@pytest.fixture
def ask(own, server, tmp_path):
    """Has the model asked in its role by a fresh engine; gives the codes of what failed."""
    server.reply = lambda _messages: chat(
        product="wrong"
    )  # so that there is something to write a prompt about

    def ask(**settings):
        spec = LMSpec(**{"model": "openai/own", "api_base": own.base_url, "num_retries": 0, **settings})
        task = LMSpec(model="openai/fake", api_base=server.base_url)
        engine = DspyEngine(
            LMRoles(**{"task": task, own.role: spec}), environment={}, cache_folder=tmp_path / "cache"
        )
        failed = []
        try:
            ASK[own.role](engine, failed.append)
        except FailedError as exc:
            failed.append(exc)
        return {error.code for error in failed}

    return ask


def test_a_roles_temperature_and_longest_reply_reach_its_server(own, ask):
    assert ask(temperature=0.3, max_tokens=33) == set()
    assert {(body["temperature"], body["max_tokens"]) for body in own.requests} == {(0.3, 33)}
    own.requests.clear()
    assert ask() == set()
    assert own.requests, "other settings, another request"
    assert not [body for body in own.requests if {"temperature", "max_tokens"} & set(body)]


@pytest.mark.parametrize("cache", [True, False])
def test_a_roles_replies_are_kept_or_asked_for_again(own, ask, cache):
    ask(cache=cache)
    first = len(own.requests)
    assert first > 0
    ask(cache=cache)
    assert len(own.requests) == (first if cache else 2 * first)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_role_is_tried_again_as_often_as_it_says(own, ask, waits, retries):
    own.reply = lambda _messages: Fault(503, "busy")
    assert ask(num_retries=retries) == {"engine.server"}
    calls, left = divmod(len(own.requests), 1 + retries)
    assert (calls > 0, left) == (True, 0)
    assert waits == [1, 2][:retries] * calls


def test_a_role_is_waited_for_no_longer_than_it_says(own, ask):
    own.hold(after=0)
    assert ask(timeout=0.1) == {"engine.timeout"}
    assert own.requests


def test_so_many_calls_are_made_at_once(make, server):
    together, lock, asking = threading.Barrier(3), threading.Lock(), []

    def reply_together(messages):
        with lock:
            asking.append(len(server.requests) - len(server.spent))
        together.wait(30)
        return reply(messages)

    server.reply = reply_together
    engine = make()
    found = {}
    inputs = [{"message": row["message"]} for row in ROWS[:6]]
    engine.predict_all(engine.build(program()), inputs, threads=3, tags={}, on_done=found.__setitem__)
    assert [found[i].outputs["product"] for i in range(6)] == [row["product"] for row in ROWS[:6]]
    assert max(asking) <= 3
