"""Batch files: read row by row with broken rows in them, finished rows that survive anything, outputs."""

import csv
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dspyui.adapters.files import batch_results
from dspyui.adapters.files.batch_inputs import FileInputReader
from dspyui.adapters.files.batch_outputs import clear_target, output_target
from dspyui.adapters.files.batch_results import FileEarlierRows, FileResultLog
from dspyui.domain.batches import RowOutcome, content_key
from dspyui.domain.compiles import Usage
from dspyui.errors import BadRequestError, ConflictError, NotFoundError

READER = FileInputReader()


def read(path):
    """The rows of a file: their values, or the code of what is wrong with one."""
    return [row.fault.code if row.fault else row.values for row in READER.open(str(path))]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


A, B = {"q": "一,\n二", "n": "1"}, {"q": "b", "n": "2"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'q,n\n"一,\n二",1\n\nb,2\n'),
        ("a.csv", 'q;n\r\n"一,\n二";1\r\nb;2\r\n'),
        ("a.tsv", 'q\tn\n"一,\n二"\t1\nb\t2\n'),
        ("a.csv", 'q,n\n"一,\n二",1\nb,2\n'.encode("gb18030")),
        ("a.csv", 'q,n\n"一,\n二",1\nb,2\n'.encode("utf-16")),
        ("a.csv", 'q,n\n"一,\n二",1\nb,2\n'.encode("utf-8-sig")),
        ("a.jsonl", '{"q": "一,\\n二", "n": "1"}\n\n{"q": "b", "n": "2"}'),
        ("a.json", '[{"q": "一,\\n二", "n": "1"},\n {"q": "b", "n": "2"}]\n'),
    ],
)
def test_every_text_format_in_every_encoding(write, name, content):
    path = write(name, content)
    assert read(path) == [A, B]
    stream = READER.open(str(path))
    assert (stream.columns(), stream.count()) == (("q", "n"), 2)


def test_parquet(tmp_path):
    table = pa.table({"q": ["x", None], "n": [1, 2], "b": [b"ok", b"\xff"]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [{"q": "x", "n": 1, "b": "ok"}, "file.parquet_bytes"]
    assert READER.open(str(tmp_path / "a.parquet")).count() == 2


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("cells.csv", "q,n\nb,2\nb\nb,2\n", [B, "file.ragged", B]),
        # The mark that is not closed takes the next line in; only its own line is lost.
        ("mark.csv", 'q,n\nb,2\n"b,2\nb,2\n"b",2\nb,2\n', [B, "file.csv", B, B, B]),
        ("last.csv", 'q,n\nb,2\nb,2\n"b,2\nb,2\n', [B, B, "file.csv", B]),
        (
            "bytes.csv",
            "q,n\n中文中文中文,2\n".encode() + b"\xff\xfe,2\nb,2\n",
            [{"q": "中文中文中文", "n": "2"}, "batch.row_text", B],
        ),
        ("half.jsonl", '{"q": "b", "n": "2"}\n{"q": "b", \n{"q": "b", "n": "2"}\n', [B, "file.json", B]),
        ("list.jsonl", '{"q": "b", "n": "2"}\n[1]\n{"q": "b", "n": "2"}\n', [B, "file.json_object", B]),
        ("emoji.jsonl", '{"q": "\\ud83d"}\n{"q": "b", "n": "2"}\n', ["batch.row_text", B]),
        ("deep.jsonl", "[" * 200_000 + '\n{"q": "b", "n": "2"}\n', ["file.json", B]),
        ("half.json", '[{"q": "b", "n": "2"},\n{"q": b},\n{"q": "b", "n": "2"}]', [B, "file.json", B]),
        ("cut.json", '[{"q": "b", "n": "2"}', [B, "file.json"]),
    ],
)  # fmt: skip
def test_a_broken_row_is_an_error_and_the_rest_goes_on(write, name, content, found):
    path = write(name, content)
    assert read(path) == found
    broken = [row.fault.values for row in READER.open(str(path)) if row.fault]
    assert all(len(values["raw"]) <= 201 for values in broken if name != "cut.json")


@pytest.mark.parametrize(
    ("name", "content", "reads"),
    [
        ("cells.csv", "q,n\nmy lamp\nb,2\n", "my lamp"),
        ("mark.csv", 'q,n\n"my lamp,2\nb,2\n', '"my lamp,2'),
        ("bytes.csv", "q,n\n中文中文中文,2\n".encode() + b"my \xff lamp,2\n", "my ? lamp, 2"),
        ("half.jsonl", '{"q": "my lamp", \n{"q": "b"}\n', '{"q": "my lamp",'),
        ("list.jsonl", '["my lamp"]\n{"q": "b"}\n', '["my lamp"]'),
        ("half.json", '[{"q": my lamp},\n{"q": "b"}]', '{"q": my lamp},'),
        ("long.csv", f"q,n\n{'x' * 5000}\nb,2\n", "x" * 200 + "…"),
    ],
)
def test_a_broken_row_says_how_it_reads(write, name, content, reads):
    (broken,) = [row.fault for row in READER.open(str(write(name, content))) if row.fault]
    assert broken.values["raw"] == reads


