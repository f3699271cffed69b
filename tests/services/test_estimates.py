"""What is told of a compile before it starts, held against what it then does on a fake server."""

import pytest
from dspy.clients.model_metadata import model_info

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.dspy_engine.prices import ListedPrices
from dspyui.adapters.files.artifacts import FileArtifactWriter
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.programs import FileProgramStore
from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.estimates import Price, mean_tokens, tokens_of
from dspyui.domain.optimizers import OPTIMIZERS
from dspyui.domain.programs import MODULES
from dspyui.domain.providers import PROVIDERS
from dspyui.services.compile import CompileRun
from dspyui.services.data import DataService
from dspyui.services.estimates import estimate
from dspyui.services.lms import LMService
from dspyui.settings import Settings
from tests.api.world import EchoTester
from tests.fake_openai import FakeOpenAI, chat
from tests.learner import SIGNATURE, learn, rows

ROWS = rows(24)
# Enough to run, and little enough for a test.
SMALL = {
    "bootstrap_few_shot": {"max_rounds": 2},
    "bootstrap_few_shot_with_random_search": {"num_candidate_programs": 2},
    "copro": {"breadth": 3, "depth": 2},
    "simba": {"bsize": 4, "max_steps": 2, "num_candidates": 3},
    "gepa": {"max_metric_calls": 40},
    "infer_rules": {"num_candidates": 2},
}
MANUAL = {
    "auto": None,
    "num_candidates": 4,
    "num_trials": 7,
    "minibatch_size": 3,
    "minibatch_full_eval_steps": 2,
}
NO_VALIDATION = {"train": 0.7, "validation": 0, "test": 0.3}
REWARD = {"kind": "regex", "params": {"pattern": "thing[0-9]"}}


def never(messages):
    """A model that learns nothing, so that every attempt is made."""
    said = learn(messages)
    return chat(product="nothing", reasoning="It is named.", rationale="-") if "thing" in said else said


def spec(server, optimizer, *, module="predict", **more):
    reward = {"reward": REWARD} if MODULES[module].rewards else {}
    lm = {"model": "openai/fake", "api_base": server.base_url, "num_retries": 0}
    document = {
        "program": {"name": "p", "signature": SIGNATURE, "module": {"kind": module, **reward}},
        "lms": {"task": lm, "embedder": {"model": "openai/words", "api_base": server.base_url}},
        "optimizer": optimizer,
        "data": {"rows": ROWS},
        **more,
    }
    return CompileSpec.model_validate(document)


@pytest.fixture
def told(tmp_path):
    """What is told of a spec, and what compiling it then uses."""

    def both(spec):
        data = DataService(FileTableReader(max_bytes=10**6), FileUploadStore(tmp_path))
        lms = LMService(Settings.load(tmp_path / "no.env", {}), EchoTester(), ListedPrices())
        before = estimate(spec, data.preview(spec.program.signature, spec.data), lms)
        store = FileJobStore(tmp_path / "data")
        job = store.create(spec, ROWS, title="t", who="tester")
        store.update(job.id, lambda job: job.model_copy(update={"status": "running", "attempt": 1}))
        engine = DspyEngine(spec.lms, environment={}, cache_folder=tmp_path / "cache")
        result = CompileRun(
            job.id,
            jobs=store,
            programs=FileProgramStore(tmp_path / "data"),
            artifacts=FileArtifactWriter(store),
            engine=engine,
            eval_sink=None,
        ).run()
        return before, result.usage

    return both


@pytest.mark.slow
@pytest.mark.parametrize(("reply", "split"), [(learn, {}), (never, {}), (never, NO_VALIDATION)])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_no_optimizer_makes_more_calls_than_was_told(told, kind, reply, split):
    with FakeOpenAI(reply) as server:
        optimizer = {"kind": kind, "params": SMALL.get(kind, {})}
        before, usage = told(spec(server, optimizer, data={"rows": ROWS, "split": split}, repeats=2))
        asked = len(server.requests)
    assert usage.lm_calls == asked
    assert asked <= before.asked.calls
    # A bound that is far off would say nothing.
    assert before.asked.calls <= 4 * (asked + usage.lm_cache_hits)
    if kind in {"none", "labeled_few_shot"}:
        assert before.asked.calls == asked + usage.lm_cache_hits


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["miprov2", "gepa", "simba"])
def test_budgets_set_by_hand_are_kept_to(told, kind):
    params = {
        "miprov2": MANUAL,
        "gepa": {"max_full_evals": 3, "component_selector": "all"},
        "simba": {"bsize": 3, "max_steps": 4, "num_candidates": 2, "max_demos": 0},
    }[kind]
    with FakeOpenAI(never) as server:
        before, usage = told(spec(server, {"kind": kind, "params": params}))
    assert usage.lm_calls <= before.asked.calls <= 4 * (usage.lm_calls + usage.lm_cache_hits)


