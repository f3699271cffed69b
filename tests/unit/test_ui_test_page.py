"""The Test page in NiceGUI's simulation."""

import json
from collections.abc import Callable

import pytest
from nicegui import ui
from nicegui.testing import User

from dspyui.domain.lms import LMSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram, ProgramSpec
from dspyui.domain.registry import RegisterRequest
from dspyui.domain.runs import TrackingState
from dspyui.settings import Settings
from tests.api.world import MLFLOW, World, program
from tests.pages import element, exists, sees, until, visitor, words

EVERY_TYPE = {
    "inputs": [
        {"name": "text"},
        {"name": "whole", "type": "int"},
        {"name": "part", "type": "float"},
        {"name": "sure", "type": "bool"},
        {"name": "words", "type": "list[str]"},
        {"name": "kind", "type": "choice", "choices": ["bug", "praise"]},
    ],
    "outputs": [{"name": "answer"}, {"name": "count", "type": "int"}],
}

MIXED = [{"name": "product"}, {"name": "words", "type": "list[str]"}, {"name": "count", "type": "int"}]


def made(name: str, **spec: object) -> CompiledProgram:
    """A program of that name; it takes `message` and gives `product` unless its signature is given."""
    signature = spec.pop("signature", {"inputs": [{"name": "message"}], "outputs": [{"name": "product"}]})
    asked = ProgramSpec.model_validate({"name": name, "signature": signature, **spec})
    return CompiledProgram(
        spec=asked,
        optimizer=OptimizerSpec(kind="none"),
        lm=LMSpec(),
        state={},
        signature_digest=asked.signature.digest(),
    )


@pytest.fixture
def file(tmp_path):
    """Writes a program file; gives the page's address part for it."""

    def write(name: str, **spec: object) -> str:
        path = tmp_path / f"{name}.json"
        path.write_text(made(name, **spec).to_json(), encoding="utf-8")
        return f"model={path}"

    return write


def says(user: User, marker: str, part: str) -> Callable[[], bool]:
    """Whether an element is there and holds the words."""
    return lambda: exists(user, marker=marker) and part in words(user, marker)


async def opened(user: User, *models: str, more: str = "") -> None:
    await user.open(f"/test?lang=en&{'&'.join(models)}{more}")
    await until(lambda: all(exists(user, marker=f"lane-{n + 1}") for n in range(len(models))))


async def answered(user: User, text: str, *lanes: int) -> None:
    await until(sees(user, marker="test-run"))
    user.find(marker="input-message").clear().type(text)
    user.find(marker="test-run").click()
    await until(lambda: all(exists(user, marker=f"lane-{n}-answer") for n in lanes))


async def test_a_version_is_chosen_asked_and_shown_whole(user: User, world: World):
    request = RegisterRequest(run_id="r1", name="产品", stage="Production", who="tester")
    world.registry.register(
        request, made("产品", module={"kind": "chain_of_thought"}), tags={}, input_example={}
    )
    await user.open("/test?lang=en")
    await until(sees(user, marker="choose-which"))
    assert element(user, "choose-which").value == "models:/产品/Production"  # type: ignore[attr-defined]
    user.find(marker="add-program").click()
    await until(sees(user, marker="lane-1"))
    user.find(marker="test-run").click()
    await until(lambda: "This is still empty" in str(element(user, "input-message").error))  # type: ignore[attr-defined]
    await answered(user, "my lamp", 1)
    assert "产品: MY LAMP" in words(user, "lane-1-answer")
    assert "Because of" in words(user, "lane-1-answer-reasoning")
    assert "MY LAMP" in words(user, "lane-1-answer-prompt")
    for part in ("0.2 s", "1 LM call", "7 tokens", "$0.0012"):
        assert part in words(user, "lane-1-answer-took")
    (call,) = world.runner.calls
    assert (call.tags["dspyui.source"], call.tags["dspyui.model_version"]) == ("test", "1")
    assert call.traced
    assert world.runner.warmed


async def test_versions_are_named_by_stage_number_or_a_typed_alias(user: User, world: World):
    for stage in ("None", "Staging"):
        request = RegisterRequest(run_id=f"run of {stage}", name="m", stage=stage, who="tester")
        world.registry.register(request, made("m"), tags={}, input_example={})
    world.registry.set_alias("m", "champion", 1)
    await user.open("/test?lang=en")
    await until(sees(user, marker="choose-which"))
    which: ui.select = element(user, "choose-which")  # type: ignore[assignment]
    assert list(which.options.items())[:2] == [
        ("models:/m/Staging", "Staging (version 2)"),
        ("models:/m/2", "Version 2"),
    ]
    which.value = which._handle_new_value("champion")
    user.find(marker="add-program").click()
    await until(sees(user, marker="lane-1"))
    assert "m · 1" in words(user, "lane-1")


