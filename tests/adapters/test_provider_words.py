"""What a provider says when it refuses is shown as it said it: no class names of libraries, no JSON around it."""

import json

import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.dspy_engine.provider_words import plain_words
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.errors import FailedError
from tests.fake_openai import FakeOpenAI, Fault

WORDS = "The key “abc” is not valid: ask for another."
OPENAI = {"error": {"message": WORDS, "type": "invalid_request_error", "param": None, "code": None}}
SHAPES = {
    "openai": OPENAI,
    "anthropic": {"type": "error", "error": {"type": "authentication_error", "message": WORDS}},
    "google": [{"error": {"code": 401, "message": WORDS, "status": "UNAUTHENTICATED"}}],
    "mistral": {"object": "error", "message": WORDS, "request_id": "1"},
    "fastapi": {"detail": [{"loc": ["body"], "msg": WORDS, "type": "value_error"}]},
    "text": {"error": WORDS},
}
# Some go through DSPy's own client, the others through LiteLLM's clients for them.
PROVIDERS = (
    "openai", "anthropic", "gemini", "groq", "deepseek", "openrouter", "mistral", "cohere_chat", "azure", "together_ai",
    "nebius",
)  # fmt: skip


def test_the_words_of_every_provider_come_through_alone(tmp_path):
    """In one test: of each library there is one to load."""
    with FakeOpenAI(lambda _messages: Fault(401, "", body=json.dumps(OPENAI))) as server:
        for provider in PROVIDERS:
            spec = LMSpec(model=f"{provider}/x", api_base=server.base_url, num_retries=0, cache=False)
            engine = DspyEngine(LMRoles(task=spec), environment={}, cache_folder=tmp_path / "cache")
            with pytest.raises(FailedError) as caught:
                engine.ask("Say it.")
            assert caught.value.values["problem"] == WORDS, provider
            for language in ("zh_CN", "en_US"):
                said = caught.value.text(language)
                assert f"{provider}/x" in said
                assert "litellm" not in said.casefold()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_words_are_found_in_every_document(tmp_path, shape):
    body = json.dumps(SHAPES[shape])
    with FakeOpenAI(lambda _messages: Fault(401, "", body=body)) as server:
        spec = LMSpec(model="mistral/x", api_base=server.base_url, num_retries=0, cache=False)
        engine = DspyEngine(LMRoles(task=spec), environment={}, cache_folder=tmp_path / "cache")
        with pytest.raises(FailedError) as caught:
            engine.ask("Say it.")
    assert caught.value.values["problem"] == WORDS


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (None, "engine.key_needed"),
        ("<html>a login page</html>", "engine.server"),
        ('{"data": 3}', "engine.server"),
    ],
)
def test_an_embedder_speaks_plainly_too_whatever_it_answers(tmp_path, body, code):
    with FakeOpenAI(lambda _messages: "unused") as server:
        server.embed_fault = Fault(401, WORDS) if body is None else Fault(200, "", body=body)
        spec = EmbedderSpec(model="openai/words", api_base=server.base_url)
        engine = DspyEngine(
            LMRoles(task=LMSpec(), embedder=spec), environment={}, cache_folder=tmp_path / "cache"
        )
        with pytest.raises(FailedError) as caught:
            engine.score_tools().embed(["a"])
    assert caught.value.code == code
    for language in ("zh_CN", "en_US"):
        assert "openai/words" in caught.value.text(language)
        assert "litellm" not in caught.value.text(language).casefold()


def test_a_refusal_without_words_is_its_status(tmp_path):
    with FakeOpenAI(lambda _messages: Fault(400, "", body="{}")) as server:
        spec = LMSpec(model="openai/x", api_base=server.base_url, num_retries=0)
        engine = DspyEngine(LMRoles(task=spec), environment={}, cache_folder=tmp_path / "cache")
        with pytest.raises(FailedError) as caught:
            engine.ask("Say it.")
    assert caught.value.values["problem"] == "HTTP 400"


@pytest.mark.parametrize(
    "said",
    [
        "litellm.AuthenticationError: AuthenticationError: OpenAIException - {words}",
        "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: AException - {words}",
        "litellm.InternalServerError: AzureException Internal server error - {words}",
        "litellm.RateLimitError: BedrockException: Rate Limit Error - {words}",
        "litellm.AuthenticationError: BedrockException Invalid Authentication - {words}",
        "litellm.Timeout: Timeout Error: OpenrouterException - {words}",
        "litellm.BadRequestError: OllamaException: {words}",
        "litellm.InternalServerError: AnthropicException - {words}. Handle with `litellm.InternalServerError`.",
        'litellm.BadRequestError: VertexAIException BadRequestError - b\'{{"error": {{"message": "{words}"}}}}\'',
        "litellm.APIConnectionError: AException APIConnectionError - {words}\nTraceback (most recent call last):\n x",
        "litellm.RateLimitError: RateLimitError: GroqException - {words} LiteLLM Retried: 2 times",
        "litellm.BadRequestError: AzureException - Error code: 400 - {{'detail': '{words}'}}",
        "{words}\n\nTo fix:\n  do this",
        "{words}",
    ],
)
def test_the_shapes_that_libraries_make_are_taken_off(said):
    words = "model `x` is busy (try at 5: or later)"
    assert plain_words(said.format(words=words)) == words


@pytest.mark.parametrize(
    "said", ["RuntimeError: CUDA out of memory", "{not JSON", "[INST] what", "{" * 50_000, "{}", "[1, 2]", ""]
)
def test_what_is_nobody_elses_is_left_as_it_is(said):
    assert plain_words(said) == said
