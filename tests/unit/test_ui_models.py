"""The pages about registered models in NiceGUI's simulation."""

from threading import Event

import pytest
from nicegui.testing import User

from dspyui.domain.registry import ModelQuery, RegisterRequest
from dspyui.errors import UnavailableError
from dspyui.ui.model_views import AskedModels, models_address
from tests.api.world import World, program
from tests.pages import element, exists, sees, until, visitor, words
from tests.run_world import Shelf, result

NAME = "抽取 1"
HOME = "/models/%E6%8A%BD%E5%8F%96%201"
GOOD, BAD = [1.0] * 12, [0.0] * 12


def put(world: World, shelf: Shelf, scores, name: str = NAME) -> int:
    request = RegisterRequest(
        run_id=shelf.put(result(scores)), name=name, who="t", description="for <i>shops"
    )
    tags = {"dspyui.evaluation_score": f"{scores[0]:.4f}", "dspyui.score_improvement": "0.5000",
            "dspyui.score_improvement_ci_low": "0.2100", "dspyui.score_improvement_ci_high": "0.7900",
            "dspyui.verdict": "better",
            "dspyui.data_digest": "ab" * 32, "dspyui.program": "产品"}  # fmt: skip
    return world.registry.register(request, program(), tags=tags, input_example={}).version


@pytest.fixture
def shelf(world: World, tmp_path) -> Shelf:
    return Shelf(world, tmp_path / "shelf")


async def opened(user: User, address: str, mark: str) -> None:
    await user.open(address)
    await until(sees(user, marker=mark))


def move(world: World, number: int, stage: str = "Production", confirm: str = NAME) -> None:
    world.services.models.move(NAME, number, stage, who="anna", why="w", confirm=confirm)


async def test_the_list_tells_who_is_where_and_what_they_scored(user: User, world: World, shelf: Shelf):
    for _ in range(3):
        put(world, shelf, GOOD)
    move(world, 1)
    move(world, 2, "Staging")
    world.registry.set_alias(NAME, "champion", 3)
    await opened(user, "/models", f"model-{NAME}")
    said = words(user, "models")
    for part in (
        NAME,
        "Version 3",
        "Version 2",
        "Version 1",
        "Score 1.00 +0.50 [+0.21 … +0.79] better",
        "champion → 3",
    ):
        assert part in said
    assert "production →" not in said
    assert element(user, f"model-{NAME}").props["href"] == HOME


async def test_fifty_models_a_page_and_names_are_looked_for_on_the_server(
    user: User, world: World, shelf: Shelf
):
    for number in range(52):
        world.registry.put(f"model {number:02d}")
    await opened(user, "/models?sort=name", "models-range")
    assert words(user, "models-range").strip() == "1–50, more follow"
    assert not exists(user, marker="model-model 51")
    user.find(marker="models-next").click()
    await until(sees(user, marker="model-model 51"))
    assert words(user, "models-range").strip() == "51–52 of 52 models"
    user.find(marker="models-name").type("DEL 07")
    await until(sees(user, marker="model-model 07"))
    assert words(user, "models-range").strip() == "1 model"
    user.find(marker="models-name").clear().type("none of these")
    await until(sees(user, marker="no-fit"))
    user.find(marker="show-all").click()
    await until(sees(user, marker="model-model 00"))


def test_an_address_says_the_whole_query():
    query = ModelQuery(name="a&b 你", sort="name")
    assert models_address(query) == "/models?name=a%26b+%E4%BD%A0&sort=name"
    assert AskedModels.of({"name": "a&b 你", "sort": "name", "x": "y"}).query() == query
    assert AskedModels.of({"sort": "nonsense", "name": "x" * 900}).query().sort == "updated"
    assert models_address(ModelQuery()) == "/models"


async def test_a_models_page_shows_its_versions(user: User, world: World, shelf: Shelf):
    put(world, shelf, GOOD), put(world, shelf, BAD)
    world.registry.put(NAME, file="data/model.pkl")
    move(world, 1)
    world.registry.set_alias(NAME, "champion", 2)
    world.registry.set_tags(NAME, 2, {"team": "search"})
    await opened(user, HOME, "versions")
    first, second = words(user, "row-1"), words(user, "row-2")
    for part in ("Production", "1.00 +0.50 [+0.21 … +0.79] better", "abababababab", "产品", "for <i>shops"):
        assert part in first
    for part in ("champion", "0.00", "team: search"):
        assert part in second
    await until(sees(user, marker="unloadable-3"))
    assert "Not loadable here" in words(user, "row-3")
    assert "data/model.pkl" in words(user, "row-3")
    assert "Version 1" in words(user, "holder-production")
    assert "no version" in words(user, "holder-staging")