async def test_a_run_and_a_job_of_this_machine(user: User, world: World):
    job_id = world.done()
    world.services.record.ensure_run(job_id)
    await user.open("/test?lang=en")
    user.find(marker="choose-run").click()
    await until(sees(user, marker="choose-run-list"))
    user.find(marker="add-program").click()
    await until(sees(user, marker="lane-1"))
    assert f"runs:/run-{job_id}" in words(user, "lane-1")
    user.find(marker="choose-job").click()
    await until(sees(user, marker="choose-job-list"))
    user.find(marker="add-program").click()
    await until(sees(user, marker="lane-2"))
    await answered(user, "x", 1, 2)
    assert len(world.runner.calls) == 2


async def test_programs_of_other_inputs_are_turned_away_with_the_field(user: User, file):
    await opened(user, file("one"))
    other = file("other", signature={"inputs": [{"name": "question"}], "outputs": [{"name": "product"}]})
    user.find(marker="choose-file").click()
    await until(sees(user, marker="choose-path"))
    user.find(marker="choose-path").type(other.removeprefix("model="))
    user.find(marker="add-program").click()
    await until(sees(user, marker="test-problem"))
    assert "it has no input message" in words(user, "test-problem")
    assert not exists(user, marker="lane-2")


async def test_answers_side_by_side_say_where_they_differ(user: User, world: World, file):
    await opened(user, file("one"), file("two"), file("three"))
    await answered(user, "lamp", 1, 2, 3)
    for number, name in enumerate(("one", "two", "three"), 1):
        assert f"{name}: LAMP" in words(user, f"lane-{number}-answer")
        await until(sees(user, marker=f"lane-{number}-answer-differs-product"))
    await until(sees(user, marker="test-run"))
    user.find(marker="lane-3-remove").click()
    user.find(marker="lane-2-remove").click()
    await until(lambda: not exists(user, marker="lane-1-answer-differs-product"))
    assert "one: LAMP" in words(user, "lane-1-answer")


async def test_each_program_fails_by_itself(user: User, world: World, file):
    await opened(user, file("good"), file("bad"))
    predict = world.runner.predict

    def one_breaks(call, patience):
        is_bad = call.program.spec.name == "bad"
        return predict(
            call.model_copy(update={"inputs": {"message": "broken"}}) if is_bad else call, patience
        )

    world.runner.predict = one_breaks  # type: ignore[method-assign]
    await answered(user, "lamp", 1)
    await until(sees(user, marker="lane-2-problem"))
    assert "could not be read" in words(user, "lane-2-problem")
    assert "7 tokens" in words(user, "lane-2-answer-took")
    # A failed call is traced too, and can be judged.
    await until(sees(user, marker="lane-2-down"))


async def test_a_process_that_ends_is_told_and_the_form_stays(user: User, file):
    await opened(user, file("one"))
    user.find(marker="input-message").type("hidden")
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1-problem"))
    assert "Check free memory" in words(user, "lane-1-problem")
    await answered(user, "lamp", 1)
    assert not exists(user, marker="lane-1-problem")


async def test_a_call_is_stopped_by_hand(user: User, file):
    await opened(user, file("one"))
    user.find(marker="input-message").type("slow")
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1-asking"))
    await until(says(user, "lane-1-asking", "Asking the model"))
    user.find(marker="test-stop").click()
    await until(sees(user, marker="lane-1-stopped"))
    await answered(user, "lamp", 1)


async def test_while_programs_are_asked_none_is_added(user: User, file):
    def adders() -> list[bool]:
        return [element(user, marker).enabled for marker in ("choose-upload", "add-program")]  # type: ignore[attr-defined]

    await opened(user, file("one"))
    user.find(marker="choose-file").click()
    await until(sees(user, marker="choose-upload"))
    user.find(marker="input-message").type("slow")
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1-asking"))
    assert adders() == [False, False]
    # What is drawn meanwhile is disabled as well.
    user.find(marker="choose-file").click()
    await until(lambda: adders() == [False, False])
    user.find(marker="test-stop").click()
    await until(lambda: adders() == [True, True])


