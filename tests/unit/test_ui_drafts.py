"""The compile form's draft: to a spec and back, and what is wrong with it at which place."""

import json
from functools import partial

import pytest

from dspyui.domain.compiles import CompileSpec
from dspyui.errors import BadRequestError
from dspyui.services.documents import spec_of
from dspyui.services.examples import demo_spec
from dspyui.ui.draft_problems import problems, rename_problem
from dspyui.ui.draft_sources import (
    cells_of,
    draft_from_store,
    draft_of,
    empty_draft,
    fields_from_columns,
)
from dspyui.ui.drafts import CompileDraft, Source


def full_spec() -> CompileSpec:
    return spec_of(
        {
            "program": {
                "name": "分类",
                "signature": {
                    "instructions": "Sort the ticket.",
                    "inputs": [{"name": "text"}, {"name": "votes", "type": "int"}],
                    "outputs": [
                        {"name": "kind", "type": "choice", "choices": ["bug", "question"]},
                        {"name": "tags", "type": "list[str]", "description": "a few"},
                        {"name": "urgent", "type": "bool"},
                    ],
                },
                "module": {"kind": "chain_of_thought"},
            },
            "lms": {
                "task": {
                    "model": "openai/gpt-4o-mini",
                    "api_base": "http://127.0.0.1:1/v1",
                    "api_key_env": "MY_KEY",
                    "temperature": 0.5,
                    "max_tokens": 100,
                    "cache": False,
                    "num_retries": 1,
                    "timeout": 12.5,
                },
                "prompt": {"model": "openai/gpt-5-mini", "timeout": 600},
                "teacher": {"model": "anthropic/claude"},
                "judge": {"model": "local/smollm2-135m", "max_tokens": 9},
                "embedder": {
                    "model": "openai/embed",
                    "api_base": "http://127.0.0.1:2/v1",
                    "api_key_env": "E_KEY",
                },
            },
            "optimizer": {"kind": "labeled_few_shot", "params": {"k": 3, "sample": False}},
            "metric": {
                "kind": "exact_match",
                "fields": ["kind", "tags"],
                "weights": {"tags": 0.5, "kind": 1.0},
                "params": {"normalise": False},
            },
            "data": {
                "rows": [{"text": "it", "votes": 3, "kind": "bug", "tags": ["a", "b"], "urgent": True}],
                "split": {"train": 1, "validation": 0, "test": 2, "seed": 7},
            },
            "seed": 5,
            "threads": 2,
            "repeats": 3,
            "max_errors": 0,
        }
    )


def with_metric(**metric) -> CompileSpec:
    document = full_spec().model_dump(mode="json")
    return spec_of({**document, "metric": metric})


METRIC_SPECS = [
    {"kind": "regex", "params": {"pattern": "b.g", "whole": True}},
    {
        "kind": "llm_judge",
        "params": {"rubric": "两行\nof text", "lowest": 1, "highest": 5},
        "weights": {"kind": 2},
    },
    {"kind": "numeric", "fields": ["kind"], "params": {"absolute": 0.5}},
    {"kind": "custom", "params": {"name": "mine"}},
]


def parsed(spec: CompileSpec) -> dict:
    """The spec with its rows parsed and its defaults filled in, as it is compiled."""
    from dspyui.domain.signatures import parse_row

    document = spec.model_dump(mode="json")
    document["optimizer"]["params"] = spec.optimizer.resolved()
    document["metric"]["params"] = spec.metric.resolved()
    module = spec.program.module
    document["program"]["module"]["params"] = module.resolved()
    if module.reward is not None:
        document["program"]["module"]["reward"]["params"] = module.reward.resolved()
    if spec.data.rows is not None:
        fields = spec.program.signature.fields
        document["data"]["rows"] = [parse_row(fields, row, where="") for row in spec.data.rows]
    return document


def rewarded_spec() -> CompileSpec:
    document = full_spec().model_dump(mode="json")
    document["program"]["module"] = {
        "kind": "refine",
        "params": {"module": "predict", "N": 5, "fail_count": 2},
        "reward": {
            "kind": "regex",
            "params": {"pattern": "^b"},
            "fields": ["kind", "tags"],
            "weights": {"tags": 2.0},
        },
    }
    document["optimizer"] = {"kind": "gepa", "params": {"max_metric_calls": 50, "use_merge": False}}
    return spec_of(document)