@pytest.mark.parametrize(
    ("module", "optimizer"),
    [
        *((module, "none") for module in MODULES),
        pytest.param("refine", "bootstrap_few_shot", marks=pytest.mark.slow),
        pytest.param("multi_chain_comparison", "copro", marks=pytest.mark.slow),
    ],
)
def test_a_module_that_asks_several_times_is_counted_so(told, module, optimizer):
    with FakeOpenAI(never) as server:
        before, usage = told(
            spec(server, {"kind": optimizer, "params": SMALL.get(optimizer, {})}, module=module)
        )
    assert usage.lm_calls <= before.asked.calls
    if optimizer == "none":
        assert usage.lm_calls == before.asked.calls


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bootstrap_few_shot", "gepa"])
def test_a_judge_is_counted_at_every_score(told, kind):
    def judge(messages):
        return "Fair.\nSCORE: 5" if "You judge the answer" in messages[-1]["content"] else learn(messages)

    with FakeOpenAI(judge) as server:
        before, usage = told(
            spec(server, {"kind": kind, "params": SMALL.get(kind, {})}, metric={"kind": "llm_judge"})
        )
    assert usage.lm_calls <= before.asked.calls


@pytest.mark.parametrize("module", ["predict", "chain_of_thought"])
def test_tokens_are_about_right(told, module):
    with FakeOpenAI(learn) as server:
        before, usage = told(spec(server, {"kind": "labeled_few_shot"}, module=module))
        sent = sum(tokens_of(prompt) for prompt in server.prompts())
    assert usage.lm_calls == before.asked.calls
    assert sent / 1.5 < before.asked.input_tokens < sent * 1.5


def test_chinese_is_counted_by_the_character():
    assert tokens_of("中文四字") == 4
    assert tokens_of("four") == 1
    assert mean_tokens([{"a": "中文"}, {"a": "abcd" * 4}, {"a": None}]) == {"a": 2.0}
    assert mean_tokens([]) == {}


# Prices.


def test_prices_are_those_that_dspy_works_with():
    prices = ListedPrices()
    known = 0
    for provider in PROVIDERS.values():
        for model in provider.models:
            theirs = model_info(provider.name, model.partition("/")[2])
            found = prices.find(model)
            if found is not None:
                known += 1
                assert found.input == theirs["input_cost_per_token"]
                assert found.output == theirs["output_cost_per_token"]
    assert known >= 15
    assert prices.find("openai/no-such-model") is None
    assert prices.find("nobody/gpt-4.1-mini") is None


def priced(tmp_path, **lms):
    made = LMService(Settings.load(tmp_path / "no.env", {}), EchoTester(), ListedPrices())
    document = {
        "program": {"name": "p", "signature": SIGNATURE},
        "lms": lms,
        "optimizer": {"kind": "copro"},
        "data": {"rows": ROWS},
    }
    asked = CompileSpec.model_validate(document)
    data = DataService(FileTableReader(max_bytes=10**6), FileUploadStore(tmp_path))
    return made, estimate(asked, data.preview(asked.program.signature, asked.data), made)


def test_the_cost_is_known_only_when_every_price_is(tmp_path):
    _, free = priced(tmp_path)
    assert free.cost == 0.0
    lms, paid = priced(tmp_path, task={"model": "openai/gpt-4.1-mini"})
    price = lms.price(CompileSpec.model_validate({
        "program": {"name": "p", "signature": SIGNATURE},
        "lms": {"task": {"model": "openai/gpt-4.1-mini"}}, "data": {"rows": ROWS},
    }).lms.task)  # fmt: skip
    assert isinstance(price, Price)
    expected = paid.asked.input_tokens * price.input + paid.asked.output_tokens * price.output
    assert paid.cost == pytest.approx(expected)
    assert paid.cost > 0
    unknown = {"model": "openai/gpt-4.1-mini", "api_base": "http://127.0.0.1:1/v1"}
    assert priced(tmp_path, task={"model": "openai/gpt-4.1-mini"}, prompt=unknown)[1].cost is None
    # A role that is asked nothing costs nothing.
    assert priced(tmp_path, task={"model": "openai/gpt-4.1-mini"}, judge=unknown)[1].cost == paid.cost
