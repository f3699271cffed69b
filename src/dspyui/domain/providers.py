"""The providers of language models people use most: how their keys are called, and models to begin with.

Any other provider that LiteLLM knows works as well; only its key cannot be looked for before a call.
Tests hold both tables against the installed libraries.
"""

import difflib
import re
from collections.abc import Mapping
from typing import Literal

from dspyui.domain.base import Frozen
from dspyui.domain.lms import LOCAL_PROVIDER, LMRoles, ModelSpec
from dspyui.errors import BadRequestError

OWN_SERVER_KEY = "DSPYUI_LM_API_KEY"
"""The key for an address of somebody's own; a provider's key is never sent there."""

KeyState = Literal["typed", "environment", "unset"]


class Provider(Frozen):
    """A provider: `name` begins its models' names, one of `key_variables` (the first is the usual one) holds its key.

    `needs_key` is False where there are other ways to log in (a cloud's own, a subscription); `also` are variables
    it may need besides. `models` are there to be offered: `name` and model in LiteLLM's spelling.
    """

    name: str
    label: str
    key_variables: tuple[str, ...]
    models: tuple[str, ...]
    needs_key: bool = True
    also: tuple[str, ...] = ()


_TABLE = (
    Provider(
        name="openai",
        label="OpenAI",
        key_variables=("OPENAI_API_KEY",),
        models=("openai/gpt-4.1-mini", "openai/gpt-4o-mini", "openai/gpt-4.1", "openai/gpt-5-mini"),
    ),
    Provider(
        name="anthropic",
        label="Anthropic",
        key_variables=("ANTHROPIC_API_KEY",),
        models=("anthropic/claude-haiku-4-5", "anthropic/claude-sonnet-4-6", "anthropic/claude-opus-4-8"),
    ),
    Provider(
        name="gemini",
        label="Google Gemini",
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        models=("gemini/gemini-2.5-flash", "gemini/gemini-3.5-flash", "gemini/gemini-2.5-pro"),
    ),
    Provider(
        name="deepseek",
        label="DeepSeek",
        key_variables=("DEEPSEEK_API_KEY",),
        models=("deepseek/deepseek-chat", "deepseek/deepseek-reasoner"),
    ),
    Provider(
        name="dashscope",
        label="Qwen (DashScope)",
        key_variables=("DASHSCOPE_API_KEY",),
        models=("dashscope/qwen-plus", "dashscope/qwen-flash", "dashscope/qwen-max"),
    ),
    Provider(
        name="moonshot",
        label="Moonshot (Kimi)",
        key_variables=("MOONSHOT_API_KEY",),
        models=("moonshot/kimi-k2.6", "moonshot/kimi-k2.5"),
    ),
    Provider(
        name="zai",
        label="Z.ai (GLM)",
        key_variables=("ZAI_API_KEY",),
        models=("zai/glm-4.7", "zai/glm-4.7-flash"),
    ),
    Provider(
        name="groq",
        label="Groq",
        key_variables=("GROQ_API_KEY",),
        models=("groq/openai/gpt-oss-20b", "groq/openai/gpt-oss-120b"),
    ),
    Provider(
        name="mistral",
        label="Mistral",
        key_variables=("MISTRAL_API_KEY",),
        models=("mistral/mistral-small-latest", "mistral/mistral-large-latest"),
    ),
    Provider(
        name="openrouter",
        label="OpenRouter",
        key_variables=("OPENROUTER_API_KEY", "OR_API_KEY"),
        models=("openrouter/openai/gpt-5-mini", "openrouter/deepseek/deepseek-v3.2"),
    ),
    Provider(
        name="xai",
        label="xAI",
        key_variables=("XAI_API_KEY",),
        models=("xai/grok-4.3", "xai/grok-4.6"),
        needs_key=False,
    ),
    Provider(
        name="azure",
        label="Azure OpenAI",
        key_variables=("AZURE_OPENAI_API_KEY", "AZURE_API_KEY"),
        models=("azure/gpt-4.1-mini", "azure/gpt-4o-mini"),
        needs_key=False,
        also=("AZURE_OPENAI_ENDPOINT",),
    ),
    Provider(
        name="cerebras",
        label="Cerebras",
        key_variables=("CEREBRAS_API_KEY",),
        models=("cerebras/gpt-oss-120b",),
    ),
    Provider(
        name="perplexity",
        label="Perplexity",
        key_variables=("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"),
        models=("perplexity/sonar", "perplexity/sonar-pro"),
    ),
    Provider(
        name="together_ai",
        label="Together AI",
        key_variables=(
            "TOGETHER_API_KEY",
            "TOGETHER_AI_API_KEY",
            "TOGETHERAI_API_KEY",
            "TOGETHER_AI_TOKEN",
        ),
        models=("together_ai/deepseek-ai/DeepSeek-V3.1",),
    ),
    Provider(
        name="fireworks_ai",
        label="Fireworks",
        key_variables=(
            "FIREWORKS_API_KEY",
            "FIREWORKS_AI_API_KEY",
            "FIREWORKSAI_API_KEY",
            "FIREWORKS_AI_TOKEN",
        ),
        models=("fireworks_ai/accounts/fireworks/models/deepseek-v3p2",),
    ),
    Provider(
        name="deepinfra",
        label="DeepInfra",
        key_variables=("DEEPINFRA_API_KEY",),
        models=(),
    ),
    Provider(
        name="sambanova",
        label="SambaNova",
        key_variables=("SAMBANOVA_API_KEY",),
        models=(),
    ),
    Provider(
        name="cohere",
        label="Cohere",
        key_variables=("COHERE_API_KEY",),
        models=(),
    ),
)

PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in _TABLE}

LITELLM_PROVIDERS = frozenset(
    """
    a2a a2a_agent abliteration ai21 ai21_chat aihubmix aiml aiohttp_openai amazon_nova anthropic
    anthropic_text apertis assemblyai auto_router aws_polly aws_textract azure azure_ai azure_speech
    azure_text baseten bedrock bedrock_mantle black_forest_labs bytez cerebras charity_engine
    chatgpt chutes clarifai cloudflare codestral cognition cohere cohere_chat cometapi compactifai
    cortecs crusoe cursor custom custom_openai darkbloom dashscope databricks datarobot deepgram
    deepinfra deepseek docker_model_runner dotprompt edenai elevenlabs empiriolabs empower fal_ai
    featherless_ai fireworks_ai friendliai galadriel gdc gemini gigachat github github_copilot gmi
    gradient_ai groq helicone heroku hosted_vllm huggingface humanloop hyperbolic inception infinity
    jina_ai lambda_ai langflow langfuse langgraph lemonade libertai litellm_agent litellm_proxy
    llamafile llamagate lm_studio manus maritalk meta meta_llama milvus minimax mistral modelscope
    mongodb moonshot morph nadir nano-gpt nebius neosantara nlp_cloud novita nscale nvidia_nim
    nvidia_riva oci ollama ollama_chat oobabooga openai openai_like openrouter ovhcloud parasail
    perplexity petals pg_vector pinstripes poe predibase prism publicai qwen_ai_platform qwencloud
    ragflow recraft reducto reka replicate runwayml s3_vectors sagemaker sagemaker_chat
    sagemaker_nova sail sambanova sap sarvam scaleway scx-ai snowflake soniox stability
    strands_decider synthetic tencent tensormesh text-completion-codestral text-completion-inception
    text-completion-openai together_ai topaz transcribe triton typesafe v0 valkey veniceai
    vercel_ai_gateway vertex_ai vertex_ai_beta vllm volcengine voyage wandb watsonx watsonx_text xai
    xiaomi_mimo xinference zai
    """.split()  # noqa: SIM905 - a list of names, one a line, would be as long as all the rest
)
"""Every provider a model's name can begin with: what LiteLLM routes by. Importing it to ask takes seconds."""


