"""What every model registry does, the one in memory and MLflow's."""

import pytest

from dspyui.domain.registry import RegisterRequest
from dspyui.errors import BadRequestError, ConflictError, NotFoundError
from tests.mlflow_world import compiled

EXAMPLE = {"message": "你好 lamp", "count": 2, "tags": ["x", "y"]}


@pytest.fixture
def register(registry, make_run, name):
    def register(run_id=None, program=None, **changes):
        request = RegisterRequest(
            run_id=run_id or make_run(), name=changes.pop("name", name), who="李雷", **changes
        )
        return registry.register(
            request, program or compiled(), tags={"dspyui.module": "Predict"}, input_example=EXAMPLE
        )

    return register


def test_a_version_says_what_was_registered(register, registry, make_run, name):
    run_id = make_run()
    version = register(run_id, description="第一版\nsecond line")
    assert (version.name, version.version, version.stage, version.run_id) == (name, 1, "None", run_id)
    assert version.description == "第一版\nsecond line"
    assert version.model_uri == f"models:/{name}/1"
    assert version.url.endswith("/versions/1")
    assert " " not in version.url
    assert version.tags["dspyui.module"] == "Predict"
    assert version.tags["dspyui.registered_by"] == "李雷"
    assert version.history == ()
    assert registry.get_version(name, 1) == version


def test_the_program_comes_back_without_its_address(register, registry):
    program = compiled()
    found = registry.program(register(program=program))
    assert found.lm.api_base is None
    assert found.model_copy(update={"lm": program.lm}) == program


def test_a_run_is_registered_once_under_a_name(register, make_run):
    run_id = make_run()
    register(run_id)
    with pytest.raises(ConflictError) as caught:
        register(run_id)
    assert caught.value.code == "registry.exists"
    assert caught.value.values["version"] in {1, "1"}


def test_the_same_run_goes_under_another_name(register, make_run, name):
    run_id = make_run()
    register(run_id)
    assert register(run_id, name=f"{name}-b").version == 1


def test_versions_come_newest_first(register, registry, name):
    for _ in range(2):
        register()
    assert [version.version for version in registry.search_versions(name)] == [2, 1]
    assert {version.name for version in registry.search_versions()} >= {name}


def test_registering_to_a_stage_moves_it_there_and_notes_who(register, registry, name):
    version = register(stage="Staging", why="先试用")
    assert version.stage == "Staging"
    assert [(c.who, c.from_stage, c.to_stage, c.why) for c in version.history] == [
        ("李雷", "None", "Staging", "先试用")
    ]
    assert registry.get_by_stage(name, "Staging") == version


def test_a_promotion_archives_the_one_before(register, registry, name):
    register(stage="Production")
    register()
    moved = registry.set_stage(name, 2, "Production", who="韩梅梅", why="better 分数")
    assert (moved.version, moved.stage) == (2, "Production")
    assert moved.history[-1].why == "better 分数"
    before = registry.get_version(name, 1)
    assert before.stage == "Archived"
    assert [(c.who, c.from_stage, c.to_stage) for c in before.history] == [
        ("李雷", "None", "Production"),
        ("韩梅梅", "Production", "Archived"),
    ]
    assert registry.get_by_stage(name, "Production").version == 2
    assert registry.get_by_stage(name, "Archived").version == 1


def test_leaving_a_stage_leaves_it_empty(register, registry, name):
    register(stage="Staging")
    assert registry.set_stage(name, 1, "None", who="a").stage == "None"
    with pytest.raises(NotFoundError) as caught:
        registry.get_by_stage(name, "Staging")
    assert caught.value.code == "registry.no_stage"


def test_moving_from_stage_to_stage_gives_up_the_first(register, registry, name):
    register(stage="Staging")
    registry.set_stage(name, 1, "Production", who="a")
    assert registry.get_by_stage(name, "Production").version == 1
    with pytest.raises(NotFoundError):
        registry.get_by_stage(name, "Staging")


def test_setting_the_same_stage_again_notes_nothing(register, registry, name):
    register(stage="Staging")
    assert len(registry.set_stage(name, 1, "Staging", who="a").history) == 1


@pytest.mark.parametrize("bad", ["", "a/b", "a:b", ".", " a", "a  b", "x" * 201])
def test_a_bad_name_is_refused_before_anything_is_made(register, registry, bad):
    with pytest.raises(BadRequestError) as caught:
        register("any-run", name=bad)
    assert caught.value.code.startswith("model_name.")


def test_what_is_not_there_is_not_found(register, registry, name):
    with pytest.raises(NotFoundError) as caught:
        registry.get_version(name, 1)
    assert caught.value.code == "registry.no_version"
    with pytest.raises(NotFoundError) as caught:
        registry.get_by_stage(name, "Staging")
    assert caught.value.code == "registry.no_model"
    assert registry.search_versions(name) == ()
    register()
    with pytest.raises(NotFoundError):
        registry.set_stage(name, 7, "Staging", who="a")
