"""What metrics ask the engine for, against a fake OpenAI server: the judge, the embedder, people's own metrics."""

import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.dspy_engine.scoring import EMBED_BATCH
from dspyui.adapters.files.metrics import FileMetrics
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec, score_row
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import BadRequestError, FailedError, NotFoundError, RefusedError
from tests.fake_openai import FakeOpenAI, Fault, word_counts

SIGNATURE = SignatureSpec(inputs=(FieldSpec(name="message"),), outputs=(FieldSpec(name="product"),))
KEY = "sk-canary-0123456789"


@pytest.fixture
def server():
    with FakeOpenAI(lambda _messages: "It is right.\nSCORE: 8") as fake:
        yield fake


@pytest.fixture
def make(tmp_path, server):
    def make(environment=None, files=None, **roles):
        task = LMSpec(model="openai/task", api_base=server.base_url, num_retries=0)
        return DspyEngine(
            LMRoles(task=task, **roles),
            environment=environment or {},
            cache_folder=tmp_path / "cache",
            metric_files=files,
        )

    return make


def score(engine, metric, predicted="a lamp", expected="the lamp"):
    return score_row(
        metric,
        SIGNATURE,
        inputs={"message": "My lamp broke."},
        expected={"product": expected},
        predicted={"product": predicted},
        tools=engine.score_tools(),
    )


def test_the_judge_is_the_task_model_unless_there_is_one(make, server):
    judge = LMSpec(model="openai/judge", api_base=server.base_url, num_retries=0, temperature=0.5)
    for roles, model in (({}, "task"), ({"judge": judge}, "judge")):
        engine = make(**roles)
        found = score(engine, MetricSpec(kind="llm_judge"))
        assert (found.value, found.feedback) == (0.8, "It is right.")
        assert server.requests[-1]["model"] == model
        assert engine.usage().lm_calls == 1
        assert engine.usage().output_tokens > 0
    assert server.requests[-1]["temperature"] == 0.5
    assert [message["role"] for message in server.requests[-1]["messages"]] == ["user"]


def test_the_judge_is_asked_once_for_the_same_answer_and_anew_in_a_repeat(make, server):
    engine = make()
    for _ in range(2):
        engine.score_tools().judge("How good?")
    assert (engine.usage().lm_calls, engine.usage().lm_cache_hits) == (1, 1)
    engine.score_tools(repeat=1).judge("How good?")
    assert engine.usage().lm_calls == len(server.requests) == 2


def test_half_a_character_of_a_judge_does_no_harm(make, server):
    server.reply = lambda _messages: "Well \ud83d.\nSCORE: 5"
    assert score(make(), MetricSpec(kind="llm_judge")).feedback == "Well ?."


@pytest.mark.parametrize(("status", "code"), [(429, "engine.rate_limit"), (500, "engine.server")])
def test_a_judge_that_fails_is_a_score_that_is_missing(make, server, status, code):
    server.reply = lambda _messages: Fault(status, "busy")
    found = score(make(), MetricSpec(kind="llm_judge"))
    assert (found.is_scored, [problem.code for problem in found.problems]) == (False, [code])


def test_a_judge_that_refuses_ends_it(make, server):
    server.reply = lambda _messages: Fault(401, "no")
    with pytest.raises(RefusedError):
        score(make(), MetricSpec(kind="llm_judge"))


def embedder(server, **fields):
    return EmbedderSpec(**{"model": "openai/embed", "api_base": server.base_url, **fields})


def test_embeddings_come_from_the_embedder_and_each_text_is_asked_once(make, server):
    engine = make(embedder=embedder(server))
    found = score(engine, MetricSpec(kind="similarity"), predicted="red lamp", expected="lamp")
    assert found.value == pytest.approx(2**-0.5)
    assert score(engine, MetricSpec(kind="similarity"), predicted="chair", expected="lamp").value == 0.0
    assert [body["input"] for body in server.embedded] == [["lamp", "red lamp"], ["chair"]]
    assert {body["model"] for body in server.embedded} == {"embed"}
    assert engine.score_tools().embed(["red lamp"]) == [word_counts("red lamp")]