async def test_descriptions_and_tags_are_edited_on_both_pages(user: User, world: World, shelf: Shelf):
    put(world, shelf, GOOD)
    for address, read in (
        (HOME, lambda: world.registry.get_model(NAME)),
        (f"{HOME}/1", lambda: world.registry.get_version(NAME, 1)),
    ):
        await opened(user, address, "edit-description")
        user.find(marker="edit-description").click()
        await until(sees(user, marker="description-text"))
        user.find(marker="description-text").clear().type("new words")
        user.find(marker="description-confirm").click()
        await until(lambda read=read: read().description == "new words")
        await until(sees(user, content="new words"))
        user.find(marker="tag-name").type("team")
        user.find(marker="tag-value").type("search")
        user.find(marker="tag-set").click()
        await until(sees(user, marker="tag-team"))
        assert read().tags["team"] == "search"
        user.find(marker="tag-remove-team").click()
        await until(lambda read=read: "team" not in read().tags)
        await until(lambda: not exists(user, marker="tag-team"))
        user.find(marker="tag-name").type("dspyui.x")
        user.find(marker="tag-set").click()
        await until(lambda: any("'dspyui.x'" in said for said in user.notify.messages))


async def test_a_version_moves_with_a_reason_and_one_click(user: User, world: World, shelf: Shelf):
    put(world, shelf, GOOD)
    await opened(user, f"{HOME}/1", "to-staging")
    user.find(marker="to-staging").click()
    await until(lambda: any("needs a reason" in said for said in user.notify.messages))
    assert world.registry.get_version(NAME, 1).stage == "None"
    user.find(marker="stage-why").type("try it")
    user.find(marker="to-staging").click()
    await until(lambda: world.registry.get_version(NAME, 1).stage == "Staging")
    await until(sees(user, marker="history"))
    assert "No stage → Staging" in words(user, "history")
    assert "try it" in words(user, "history")
    assert "Staging" in words(user, "stage")
    await until(sees(user, marker="to-production"))
    assert not exists(user, marker="to-staging")


async def test_the_gate_stands_before_production(user: User, world: World, shelf: Shelf):
    put(world, shelf, GOOD), put(world, shelf, BAD)
    move(world, 1)
    await opened(user, f"{HOME}/2", "gate")
    assert "worse" in words(user, "gate-word")
    assert "Worse than version 1" in words(user, "gate-result")
    user.find(marker="stage-why").type("I know")
    user.find(marker="to-production").click()
    await until(lambda: any("To promote it nevertheless" in said for said in user.notify.messages))
    assert world.registry.get_by_stage(NAME, "Production").version == 1
    user.find(marker="gate-confirm").type(NAME)
    user.find(marker="to-production").click()
    await until(lambda: world.registry.get_by_stage(NAME, "Production").version == 2)
    await until(sees(user, marker="roll-back"))
    said = words(user, "history")
    assert "Worse than version 1" in said
    assert f"Confirmed by typing “{NAME}”" in said
    # And back, from the page of the one that is there.
    assert element(user, "roll-back").text == "Roll back to version 1"  # type: ignore[attr-defined]
    user.find(marker="stage-why").type("wrong prices")
    user.find(marker="roll-back").click()
    await until(lambda: world.registry.get_by_stage(NAME, "Production").version == 1)
    await until(lambda: "Replaced by version 1" in words(user, "history"))


async def test_a_rollback_from_a_page_that_is_out_of_date_goes_no_step_further(
    user: User, world: World, shelf: Shelf
):
    for number in (1, 2, 3):
        put(world, shelf, GOOD)
        move(world, number)
    await opened(user, f"{HOME}/3", "roll-back")
    world.services.models.roll_back(NAME, who="somebody else", why="w")
    user.find(marker="stage-why").type("wrong prices")
    user.find(marker="roll-back").click()
    await until(lambda: any("Nothing was rolled back" in said for said in user.notify.messages))
    assert world.registry.get_by_stage(NAME, "Production").version == 2


@pytest.mark.parametrize("mode", ["require", "off"])
async def test_the_gates_setting_shows(settings, tmp_path, mode):
    world = World(settings.model_copy(update={"promotion_gate": mode}))
    world.registry.put("m", file="data/model.pkl")
    async with visitor(world.services, tmp_path) as user:
        await opened(user, "/models/m/1", "to-production")
        assert exists(user, marker="gate-refused") == (mode == "require")
        assert exists(user, marker="gate-off") == (mode == "off")
        assert element(user, "to-production").enabled == (mode == "off")  # type: ignore[attr-defined]
        assert not exists(user, marker="gate-confirm")


async def test_a_promotion_read_against_another_holder_is_refused_on_the_page(
    user: User, world: World, shelf: Shelf
):
    put(world, shelf, BAD), put(world, shelf, GOOD), put(world, shelf, GOOD)
    move(world, 1)
    await opened(user, f"{HOME}/3", "gate-result")
    assert "version 1" in words(user, "gate-result")
    move(world, 2)
    user.find(marker="stage-why").type("Better than 1.")
    user.find(marker="to-production").click()
    await until(lambda: any("version 2 of" in said for said in user.notify.messages))
    assert world.registry.get_by_stage(NAME, "Production").version == 2


async def test_a_version_leads_to_the_run_it_was_made_of(user: User, world: World, shelf: Shelf):
    put(world, shelf, GOOD)
    run_id = world.registry.get_version(NAME, 1).run_id
    await opened(user, f"{HOME}/1", "version-run")
    assert element(user, "version-run").props["href"] == f"/runs/{run_id}"
    await opened(user, f"/runs/{run_id}", "run")
    world.registry.put(NAME, run_id=None)
    await opened(user, f"{HOME}/2", "version")
    assert not exists(user, marker="version-run")