def test_a_json_array_larger_than_a_block_is_read_in_pieces(write):
    rows = [{"q": "x" * 50_000, "n": n, "deep": [1.5, {"a": None}]} for n in range(80)]
    assert read(write("a.json", json.dumps(rows, indent=1))) == rows
    assert read(write("b.json", json.dumps(rows))) == rows


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.csv", "", "file.empty"),
        ("a.csv", "q,n\n", "file.no_rows"),
        ("a.jsonl", "\n", "file.no_rows"),
        ("a.json", '{"q": ["b"]}', "batch.json_array"),
        ("a.csv", "q,q\n1,2\n", "file.column_twice"),
        ("a.csv", b"\x00\x01\x02", "file.encoding"),
        ("a.xlsx", "x", "file.archive"),
        ("a.parquet", "PAR1 no", "file.parquet"),
        ("a.txt", "x", "file.ending"),
    ],
)
def test_what_is_no_data_file_is_refused(write, name, content, code):
    with pytest.raises(BadRequestError) as caught:
        READER.open(str(write(name, content))).columns()
    assert caught.value.code == code


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError):
        READER.open(str(tmp_path / "no.csv"))


# Finished rows.


def outcome(index, *, error=None, **more):
    line = json.dumps({"n": index, "_error": f"{error}: why" if error else None}, ensure_ascii=False)
    fields = {
        "latency_ms": float(index),
        "usage": Usage(lm_calls=1, input_tokens=10, output_tokens=2, cost=0.5),
    }
    return RowOutcome(
        index=index, key=content_key({"n": index}), line=line, error=error, **{**fields, **more}
    )


def numbers(folder):
    return [json.loads(line)["n"] for line in (folder / "results.jsonl").read_text().splitlines()]


def test_rows_come_in_any_order_and_stand_in_the_input_s(tmp_path):
    log = FileResultLog(tmp_path)
    assert [log.add(outcome(index)) for index in (1, 2, 0, 4, 3)] == [0, 0, 3, 0, 2]
    assert (log.count, log.finished) == (5, 5)
    log.close()
    assert numbers(tmp_path) == [0, 1, 2, 3, 4]


def test_what_is_finished_out_of_order_survives_a_kill(tmp_path):
    log = FileResultLog(tmp_path)
    for index in (0, 2, 5):
        log.add(outcome(index, error="lm.x" if index == 5 else None))
    # Not closed: the process is gone. A line of the journal is torn, and the results have a line without a record.
    with (tmp_path / "results.journal").open("a") as journal:
        journal.write('{"index": 7, "ke')
    with (tmp_path / "results.jsonl").open("a") as results:
        results.write('{"n": 1, "_er')
    again = FileResultLog(tmp_path)
    assert (again.count, again.finished) == (1, 3)
    assert [again.known(index) is not None for index in range(8)] == [
        True, False, True, False, False, True, False, False,
    ]  # fmt: skip
    assert again.known(2) == content_key({"n": 2})
    assert again.errors() == {"lm.x": 1}
    for index in (1, 3, 4):
        again.add(outcome(index))
    again.close()
    assert numbers(tmp_path) == [0, 1, 2, 3, 4, 5]


def test_a_row_without_its_line_is_not_counted(tmp_path):
    log = FileResultLog(tmp_path)
    for index in range(3):
        log.add(outcome(index))
    log.close()
    size = (tmp_path / "results.jsonl").stat().st_size
    os.truncate(tmp_path / "results.jsonl", size - 3)
    again = FileResultLog(tmp_path)
    assert again.count == 2
    again.add(outcome(2))
    again.close()
    assert numbers(tmp_path) == [0, 1, 2]


def test_the_journal_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(batch_results, "_STALE_LINES", 10)
    log = FileResultLog(tmp_path)
    for start in range(0, 400, 4):
        for index in (3, 2, 1, 0):
            log.add(outcome(start + index))
    assert len((tmp_path / "results.journal").read_text().splitlines()) <= 20
    log.close()
    assert numbers(tmp_path) == list(range(400))