def test_a_module_keeps_its_parameters_while_another_is_looked_at():
    draft = draft_of(rewarded_spec())
    draft.module = "multi_chain_comparison"
    assert draft.module_document() == {
        "kind": "multi_chain_comparison",
        "params": {"M": 3, "temperature": 0.7},
    }
    draft.own_module_params()["M"] = 4.0
    draft.module = "refine"
    assert draft.module_document()["params"]["N"] == 5
    draft.module = "multi_chain_comparison"
    assert draft.to_spec().program.module.resolved() == {"M": 4, "temperature": 0.7}


def test_the_reward_follows_its_fields():
    draft = draft_of(rewarded_spec())
    draft.outputs[0].name = "sort"
    assert draft.module_document()["reward"]["fields"] == ["sort", "tags"]
    draft.remove_field("outputs", draft.outputs[1])
    assert draft.module_document()["reward"] == {
        "kind": "regex",
        "params": {"pattern": "^b", "whole": False, "ignore_case": False},
        "fields": ["sort"],
        "weights": {},
    }


def test_a_form_begins_with_a_budget_for_gepa():
    draft = draft_of(full_spec())
    draft.optimizer = "gepa"
    assert [problem for problem in problems(draft) if problem.place == "optimizer"] == []
    draft.own_optimizer_params()["auto"] = None
    (found,) = [problem for problem in problems(draft) if problem.place == "optimizer"]
    assert found.error.code == "optimizer.gepa_budget"


@pytest.mark.parametrize(
    "make",
    [full_spec, demo_spec, rewarded_spec, *(partial(with_metric, **metric) for metric in METRIC_SPECS)],
)
def test_a_spec_comes_back_as_it_was(make):
    assert parsed(draft_of(make()).to_spec()) == parsed(make())


@pytest.mark.parametrize("make", [lambda: draft_of(full_spec()), empty_draft])
def test_a_draft_survives_being_stored(make):
    draft = make()
    assert draft_from_store(json.loads(json.dumps(draft.to_store()))) == draft


@pytest.mark.parametrize("stored", [{"inputs": []}, {"from": "another version"}, {"inputs": [{"colour": 1}]}])
def test_a_draft_of_another_version_is_refused(stored):
    with pytest.raises((TypeError, KeyError, AttributeError)):
        draft_from_store(stored)


def test_renaming_a_field_keeps_its_cells():
    draft = draft_of(full_spec())
    draft.inputs[0].name = "ticket"
    assert draft.row_documents()[0]["ticket"] == "it"
    assert draft.metric_document()["fields"] == ["kind", "tags"]
    draft.outputs[1].name = "labels"
    assert draft.metric_document()["weights"] == {"kind": 1.0, "labels": 0.5}


def test_looking_at_another_metric_loses_nothing():
    draft = draft_of(full_spec())
    before = draft.metric_document()
    draft.metric = "custom"
    assert set(draft.metric_document()) == {"kind", "params"}
    draft.metric = "exact_match"
    assert draft.metric_document() == before


def test_removing_a_field_removes_its_cells_and_its_place_in_the_metric():
    draft = draft_of(full_spec())
    kind = draft.outputs[0]
    draft.remove_field("outputs", kind)
    assert kind.key not in draft.data.rows[0]
    assert kind.key not in draft.metric_fields
    assert kind.key not in draft.metric_weights


def test_fields_move_and_stay_at_the_ends():
    draft = draft_of(full_spec())
    first = draft.inputs[0]
    draft.move_field("inputs", first, -1)
    assert [made.name for made in draft.inputs] == ["text", "votes"]
    draft.move_field("inputs", first, 1)
    assert [made.name for made in draft.inputs] == ["votes", "text"]
    draft.move_field("inputs", first, 1)
    assert [made.name for made in draft.inputs] == ["votes", "text"]


def test_rows_without_text_are_left_out():
    draft = empty_draft()
    assert draft.row_documents() == []
    draft.inputs[0].name = "question"
    draft.data.rows = [{"f1": " "}, {"f1": "why?"}]
    assert [row["question"] for row in draft.row_documents()] == ["why?"]


