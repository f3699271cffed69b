"""Promotions through the gate, rollbacks, aliases, labels and deletions, as every face asks for them."""

from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from dspyui.domain.promotions import previous_production
from dspyui.domain.registry import (
    MAX_ALIAS,
    MAX_DESCRIPTION,
    MAX_TAG_VALUE,
    ModelVersion,
    RegisterRequest,
    StageChange,
    check_alias,
)
from dspyui.errors import BadRequestError, ConflictError, NotFoundError
from dspyui.i18n import Text
from dspyui.services.gate import GateService
from dspyui.services.models import ModelService, reasons
from tests.api.world import World, program
from tests.run_world import Shelf, result
from tests.sentences import told

NAME = "抽取 product"
GOOD, BAD, HALF = [1.0] * 12, [0.0] * 12, [1.0, 0.0] * 6


@pytest.fixture
def world(settings) -> World:
    return World(settings)


@pytest.fixture
def shelf(world, tmp_path) -> Shelf:
    return Shelf(world, tmp_path / "shelf")


@pytest.fixture
def models(world, shelf) -> ModelService:
    return world.services.models


@pytest.fixture
def version(world, shelf):
    """Makes a version whose Run scored so on the test rows; gives its number."""

    def make(scores=GOOD, *, name=NAME, **changes) -> int:
        request = RegisterRequest(run_id=shelf.put(result(scores), **changes), name=name, who="t")
        return world.registry.register(request, program(), tags={}, input_example={}).version

    return make


def with_gate(world, mode) -> ModelService:
    return ModelService(world.registry, GateService(world.registry, world.services.run_list, mode))


def promoted(models, number, **more):
    return models.move(NAME, number, "Production", who="李雷", why="because", **more)


def last(models, number) -> StageChange:
    return models.get(NAME, number).history[-1]


# The gate.


def test_the_first_version_has_nobody_to_compare_with(models, version):
    version(HALF)
    report = models.gate(NAME, 1)
    assert (report.word, report.holder, report.needs_confirmation) == ("first", None, False)
    assert "0.50" in report.result.sentence("zh_CN")
    assert promoted(models, 1).stage == "Production"
    assert last(models, 1).gate == report.record("")


def test_a_better_one_goes_through(models, version):
    version(BAD), version(GOOD)
    promoted(models, 1)
    report = models.gate(NAME, 2)
    assert (report.word, report.holder, report.rows, report.own_rows) == ("better", 1, 12, 12)
    said = report.result.sentence("en_US")
    for part in ("Better than version 1", "+1.00", "12 of its 12 test rows", "p < 0.001"):
        assert part in said
    assert "优于" in report.result.sentence("zh_CN")
    promoted(models, 2)
    assert (models.get(NAME, 2).stage, models.get(NAME, 1).stage) == ("Production", "Archived")
    assert last(models, 2).gate.word == "better"
    # There is nothing to ask about the one that is there.
    assert models.gate(NAME, 2) is None


def test_one_that_cannot_be_told_apart_goes_through_and_says_how_many_rows_it_would_take(models, version):
    version([1.0] * 9 + [0.0] * 3), version([1.0] * 8 + [0.0] * 2 + [1.0, 0.0])
    promoted(models, 1)
    report = models.gate(NAME, 2)
    assert (report.word, report.needs_confirmation, report.is_refused) == ("unclear", False, False)
    assert report.test.rows_needed is None
    assert "on average both score the same" in report.result.sentence("en_US")
    version([1.0] * 10 + [0.0] * 2)
    report = models.gate(NAME, 3)
    assert report.word == "unclear"
    assert f"About {report.test.rows_needed:,} rows" in report.result.sentence("en_US")
    assert promoted(models, 3).stage == "Production"


def test_a_worse_one_needs_the_models_name_typed_and_the_record_keeps_it(models, version):
    version(GOOD), version(BAD)
    promoted(models, 1)
    for typed in ("", "抽取", "yes", NAME.upper()):
        with pytest.raises(ConflictError) as caught:
            promoted(models, 2, confirm=typed)
        assert caught.value.code == "gate.confirm"
        told(caught.value, NAME, "12", "−1.00")
    assert models.get(NAME, 2).history == ()
    promoted(models, 2, confirm=f" {NAME} ")
    entry = last(models, 2)
    assert (entry.gate.word, entry.gate.holder, entry.gate.confirmed) == ("worse", 1, NAME)
    assert "Worse than version 1" in entry.gate.result.sentence("en_US")


