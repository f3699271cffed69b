"""Our table of providers against the libraries that talk to them."""

import litellm
import pytest
from dspy._vendor.lm15.registry import PROVIDERS as NATIVE  # the table DSPy's own client routes by
from dspy._vendor.lm15.router import LITELLM_PROVIDER_PREFIXES
from dspy.clients.lm import _is_openai_reasoning_model
from dspy.clients.model_metadata import model_info
from litellm.llms.openai_like.json_loader import JSONProviderRegistry

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.dspy_engine.lms import to_dspy
from dspyui.domain.lms import LMRoles, LMSpec
from dspyui.domain.programs import ProgramSpec
from dspyui.domain.providers import LITELLM_PROVIDERS, PROVIDERS, Provider, check_provider
from dspyui.errors import BadRequestError
from tests.fake_openai import FakeOpenAI, conversation
from tests.learner import SIGNATURE, learn

KEY = "sk-of-this-test-0123456789"
# Where the first model of the table takes no temperature of one's own.
TAKES_SETTINGS = {"openrouter": "openrouter/deepseek/deepseek-v3.2"}
# Everybody else takes the key as a bearer token.
KEY_HEADERS = {"anthropic": "x-api-key", "gemini": "x-goog-api-key", "azure": "api-key"}

NATIVE_TABLE = {made.id: made for made in (NATIVE.values() if hasattr(NATIVE, "values") else NATIVE)}


@pytest.fixture(params=PROVIDERS.values(), ids=lambda provider: provider.name)
def provider(request: pytest.FixtureRequest) -> Provider:
    return request.param


def test_the_usual_variable_is_the_one_the_library_reads(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = NATIVE_TABLE.get(LITELLM_PROVIDER_PREFIXES.get(provider.name, ""))
    if native is not None:
        assert set(provider.key_variables) & set(native.env_keys)
        assert provider.key_variables[0] in native.env_keys
        return
    for variable in provider.key_variables:
        with monkeypatch.context() as patch:
            patch.setenv(variable, "the-key-of-this-test")
            model = f"{provider.name}/x"
            _, _, key, _ = litellm.get_llm_provider(model)
            if key is None:  # of a few providers only this tells what is read
                assert litellm.validate_environment(model)["keys_in_environment"] is True
            else:
                assert key == "the-key-of-this-test"
    if key is None:
        assert litellm.validate_environment(model)["missing_keys"] == [provider.key_variables[0]]


def test_its_models_are_known(provider: Provider) -> None:
    for model in provider.models:
        assert model.startswith(f"{provider.name}/")
        route = LITELLM_PROVIDER_PREFIXES.get(provider.name, provider.name)
        assert model_info(route, model.partition("/")[2]).get("mode") == "chat", model


def test_whoever_litellm_knows_is_known() -> None:
    listed = {str(getattr(found, "value", found)) for found in litellm.provider_list}
    assert listed | set(JSONProviderRegistry.list_providers()) == LITELLM_PROVIDERS
    assert set(LITELLM_PROVIDER_PREFIXES) <= LITELLM_PROVIDERS
    assert set(PROVIDERS) <= LITELLM_PROVIDERS
    for name in LITELLM_PROVIDERS:
        check_provider(f"{name}/x")


def test_settings_are_refused_where_dspy_refuses_them() -> None:
    names = [name if "/" in name else f"openai/{name}" for name in litellm.model_cost]
    names += [
        f"openai/{name}"
        for name in ("gpt-5", "gpt-5.1-chat-latest", "gpt-5.6-luna", "o3-mini-2026-01-31", "o3x")
    ]
    refused = set()
    for name in names:
        for given in ({"temperature": 0.5}, {"max_tokens": 15_999}):
            try:
                LMSpec(model=name, **given).check_settings()
            except BadRequestError:
                refused.add(name)
    assert refused == {name for name in names if _is_openai_reasoning_model(name)}
    assert 20 < len(refused) < len(names)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1, "max_tokens": 16_000}, {"temperature": 0}])
def test_what_a_reasoning_model_takes_passes(tmp_path, settings) -> None:
    with FakeOpenAI(lambda _messages: "OK") as server:
        spec = LMSpec(model="openai/gpt-5-mini", api_base=server.base_url, num_retries=0, **settings)
        spec.check_settings()
        engine = DspyEngine(LMRoles(task=spec), environment={}, cache_folder=tmp_path / "cache")
        assert engine.ask("Say it.") == "OK"


def test_what_is_refused_is_what_litellm_cannot_route() -> None:
    for model in ("foo/bar", "google/x", "OpenAI/x", "Qwen/Qwen3-8B", "together/x"):
        with pytest.raises(litellm.BadRequestError, match="LLM Provider NOT provided"):
            litellm.get_llm_provider(model, api_base="http://127.0.0.1:1/v1")