def test_number_inputs_give_floats_and_whole_ones_are_taken():
    draft = draft_of(full_spec())
    draft.params["labeled_few_shot"]["k"] = 4.0
    draft.threads, draft.task.max_tokens = 8.0, 50.0
    spec = draft.to_spec()
    assert (spec.optimizer.resolved()["k"], spec.threads, spec.lms.task.max_tokens) == (4, 8, 50)


def change_all(draft, **values):
    for name, value in values.items():
        setattr(draft, name, value)


@pytest.mark.parametrize(
    ("change", "place", "code"),
    [
        (lambda d: setattr(d, "name", " "), "program", "program.name_empty"),
        (lambda d: setattr(d.inputs[0], "name", "../../x"), "fields", "field_name.identifier"),
        (lambda d: setattr(d.inputs[0], "name", "votes"), "fields", "signature.twice"),
        (lambda d: setattr(d.outputs[0], "choices", "bug"), "fields", "field.choices"),
        (lambda d: d.inputs.clear(), "fields", "signature.no_inputs"),
        (lambda d: d.params["labeled_few_shot"].update(k=0), "optimizer", "parameter.range"),
        (lambda d: d.params["labeled_few_shot"].update(k=1.5), "optimizer", "parameter.type"),
        (lambda d: d.params["labeled_few_shot"].update(k=None), "optimizer", "parameter.type"),
        (lambda d: setattr(d.task, "model", "gpt"), "lm", "lm.model"),
        (lambda d: setattr(d.task, "api_base", "localhost"), "lm", "lm.api_base"),
        (lambda d: setattr(d.data, "test", 0), "data", "spec.invalid"),
        (
            lambda d: (setattr(d, "optimizer", "copro"), setattr(d.data, "train", 0)),
            "all",
            "data.split_train",
        ),
        (lambda d: setattr(d, "threads", 0), "all", "spec.invalid"),
        (lambda d: setattr(d, "repeats", 21), "all", "spec.invalid"),
        (lambda d: setattr(d, "max_errors", -1), "all", "spec.invalid"),
        (lambda d: setattr(d, "metric", "regex"), "metric", "metric.pattern_empty"),
        (lambda d: setattr(d, "metric", "custom"), "metric", "metric.custom_name"),
        (lambda d: change_all(d, metric="similarity", embedder=None), "all", "metric.no_embedder"),
        (lambda d: d.metric_weights.update(f3=0), "metric", "metric.weight"),
        (lambda d: d.metric_weights.update(f3=None), "metric", "spec.number"),
        (lambda d: d.metric_params["exact_match"].update(normalise=None), "metric", "parameter.type"),
    ],
)
def test_what_is_wrong_is_told_at_its_place(change, place, code):
    draft = draft_of(full_spec())
    assert problems(draft) == []
    change(draft)
    found = problems(draft)
    assert (found[0].place, found[0].error.code) == (place, code)
    with pytest.raises(BadRequestError):
        draft.to_spec()


def test_an_empty_form_has_nothing_wrong_and_says_once_what_is_to_fill_in():
    draft = empty_draft()
    assert [(found.error.code, found.is_open) for found in problems(draft)] == [("field_name.empty", True)]
    draft.inputs[0].name, draft.outputs[0].name = "question", "answer"
    assert [(found.error.code, found.is_open) for found in problems(draft)] == [("program.name_empty", True)]
    draft.name = "qa"
    draft.data.source = "upload"
    assert [(found.place, found.error.code, found.is_open) for found in problems(draft)] == [
        ("data", "data.no_file", True)
    ]


def test_what_is_filled_in_wrongly_is_not_open():
    draft = empty_draft()
    draft.inputs[0].name, draft.name = "a b", "x" * 300
    assert [(found.error.code, found.is_open) for found in problems(draft)] == [
        ("field_name.identifier", False),
        ("field_name.empty", True),
    ]


def test_a_name_is_checked_as_it_is_typed():
    draft = draft_of(full_spec())
    made = draft.inputs[0]
    for name, code in (
        ("class", "field_name.keyword"),
        ("votes", "signature.twice"),
        ("问题", None),
        ("a b", "field_name.identifier"),
    ):
        made.name = name
        error = rename_problem(draft, made)
        assert (error and error.code) == code


def test_fields_can_be_made_of_a_files_columns():
    draft = draft_of(full_spec())
    fields_from_columns(draft, ("title", "body", "label"))
    assert [made.name for made in draft.inputs] == ["title", "body"]
    assert [made.name for made in draft.outputs] == ["label"]
    assert draft.metric_fields == [draft.outputs[0].key]
    rows = cells_of(draft, [{"title": "t", "body": 1, "label": None, "other": "x"}])
    assert list(rows[0].values()) == ["t", "1", ""]