async def test_what_was_changed_outside_and_what_cannot_be_read_is_said(
    user: User, world: World, shelf: Shelf
):
    put(world, shelf, GOOD), put(world, shelf, BAD)
    move(world, 1)
    world.registry.set_alias(NAME, "production", 2)
    world.registry._keep(NAME, 1, unreadable_history=("dspyui.audit.0007",))
    await opened(user, f"{HOME}/1", "changed-outside")
    assert "MLflow’s own stage is Production" in words(user, "changed-outside")
    assert "dspyui.audit.0007" in words(user, "unreadable-history")
    await opened(user, f"{HOME}/2", "changed-outside")
    assert "Production" in words(user, "stage")
    await opened(user, HOME, "outside-1")
    await opened(user, "/models", "models")
    assert "Changed outside" in words(user, "models")


async def test_a_pickle_stays_closed_and_the_page_says_why(user: User, world: World):
    world.registry.put(NAME, file="data/model.pkl")
    await opened(user, f"{HOME}/1", "unloadable")
    assert "data/model.pkl" in words(user, "unloadable")
    assert not exists(user, marker="try-run")


async def test_the_list_stands_before_versions_of_other_programs_are_looked_into(
    user: User, world: World, shelf: Shelf
):
    put(world, shelf, GOOD)
    world.registry.put(NAME, file="data/model.pkl")
    may_answer, look = Event(), world.registry.unloadable
    looked = []

    def slow(version):
        looked.append(version.version)
        assert may_answer.wait(60)
        return look(version)

    world.registry.unloadable = slow
    await opened(user, HOME, "version-2")
    assert "looking into it" in words(user, "row-2")
    assert not exists(user, marker="unloadable-2")
    may_answer.set()
    await until(sees(user, marker="unloadable-2"))
    assert "data/model.pkl" in words(user, "row-2")
    assert "looking into it" not in words(user, "row-2")
    assert looked == [2]


async def test_what_cannot_be_looked_into_is_said_and_the_list_stays(user: User, world: World):
    world.registry.put(NAME)

    def away(_version):
        raise UnavailableError("mlflow.unavailable", address="http://x", problem="away")

    world.registry.unloadable = away
    await opened(user, HOME, "version-1")
    await until(lambda: any("does not answer" in said for said in user.notify.messages))
    assert exists(user, marker="version-1")


async def test_free_aliases_are_given_and_taken(user: User, world: World, shelf: Shelf):
    put(world, shelf, GOOD)
    move(world, 1)
    await opened(user, f"{HOME}/1", "alias-production")
    assert not exists(user, marker="alias-remove-production")
    user.find(marker="alias-name").type("latest")
    user.find(marker="alias-set").click()
    await until(lambda: any("own word for the newest" in said for said in user.notify.messages))
    user.find(marker="alias-name").clear().type("champion")
    user.find(marker="alias-set").click()
    await until(sees(user, marker="alias-champion"))
    assert world.registry.get_by_alias(NAME, "champion").version == 1
    user.find(marker="alias-remove-champion").click()
    await until(lambda: not exists(user, marker="alias-champion"))


async def test_deleting_asks_first_and_says_why_not(user: User, world: World, shelf: Shelf):
    put(world, shelf, GOOD), put(world, shelf, GOOD)
    move(world, 1)
    await opened(user, f"{HOME}/1", "delete-version")
    user.find(marker="delete-version").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(
        lambda: any("is in Production and cannot be deleted" in said for said in user.notify.messages)
    )
    await opened(user, f"{HOME}/2", "delete-version")
    user.find(marker="delete-version").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(lambda: len(world.registry.search_versions(NAME)) == 1)
    await until(sees(user, marker="delete-model"))
    move(world, 1, "None")
    user.find(marker="delete-model").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(lambda: not world.registry.search_versions())
    await until(sees(user, marker="to-jobs"))


@pytest.mark.parametrize("path", ["/models", HOME, f"{HOME}/1"])
async def test_the_pages_speak_chinese(user: User, world: World, shelf: Shelf, path):
    put(world, shelf, GOOD)
    await user.open(f"{path}?lang=zh")
    await until(sees(user, content="版本 1" if path != f"{HOME}/1" else "阶段"))


async def test_without_tracking_the_page_says_so(settings, tmp_path):
    world = World(settings.model_copy(update={"mlflow_enabled": False}))
    async with visitor(world.services, tmp_path) as user:
        await user.open("/models/m")
        await until(sees(user, content="Tracking is off"))


async def test_a_rollback_that_cannot_be_found_out_says_why(user: User, world: World, shelf: Shelf):
    put(world, shelf, GOOD)
    move(world, 1)

    def away(name=None, *, promoted=False):
        raise UnavailableError("record.tracking_off")

    world.registry.search_versions = away
    await opened(user, f"{HOME}/1", "load-problem")
    assert exists(user, marker="version")
