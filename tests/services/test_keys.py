"""A key that is missing is told before anything runs, and only where it is certain."""

import pytest
from dspy._vendor.lm15.registry import PROVIDERS
from pydantic import SecretStr

from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.providers import PROVIDERS as TABLE
from dspyui.domain.providers import key_variables
from dspyui.errors import BadRequestError
from dspyui.i18n import LANGUAGES, Text
from dspyui.services.keys import KeyRules
from dspyui.settings import Settings
from tests.api.world import World, spec

HOSTED = LMSpec(model="openai/gpt-4o-mini")


def test_the_table_is_dspys_own_where_dspy_has_one() -> None:
    known = {name: policy.env_keys for name, policy in PROVIDERS.items() if name in TABLE}
    assert len(known) >= 6
    for name, variables in known.items():
        assert set(variables) <= set(TABLE[name].key_variables), name
        assert TABLE[name].key_variables[0] == variables[0]


@pytest.mark.parametrize(
    ("lms", "environment", "variable", "role"),
    [
        (LMRoles(task=HOSTED), {}, "OPENAI_API_KEY", "task"),
        (LMRoles(task=HOSTED), {"OPENAI_API_KEY": "  "}, "OPENAI_API_KEY", "task"),
        (LMRoles(teacher=LMSpec(model="gemini/x")), {}, "GEMINI_API_KEY", "teacher"),
        (LMRoles(judge=LMSpec(model="groq/x", api_key_env="MINE")), {"GROQ_API_KEY": "k"}, "MINE", "judge"),
        (
            LMRoles(prompt=LMSpec(model="openai/x", api_base="http://h/v1", api_key_env="MINE")),
            {},
            "MINE",
            "prompt",
        ),
        (LMRoles(embedder=EmbedderSpec(model="cohere/embed")), {}, "COHERE_API_KEY", "embedder"),
    ],
)
def test_variable_role_and_model_are_named(lms, environment, variable, role) -> None:
    with pytest.raises(BadRequestError) as caught:
        KeyRules(environment).check(lms)
    assert (caught.value.values["variable"], caught.value.values["role"]) == (variable, role)
    for language in LANGUAGES:
        said = caught.value.text(language)
        assert variable in said
        assert Text(language)(f"role.{role}") in said
    assert f"：{role}）" not in caught.value.text("zh_CN")


@pytest.mark.parametrize(
    ("lms", "environment"),
    [
        (LMRoles(), {}),
        (LMRoles(task=HOSTED), {"OPENAI_API_KEY": "k"}),
        (LMRoles(task=LMSpec(model="gemini/x")), {"GOOGLE_API_KEY": "k"}),
        (LMRoles(task=LMSpec(model="openai/x", api_base="http://127.0.0.1:1/v1")), {}),
        (LMRoles(task=HOSTED), {"OPENAI_API_BASE": "http://gateway/v1"}),
        (LMRoles(task=LMSpec(model="ollama_chat/qwen3")), {}),
        (LMRoles(task=LMSpec(model="azure/deployment")), {}),
        (LMRoles(task=LMSpec(model="nano-gpt/x")), {}),
        (LMRoles(task=LMSpec(model="hosted_vllm/Qwen/Qwen3", api_base="http://h/v1")), {}),
    ],
)
def test_what_may_work_is_not_refused(lms, environment) -> None:
    KeyRules(environment).check(lms)


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("foo/bar", None),
        ("Qwen3/Qwen3-8B", "dashscope"),
        ("OpenAI/gpt-4o", "openai"),
        ("opnai/gpt-4o", "openai"),
        ("google/gemini-2.5-flash", "gemini"),
        ("kimi/k2", "moonshot"),
        ("together/x", "together_ai"),
        ("OLLAMA/x", "ollama"),
        ("hosted-vllm/x", "hosted_vllm"),
    ],
)
@pytest.mark.parametrize("role", ["task", "judge", "embedder"])
def test_a_provider_that_nobody_knows_is_told_with_the_nearest_one(
    model: str, near: str | None, role: str
) -> None:
    made = EmbedderSpec(model=model) if role == "embedder" else LMSpec(model=model)
    with pytest.raises(BadRequestError) as caught:
        KeyRules({}).check(LMRoles.model_validate({role: made}))
    assert caught.value.code == ("lm.provider_near" if near else "lm.provider")
    assert caught.value.values.get("near") == near
    said = [caught.value.text(language) for language in ("zh_CN", "en_US")]
    assert said[0] != said[1]
    for sentence in said:
        for part in (model, "gemini", "deepseek", f"openai/{model}", "api_base", near or ""):
            assert part in sentence
        assert f"{model.partition('/')[0].upper()}_API_KEY" not in sentence


@pytest.mark.parametrize("way", ["submit", "start_here"])
def test_no_job_is_made_without_its_key(settings: Settings, way: str) -> None:
    world = World(settings)
    with pytest.raises(BadRequestError) as caught:
        getattr(world.services.jobs, way)(spec(lms={"task": {"model": "openai/x"}}), who="me")
    assert caught.value.code == "lm.key_unset"
    assert world.jobs.search() == []
    assert world.queue.submitted == []


@pytest.mark.parametrize("role", ["task", "prompt", "teacher", "judge"])
def test_no_job_is_made_with_settings_that_its_model_does_not_take(settings: Settings, role: str) -> None:
    world = World(settings)
    world.settings.keys.set("OPENAI_API_KEY", SecretStr("k" * 20))
    for given in ({"temperature": 0.2}, {"max_tokens": 500}):
        lms = {role: {"model": "openai/gpt-5-mini", **given}}
        with pytest.raises(BadRequestError) as caught:
            world.submitted(lms=lms)
        assert caught.value.code == "lm.reasoning"
        for language in ("en_US", "zh_CN"):
            assert "openai/gpt-5-mini" in caught.value.text(language)
            assert "16000" in caught.value.text(language)
    assert world.jobs.search() == []