async def test_a_row_of_very_many_digits_is_the_first(user: User, world: World, file):
    kept, _table = world.services.data.keep_upload("rows.csv", b"message,product\nlamp,x\ntent,y\n")
    await opened(user, file("one"), more=f"&data=data:{kept.digest}&row={'9' * 5000}")
    await until(says(user, "test-row", "Row 1 of 2"))


async def test_a_call_is_stopped_after_the_seconds_that_were_set(user: User, world: World, file):
    await opened(user, file("one"))
    element(user, "test-seconds").set_value(1)  # type: ignore[attr-defined]
    user.find(marker="input-message").type("slow")
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1-problem"))
    assert "longer than 1 s" in words(user, "lane-1-problem")


async def test_every_type_has_its_widget_and_a_row_of_a_table_fills_them(user: User, world: World, file):
    rows = [
        {"text": "", "whole": str(2**60 + 1), "part": 0.5, "sure": "yes", "words": "a; b", "kind": "bug"},
        {"text": "t", "whole": 1, "part": "1e3", "sure": False, "words": '["[x]", "y z"]', "kind": "other"},
    ]
    content = "".join(json.dumps({**row, "answer": "A", "count": 3}) + "\n" for row in rows).encode()
    kept, _table = world.services.data.keep_upload("rows.jsonl", content)
    await opened(user, file("one", signature=EVERY_TYPE), more=f"&data=data:{kept.digest}")
    await until(says(user, "test-row", "Row 1 of 2"))
    assert isinstance(element(user, "input-text"), ui.textarea)
    assert element(user, "input-whole").props["type"] == "number"
    assert isinstance(element(user, "input-sure"), ui.radio)
    assert isinstance(element(user, "input-kind"), ui.select)
    assert element(user, "input-words").value == "a\nb"  # type: ignore[attr-defined]
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1-answer"))
    (call,) = world.runner.calls
    assert call.inputs == {
        "text": "", "whole": 2**60 + 1, "part": 0.5, "sure": True, "words": ["a", "b"], "kind": "bug",
    }  # fmt: skip

    # The next row: what does not fit is told at its field, and nothing is asked.
    await until(sees(user, marker="test-run"))
    user.find(marker="test-next-row").click()
    await until(says(user, "test-row", "Row 2 of 2"))
    assert not exists(user, marker="lane-1-answer")
    assert "'other' does not fit" in str(element(user, "input-kind").error)  # type: ignore[attr-defined]
    assert element(user, "input-words").value == '["[x]", "y z"]'  # type: ignore[attr-defined]
    assert "disable" in element(user, "test-next-row").props
    user.find(marker="test-run").click()
    element(user, "input-kind").set_value("praise")  # type: ignore[attr-defined]
    element(user, "input-sure").set_value(None)  # type: ignore[attr-defined]
    user.find(marker="test-run").click()
    await until(says(user, "input-sure-problem", "still empty"))
    assert len(world.runner.calls) == 1
    element(user, "input-sure").set_value(True)  # type: ignore[attr-defined]
    user.find(marker="test-run").click()
    await until(lambda: len(world.runner.calls) == 2)
    assert world.runner.calls[1].inputs["words"] == ["[x]", "y z"]


async def test_what_a_table_expects_stands_beside_the_answer(user: User, world: World, file):
    content = b"Message,product\nlamp,one: LAMP\ntent,tent\n"
    kept, _table = world.services.data.keep_upload("rows.csv", content)
    await opened(user, file("one"), more=f"&data=data:{kept.digest}&row=1")
    await until(sees(user, marker="test-row"))
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1-answer-expected-product"))
    assert "As expected" in words(user, "lane-1-answer-expected-product")
    await until(sees(user, marker="test-run"))
    user.find(marker="test-next-row").click()
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1-answer-expected-product"))
    assert "Not as expected" in words(user, "lane-1-answer-expected-product")
    assert "Expected: tent" in words(user, "lane-1-answer")
    # Another text than the row's: what the row expects says nothing about it.
    await answered(user, "stove", 1)
    await until(says(user, "lane-1-answer", "STOVE"))
    assert not exists(user, marker="lane-1-answer-expected-product")


async def test_the_rows_a_job_was_scored_on_can_be_stepped_through(user: User, world: World):
    job_id = world.done()
    await opened(user, f"model=job:{job_id}", more=f"&data=job:{job_id}")
    await until(sees(user, marker="test-row"))
    assert "Row 1 of 1" in words(user, "test-row")
    options = element(user, "test-rows").options  # type: ignore[attr-defined]
    assert options == {f"job:{job_id}": f"Test rows of job {job_id}"}


