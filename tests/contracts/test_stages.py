"""Stages, aliases, lists and labels: what every model registry does, the one in memory and MLflow's."""

import threading

import pytest
from mlflow import MlflowClient

from dspyui.domain.base import Fault
from dspyui.domain.registry import GateRecord, ModelQuery
from dspyui.errors import BadRequestError, NotFoundError

GATE = GateRecord(
    word="worse",
    holder=1,
    result=Fault(
        code="gate_result.untested", values={"reason": {"code": "gate_reason.no_run", "values": {}}}
    ),
    confirmed="产品",
)


@pytest.fixture
def put(kind, registry, request):
    """Makes a version of any model, as other tools do; gives its number."""
    if kind == "memory":
        return lambda name, **tags: registry.put(name, tags=tags).version
    address = request.getfixturevalue("mlflow_address")
    client, known = MlflowClient(address, address), set()
    run = client.create_run("0")
    source = f"{run.info.artifact_uri}/model"

    def put(name, **tags):
        if name not in known:
            client.create_registered_model(name)
            known.add(name)
        return int(client.create_model_version(name, source, run.info.run_id, tags).version)

    return put


@pytest.fixture
def versions(put, name):
    """Makes versions of the model `name`; gives their numbers."""
    return lambda count: [put(name) for _ in range(count)]


def entries(registry, name, number):
    found = registry.get_version(name, number).history
    return [(change.who, change.from_stage, change.to_stage) for change in found]


def test_a_way_through_all_stages_and_back(registry, versions, name):
    versions(1)
    path = ("Staging", "Production", "Archived", "Staging", "None")
    for stage in path:
        moved = registry.set_stage(name, 1, stage, who="a", why=f"to {stage}")
        assert (moved.stage, moved.mlflow_stage) == (stage, stage)
        expected = () if stage in {"None", "Archived"} else (stage.lower(),)
        assert moved.aliases == expected
        assert not moved.is_changed_outside
    history = registry.get_version(name, 1).history
    assert tuple(change.to_stage for change in history) == path
    assert tuple(change.from_stage for change in history) == ("None", *path[:-1])
    assert [change.why for change in history] == [f"to {stage}" for stage in path]
    assert [change.at for change in history] == sorted(change.at for change in history)


def test_the_holder_makes_room_in_the_same_step_and_the_record_says_for_whom(registry, versions, name):
    versions(2)
    registry.set_stage(name, 1, "Production", who="a", why="first")
    registry.set_stage(name, 2, "Production", who="b", why="better", gate=GATE)
    before = registry.get_version(name, 1)
    assert (before.stage, before.mlflow_stage, before.aliases) == ("Archived", "Archived", ())
    left = before.history[-1]
    assert (left.who, left.from_stage, left.to_stage, left.kind, left.by, left.why) == (
        "b", "Production", "Archived", "replaced", 2, "better",
    )  # fmt: skip
    came = registry.get_version(name, 2).history[-1]
    assert came.gate == GATE
    assert came.gate.result.sentence("en_US") == "Never tested: its Run is gone, or it never had one."
    assert registry.get_by_stage(name, "Production").version == 2


def test_a_rollback_is_told_as_one(registry, versions, name):
    versions(2)
    for number in (1, 2):
        registry.set_stage(name, number, "Production", who="a")
    registry.set_stage(name, 1, "Production", who="b", why="broken", kind="rollback")
    assert registry.get_version(name, 1).history[-1].kind == "rollback"
    assert registry.get_by_stage(name, "Production").version == 1
    assert registry.get_version(name, 2).stage == "Archived"


def test_those_that_were_in_production_are_found_among_the_others(registry, versions, name):
    versions(4)
    registry.set_stage(name, 1, "Production", who="a")
    registry.set_stage(name, 3, "Staging", who="a")
    registry.set_stage(name, 2, "Production", who="a")
    found = registry.search_versions(name, promoted=True)
    assert [(version.version, version.stage) for version in found] == [(2, "Production"), (1, "Archived")]


