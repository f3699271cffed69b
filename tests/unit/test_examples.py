"""The examples that are shipped: complete, honest, and readable from any folder."""

import csv
from pathlib import Path

import pytest

from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.domain.splits import sort_rows
from dspyui.domain.tables import RawTable
from dspyui.services.data import DataService
from dspyui.services.documents import parse_spec
from dspyui.services.examples import (
    DEMO_INPUT,
    EXAMPLES,
    demo_spec,
    example_rows,
    example_spec,
    examples_folder,
)

HELD_OUT = Path(__file__).parents[1] / "data" / "product_extraction_heldout.csv"


@pytest.fixture
def data(tmp_path: Path) -> DataService:
    return DataService(FileTableReader(10**6), FileUploadStore(tmp_path))


def held_out() -> list[dict[str, str]]:
    with HELD_OUT.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table_of(name: str) -> RawTable:
    return FileTableReader(10**6).read_path(str(examples_folder() / name))


@pytest.mark.parametrize("seed", range(5))
def test_the_demo_tests_on_thirty_rows_that_nothing_else_saw(data: DataService, seed: int) -> None:
    spec = demo_spec(seed=seed)
    dataset = data.load(spec.program.signature, spec.data)
    splits = sort_rows(dataset.rows, dataset.parts)
    assert dataset.duplicates == 0
    assert len(splits.test) >= 33
    train, validation, test = ({row["message"] for row in part} for part in splits.by_name().values())
    assert not test & (train | validation)
    assert len(train | validation | test) == len(dataset.rows)


def test_every_message_names_its_product_in_one_to_three_words(data: DataService) -> None:
    rows = example_rows(data)
    assert len(rows) >= 110
    for row in (*rows, *held_out()):
        assert row["product"] in row["message"].lower()
        assert row["product"] == row["product"].lower()
        assert 1 <= len(row["product"].split()) <= 3


def test_the_held_out_rows_are_others(data: DataService) -> None:
    rows = example_rows(data)
    assert len(held_out()) >= 40
    for name in ("message", "product"):
        assert not {row[name] for row in rows} & {row[name] for row in held_out()}
    assert DEMO_INPUT["message"] not in {row["message"] for row in (*rows, *held_out())}


def test_seeds_deal_the_rows_out_anew() -> None:
    assert demo_spec(seed=1).data.split.seed == 1
    assert demo_spec(seed=1) != demo_spec(seed=2)
    assert Path(demo_spec().data.path or "").is_absolute()


def test_every_example_can_be_compiled(data: DataService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(examples_folder())
    files = sorted(examples_folder().glob("*.yaml"))
    assert len(files) >= 2
    for file in files:
        spec = parse_spec(file.read_text(encoding="utf-8"))
        assert data.load(spec.program.signature, spec.data).sizes()["test"] >= 10


def test_no_example_holds_a_key() -> None:
    for file in examples_folder().glob("*.yaml"):
        assert parse_spec(file.read_text(encoding="utf-8")).lms.by_role()
        assert "sk-" not in file.read_text(encoding="utf-8")


def test_a_form_can_start_from_every_example_that_is_shipped(data: DataService) -> None:
    assert {*EXAMPLES.values()} == {file.name for file in examples_folder().glob("*.yaml")}
    for name in EXAMPLES:
        spec = example_spec(name)
        assert Path(spec.data.path or "").is_absolute()
        assert data.table(spec.data).rows


def test_every_order_number_stands_in_its_message(data: DataService) -> None:
    rows = data.table(example_spec("orders").data).rows
    assert len(rows) >= 100
    assert all(row["order_number"] in row["message"] for row in rows)
    assert len({row["message"] for row in rows}) == len(rows)
