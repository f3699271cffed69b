"""What calls cost: by the prices that come with DSPy, without the network; unknown is not zero."""

import json

import pytest
from dspy.clients.model_metadata import model_info

from dspyui.adapters.dspy_engine import lms
from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.dspy_engine.lms import PricedLM, to_dspy
from dspyui.domain.compiles import Usage
from dspyui.domain.lms import LOCAL_MODEL, EmbedderSpec, LMRoles, LMSpec
from dspyui.errors import FailedError
from tests.adapters.test_engine import program, reply
from tests.fake_openai import FakeOpenAI, Fault

MODEL = "gpt-4o-mini"


def listed(tokens_in: int, tokens_out: int) -> float:
    price = model_info("openai", MODEL)
    return tokens_in * price["input_cost_per_token"] + tokens_out * price["output_cost_per_token"]


@pytest.fixture
def engine(tmp_path):
    """An engine whose task LM asks the fake server but is priced as it says."""

    def make(server, price="listed", **spec):
        given = {"model": f"openai/{MODEL}", "api_base": server.base_url, "num_retries": 0, **spec}
        made = DspyEngine(LMRoles(task=LMSpec(**given)), environment={}, cache_folder=tmp_path / "cache")
        made._task["lm"].price = price
        return made

    return make


def test_calls_are_priced_by_the_list_and_cache_hits_are_free(engine):
    with FakeOpenAI(reply) as server:
        made = engine(server)
        live = made.build(program())
        for name in ("lamp", "fan", "lamp"):
            made.predict(live, {"message": f"My {name} broke."}, tags={})
    used = made.usage()
    assert (used.lm_calls, used.lm_cache_hits) == (2, 1)
    assert used.cost == pytest.approx(listed(used.input_tokens, used.output_tokens))
    assert used.cost > 0


def test_a_hit_counts_for_the_engine_that_has_asked(engine):
    """A worker has one for each batch it helps with; DSPy has one cache for all."""
    with FakeOpenAI(reply) as server:
        first, second = engine(server), engine(server)
        live = first.build(program())
        for _ in range(2):
            first.predict(live, {"message": "My lamp broke."}, tags={})
    assert (first.usage().lm_calls, first.usage().lm_cache_hits) == (1, 1)
    assert second.usage() == Usage()


def test_a_model_that_is_not_listed_is_looked_for_once(engine):
    """Where DSPy looks it up; it does so twice a call, and reads the whole list each time."""
    lms._info.cache_clear()
    with FakeOpenAI(reply) as server:
        made = engine(server, model="openai/not-listed-1")
        live = made.build(program())
        for name in ("lamp", "fan", "clock"):
            made.predict(live, {"message": f"My {name} broke."}, tags={})
    found = lms._info.cache_info()
    assert found.hits >= 2
    assert found.misses <= 2
    assert made.usage().cost is None


def test_a_server_of_ones_own_has_no_price_though_it_takes_a_providers_name(tmp_path):
    with FakeOpenAI(reply) as server:
        lm = LMSpec(model=f"openai/{MODEL}", api_base=server.base_url)
        made = DspyEngine(LMRoles(task=lm), environment={}, cache_folder=tmp_path)
        made.predict(made.build(program()), {"message": "My lamp broke."}, tags={})
    assert made.usage().lm_calls == 1
    assert made.usage().cost is None


def test_a_model_without_a_price_costs_an_unknown_amount(engine):
    with FakeOpenAI(reply) as server:
        made = engine(server, model="openai/nobody-has-heard-of-it")
        made.predict(made.build(program()), {"message": "My lamp broke."}, tags={})
    assert made.usage().cost is None


def test_the_bundled_model_costs_nothing():
    from dspyui.adapters.dspy_engine.lms import register_local

    register_local("http://127.0.0.1:9/v1")
    made = to_dspy(LMSpec(model=LOCAL_MODEL), {})
    assert isinstance(made, PricedLM)
    assert made.price == "free"
    assert made.copy(temperature=1.0).price == "free"  # optimizers work with copies