def test_many_texts_are_few_requests_and_each_comes_back_to_its_own(make, server):
    texts = [f"{'word ' * (number % 5 + 1)}{number}" for number in range(EMBED_BATCH * 2 + 3)]
    engine = make(embedder=embedder(server))
    tools = engine.score_tools()
    assert tools.embed([texts[5]]) == [word_counts(texts[5])]
    asked = [*texts, texts[7], texts[5]]
    assert tools.embed(asked) == [word_counts(text) for text in asked]
    batches = [body["input"] for body in server.embedded]
    assert [len(batch) for batch in batches] == [1, EMBED_BATCH, EMBED_BATCH, 2]
    assert sorted(text for batch in batches for text in batch) == sorted(texts), "each text is asked once"
    assert engine.usage().embedding_calls == len(batches)
    assert engine.usage().embedding_tokens == len(texts)
    assert tools.embed([]) == []


def test_what_was_embedded_before_a_failure_is_not_asked_again(make, server):
    texts = [f"word {number}" for number in range(EMBED_BATCH + 1)]
    server.embed_answer = lambda data: data if len(server.embedded) == 1 else []
    with pytest.raises(FailedError) as caught:
        make(embedder=embedder(server)).score_tools().embed(texts)
    assert caught.value.code == "engine.no_reply"
    assert "0 vectors for 1 texts" in str(caught.value)
    server.embed_answer = None
    assert make(embedder=embedder(server)).score_tools().embed(texts) == [word_counts(text) for text in texts]
    assert server.embedded[-1]["input"] == texts[-1:]


@pytest.mark.parametrize("numbered", [True, False])
def test_vectors_belong_to_the_texts_that_the_server_says(make, server, numbered):
    def answer(data):
        return data[::-1] if numbered else [{**entry, "index": 0} for entry in data]

    server.embed_answer = answer
    found = make(embedder=embedder(server)).score_tools().embed(["red lamp", "chair", "red chair"])
    assert found == [word_counts("red lamp"), word_counts("chair"), word_counts("red chair")]


def test_the_embedders_key_goes_to_its_own_address_and_into_no_error(make, server):
    environment = {"OPENAI_API_KEY": "sk-openai-0123456789", "MY_KEY": KEY}
    make(environment, embedder=embedder(server)).score_tools().embed(["a"])
    assert server.keys[-1] == "Bearer none"
    server.embed_fault = Fault(401, f"bad {KEY}")
    with pytest.raises(RefusedError) as caught:
        make(environment, embedder=embedder(server, api_key_env="MY_KEY")).score_tools().embed(["b"])
    assert server.keys[-1] == f"Bearer {KEY}"
    assert KEY not in str(caught.value)
    assert "***" in str(caught.value)
    with pytest.raises(BadRequestError) as caught:
        make({}, embedder=embedder(server, api_key_env="MY_KEY")).score_tools().embed(["b"])
    assert caught.value.code == "engine.key_unset"


@pytest.mark.parametrize(
    ("status", "code", "final"),
    [
        (400, "engine.invalid_request", True),
        (404, "engine.model_unknown", True),
        (500, "engine.server", False),
    ],
)
def test_what_an_embedder_says_is_told_in_our_words(make, server, status, code, final):
    server.embed_fault = Fault(status, "no such thing")
    with pytest.raises(FailedError) as caught:
        make(embedder=embedder(server)).score_tools().embed(["a"])
    assert (caught.value.code, isinstance(caught.value, RefusedError)) == (code, final)
    assert "no such thing" in str(caught.value)


def test_without_an_embedder_it_is_said_that_one_is_needed(make):
    with pytest.raises(BadRequestError) as caught:
        make().score_tools().embed(["a"])
    assert caught.value.code == "metric.no_embedder"


# People's own metrics.