async def test_a_table_without_the_inputs_is_refused_by_name(user: User, world: World, file):
    kept, _table = world.services.data.keep_upload("rows.csv", b"question,kind,x\na,b,c\n")
    await opened(user, file("one"), more=f"&data=data:{kept.digest}")
    await until(sees(user, marker="test-rows-problem"))
    assert "no column for the input message" in words(user, "test-rows-problem")


async def test_thumbs_a_comment_and_a_correction_go_to_the_trace(user: User, world: World, file):
    await opened(user, file("one"))
    await answered(user, "lamp", 1)
    world.services.feedback.send()
    await until(sees(user, marker="lane-1-trace-link"))
    assert element(user, "lane-1-trace-link").props["href"].startswith("http")
    user.find(marker="lane-1-down").click()
    await until(sees(user, marker="lane-1-stored"))
    await until(lambda: element(user, "lane-1-down").props["aria-pressed"] == "true")
    (key,) = world.feedback.held
    assert world.feedback.held[key].thumbs_up is False
    assert element(user, "lane-1-more").value is True, "who finds it wrong may know what is right"  # type: ignore[attr-defined]
    assert words(user, "lane-1-stored").endswith(": Thumbs down")
    user.find(marker="lane-1-comment").type("no lamp")
    await until(sees(user, marker="lane-1-unsaved"))
    assert not exists(user, marker="lane-1-stored")
    user.find(marker="lane-1-correct-product").clear().type("lamp")
    user.find(marker="lane-1-save").click()
    await until(lambda: world.feedback.held[key].correction == {"product": "lamp"})
    assert world.feedback.held[key].comment == "no lamp"
    await until(sees(user, marker="lane-1-stored"))
    assert words(user, "lane-1-stored").endswith(": Thumbs down, Comment, Corrected answer")
    assert user.notify.messages[-1] == "Saved."
    # A field of the correction alone is no less unsaved.
    user.find(marker="lane-1-correct-product").type("s")
    await until(sees(user, marker="lane-1-unsaved"))
    user.find(marker="lane-1-up").click()
    await until(lambda: world.feedback.held[key].thumbs_up is True)
    assert len(world.feedback.held) == 1
    assert element(user, "lane-1-down").props["aria-pressed"] == "false"


async def test_while_mlflow_is_away_the_trace_waits_and_nothing_is_said_to_be_stored(
    user: User, world: World, file
):
    await opened(user, file("one"))
    world.feedback.away = True
    world.tracking.now = TrackingState(status="unreachable", address=MLFLOW)
    await answered(user, "lamp", 1)
    await until(says(user, "lane-1-trace", "waits on this machine's disk"))
    user.find(marker="lane-1-up").click()
    await until(sees(user, marker="lane-1-opinion-problem"))
    assert "nothing was stored" in words(user, "lane-1-opinion-problem")
    assert not exists(user, marker="lane-1-stored")
    assert element(user, "lane-1-up").props["aria-pressed"] == "false"
    # It comes back: the trace is sent, and the opinion is kept.
    world.feedback.away = False
    user.find(marker="lane-1-up").click()
    await until(sees(user, marker="lane-1-stored"))


async def test_saving_nothing_and_a_comment_alone_are_said(user: User, file):
    await opened(user, file("one"))
    await answered(user, "lamp", 1)
    user.find(marker="lane-1-save").click()
    await until(says(user, "lane-1-opinion-problem", "Nothing was said yet"))
    user.find(marker="lane-1-comment").type("hm")
    user.find(marker="lane-1-save").click()
    await until(says(user, "lane-1-opinion-problem", "goes with a thumb"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mlflow_enabled": False}, "MLFLOW_ENABLED=false"),
        ({"mlflow_log_traces": False}, "MLFLOW_LOG_TRACES=false"),
    ],
)
async def test_without_traces_an_opinion_has_nowhere_to_be_kept(
    settings: Settings, tmp_path, file, change, said
):
    world = World(settings.model_copy(update=change))
    async with visitor(world.services, tmp_path) as user:
        await opened(user, file("one"))
        await answered(user, "lamp", 1)
        assert said in words(user, "lane-1-trace")
        assert not exists(user, marker="lane-1-up")
        assert not world.runner.calls[0].traced