def test_a_provider_that_nobody_knows_has_no_key_of_an_invented_name() -> None:
    assert key_variables("foo/bar") == ()
    assert key_variables("nebius/x") == ("NEBIUS_API_KEY",)


def test_a_job_with_an_unknown_provider_is_not_made_and_a_test_asks_nobody(settings: Settings) -> None:
    world = World(settings)
    for ask in (
        lambda: world.services.jobs.submit(spec(lms={"task": {"model": "foo/bar"}}), who="me"),
        lambda: world.services.lms.test(LMSpec(model="foo/bar")),
    ):
        with pytest.raises(BadRequestError) as caught:
            ask()
        assert caught.value.code == "lm.provider"
    assert world.jobs.search() == []


# A server that others can reach.

SHARED = {"DSPYUI_HOST": "192.0.2.7", "OPENAI_API_KEY": "k" * 20, "DSPYUI_LM_API_KEY": "o" * 20}


def rules(tmp_path, **environ: str) -> KeyRules:
    return KeyRules.of(Settings.load(tmp_path / "no.env", {**SHARED, **environ}))


@pytest.mark.parametrize(
    ("address", "variable", "code"),
    [
        ("https://evil.example/v1", "OPENAI_API_KEY", "lm.key_address"),
        ("https://evil.example/v1", None, "lm.key_address"),
        ("https://models.example.evil.example/v1", "OPENAI_API_KEY", "lm.key_address"),
        ("http://models.example/v1", "OPENAI_API_KEY", "lm.key_address"),
        ("https://models.example:8443/v1", "OPENAI_API_KEY", "lm.key_address"),
        ("https://models.example/v10", "OPENAI_API_KEY", "lm.key_address"),
        ("https://models.example/v1/../x", "OPENAI_API_KEY", "lm.key_address"),
        ("https://models.example:x/v1", "OPENAI_API_KEY", "lm.key_address"),
        (None, "DSPYUI_AUTH", "lm.key_variable"),
        (None, "PATH", "lm.key_variable"),
        ("https://models.example/v1", "MLFLOW_TRACKING_TOKEN", "lm.key_variable"),
    ],
)
def test_a_visitor_has_no_key_sent_to_an_address_of_theirs(tmp_path, address, variable, code) -> None:
    lm = LMSpec(model="openai/x", api_base=address, api_key_env=variable)
    with pytest.raises(BadRequestError) as caught:
        rules(tmp_path, DSPYUI_KEY_ADDRESSES="https://models.example/v1").check(
            LMRoles(task=HOSTED, judge=lm)
        )
    assert caught.value.code == code
    assert caught.value.values["role"] == "judge"


@pytest.mark.parametrize(
    "lm",
    [
        HOSTED,
        LMSpec(model="openai/x", api_key_env="OPENAI_API_KEY"),
        LMSpec(model="openai/x", api_base="https://models.example/v1/", api_key_env="OPENAI_API_KEY"),
        LMSpec(model="openai/x", api_base="https://models.example:443/v1/east"),
        LMSpec(model="openai/x", api_base="http://own:8000/v1"),
    ],
)
def test_keys_go_to_their_provider_and_where_the_operator_said(tmp_path, lm) -> None:
    allowed = {
        "DSPYUI_KEY_ADDRESSES": "http://a/v1, https://models.example/v1",
        "DSPYUI_LM_API_BASE": "http://own:8000/v1",
    }
    rules(tmp_path, **allowed).check(LMRoles(task=lm))


def test_an_address_that_gets_no_key_may_be_anybodys(tmp_path) -> None:
    rules(tmp_path, DSPYUI_LM_API_KEY="").check(
        LMRoles(task=LMSpec(model="openai/x", api_base="http://localhost:11434/v1"))
    )


def test_on_loopback_the_person_is_the_operator(tmp_path) -> None:
    lm = LMSpec(model="openai/x", api_base="https://mine.example/v1", api_key_env="OPENAI_API_KEY")
    rules(tmp_path, DSPYUI_HOST="127.0.0.1").check(LMRoles(task=lm))


def test_a_key_that_somebody_typed_in_is_kept_as_well(tmp_path) -> None:
    settings = Settings.load(tmp_path / "no.env", {"DSPYUI_HOST": "192.0.2.7"})
    settings.keys.set("THEIR_API_KEY", SecretStr("t" * 20))
    lm = LMSpec(model="openai/x", api_base="https://evil.example/v1", api_key_env="THEIR_API_KEY")
    with pytest.raises(BadRequestError, match=r"lm\.key_address|THEIR_API_KEY"):
        KeyRules.of(settings).check(LMRoles(task=lm))


def test_a_job_of_a_shared_server_is_refused_before_it_is_queued(settings) -> None:
    environment = {**settings.child_environment, "OPENAI_API_KEY": "k" * 20}
    world = World(settings.model_copy(update={"host": "192.0.2.7", "child_environment": environment}))
    lm = {"model": "openai/x", "api_base": "https://evil.example/v1", "api_key_env": "OPENAI_API_KEY"}
    with pytest.raises(BadRequestError) as caught:
        world.services.jobs.submit(spec(lms={"task": lm}), who="visitor")
    assert caught.value.code == "lm.key_address"
    assert world.queue.submitted == []
    with pytest.raises(BadRequestError):
        world.services.lms.test(LMSpec.model_validate(lm))
    assert world.tester.asked == []