GOOD = """
from dataclasses import dataclass

@dataclass
class Found:
    value: float

def metric(example, prediction):
    return Found(float(example["product"].endswith(prediction["product"]))).value, "by ending"
"""


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "home" / "metrics"
    made.mkdir(parents=True)
    return made


def test_a_metric_of_ones_own_is_found_by_name_and_run(make, folder):
    (folder / "ending.py").write_text(GOOD)
    (folder / "评分.py").write_text("def metric(example, prediction): return 0.5")
    for other in ("_part.py", "not-a-name.py", "notes.txt"):
        (folder / other).write_text("raise RuntimeError")
    (folder / "folder.py").mkdir()
    files = FileMetrics(folder.parent)
    assert files.names() == ["ending", "评分"]
    engine = make(files=files)
    found = score(engine, MetricSpec(kind="custom", params={"name": "ending"}), predicted="lamp")
    assert (found.value, found.feedback) == (1.0, "by ending")
    assert score(engine, MetricSpec(kind="custom", params={"name": "评分"})).value == 0.5


def test_what_a_metric_of_ones_own_raises_is_told_without_the_keys(make, folder):
    (folder / "asks.py").write_text(f"def metric(example, prediction): raise OSError('denied: {KEY}')")
    engine = make({"MY_KEY": KEY}, FileMetrics(folder.parent))
    found = score(engine, MetricSpec(kind="custom", params={"name": "asks"}))
    assert (found.is_scored, found.problems[0].code) == (False, "metric.custom_raised")
    assert found.problems[0].values == {"file": "metrics/asks.py", "problem": "OSError: denied: ***"}


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import sys\n    sys.exit(3)", "SystemExit: 3"),
        ("exit()", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("class Stop(BaseException): ...\n    raise Stop('enough')", "Stop: enough"),
    ],
)
def test_a_metric_of_ones_own_that_would_end_the_process_is_an_error_of_that_metric(
    make, folder, source, problem
):
    (folder / "ends.py").write_text(f"def metric(example, prediction):\n    {source}\n")
    found = score(make(files=FileMetrics(folder.parent)), MetricSpec(kind="custom", params={"name": "ends"}))
    assert (found.is_scored, found.problems[0].code) == (False, "metric.custom_raised")
    said = [found.problems[0].sentence(language) for language in ("zh_CN", "en_US")]
    assert said[0] != said[1]
    assert all("metrics/ends.py" in sentence and problem in sentence for sentence in said)


@pytest.mark.parametrize("name", ["other", "../outside", "outside", "/etc/passwd", "ending.py", "_part", ""])
def test_a_name_never_becomes_a_path(folder, name):
    made = folder.parent / "ran"
    (folder.parent / "outside.py").write_text(f"open({str(made)!r}, 'w')\ndef metric(e, p): return 1")
    (folder / "_part.py").write_text("def metric(e, p): return 1")
    (folder / "ending.py").write_text(GOOD)
    with pytest.raises(NotFoundError) as caught:
        FileMetrics(folder.parent).load(name)
    assert caught.value.code == "metric.custom_missing"
    assert "ending" in str(caught.value)
    assert not made.exists()


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("def metric(:", "metric.custom_load"),
        ("1 / 0", "metric.custom_load"),
        ("import no_such_module_here", "metric.custom_load"),
        ("import sys; sys.exit(3)", "metric.custom_load"),
        ("raise KeyboardInterrupt", "metric.custom_load"),
        ("class Stop(BaseException): ...\nraise Stop", "metric.custom_load"),
        ("\0", "metric.custom_load"),
        ("", "metric.custom_function"),
        ("metric = 3", "metric.custom_function"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_named(folder, source, code):
    (folder / "mine.py").write_text(source)
    with pytest.raises(BadRequestError) as caught:
        FileMetrics(folder.parent).load("mine")
    assert caught.value.code == code
    assert "metrics/mine.py" in str(caught.value)


def test_without_the_folder_there_are_none(tmp_path):
    assert FileMetrics(tmp_path / "nowhere").names() == []
