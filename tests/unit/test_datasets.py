"""Data: sources, parsing, digests, and the split that no row crosses."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from dspyui.domain.columns import guess_column, guess_split_column, propose_columns
from dspyui.domain.datasets import DataSpec, FileSource
from dspyui.domain.parsing import Dataset, parse_dataset
from dspyui.domain.rows import digest_rows, row_key
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.domain.splits import SPLIT_WORDS, Splits, SplitSpec, sort_rows, split_rows
from dspyui.domain.tables import RawTable
from dspyui.errors import BadRequestError

SIGNATURE = SignatureSpec(inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(name="b", type="int"),))
SEEDS = range(40)


def rows_of(count: int, distinct: int | None = None) -> list[dict[str, Any]]:
    return [{"a": f"input {number % (distinct or count)}", "b": number} for number in range(count)]


def keys(rows: Sequence[dict[str, Any]]) -> set[str]:
    return {row_key(row) for row in rows}


def inputs_of(rows: Sequence[dict[str, Any]]) -> set[str]:
    return {row["a"] for row in rows}


def parts(splits: Splits) -> list[Sequence[dict[str, Any]]]:
    return list(splits.by_name().values())


@pytest.mark.parametrize("seed", SEEDS)
def test_every_row_is_in_one_split_and_none_is_lost(seed: int) -> None:
    rng = random.Random(seed)
    rows = rows_of(rng.randint(10, 300))
    splits = split_rows(rows, ["a"], SplitSpec(seed=seed))
    dealt = [row for part in parts(splits) for row in part]
    assert len(dealt) == len(rows)
    assert keys(dealt) == keys(rows)
    train, validation, test = (keys(part) for part in parts(splits))
    assert not train & test
    assert not train & validation
    assert not validation & test


@pytest.mark.parametrize("seed", SEEDS)
def test_sizes_follow_the_shares(seed: int) -> None:
    rng = random.Random(seed)
    shares = [rng.uniform(0.1, 1) for _ in range(3)]
    rows = rows_of(rng.randint(30, 200))
    spec = SplitSpec(train=shares[0], validation=shares[1], test=shares[2], seed=seed)
    splits = split_rows(rows, ["a"], spec)
    for share, part in zip(shares, parts(splits), strict=True):
        assert abs(len(part) - len(rows) * share / sum(shares)) <= 1.5


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_inputs_stay_together(seed: int) -> None:
    rng = random.Random(seed)
    rows = rows_of(rng.randint(40, 120), distinct=rng.randint(15, 30))
    train, validation, test = (
        inputs_of(part) for part in parts(split_rows(rows, ["a"], SplitSpec(seed=seed)))
    )
    assert not train & test
    assert not train & validation
    assert not validation & test


def test_the_seed_decides_and_nothing_else() -> None:
    rows = rows_of(60)
    assert split_rows(rows, ["a"], SplitSpec(seed=1)) == split_rows(rows, ["a"], SplitSpec(seed=1))
    tests = {digest_rows(split_rows(rows, ["a"], SplitSpec(seed=seed)).test) for seed in SEEDS}
    assert len(tests) == len(SEEDS)


def test_a_split_is_shuffled() -> None:
    rows = rows_of(100)
    test = split_rows(rows, ["a"], SplitSpec()).test
    assert [row["b"] for row in test] != sorted(row["b"] for row in test)


def test_the_default_is_half_a_fifth_and_the_rest() -> None:
    train, validation, test = parts(split_rows(rows_of(120), ["a"], SplitSpec()))
    assert (len(train), len(validation), len(test)) == (60, 24, 36)


def test_shares_may_be_percentages_and_may_be_none() -> None:
    splits = split_rows(rows_of(10), ["a"], SplitSpec(train=0, validation=0, test=100))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (0, 0, 10)
    splits = split_rows(rows_of(10), ["a"], SplitSpec(train=0, validation=50, test=50))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (0, 5, 5)


@pytest.mark.parametrize("share", [float("inf"), float("nan")])
def test_a_share_is_a_number(share: float) -> None:
    with pytest.raises(ValidationError):
        SplitSpec(train=share)


@pytest.mark.parametrize(("count", "distinct"), [(1, 1), (2, 2), (20, 2), (20, 1)])
def test_a_split_that_would_be_empty_is_refused(count: int, distinct: int) -> None:
    with pytest.raises(BadRequestError) as caught:
        split_rows(rows_of(count, distinct), ["a"], SplitSpec())
    assert caught.value.code == "data.split_empty"


def test_three_rows_are_enough_for_three_splits() -> None:
    assert [len(part) for part in parts(split_rows(rows_of(3), ["a"], SplitSpec()))] == [1, 1, 1]


@pytest.mark.parametrize(
    "sources", [{}, {"path": "a.csv", "rows": ()}, {"path": "a.csv", "upload": "0" * 64}]
)
def test_data_has_exactly_one_source(sources: dict[str, Any]) -> None:
    with pytest.raises(BadRequestError) as caught:
        DataSpec(**sources)
    assert caught.value.code == "data.one_source"


@pytest.mark.parametrize("upload", ["", "../../x", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_an_upload_is_named_by_a_digest_alone(upload: str) -> None:
    with pytest.raises(ValueError, match="upload"):
        DataSpec(upload=upload)


def test_a_dataset_is_parsed_counted_and_digested() -> None:
    table = RawTable(
        columns=("a", "b", "more"),
        rows=(
            {"a": "x", "b": "1", "more": "?"},
            {"a": "x", "b": 1.0, "more": "!"},
            {"a": "y", "b": "2", "more": ""},
        ),
    )
    dataset = parse_dataset(SIGNATURE, DataSpec(rows=(), split=SplitSpec(train=0, validation=0)), table, {})
    assert dataset.rows == ({"a": "x", "b": 1}, {"a": "x", "b": 1}, {"a": "y", "b": 2})
    assert dataset.duplicates == 1
    assert dataset.digest == digest_rows([{"b": 1, "a": "x"}, {"a": "x", "b": 1}, {"a": "y", "b": 2}])
    assert dataset.digest != digest_rows(list(reversed(dataset.rows)))


@pytest.mark.parametrize(
    ("columns", "rows", "code", "named"),
    [
        (("a", "b"), (), "data.empty", ""),
        (("a",), ({"a": "x"},), "data.columns", "b"),
        (("a", "b"), ({"a": "x", "b": "1"}, {"a": "x", "b": "?"}), "value.type", "#2"),
        (("a", "b"), ({"a": "x"},), "value.missing", "#1"),
    ],
)
def test_data_that_does_not_fit_says_where(columns: Any, rows: Any, code: str, named: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_dataset(SIGNATURE, DataSpec(rows=()), RawTable(columns=columns, rows=rows), {})
    assert caught.value.code == code
    assert named in str(caught.value)


# Columns of other names, splits that the data brings along, and what is told of the data.


def table(rows: Sequence[dict[str, Any]]) -> RawTable:
    return RawTable(columns=tuple(dict.fromkeys(name for row in rows for name in row)), rows=tuple(rows))


def read(main: Sequence[dict[str, Any]], others: Any = None, **data: Any) -> Dataset:
    """Rows as if read from files, with `data` as the rest of the spec."""
    tables = {name: (f"{name}.csv", table(rows)) for name, rows in (others or {}).items()}
    files = {name: FileSource(path=f"{name}.csv") for name in tables}
    return parse_dataset(SIGNATURE, DataSpec(path="main.csv", **files, **data), table(main), tables)  # type: ignore[arg-type]


def refused(*args: Any, **data: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        read(*args, **data)
    assert caught.value.text("zh_CN")
    return caught.value


@pytest.mark.parametrize("seed", range(5))
def test_the_split_of_each_row_is_the_one_the_child_deals(seed: int) -> None:
    rows = rows_of(50, distinct=20)
    dataset = read(rows, split={"seed": seed})
    dealt = split_rows(rows, ["a"], SplitSpec(seed=seed))
    kept = sort_rows(dataset.rows, dataset.parts)
    assert not dataset.given
    assert dataset.sizes() == {name: len(part) for name, part in dealt.by_name().items()}
    for name, part in dealt.by_name().items():
        assert sorted(map(row_key, kept.by_name()[name])) == sorted(map(row_key, part))


def test_a_field_is_taken_from_the_column_that_is_named() -> None:
    rows = [{"The A": f"x{n}", "b": n, "c": -n} for n in range(9)]
    dataset = read(rows, columns={"a": "The A", "b": "c"})
    assert dataset.rows[3] == {"a": "x3", "b": -3}
    error = refused(rows, columns={"a": "Another"})
    assert (error.code, error.values["missing"]) == ("data.columns", "Another")
    assert refused(rows, columns={"a": "The A", "z": "b"}).code == "data.map_field"


@pytest.mark.parametrize("word", [*SPLIT_WORDS, "TRAIN", " Dev "])
def test_a_column_may_say_the_split(word: str) -> None:
    rows = [{"a": "x", "b": 1, "part": word}, {"a": "y", "b": 2, "part": "Test"}]
    dataset = read(rows, split_column="part")
    assert dataset.given
    assert list(dataset.parts) == [SPLIT_WORDS[word.strip().casefold()], "test"]
    assert dataset.rows == [{"a": "x", "b": 1}, {"a": "y", "b": 2}]


@pytest.mark.parametrize("value", ["holdout", "", None, 3])
def test_a_split_that_is_none_is_told_with_its_row(value: Any) -> None:
    rows = [{"a": "x", "b": 1, "part": "test"}, {"a": "y", "b": 2, "part": value}]
    error = refused(rows, split_column="part")
    assert (error.code, error.values["where"], error.values["column"]) == ("data.split_value", "#2", "part")
    assert repr(value) in str(error)


def test_a_column_of_splits_must_be_there_and_name_test_rows() -> None:
    rows = [{"a": "x", "b": 1, "part": "train"}]
    assert refused(rows, split_column="other").code == "data.split_column"
    assert refused(rows, split_column="part").code == "data.split_no_test"


def test_a_split_may_have_a_file_of_its_own() -> None:
    main, test = rows_of(20), [{"a": f"t{n}", "b": n} for n in range(7)]
    dataset = read(main, {"test": test})
    assert dataset.given
    assert dataset.sizes() == {"train": 14, "validation": 6, "test": 7}
    assert list(dataset.parts[20:]) == ["test"] * 7
    assert dataset.rows[20] == {"a": "t0", "b": 0}
    both = read(main, {"validation": [{"a": "v", "b": 1}], "test": test})
    assert both.sizes() == {"train": 20, "validation": 1, "test": 7}
    assert read(main, {"validation": [{"a": "v", "b": 1}]}).sizes() == {
        "train": 12, "validation": 1, "test": 8,
    }  # fmt: skip


def test_a_file_with_other_columns_is_named_and_so_is_its_row() -> None:
    error = refused(rows_of(5), {"validation": [{"a": "x", "c": 1}]})
    assert (error.code, error.values["source"], error.values["missing"]) == (
        "data.columns_in", "validation.csv", "b",
    )  # fmt: skip
    error = refused(rows_of(5), {"test": [{"a": "x", "b": 1}, {"a": "y", "b": "many"}]})
    assert (error.code, error.values["where"]) == ("value.type", "test.csv #2")
    assert refused(rows_of(5), {"test": []}).code == "data.empty_in"


def test_test_rows_that_were_seen_in_training_are_refused_unless_allowed() -> None:
    test = [{"a": "t", "b": 1}, {"a": "input 3", "b": 9}, {"a": "input 4", "b": 4}]
    error = refused(rows_of(20), {"test": test})
    assert (error.code, error.values["count"], error.values["rows"]) == (
        "data.shared", 2, "test.csv #2, test.csv #3",
    )  # fmt: skip
    dataset = read(rows_of(20), {"test": test}, allow_shared=True)
    assert dataset.shared == {"test": 2, "validation": 0}
    column = [{"a": "x", "b": 1, "s": "train"}, {"a": "x", "b": 2, "s": "test"}]
    assert refused(column, split_column="s").values["rows"] == "#2"


def test_validation_rows_that_were_seen_in_training_are_told() -> None:
    test = [{"a": f"t{n}", "b": n} for n in range(30)]
    dataset = read(rows_of(20), {"validation": [{"a": "input 3", "b": 3}], "test": test})
    assert [notice.code for notice in dataset.notices()] == ["shared_validation", "duplicates"]


@pytest.mark.parametrize(
    ("tested", "codes"),
    [(1, ["test_tiny"]), (4, ["test_tiny"]), (5, ["test_small"]), (19, ["test_small"]), (20, [])],
)
def test_a_small_test_split_is_told_what_it_cannot_show(tested: int, codes: list[str]) -> None:
    dataset = read(rows_of(20), {"test": [{"a": f"t{n}", "b": n} for n in range(tested)]})
    assert [notice.code for notice in dataset.notices()] == codes
    for notice in dataset.notices():
        assert str(tested) in notice.sentence("en_US")
        assert str(tested) in notice.sentence("zh_CN")
    if tested == 5:
        assert "0.20" in dataset.notices()[0].sentence("en_US")


def test_duplicates_and_contradictions_are_counted() -> None:
    rows = [*rows_of(60), {"a": "input 0", "b": 0}, {"a": "input 1", "b": 0}, {"a": "input 1", "b": 7}]
    dataset = read(rows, split={"train": 0, "validation": 0})
    assert (dataset.duplicates, dataset.conflicts) == (1, 1)
    assert [notice.code for notice in dataset.notices()] == ["conflicts", "duplicates"]


def test_the_split_is_said_in_one_way() -> None:
    with pytest.raises(BadRequestError) as caught:
        DataSpec(path="a.csv", split_column="s", test=FileSource(path="b.csv"))
    assert caught.value.code == "data.two_splits"
    for wrong in ({}, {"path": "a", "upload": "0" * 64}):
        with pytest.raises(BadRequestError) as caught:
            FileSource(**wrong)
        assert caught.value.code == "data.one_file"


@pytest.mark.parametrize(
    ("data", "has_train", "has_validation"),
    [
        ({}, True, True),
        ({"split": {"train": 0}}, False, True),
        ({"split": {"validation": 0}}, True, False),
        ({"split": {"train": 0, "validation": 0}, "split_column": "s"}, True, True),
        ({"split": {"train": 0, "validation": 0}, "test": {"path": "t"}}, True, False),
        ({"split": {"train": 0}, "test": {"path": "t"}}, False, True),
        ({"split": {"train": 0}, "test": {"path": "t"}, "validation": {"path": "v"}}, True, True),
    ],
)
def test_which_splits_there_can_be_is_known_before_reading(
    data: Any, has_train: bool, has_validation: bool
) -> None:
    spec = DataSpec.model_validate({"path": "a.csv", **data})
    assert (spec.has_train, spec.has_validation) == (has_train, has_validation)


def test_columns_are_guessed_by_their_name() -> None:
    columns = ["ID", "User Message", "产品 名称", "Answer"]
    assert guess_column("user_message", columns) == "User Message"
    assert guess_column("产品名称", columns) == "产品 名称"
    assert guess_column("product", columns) is None
    assert guess_split_column(["a", "Split"]) == "Split"
    assert guess_split_column(["a", "b"]) is None


@pytest.mark.parametrize(
    ("fields", "columns", "proposed"),
    [
        (["message", "product"], ["The Message", "PRODUCT"], {"product": "PRODUCT", "message": "The Message"}),
        (["the_text", "名称"], ["名 称", "The-Text"], {"the_text": "The-Text", "名称": "名 称"}),
        (["a", "b"], ["x", "y"], {"a": "x", "b": "y"}),
        (["a", "b"], ["y", "B"], {"b": "B", "a": "y"}),
        (["a", "b"], ["x", "y", "z"], {}),
        (["a", "b"], ["A", "y", "z"], {"a": "A"}),
        (["a", "a_"], ["A"], {"a": "A"}),
        ([], ["x"], {}),
        (["a"], [], {}),
    ],
)  # fmt: skip
def test_columns_are_proposed_by_name_and_then_by_position(fields: Any, columns: Any, proposed: Any) -> None:
    assert propose_columns(fields, columns) == proposed


def test_a_fingerprint_knows_the_rows_and_the_split_they_were_given() -> None:
    rows = [{"a": f"x{n}", "b": n, "s": "test" if n else "train"} for n in range(9)]
    one = read(rows, split_column="s")
    assert one.fingerprint() == read(rows, split_column="s").fingerprint()
    other = [{**row, "s": "train" if row["b"] == 1 else row["s"]} for row in rows]
    assert read(other, split_column="s").digest == one.digest
    assert read(other, split_column="s").fingerprint() != one.fingerprint()
    assert read(rows).fingerprint() != read(rows[::-1]).fingerprint()


def test_a_choice_that_the_data_does_not_keep_to_is_told_with_the_choices() -> None:
    signature = SignatureSpec(
        inputs=(FieldSpec(name="a"),), outputs=(FieldSpec(name="b", type="choice", choices=("是", "否")),)
    )
    rows = table([{"a": "x", "b": "是"}, {"a": "y", "b": "maybe"}])
    with pytest.raises(BadRequestError) as caught:
        parse_dataset(signature, DataSpec(rows=()), rows, {})
    said = caught.value.text("zh_CN")
    assert caught.value.values["where"] == "#2"
    assert "'maybe'" in said
    assert "是 | 否" in said