def check_provider(model: str) -> None:
    """Raise BadRequestError when nobody is known by the name before the model's first `/`; the nearest are named."""
    name = model.partition("/")[0]
    if name == LOCAL_PROVIDER or name in LITELLM_PROVIDERS:
        return
    known = ", ".join(PROVIDERS)
    if near := _nearest(name):
        raise BadRequestError("lm.provider_near", provider=name, model=model, near=near, known=known)
    raise BadRequestError("lm.provider", provider=name, model=model, known=known)


def _nearest(name: str) -> str | None:
    """The provider that was probably meant: a slip of the pen, or what it is called otherwise (`google`, `qwen`)."""
    typed = name.casefold()
    if typed in LITELLM_PROVIDERS:
        return typed
    called = {word: made.name for made in _TABLE for word in re.findall(r"\w+", made.label.casefold())}
    called |= {made.name: made.name for made in _TABLE}
    close = difflib.get_close_matches(typed, called, n=1, cutoff=0.7)
    if close:
        return called[close[0]]
    return next(iter(difflib.get_close_matches(typed, sorted(LITELLM_PROVIDERS), n=1, cutoff=0.7)), None)


class OwnServer(Frozen):
    """A program people run models with; `address` is where it usually listens (its OpenAI-compatible part)."""

    name: str
    label: str
    address: str


OWN_SERVERS = (
    OwnServer(name="ollama", label="Ollama", address="http://localhost:11434/v1"),
    OwnServer(name="lm_studio", label="LM Studio", address="http://localhost:1234/v1"),
    OwnServer(name="vllm", label="vLLM", address="http://localhost:8000/v1"),
    OwnServer(name="llama_cpp", label="llama.cpp", address="http://localhost:8080/v1"),
)


def key_variables(model: str, api_base: str | None = None, api_key_env: str | None = None) -> tuple[str, ...]:
    """The variables one of which holds the key for a model, the usual one first; empty when none is known.

    Of a provider that only LiteLLM knows it is the name that most libraries would look for.
    """
    provider = model.partition("/")[0]
    if api_key_env:
        return (api_key_env,)
    if api_base:
        return (OWN_SERVER_KEY,)
    if provider in PROVIDERS:
        return PROVIDERS[provider].key_variables
    if provider not in LITELLM_PROVIDERS or not provider.isidentifier():
        return ()
    return (f"{provider.upper()}_API_KEY",)


# A variable of these endings moves a provider's address elsewhere, where other keys may count.
_ADDRESSES = ("API_BASE", "BASE_URL")


def missing_key(lm: ModelSpec, environment: Mapping[str, str]) -> str | None:
    """The variable that should hold the model's key and does not; None when the key is there, or may not be needed.

    The bundled model and a server of one's own need none unless a variable is named; of a provider that is not
    in the table, that has other ways to log in, or whose address the environment moves elsewhere, nothing is known.
    """
    name = lm.model.partition("/")[0]
    provider = PROVIDERS.get(name)
    moved = any(environment.get(f"{name.upper()}_{end}") for end in _ADDRESSES)
    needs = lm.api_key_env or (provider and provider.needs_key and not lm.api_base and not moved)
    variables = key_variables(lm.model, lm.api_base, lm.api_key_env)
    is_there = any(environment.get(variable, "").strip() for variable in variables)
    return variables[0] if needs and not is_there else None


# Names of keys alone, so that no setting and no loader's variable is taken for one.
_KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,80}_(KEY|TOKEN|SECRET)")
_OURS = ("DSPYUI_", "MLFLOW_")


def is_key_name(variable: str) -> bool:
    """Whether a variable is called as keys of language models are."""
    return variable == OWN_SERVER_KEY or bool(
        _KEY_NAME.fullmatch(variable) and not variable.startswith(_OURS)
    )


def secret_variables(lms: LMRoles) -> tuple[str, ...]:
    """Variables that hold keys of these models though their own names may not say so."""
    return tuple(model.api_key_env for model in lms.models().values() if model.api_key_env)