def test_a_promotion_that_was_decided_on_against_another_holder_is_refused(models, version):
    version(BAD), version(GOOD), version(GOOD)

    def refused(holder):
        with pytest.raises(ConflictError) as caught:
            models.move(NAME, 3, "Production", who="b", why="w", holder=holder)
        assert models.get(NAME, 3).history == ()
        return caught.value

    assert refused(1).code == "registry.holder_left"
    models.move(NAME, 1, "Production", who="a", why="w", holder=0)
    assert refused(0).code == "registry.other_holder"
    # Better than 1, as he has read; but somebody has put 2 there since.
    promoted(models, 2)
    error = refused(1)
    assert error.code == "registry.other_holder"
    told(error, NAME, "2")
    assert models.move(NAME, 3, "Production", who="b", why="w", holder=2).stage == "Production"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            lambda made: made([0.5] * 12, metric={"kind": "contains"}),
            "different metrics (exact_match ≠ contains)",
        ),
        (lambda made: made(GOOD, optimizer={"kind": "none"}, first=50), "no scored test row in common"),
    ],
)
def test_one_that_was_never_tested_against_the_present_one_needs_it_too(models, world, shelf, make, reason):
    def made(scores, *, first=0, **changes):
        request = RegisterRequest(
            run_id=shelf.put(result(scores, first=first), **changes), name=NAME, who="t"
        )
        return world.registry.register(request, program(), tags={}, input_example={}).version

    made(GOOD)
    promoted(models, 1)
    make(made)
    report = models.gate(NAME, 2)
    assert (report.word, report.needs_confirmation) == ("untested", True)
    assert "Never tested against version 1, which is in Production: " in report.result.sentence("en_US")
    assert reason in report.result.sentence("en_US")
    with pytest.raises(ConflictError) as caught:
        promoted(models, 2)
    assert caught.value.code == "gate.confirm"
    promoted(models, 2, confirm=NAME)
    assert last(models, 2).gate.confirmed == NAME


def test_one_whose_run_is_gone_or_holds_no_score_was_never_tested(models, world, version, shelf):
    world.registry.put(NAME, run_id=None)
    report = models.gate(NAME, 1)
    assert (report.word, report.holder) == ("untested", None)
    assert "no score on test rows" in report.result.sentence("en_US")
    promoted(models, 1, confirm=NAME)
    version(GOOD)
    assert "the Run of version 1 is gone" in models.gate(NAME, 2).result.sentence("en_US")
    promoted(models, 2, confirm=NAME)
    world.registry.put(NAME, run_id="gone")
    assert "its Run is gone" in models.gate(NAME, 3).result.sentence("en_US")
    run_id = shelf.put()
    del shelf.store.files[run_id]["evaluation/result.json"]
    world.registry.put(NAME, run_id=run_id)
    assert "hold no test rows" in models.gate(NAME, 4).result.sentence("en_US")


def test_versions_of_the_same_run_are_the_same_program(models, world, version):
    version(GOOD)
    promoted(models, 1)
    world.registry.put(NAME, run_id=models.get(NAME, 1).run_id)
    report = models.gate(NAME, 2)
    assert (report.word, report.needs_confirmation) == ("unclear", False)
    assert "the same Run as version 1" in report.result.sentence("en_US")


def test_required_the_worse_and_the_untested_are_refused_whatever_is_typed(world, shelf, version):
    models = with_gate(world, "require")
    version(GOOD), version(BAD)
    promoted(models, 1)
    world.registry.put(NAME, run_id=None)
    for number in (2, 3):
        assert models.gate(NAME, number).is_refused
        with pytest.raises(ConflictError) as caught:
            promoted(models, number, confirm=NAME)
        assert caught.value.code == "gate.refused"
        told(caught.value, "DSPYUI_PROMOTION_GATE", "1")
    version(GOOD)
    assert promoted(models, 4).stage == "Production"


def test_switched_off_nothing_is_compared_and_nothing_kept(world, shelf, version):
    models = with_gate(world, "off")
    version(GOOD), version(BAD)
    promoted(models, 1)
    assert models.gate(NAME, 2) is None
    promoted(models, 2)
    assert last(models, 2).gate is None


def test_only_production_is_behind_the_gate(models, version):
    version(GOOD), version(BAD)
    promoted(models, 1)
    for stage in ("Staging", "Archived", "None"):
        assert models.move(NAME, 2, stage, who="t", why="w").stage == stage
        assert last(models, 2).gate is None


def test_registering_into_production_is_a_promotion(world, models, version, shelf):
    version(GOOD)
    promoted(models, 1)
    job_id = world.done()
    world.services.record.ensure_run(job_id)
    register = world.services.register
    asked = {"name": NAME, "who": "t", "stage": "Production", "why": "w"}
    with pytest.raises(ConflictError) as caught:
        register.register_job(job_id, **asked)
    assert caught.value.code == "gate.confirm"
    assert [v.version for v in world.registry.search_versions(NAME)] == [1], "nothing was registered"
    assert register.register_job(job_id, **asked, confirm=NAME).stage == "Production"
    assert (last(models, 2).gate.confirmed, last(models, 2).why) == (NAME, "w")