@pytest.mark.parametrize("status", ["off", "starting", "unreachable"])
async def test_what_needs_the_registry_is_disabled_with_its_reason(user: User, world: World, file, status):
    job_id = world.done()
    world.tracking.now = TrackingState(status=status)
    await user.open("/test?lang=en")
    for kind in ("version", "run"):
        assert "disable" in element(user, f"choose-{kind}").props
    reasons = {"off": "MLFLOW_ENABLED=false", "starting": "starting", "unreachable": "cannot be reached"}
    assert reasons[status] in words(user, "choose-reason")
    await until(sees(user, marker="choose-job-list"))
    user.find(marker="add-program").click()
    await until(sees(user, marker="lane-1"))
    assert job_id in words(user, "lane-1")
    if status == "starting":
        # As soon as MLflow is there, both can be chosen.
        world.tracking.now = TrackingState(status="ready", address=MLFLOW)
        await until(lambda: "disable" not in element(user, "choose-version").props)
        assert not exists(user, marker="choose-reason")


async def test_a_program_that_is_not_there_is_said_with_a_way_to_try_again(user: User, world: World):
    await user.open("/test?lang=en&model=models:/nobody/1&model=no/such.json")
    await until(says(user, "test-problem", "no/such.json"))
    assert exists(user, marker="test-problem-retry")


async def test_run_takes_the_program_that_is_chosen_while_none_was_added(user: User, world: World):
    await user.open("/test?lang=en")
    await until(sees(user, content="No models yet"))
    user.find(marker="test-run").click()
    await until(lambda: any("Choose the program" in said for said in user.notify.messages))
    request = RegisterRequest(run_id="r1", name="产品", who="tester")
    world.registry.register(request, made("产品"), tags={}, input_example={})
    await user.open("/test?lang=en")
    await until(sees(user, marker="choose-which"))
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1"))
    await until(lambda: "This is still empty" in str(element(user, "input-message").error))  # type: ignore[attr-defined]
    await answered(user, "my lamp", 1)
    assert not exists(user, marker="lane-2")


async def test_the_pages_of_a_job_a_version_and_a_run_lead_here(user: User, world: World):
    job_id = world.done()
    await user.open(f"/jobs/{job_id}")
    await until(sees(user, marker="open-test"))
    assert element(user, "open-test").props["href"] == f"/test?model=job%3A{job_id}"
    request = RegisterRequest(run_id="r1", name="m", who="tester")
    world.registry.register(request, program(), tags={}, input_example={})
    await user.open("/models/m/1")
    await until(sees(user, marker="open-test"))
    assert element(user, "open-test").props["href"] == "/test?model=models%3A%2Fm%2F1"


async def test_a_comment_on_a_failed_answer_is_kept_alone(user: User, world: World, file):
    await opened(user, file("one", signature={"inputs": [{"name": "message"}], "outputs": MIXED}))
    await until(sees(user, marker="test-run"))
    user.find(marker="input-message").type("broken")
    user.find(marker="test-run").click()
    await until(sees(user, marker="lane-1-down"))
    world.services.feedback.send()
    user.find(marker="lane-1-down").click()
    await until(sees(user, marker="lane-1-stored"))
    assert not exists(user, marker="lane-1-correct")
    user.find(marker="lane-1-comment").type("nothing came")
    user.find(marker="lane-1-save").click()
    await until(lambda: [kept.comment for kept in world.feedback.held.values()] == ["nothing came"])
    assert [kept.correction for kept in world.feedback.held.values()] == [None]


async def test_only_what_a_person_changed_is_a_correction(user: User, world: World, file):
    await opened(user, file("one", signature={"inputs": [{"name": "message"}], "outputs": MIXED}))
    predict = world.runner.predict
    answer = {"product": "lamp", "words": [" a", "b "], "count": 2}

    def spaced(call, patience):
        return predict(call, patience).model_copy(update={"outputs": answer})

    world.runner.predict = spaced  # type: ignore[method-assign]
    await answered(user, "lamp", 1)
    world.services.feedback.send()
    user.find(marker="lane-1-up").click()
    await until(sees(user, marker="lane-1-stored"))
    user.find(marker="lane-1-comment").type("good")
    user.find(marker="lane-1-save").click()
    await until(lambda: [kept.comment for kept in world.feedback.held.values()] == ["good"])
    assert [kept.correction for kept in world.feedback.held.values()] == [None]
    user.find(marker="lane-1-correct-count").clear().type("3")
    user.find(marker="lane-1-save").click()
    await until(
        lambda: [kept.correction for kept in world.feedback.held.values()] == [{**answer, "count": 3}]
    )