def test_many_who_promote_at_once_end_with_one_version_and_an_entry_each(registry, versions, name):
    numbers = versions(3)
    start, problems = threading.Barrier(len(numbers)), []

    def promote(number):
        start.wait(60)
        try:
            registry.set_stage(name, number, "Production", who=f"p{number}", why="mine")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the test tells it
            problems.append(exc)

    threads = [threading.Thread(target=promote, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    found = registry.search_versions(name)
    assert [v.mlflow_stage for v in found].count("Production") == 1
    holder = registry.get_by_stage(name, "Production")
    assert (holder.stage, holder.mlflow_stage, holder.aliases) == (
        "Production",
        "Production",
        ("production",),
    )
    assert {v.stage for v in found if v.version != holder.version} == {"Archived"}
    came = [(c.who, v.version) for v in found for c in v.history if c.to_stage == "Production"]
    assert sorted(came) == [(f"p{number}", number) for number in numbers]


def test_free_aliases_move_and_go(registry, versions, name):
    versions(2)
    assert registry.set_alias(name, "champion", 1).aliases == ("champion",)
    assert registry.set_alias(name, "冠军-2", 1).free_aliases == ("champion", "冠军-2")
    registry.set_alias(name, "champion", 2)
    assert registry.get_by_alias(name, "champion").version == 2
    assert registry.get_version(name, 1).aliases == ("冠军-2",)
    # A stage's alias is one more, and the free ones stay through moves.
    assert registry.set_stage(name, 2, "Production", who="a").aliases == ("champion", "production")
    assert registry.set_stage(name, 2, "Archived", who="a").aliases == ("champion",)
    registry.delete_alias(name, "champion")
    for call in (registry.delete_alias, registry.get_by_alias):
        with pytest.raises(NotFoundError) as caught:
            call(name, "champion")
        assert caught.value.code == "registry.no_alias"
    with pytest.raises(NotFoundError) as caught:
        registry.set_alias(name, "champion", 9)
    assert caught.value.code == "registry.no_version"


def test_where_alias_and_stage_disagree_the_alias_counts(registry, versions, name):
    versions(3)
    registry.set_stage(name, 1, "Production", who="a")
    # Somebody else moves the alias, as MLflow's own page does.
    registry.set_alias(name, "production", 2)
    first, second = registry.get_version(name, 1), registry.get_version(name, 2)
    assert (first.stage, first.mlflow_stage, first.is_changed_outside) == ("None", "Production", True)
    assert (second.stage, second.mlflow_stage, second.is_changed_outside) == ("Production", "None", True)
    assert registry.get_by_stage(name, "Production").version == 2
    model = registry.get_model(name)
    assert model.production.version == 2
    assert model.production.is_changed_outside
    assert {v.version: v.stage for v in registry.search_versions(name)} == {
        3: "None",
        2: "Production",
        1: "None",
    }
    # The next move puts everything right.
    registry.set_stage(name, 3, "Production", who="b")
    assert [(v.version, v.stage, v.is_changed_outside) for v in registry.search_versions(name)] == [
        (3, "Production", False), (2, "None", False), (1, "Archived", False),
    ]  # fmt: skip


def test_moving_what_was_changed_outside_to_where_it_is_makes_both_agree(registry, versions, name):
    versions(1)
    registry.set_alias(name, "staging", 1)
    moved = registry.set_stage(name, 1, "Staging", who="a", why="as it is")
    assert (moved.stage, moved.is_changed_outside) == ("Staging", False)
    assert entries(registry, name, 1) == [("a", "None", "Staging")]


def test_models_come_a_page_at_a_time_found_by_a_part_of_their_name(registry, put, name):
    names = [f"{name} {part}" for part in ("a", "b", "Ç")]
    for each in names:
        put(each, **{"dspyui.evaluation_score": "0.5"})
    query = ModelQuery(name=name.upper(), sort="name", size=2)
    first = registry.page(query)
    assert [model.name for model in first.models] == names[:2]
    second = registry.page(query, first.next_token)
    assert ([model.name for model in second.models], second.next_token) == (names[2:], None)
    assert {model.name for model in registry.page(ModelQuery(name=name)).models} == set(names)
    assert first.models[0].newest.tags["dspyui.evaluation_score"] == "0.5"
    assert registry.page(ModelQuery(name=f"{name}_none")).models == ()
    with pytest.raises(BadRequestError) as caught:
        registry.page(query, "nonsense")
    assert caught.value.code == "registry.page_token"


@pytest.mark.parametrize("text", ["it's", 'say "hi"', "100%", "back\\slash", "x' OR 1=1 --", "🚀"])
def test_any_text_can_be_looked_for_among_models(registry, name, text):
    # With the name of this test's own: others have made models with such names on the same server.
    assert registry.page(ModelQuery(name=f"{text}{name}")).models == ()


def test_a_model_tells_who_holds_what(registry, versions, name):
    versions(4)
    registry.set_stage(name, 1, "Production", who="a")
    registry.set_stage(name, 2, "Staging", who="a")
    registry.set_alias(name, "champion", 3)
    for model in (registry.get_model(name), registry.page(ModelQuery(name=name)).models[0]):
        held = (model.newest.version, model.staging.version, model.production.version)
        assert held == (4, 2, 1)
        assert model.aliases == {"production": 1, "staging": 2, "champion": 3}
        assert (model.production.stage, model.production.aliases) == ("Production", ("production",))
    for call in (registry.get_model, registry.version_page, registry.delete_model):
        with pytest.raises(NotFoundError) as caught:
            call(f"{name} none")
        assert caught.value.code == "registry.no_model"


def test_versions_come_a_page_at_a_time_newest_first(registry, versions, name):
    versions(3)
    registry.set_stage(name, 3, "Staging", who="a")
    first = registry.version_page(name, size=2)
    assert [(v.version, v.stage) for v in first.versions] == [(3, "Staging"), (2, "None")]
    second = registry.version_page(name, first.next_token, size=2)
    assert ([v.version for v in second.versions], second.next_token) == ([1], None)
    with pytest.raises(BadRequestError) as caught:
        registry.version_page(name, "nonsense")
    assert caught.value.code == "registry.page_token"


def test_descriptions_and_tags_of_models_and_versions(registry, versions, name):
    versions(2)
    for number in (None, 1):
        registry.describe(name, number, "第一行\nsecond 🚀")
        registry.set_tags(name, number, {"team": "search 搜索", "a/b.c-d e": ""})
    for found in (registry.get_model(name), registry.get_version(name, 1)):
        assert found.description == "第一行\nsecond 🚀"
        assert found.tags["team"] == "search 搜索"
        assert found.tags["a/b.c-d e"] == ""
    assert registry.get_version(name, 2).description == ""
    for number in (None, 1):
        registry.describe(name, number, "")
        registry.set_tags(name, number, {"team": None, "a/b.c-d e": None, "never": None})
    for found in (registry.get_model(name), registry.get_version(name, 1)):
        assert found.description == ""
        assert "team" not in found.tags
    with pytest.raises(NotFoundError):
        registry.describe(name, 7, "x")
    with pytest.raises(NotFoundError):
        registry.set_tags(f"{name} none", None, {"a": "b"})


def test_deleted_versions_and_models_are_gone(registry, versions, name):
    versions(2)
    registry.delete_version(name, 2)
    assert [v.version for v in registry.search_versions(name)] == [1]
    with pytest.raises(NotFoundError) as caught:
        registry.delete_version(name, 2)
    assert caught.value.code == "registry.no_version"
    registry.delete_model(name)
    with pytest.raises(NotFoundError):
        registry.get_version(name, 1)
    assert registry.search_versions(name) == ()