@pytest.mark.parametrize("stage", ["Staging", "Production"])
def test_registering_into_a_stage_needs_a_reason(world, stage):
    job_id = world.done()
    run_id = world.services.record.ensure_run(job_id).run_id
    register = world.services.register
    for call in (partial(register.register_job, job_id), partial(register.register_run, run_id)):
        with pytest.raises(BadRequestError) as caught:
            call(name=NAME, who="t", stage=stage, why=" ")
        assert caught.value.code == "registry.no_why"
    assert not world.registry.search_versions()
    assert register.register_job(job_id, name=NAME, who="t").stage == "None"


@pytest.mark.parametrize("why", ["", "  \n"])
def test_a_change_of_stage_needs_a_reason(models, version, why):
    version()
    for call in (
        lambda: models.move(NAME, 1, "Staging", who="t", why=why),
        lambda: models.roll_back(NAME, who="t", why=why),
    ):
        with pytest.raises(BadRequestError) as caught:
            call()
        assert caught.value.code == "registry.no_why"
    assert models.get(NAME, 1).history == ()


# Rolling back.


def test_a_rollback_puts_the_one_before_back_and_the_gate_is_not_asked(world, shelf, version):
    models = with_gate(world, "require")
    version(BAD), version(HALF), version(GOOD)
    for number in (1, 2, 3):
        promoted(models, number)
    assert models.rollback_target(NAME) == 2
    back = models.roll_back(NAME, who="韩梅梅", why="wrong prices")
    assert (back.version, back.stage) == (2, "Production")
    entry = last(models, 2)
    assert (entry.who, entry.why, entry.kind) == ("韩梅梅", "wrong prices", "rollback")
    assert reasons(last(models, 3), Text("en_US")) == ("Replaced by version 2.", "wrong prices")
    earlier = last(models, 3).model_copy(update={"why": "replaced by version 2"})
    assert reasons(earlier, Text("zh_CN")) == ("由版本 2 取代。",)
    # Another step goes further back, not to and fro.
    with pytest.raises(ConflictError) as caught:
        # The same request once more, after its answer was lost.
        models.roll_back(NAME, who="a", why="w", holder=3)
    assert caught.value.code == "registry.no_holder"
    told(caught.value, NAME, "3")
    assert models.roll_back(NAME, who="a", why="w", holder=2).version == 1
    with pytest.raises(NotFoundError) as caught:
        models.roll_back(NAME, who="a", why="w")
    assert caught.value.code == "registry.no_previous"
    told(caught.value, NAME)
    assert models.get(NAME, 1).stage == "Production"


def test_a_rollback_passes_over_what_was_deleted_and_takes_up_what_was_taken_out(models, version):
    version(BAD), version(HALF), version(GOOD)
    for number in (1, 2, 3):
        promoted(models, number)
    models.delete_version(NAME, 2)
    assert models.rollback_target(NAME) == 1
    models.move(NAME, 3, "Archived", who="t", why="w")
    assert models.rollback_target(NAME) == 3
    with pytest.raises(NotFoundError):
        models.rollback_target("no such model")


def story(*entries):
    """Versions with a record: (version, kind) in the order of time."""
    start = datetime(2026, 11, 24, tzinfo=UTC)
    history = {}
    for minute, (number, kind) in enumerate(entries):
        change = StageChange(
            who="t", at=start + timedelta(minutes=minute), from_stage="None", to_stage="Production", kind=kind
        )
        history.setdefault(number, []).append(change)
    return [
        ModelVersion(
            name=NAME, version=number, stage="None", description="", run_id=None, created_at=start,
            model_uri="", url="", tags={}, history=tuple(changes),
        )
        for number, changes in history.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "holder", "previous"),
    [
        ([], None, None),
        ([(1, "move")], 1, None),
        ([(1, "move"), (2, "move")], 2, 1),
        ([(1, "move"), (2, "move"), (1, "move")], 1, 2),
        ([(1, "move"), (2, "move"), (3, "move"), (2, "rollback")], 2, 1),
        ([(1, "move"), (2, "move"), (1, "rollback"), (3, "move")], 3, 1),
        # The version was put there by somebody else, or nobody is there.
        ([(1, "move"), (2, "move")], 9, 2),
        ([(1, "move"), (2, "move")], None, 2),
        # What it went back to is no longer there.
        ([(2, "move"), (1, "rollback")], 1, 2),
    ],
)
def test_which_one_was_before(entries, holder, previous):
    assert previous_production(story(*entries), holder) == previous


# Aliases, labels, deletions.