def test_no_history_is_kept(engine):
    with FakeOpenAI(reply) as server:
        made = engine(server)
        made.predict(made.build(program()), {"message": "My lamp broke."}, tags={})
    from dspy.clients.base_lm import GLOBAL_HISTORY

    assert made._task["lm"].history == []
    assert not [entry for entry in GLOBAL_HISTORY if entry["model"] == f"openai/{MODEL}"]


# Embeddings are counted apart.

EMBEDDER = "text-embedding-3-small"


@pytest.mark.parametrize(
    ("embedder", "cost"),
    [
        ({"model": f"openai/{EMBEDDER}"}, "listed"),
        ({"model": f"openai/{EMBEDDER}", "api_base": "server"}, None),
        ({"model": "openai/nobody-has-heard-of-it", "api_base": "server"}, None),
        ({"model": LOCAL_MODEL}, 0.0),
    ],
)
def test_embeddings_are_counted_and_priced_apart(tmp_path, monkeypatch, embedder, cost):
    with FakeOpenAI(reply) as server:
        # Where the provider's own address would be asked.
        monkeypatch.setenv("OPENAI_API_BASE", server.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
        spec = EmbedderSpec(**embedder | ({"api_base": server.base_url} if "api_base" in embedder else {}))
        made = DspyEngine(
            LMRoles(task=LMSpec(model="openai/fake", api_base=server.base_url), embedder=spec),
            environment={},
            cache_folder=tmp_path / "cache",
            local_base_url=server.base_url,
        )
        tools = made.score_tools()
        for text in ("a lamp", "a fan", "a lamp"):
            tools.embed([text])
        assert len(server.embedded) == 2
    used = made.usage()
    assert (used.embedding_calls, used.embedding_tokens) == (2, 2), "what the cache knew is no call"
    assert (used.lm_calls, used.lm_cache_hits, used.total_tokens) == (0, 0, 0)
    price = model_info("openai", EMBEDDER)["input_cost_per_token"]
    assert used.cost == (pytest.approx(2 * price) if cost == "listed" else cost)


def test_an_embedder_that_failed_was_asked_and_has_no_known_price(tmp_path):
    with FakeOpenAI(reply) as server:
        server.embed_fault = Fault(400, "no")
        lm = LMSpec(model="openai/fake", api_base=server.base_url)
        embedder = EmbedderSpec(model="openai/words", api_base=server.base_url)
        made = DspyEngine(LMRoles(task=lm, embedder=embedder), environment={}, cache_folder=tmp_path)
        with pytest.raises(FailedError):
            made.score_tools().embed(["a lamp"])
    assert made.usage() == Usage(embedding_calls=1)


@pytest.mark.parametrize(
    ("one", "other", "cost"),
    [
        (Usage(lm_calls=1, cost=0.5), Usage(embedding_calls=1, cost=0.25), 0.75),
        (Usage(lm_calls=1, cost=0.5), Usage(embedding_calls=1), None),
        (Usage(embedding_calls=1), Usage(), None),
        (Usage(), Usage(), 0.0),
        (Usage(lm_calls=1, cost=0.5), Usage(lm_calls=1, cost=0.25), 0.75),
        (Usage(lm_calls=1, cost=0.5), Usage(), 0.5),
        (Usage(), Usage(lm_calls=1, cost=0.5), 0.5),
        (Usage(lm_calls=1, cost=0.5), Usage(lm_cache_hits=3), 0.5),
        (Usage(lm_calls=1, cost=0.5), Usage(lm_calls=1), None),
        (Usage(lm_calls=1), Usage(lm_calls=1, cost=0.5), None),
    ],
)
def test_a_sum_is_known_when_every_part_is(one, other, cost):
    assert (one + other).cost == cost


def test_a_usage_of_an_earlier_version_has_no_known_cost():
    assert Usage.model_validate(json.loads('{"lm_calls": 3, "input_tokens": 9}')).cost is None