@pytest.mark.parametrize(
    ("values", "variable"),
    [
        ({}, None),
        ({"model": "openai/gpt"}, "OPENAI_API_KEY"),
        ({"model": "openai/gpt", "api_base": "http://127.0.0.1:1/v1"}, "DSPYUI_LM_API_KEY"),
        ({"model": "openai/gpt", "api_key_env": " MINE "}, "MINE"),
        ({"model": ""}, None),
    ],
)
def test_which_variable_holds_the_key(values, variable):
    draft = CompileDraft()
    for name, value in values.items():
        setattr(draft.task, name, value)
    assert draft.task.key_variable() == variable


@pytest.mark.parametrize("source", ["upload", "path"])
def test_a_file_that_is_not_chosen_yet_is_told_so(source: Source) -> None:
    draft = draft_of(demo_spec())
    draft.data.source, draft.data.path, draft.data.upload = source, " ", ""
    with pytest.raises(BadRequestError) as caught:
        draft.to_spec()
    assert caught.value.code == "data.no_file"


def file_spec(**data: object) -> CompileSpec:
    document = full_spec().model_dump(mode="json", exclude_none=True)
    document["data"] = data
    return spec_of(document)


@pytest.mark.parametrize(
    "data",
    [
        {"path": "a.csv", "columns": {"text": "The Text", "kind": "label"}},
        {"upload": "a" * 64, "split_column": "part", "allow_shared": True},
        {"path": "a.csv", "test": {"path": "t.csv"}},
        {
            "upload": "a" * 64,
            "validation": {"upload": "b" * 64},
            "test": {"path": "t.csv"},
            "allow_shared": True,
        },
    ],
)
def test_every_way_to_name_data_comes_back_as_it_was(data):
    draft = draft_of(file_spec(**data))
    assert draft.to_spec().data == file_spec(**data).data
    again = draft_from_store(json.loads(json.dumps(draft.to_store())))
    assert again == draft
    assert again.to_spec().data == file_spec(**data).data


def test_rows_in_a_spec_keep_the_splits_and_columns_they_name():
    row = {"text": "it", "Votes": 3, "kind": "bug", "tags": ["a"], "urgent": True}
    spec = file_spec(
        rows=[{**row, "part": "train"}, {**row, "part": "Test"}],
        columns={"votes": "Votes"},
        split_column="part",
    )
    made = draft_of(spec).to_spec().data
    assert made.split_column == "part"
    assert [(given["votes"], given["part"]) for given in made.rows or ()] == [("3", "train"), ("3", "Test")]


def test_the_grids_column_of_splits_is_never_a_field():
    draft = draft_of(full_spec())
    draft.data.dealing = "column"
    draft.data.rows[0]["split"] = "test"
    assert draft.data_document()["split_column"] == "split"
    assert draft.row_documents()[0]["split"] == "test"
    draft.inputs[0].name = "split"
    assert draft.row_documents()[0] | {"split": "it", "split_": "test"} == draft.row_documents()[0]


@pytest.mark.parametrize(
    ("dealing", "code"), [("column", "data.no_split_column"), ("files", "data.no_split_file")]
)
def test_a_split_that_is_not_said_yet_is_open(dealing, code):
    draft = draft_of(file_spec(path="a.csv"))
    draft.data.dealing = dealing
    assert [(found.place, found.error.code, found.is_open) for found in problems(draft)] == [
        ("data", code, True)
    ]


def test_columns_become_fields_under_names_that_fields_can_have():
    draft = draft_of(file_spec(path="a.csv", split_column="Split"))
    fields_from_columns(draft, ("User Message", "class", "1st", "Split", "user_message", "答案"))
    assert [made.name for made in draft.all_fields()] == [
        "User_Message", "class_value", "column_1st", "user_message", "答案",
    ]  # fmt: skip
    assert draft.data_document()["columns"] == {
        "User_Message": "User Message", "class_value": "class", "column_1st": "1st",
    }  # fmt: skip
    assert not problems(draft)
    draft.remove_field("inputs", draft.inputs[0])
    assert "User_Message" not in draft.data_document()["columns"]