def answered(server: FakeOpenAI, folder, **lm) -> None:
    """Its model answers a program, is sent all that was set, and its own count of tokens is taken."""
    lm = {"temperature": 0.5, "max_tokens": 77, "num_retries": 0, **lm}
    variable = lm.get("api_key_env")
    environment = {variable: KEY} if variable else {}
    engine = DspyEngine(LMRoles(task=LMSpec(**lm)), environment=environment, cache_folder=folder / "cache")
    live = engine.build(ProgramSpec(signature=SIGNATURE))
    found = engine.predict(live, {"message": "My thing2 broke on Tuesday."}, tags={})
    assert found.outputs == {"product": "thing2"}
    (body,) = server.requests
    assert SIGNATURE.instructions in conversation(body)[0]["content"]
    assert [message["role"] for message in conversation(body)] == ["system", "user"]
    config = body.get("generationConfig", body)
    assert config["temperature"] == lm["temperature"]
    names = ("max_tokens", "max_completion_tokens", "maxOutputTokens")
    assert [config[name] for name in names if name in config] == [lm["max_tokens"]]
    used = engine.usage()
    assert (used.lm_calls, (used.input_tokens, used.output_tokens)) == (1, *server.spent)
    (call,) = [span.usage for span in found.trace.spans if span.kind == "LLM"]
    assert (call.input_tokens, call.output_tokens) == server.spent[0]


def key_headers(server: FakeOpenAI) -> set[str]:
    """The headers of the only request that hold the key; it is nowhere in its address."""
    (headers,), (path,) = server.headers, server.paths
    assert KEY not in path
    return {name.casefold() for name, value in headers.items() if value in {KEY, f"Bearer {KEY}"}}


# LiteLLM says it of its own classes, with the first reply.
@pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict:UserWarning")
@pytest.mark.parametrize(
    "name", ["openai", "anthropic", "gemini", "groq", "deepseek", "mistral", "openrouter", "azure"]
)
def test_a_provider_of_the_table_answers_in_its_own_protocol(tmp_path, name: str) -> None:
    provider = PROVIDERS[name]
    with FakeOpenAI(learn) as server:
        model, variable = TAKES_SETTINGS.get(name, provider.models[0]), provider.key_variables[0]
        answered(server, tmp_path, model=model, api_base=server.base_url, api_key_env=variable)
    asked = server.paths[0]
    wanted = {
        "anthropic": "/v1/messages",
        "gemini": "/v1/models/gemini-2.5-flash:generateContent",
        "azure": "/chat/completions?api-version=",
    }
    assert wanted.get(name, "/v1/chat/completions") in asked
    assert key_headers(server) == {KEY_HEADERS.get(name, "authorization")}


def test_azure_is_found_by_its_own_variables(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOpenAI(learn) as server:
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.base_url.removesuffix("/v1"))
        monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
        answered(server, tmp_path, model="azure/gpt-4.1-mini")
    assert server.paths == ["/openai/v1/chat/completions"]
    assert key_headers(server) == {"api-key"}


@pytest.mark.parametrize(
    "model", ["openai/qwen3:8b", "openai/meta-llama/Llama-3.1-8B", "openrouter/x/y:free", "hosted_vllm/a/b"]
)
def test_a_models_name_reaches_its_server_as_it_is(tmp_path, model: str) -> None:
    with FakeOpenAI(learn) as server:
        answered(server, tmp_path, model=model, api_base=server.base_url)
    assert server.requests[0]["model"] == model.partition("/")[2]


@pytest.mark.parametrize(
    ("model", "field"),
    [
        ("openai/llama3.2", "max_tokens"),  # Ollama and others pass over the other one in silence
        ("hosted_vllm/llama3.2", "max_tokens"),
        ("openai/gpt-5-mini", "max_completion_tokens"),  # it takes no other, whoever stands in between
    ],
)
def test_the_longest_reply_is_said_as_the_server_reads_it(tmp_path, model: str, field: str) -> None:
    with FakeOpenAI(learn) as server:
        answered(server, tmp_path, model=model, api_base=server.base_url, max_tokens=16_000, temperature=1)
    (body,) = server.requests
    assert body[field] == 16_000
    assert {"max_tokens", "max_completion_tokens"} & set(body) == {field}


@pytest.mark.parametrize("address", ["https://api.openai.com/v1", "https://eu.api.openai.com/v1"])
def test_openai_itself_is_no_server_of_ones_own(address: str) -> None:
    assert to_dspy(LMSpec(model="openai/gpt-4.1", api_base=address), {}).model == "openai/gpt-4.1"


# LiteLLM says it of its own classes, with the first reply.
@pytest.mark.filterwarnings("ignore:Item 'summary' on TypedDict:UserWarning")
@pytest.mark.parametrize("provider", ["nebius", "hosted_vllm", "lm_studio", "novita", "nano-gpt", "veniceai"])
def test_a_provider_outside_the_table_answers(tmp_path, provider: str) -> None:
    assert provider not in PROVIDERS
    with FakeOpenAI(lambda _messages: "OK") as server:
        spec = LMSpec(model=f"{provider}/some/model", api_base=server.base_url, num_retries=0)
        engine = DspyEngine(LMRoles(task=spec), environment={}, cache_folder=tmp_path / "cache")
        assert engine.ask("Say it.") == "OK"
        assert server.requests[0]["model"] == "some/model"
