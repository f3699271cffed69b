"""Scoring with the bundled model: as an embedder beside its chat, and as a judge."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.local_stack.local_lm import LocalLMServer
from dspyui.domain.lms import LOCAL_MODEL, EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec, score_row
from dspyui.domain.scores import cosine
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import FailedError, RefusedError
from dspyui.settings import Settings

pytestmark = pytest.mark.slow

SIGNATURE = SignatureSpec(inputs=(FieldSpec(name="question"),), outputs=(FieldSpec(name="answer"),))


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    server = LocalLMServer(Settings.load(env_file=folder / "none", environ={}, home=folder / "home"))
    try:
        yield server.ensure()
    finally:
        server.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory, address):
    return DspyEngine(
        LMRoles(task=LMSpec(max_tokens=60, temperature=0), embedder=EmbedderSpec(model=LOCAL_MODEL)),
        environment={},
        cache_folder=tmp_path_factory.mktemp("cache"),
        local_base_url=address,
    )


def test_one_server_answers_and_embeds(engine):
    tools = engine.score_tools()
    assert tools.judge("Say hello.").strip()
    lamp, light, war = tools.embed(
        ["The desk lamp is broken.", "My desk lamp does not work.", "Quarterly revenue fell by 3 percent."]
    )
    assert len(lamp) == 576
    assert cosine(lamp, light) > cosine(lamp, war)
    assert cosine(lamp, lamp) == pytest.approx(1)


def test_a_vector_is_the_same_whatever_is_embedded_beside_it(engine, address):
    texts = [f"The desk lamp number {n} is broken{' again' * n}." for n in range(12)]
    embed = engine.score_tools().embed
    with ThreadPoolExecutor(4) as threads:
        together = [
            vector for found in threads.map(embed, (texts[:6], texts[6:], texts[::2])) for vector in found
        ]
    url = f"{address}/embeddings"
    for text, vector in zip(texts, together[:12], strict=True):
        alone = httpx.post(url, json={"input": [text]}, timeout=60).json()["data"][0]["embedding"]
        assert cosine(vector, alone) == pytest.approx(1, abs=0.001)


EMBED = """
import json, sys
from pathlib import Path
from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.domain.lms import LOCAL_MODEL, EmbedderSpec, LMRoles, LMSpec

address, cache, texts = sys.argv[1:]
roles = LMRoles(task=LMSpec(), embedder=EmbedderSpec(model=LOCAL_MODEL))
engine = DspyEngine(roles, environment={}, cache_folder=Path(cache), local_base_url=address)
print(json.dumps(engine.score_tools().embed(json.loads(texts))))
"""


def embed_elsewhere(address, folder, texts):
    """The vectors that another process gets, with a cache of its own."""
    asked = [sys.executable, "-c", EMBED, address, str(folder / texts[0][:2]), json.dumps(texts)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=200, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_two_processes_that_embed_at_the_same_time_get_the_right_vectors(address, tmp_path):
    texts = [[f"{side}{n} The desk lamp is broken{' again' * n}." for n in range(25)] for side in "ab"]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(partial(embed_elsewhere, address, tmp_path), texts))
    for asked, vectors in zip(texts, found, strict=True):
        for text, vector in zip(asked, vectors, strict=True):
            reply = httpx.post(f"{address}/embeddings", json={"input": [text]}, timeout=60).json()
            assert cosine(vector, reply["data"][0]["embedding"]) == pytest.approx(1, abs=0.001)


def test_similarity_of_answers(engine):
    def similarity(answer):
        return score_row(
            MetricSpec(kind="similarity"),
            SIGNATURE,
            inputs={"question": "What is broken?"},
            expected={"answer": "the desk lamp is broken"},
            predicted={"answer": answer},
            tools=engine.score_tools(),
        ).value

    assert 0 <= similarity("revenue fell by 3 percent") < similarity("the desk lamp does not work") < 1


def test_a_text_too_long_for_it_is_an_error_that_says_so(engine):
    with pytest.raises(FailedError) as caught:
        engine.score_tools().embed(["word " * 600])
    assert not isinstance(caught.value, RefusedError)
    assert "too large" in str(caught.value)
