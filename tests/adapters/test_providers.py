"""Our table of providers against the libraries that talk to them."""

import litellm
import pytest
from dspy._vendor.lm15.registry import PROVIDERS as NATIVE  # the table DSPy's own client routes by
from dspy._vendor.lm15.router import LITELLM_PROVIDER_PREFIXES
from dspy.clients.model_metadata import model_info
from litellm.llms.openai_like.json_loader import JSONProviderRegistry

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.domain.lms import LMRoles, LMSpec
from dspyui.domain.providers import LITELLM_PROVIDERS, PROVIDERS, Provider, check_provider
from tests.fake_openai import FakeOpenAI

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


def test_what_is_refused_is_what_litellm_cannot_route() -> None:
    for model in ("foo/bar", "google/x", "OpenAI/x", "Qwen/Qwen3-8B", "together/x"):
        with pytest.raises(litellm.BadRequestError, match="LLM Provider NOT provided"):
            litellm.get_llm_provider(model, api_base="http://127.0.0.1:1/v1")


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