@pytest.mark.parametrize("alias", ["champion", "冠军", "a-b_c", "v", "v1x", "x" * MAX_ALIAS, "stage", "1"])
def test_an_alias_may_be_anything_that_mlflow_takes(alias):
    assert check_alias(f" {alias} ") == alias


@pytest.mark.parametrize(
    ("alias", "code"),
    [
        ("", "empty"), (" ", "empty"), ("staging", "stage"), ("Production", "stage"), ("latest", "latest"),
        ("LATEST", "latest"), ("v12", "version"), ("V1", "version"), ("a b", "character"), ("a/b", "character"),
        ("a.b", "character"), ("🚀", "character"), ("x" * (MAX_ALIAS + 1), "long"),
    ],
)  # fmt: skip
def test_other_aliases_are_refused_with_the_reason(models, version, alias, code):
    version()
    for call in (lambda: models.set_alias(NAME, alias, 1), lambda: models.delete_alias(NAME, alias)):
        with pytest.raises(BadRequestError) as caught:
            call()
        assert caught.value.code == f"alias.{code}"
        told(caught.value, *([alias] if code not in {"empty", "long"} else []))
    assert models.get(NAME, 1).aliases == ()


@pytest.mark.parametrize("number", [None, 1])
def test_labels_that_cannot_be_are_refused_and_nothing_is_changed(models, version, number):
    version()
    for tags, code in (
        ({"ok": "1", "dspyui.audit.0001": "{}"}, "tag.reserved"),
        ({"ok": "1", "mlflow.x": None}, "tag.reserved"),
        ({"": "x"}, "tag.name"),
        ({"a:b": "x"}, "tag.name"),
        ({"../x": "x"}, "tag.name"),
        ({"a\nb": "x"}, "tag.name"),
        ({"x" * 251: "x"}, "tag.name_long"),
        ({"ok": "x" * (MAX_TAG_VALUE + 1)}, "tag.value_long"),
    ):
        with pytest.raises(BadRequestError) as caught:
            models.change(NAME, number, "new", tags)
        assert caught.value.code == code
        told(caught.value)
    with pytest.raises(BadRequestError) as caught:
        models.change(NAME, number, "x" * (MAX_DESCRIPTION + 1), {"ok": "1"})
    assert caught.value.code == "description.long"
    found = models.detail(NAME).model if number is None else models.get(NAME, 1)
    assert (found.description, "ok" in found.tags) == ("", False)
    models.change(NAME, number, "new", {"ok": "1"})
    found = models.detail(NAME).model if number is None else models.get(NAME, 1)
    assert (found.description, found.tags["ok"]) == ("new", "1")


def test_what_others_may_ask_for_is_not_deleted(models, version):
    version(BAD), version(HALF), version(GOOD)
    promoted(models, 1)
    models.set_alias(NAME, "champion", 2)
    models.move(NAME, 3, "Staging", who="t", why="w")
    for number, code, word in ((1, "in_production", "Production"), (2, "has_alias", "champion"),
                               (3, "has_alias", "staging")):  # fmt: skip
        with pytest.raises(ConflictError) as caught:
            models.delete_version(NAME, number)
        assert caught.value.code == f"registry.{code}"
        told(caught.value, NAME, str(number), word)
    for prepare, code in (
        (lambda: models.move(NAME, 1, "Archived", who="t", why="w"), "model_in_production"),
        (lambda: models.delete_alias(NAME, "champion"), "model_has_alias"),
        (lambda: models.move(NAME, 3, "None", who="t", why="w"), "model_has_alias"),
    ):
        with pytest.raises(ConflictError) as caught:
            models.delete_model(NAME)
        assert caught.value.code == f"registry.{code}"
        told(caught.value, NAME)
        prepare()
    models.delete_version(NAME, 2)
    assert [listed.version.version for listed in models.detail(NAME).versions] == [3, 1]
    models.delete_model(NAME)
    with pytest.raises(NotFoundError):
        models.detail(NAME)


def test_one_in_mlflows_stage_production_is_not_deleted_though_another_has_the_alias(models, world, version):
    version(BAD), version(GOOD)
    promoted(models, 1)
    world.registry.set_alias(NAME, "production", 2)
    with pytest.raises(ConflictError):
        models.delete_version(NAME, 1)


# Versions of other tools.


def test_versions_of_other_tools_are_listed_with_why_they_are_not_loaded(models, world, version):
    version()
    world.registry.put(NAME, file="data/model.pkl")
    world.registry.put(NAME)
    listed = {each.version.version: each.unloadable for each in models.detail(NAME).versions}
    assert {number: fault and fault.code for number, fault in listed.items()} == {
        1: None, 2: "registry.only_pickle", 3: "registry.no_program",
    }  # fmt: skip
    for language in ("en_US", "zh_CN"):
        assert "data/model.pkl" in listed[2].sentence(language)