def test_the_figures_are_those_of_all_rows(tmp_path):
    log = FileResultLog(tmp_path)
    for index in range(101):
        log.add(outcome(index, score=float(index % 2), traced=index < 7))
    log.add(outcome(101, error="engine.server", usage=Usage(), latency_ms=float("nan")))
    log.close()
    totals = FileResultLog(tmp_path).totals()
    assert (totals.rows, totals.failed, totals.traced) == (102, 1, 7)
    assert totals.usage == Usage(lm_calls=101, input_tokens=1010, output_tokens=202, cost=50.5)
    assert (totals.latency_ms_mean, totals.latency_ms_p50, totals.latency_ms_p95, totals.latency_ms_p99) == (
        50, 50, 95, 99,
    )  # fmt: skip
    assert totals.score is not None
    assert totals.score.value == pytest.approx(50 / 101)
    assert totals.score.low < 50 / 101 < totals.score.high


def test_a_cost_that_is_not_known_is_none(tmp_path):
    log = FileResultLog(tmp_path)
    log.add(outcome(0))
    log.add(outcome(1, usage=Usage(lm_calls=1, cost=None)))
    assert log.totals().usage.cost is None
    log.close()


def test_failed_rows_have_a_file_of_their_own(tmp_path):
    log = FileResultLog(tmp_path)
    for index in range(4):
        log.add(outcome(index, error="engine.server" if index % 2 else None))
    log.write_errors()
    log.close()
    lines = (tmp_path / "errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["n"] for line in lines] == [1, 3]


def test_another_batch_takes_over_answers_for_the_same_content_alone(tmp_path):
    log = FileResultLog(tmp_path)
    log.add(outcome(0))
    log.add(outcome(1, error="engine.server"))
    log.add(outcome(3))
    log.close()
    earlier = FileEarlierRows(tmp_path)
    found = [earlier.find(index, content_key({"n": index})) for index in range(4)]
    assert [row.line if row else None for row in found] == [
        outcome(0).line, None, None, outcome(3).line,
    ]  # fmt: skip
    assert found[0].usage == Usage()
    assert earlier.find(0, content_key({"n": "other"})) is None
    earlier.close()


# Outputs.

ROWS = [
    {"n": 1, "list": ["a", "b"], "big": 2**70, "mixed": 1, "_error": None, "_tokens": 3, "text": "一,\n\"二\""},
    {"n": 2.5, "list": [], "big": 1, "mixed": "x", "_error": "a.b: why", "_tokens": 0, "late": True},
]  # fmt: skip


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS))
    return path


def published(results, name, kind):
    path = results.parent / name
    with output_target(path, kind) as target:
        target.publish(results)
    assert [found.name for found in results.parent.iterdir() if found.name.startswith(".")] == []
    return path


def test_jsonl_is_the_results_themselves(results):
    assert published(results, "out.jsonl", "jsonl").read_bytes() == results.read_bytes()


def test_csv_has_every_column_and_ours_last(results):
    with published(results, "out.csv", "csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["n", "list", "big", "mixed", "text", "late", "_error", "_tokens"]
    assert (rows[0]["list"], rows[0]["text"], rows[0]["late"]) == ('["a", "b"]', '一,\n"二"', "")
    assert (rows[1]["late"], rows[1]["_error"]) == ("true", "a.b: why")


def test_parquet_has_the_types_that_hold_all_values(results):
    table = pq.read_table(published(results, "out.parquet", "parquet"))
    assert {field.name: str(field.type) for field in table.schema} == {
        "n": "double", "list": "list<element: string>", "big": "string", "mixed": "string", "text": "string",
        "late": "bool", "_error": "string", "_tokens": "int64",
    }  # fmt: skip
    assert table.to_pylist()[0]["big"] == str(2**70)
    assert table.to_pylist()[1]["late"] is True


def test_two_cannot_write_to_the_same_output(tmp_path):
    path = tmp_path / "out.csv"
    with output_target(path, "csv"):
        with pytest.raises(ConflictError) as caught, output_target(path, "csv"):
            pass
        assert caught.value.code == "batch.output_busy"
    with output_target(path, "csv"):
        pass
    assert list(tmp_path.glob(".out*")) == []


def test_an_output_in_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(BadRequestError) as caught, output_target(tmp_path / "no" / "out.csv", "csv"):
        pass
    assert caught.value.code == "batch.output_folder"


def test_what_a_killed_batch_left_beside_its_output_is_removed(tmp_path):
    path, left = tmp_path / "out.csv", tmp_path / ".out.csv.part"
    clear_target(path)
    clear_target(tmp_path / "gone" / "out.csv")
    left.write_bytes(b"half a row")
    path.write_text("an older output")
    clear_target(path)
    assert not left.exists()
    assert path.read_text() == "an older output"


def test_what_another_batch_writes_to_by_now_stays(tmp_path):
    path, left = tmp_path / "out.jsonl", tmp_path / ".out.jsonl.part"
    results = tmp_path / "results.jsonl"
    results.write_text('{"a": 1}\n')
    with output_target(path, "jsonl") as target:
        clear_target(path)
        assert left.exists()
        target.publish(results)
    assert path.read_text() == '{"a": 1}\n'
    assert not left.exists()
