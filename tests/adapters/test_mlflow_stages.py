"""Stages on a real MLflow server as several servers of ours, and people with MLflow's own client, move them."""

import json
import secrets
import threading

import pytest
from mlflow import MlflowClient

from dspyui.adapters.mlflow_store.registry import MlflowModelRegistry
from dspyui.domain.registry import ModelQuery
from dspyui.errors import FailedError, NotFoundError
from tests.contracts.fakes import StaticTracking
from tests.mlflow_world import Proxy

pytestmark = pytest.mark.filterwarnings("ignore:.*transition_model_version_stage:FutureWarning")


@pytest.fixture
def client(mlflow_address):
    return MlflowClient(mlflow_address, mlflow_address)


@pytest.fixture
def name(client):
    """A model with three versions."""
    made = f"stages {secrets.token_hex(6)}"
    client.create_registered_model(made)
    run = client.create_run("0")
    for _ in range(3):
        client.create_model_version(made, f"{run.info.artifact_uri}/model", run.info.run_id)
    return made


@pytest.fixture
def registry(settings, mlflow_address):
    return MlflowModelRegistry(settings, StaticTracking(mlflow_address))


def together(settings, address, calls, rule):
    """Each call with a registry of its own, as servers have them, all through one proxy; gives what went wrong."""
    problems = []
    with Proxy(address, rule) as proxy:

        def server(call):
            try:
                call(MlflowModelRegistry(settings, StaticTracking(proxy.address)))
            except Exception as exc:  # noqa: BLE001 - whatever it is, the test tells it
                problems.append(exc)

        threads = [threading.Thread(target=server, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return problems


def meeting(step):
    """A rule that holds the first two requests of a kind until both have come."""
    both, left, lock = threading.Barrier(2), [2], threading.Lock()

    def rule(method, path):
        with lock:
            waits = left[0] > 0 and step(method, path)
            left[0] -= waits
        if waits:
            both.wait(60)

    return rule


STEPS = {
    "the alias is set": lambda method, path: method == "POST" and path.endswith("/registered-models/alias"),
    "the record is written": lambda method, path: path.endswith("/model-versions/set-tag"),
    "the stage is set": lambda method, path: path.endswith("/transition-stage"),
    "the versions are looked at": lambda method, path: "/model-versions/search" in path,
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.slow
def test_two_servers_that_promote_at_once_leave_one_in_production_and_an_entry_each(
    settings, registry, mlflow_address, client, name, step
):
    registry.set_stage(name, 3, "Production", who="before", why="w")
    calls = [
        lambda own, number=number: own.set_stage(
            name, number, "Production", who=f"person {number}", why=f"why {number}"
        )
        for number in (1, 2)
    ]
    assert together(settings, mlflow_address, calls, meeting(step)) == []
    stages = {int(v.version): v.current_stage for v in client.search_model_versions(f"name = '{name}'")}
    held = int(client.get_model_version_by_alias(name, "production").version)
    assert held in {1, 2}
    assert stages == {1: "Archived", 2: "Archived", 3: "Archived", held: "Production"}
    # One tag an entry: each promotion, and what made room for it, each of them once.
    came = {number: entries(client, name, number) for number in (1, 2)}
    for number in (1, 2):
        own = [(e["who"], e["why"]) for e in came[number] if e["to"] == "Production"]
        assert own == [(f"person {number}", f"why {number}")]
    other = 3 - held
    assert [e["who"] for e in came[other] if e["to"] == "Archived"] == [f"person {held}"]
    assert [e for e in came[held] if e["to"] == "Archived"] in ([], [came[held][-1]])
    assert registry.get_by_stage(name, "Production").version == held


def entries(client, name, number):
    tags = client.get_model_version(name, str(number)).tags
    found = [json.loads(value) for key, value in tags.items() if key.startswith("dspyui.audit.")]
    return sorted(found, key=lambda entry: entry["at"])


@pytest.mark.slow
def test_one_that_leaves_while_another_comes_does_not_take_the_alias_with_it(
    settings, registry, mlflow_address, client, name
):
    registry.set_stage(name, 1, "Production", who="a", why="w")
    both = threading.Barrier(2)

    def rule(method, path):
        # The one has seen that the alias is its own, and the other is about to take it.
        if method in {"POST", "DELETE"} and path.partition("?")[0].endswith("/registered-models/alias"):
            both.wait(60)

    calls = [
        lambda own: own.set_stage(name, 1, "None", who="a", why="out"),
        lambda own: own.set_stage(name, 2, "Production", who="b", why="in"),
    ]

    def once(method, path, done=[]):  # noqa: B006 - the two of them, and no later ones
        if len(done) < 2 and method in {"POST", "DELETE"} and "/registered-models/alias" in path:
            done.append(path)
            rule(method, path)

    assert together(settings, mlflow_address, calls, once) == []
    assert int(client.get_model_version_by_alias(name, "production").version) == 2
    assert client.get_model_version(name, "2").current_stage == "Production"
    assert registry.get_by_stage(name, "Production").version == 2
    assert registry.get_version(name, 1).stage in {"None", "Archived"}


def test_what_an_earlier_dspyui_wrote_is_read_and_what_is_damaged_is_named(registry, client, name):
    old = {"who": "李雷", "at": "2026-11-23T12:00:00.000+00:00", "from": "None", "to": "Staging", "why": "w"}
    client.set_model_version_tag(name, "1", "dspyui.audit.0001", json.dumps(old))
    damaged = ("{", "[]", "{}", json.dumps({**old, "to": "Best"}), json.dumps({**old, "at": "soon"}))
    for number, text in enumerate(damaged, start=2):
        client.set_model_version_tag(name, "1", f"dspyui.audit.{number:04d}", text)
    later = json.dumps({**old, "at": "2026-11-22T12:00:00", "gate": {"of": "a later version"}})
    client.set_model_version_tag(name, "1", "dspyui.audit.x", later)
    found = registry.get_version(name, 1)
    assert [(change.who, change.at.day, change.gate) for change in found.history] == [
        ("李雷", 22, None), ("李雷", 23, None),
    ]  # fmt: skip
    assert found.unreadable_history == tuple(f"dspyui.audit.{number:04d}" for number in range(2, 7))


def test_what_mlflows_own_client_moved_is_seen_and_put_right(registry, client, name):
    client.transition_model_version_stage(name, "1", "Production")
    client.transition_model_version_stage(name, "2", "Production")
    # Without an alias MLflow's stage counts, the newest of them.
    assert registry.get_by_stage(name, "Production").version == 2
    assert registry.get_version(name, 2).is_changed_outside
    assert registry.get_model(name).production.version == 2
    registry.set_stage(name, 3, "Production", who="a", why="w")
    assert [client.get_model_version(name, str(n)).current_stage for n in (1, 2, 3)] == [
        "Archived", "Archived", "Production",
    ]  # fmt: skip
    assert [change.by for change in registry.get_version(name, 1).history] == [3]


def test_a_move_in_a_model_of_many_versions_reads_few_of_them(
    settings, registry, mlflow_address, client, name
):
    registry.set_stage(name, 1, "Production", who="a", why="w")
    registry.set_stage(name, 2, "Staging", who="a", why="w")
    asked = []
    with Proxy(mlflow_address, lambda method, path: asked.append(path)) as proxy:
        own = MlflowModelRegistry(settings, StaticTracking(proxy.address))
        own.get_by_stage(name, "Production")
        own.set_stage(name, 2, "Production", who="b", why="better")
    searches = [path for path in asked if "/model-versions/search" in path]
    assert searches
    assert all("dspyui.was_" in path for path in searches)
    stages = [client.get_model_version(name, str(number)).current_stage for number in (1, 2, 3)]
    assert stages == ["Archived", "Production", "None"]


def test_a_move_that_broke_off_in_the_middle_completes_when_it_is_repeated(
    settings, registry, mlflow_address, client, name
):
    registry.set_stage(name, 1, "Production", who="a", why="w")
    with Proxy(mlflow_address, lambda method, path: 400 if "transition-stage" in path else None) as proxy:
        broken = MlflowModelRegistry(settings, StaticTracking(proxy.address))
        with pytest.raises(FailedError):
            broken.set_stage(name, 2, "Production", who="b", why="better")
    # The alias is there already, and it counts.
    assert registry.get_by_stage(name, "Production").version == 2
    registry.set_stage(name, 2, "Production", who="b", why="better")
    assert [(e["who"], e["from"], e["to"]) for e in entries(client, name, 2)] == [("b", "None", "Production")]
    assert [e["to"] for e in entries(client, name, 1)] == ["Production", "Archived"]
    assert client.get_model_version(name, "2").current_stage == "Production"


def test_who_made_room_has_an_entry_also_when_writing_it_failed_the_first_time(
    settings, registry, mlflow_address, client, name
):
    # As MLflow's own client leaves it: nothing says yet that it was in Production.
    client.transition_model_version_stage(name, "1", "Production")
    written = []

    def rule(_method, path):
        # The mark and the entry of the one that comes; what is refused is those of the one that goes.
        written.extend([path] if path.endswith("/set-tag") else [])
        return 400 if len(written) > 2 and path.endswith("/set-tag") else None

    with Proxy(mlflow_address, rule) as proxy:
        broken = MlflowModelRegistry(settings, StaticTracking(proxy.address))
        with pytest.raises(FailedError):
            broken.set_stage(name, 2, "Production", who="b", why="better")
    registry.set_stage(name, 2, "Production", who="b", why="better")
    assert [(e["who"], e["to"], e["by"]) for e in entries(client, name, 1)] == [("b", "Archived", 2)]
    assert client.get_model_version(name, "1").current_stage == "Archived"
    assert {v.version for v in registry.search_versions(name, promoted=True)} == {1, 2}


@pytest.mark.parametrize("kind", ["/registered-models/alias", "/model-versions/set-tag"])
def test_what_mlflows_database_refuses_because_another_was_faster_is_set_again(
    settings, registry, mlflow_address, name, kind
):
    refused = []

    def rule(_method, path):
        if path.endswith(kind) and not refused:
            refused.append(path)
            return 400
        return None

    with Proxy(mlflow_address, rule) as proxy:
        own = MlflowModelRegistry(settings, StaticTracking(proxy.address))
        moved = own.set_stage(name, 1, "Production", who="a", why="w")
    assert refused
    assert (moved.stage, moved.mlflow_stage, len(moved.history)) == ("Production", "Production", 1)
    assert registry.search_versions(name, promoted=True)[0].version == 1


def test_lists_ask_once_however_long_they_are(settings, mlflow_address, client, name):
    client.set_registered_model_alias(name, "production", "1")
    asked = []
    with Proxy(mlflow_address, lambda method, path: asked.append(path.partition("?")[0])) as proxy:
        own = MlflowModelRegistry(settings, StaticTracking(proxy.address))
        own.page(ModelQuery(name=name[:6]))
        own.version_page(name)
    kinds = [path.rpartition("/mlflow/")[2] for path in asked if not path.endswith("/health")]
    # The holder is not the newest of its MLflow stage, so it is asked for by itself.
    assert kinds == ["registered-models/search", "model-versions/get", "registered-models/get",
                     "model-versions/search"]  # fmt: skip


def test_a_prompt_is_no_model(registry, client, name):
    prompt = f"prompt-{secrets.token_hex(6)}"
    client.register_prompt(prompt, "Extract from {{message}}.")
    assert registry.page(ModelQuery(name=prompt)).models == ()
    for call in (registry.get_model, registry.version_page, registry.delete_model):
        with pytest.raises(NotFoundError) as caught:
            call(prompt)
        assert caught.value.code == "registry.no_model"
    assert client.get_prompt_version(prompt, 1).template == "Extract from {{message}}."
