"""Reading CSV, TSV, JSON, JSONL and Parquet: what is taken, and the sentence for what is not."""

import bz2
import datetime
import decimal
import gzip
import hashlib
import io
import json
import lzma
import os
import random
import time
import zipfile
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dspyui.adapters.files import tables
from dspyui.adapters.files.tables import FileTableReader
from dspyui.errors import BadRequestError, NotFoundError

READER = FileTableReader(max_bytes=1024 * 1024)


def read(name, text, encoding="utf-8"):
    return READER.read(name, text.encode(encoding))


def refused(name, content):
    data = content if isinstance(content, bytes) else content.encode()
    with pytest.raises(BadRequestError) as caught:
        READER.read(name, data)
    assert caught.value.text("en_US")
    assert caught.value.text("zh_CN")
    return caught.value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_the_usual_encodings_are_read(encoding):
    table = read("d.CSV", "问题,答案\n你好，世界,“好”\n", encoding)
    assert table.columns == ("问题", "答案")
    assert table.rows == ({"问题": "你好，世界", "答案": "“好”"},)


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_separators_of_spreadsheets_are_read(mark):
    table = read("d.csv", f"a{mark}b\n1{mark}2\n")
    assert table.rows == ({"a": "1", "b": "2"},)


@pytest.mark.parametrize(
    ("text", "columns", "row"),
    [
        ('"name, first";b\nx;y,z\n', ("name, first", "b"), ("x", "y,z")),
        ("id;text, long;label\n1;x;y\n", ("id", "text, long", "label"), ("1", "x", "y")),
        ("sep=;\na, b;c;\n1;2;\n", ("a, b", "c"), ("1", "2")),
        ('"sep=|"\r\na;1|b\r\n2|3\r\n', ("a;1", "b"), ("2", "3")),
        ("a|b\n1|2,3\n", ("a", "b"), ("1", "2,3")),
        ("a,b\r1,2\r", ("a", "b"), ("1", "2")),
        ("a,b,,\n1,2,,\n", ("a", "b"), ("1", "2")),
        ("a,b\n1,2,\n,\n , \n", ("a", "b"), ("1", "2")),
        ("__proto__,id,constructor,a b\n1,2,3,4\n", ("__proto__", "id", "constructor", "a b"), tuple("1234")),
    ],
)
def test_what_spreadsheets_write_is_read(text, columns, row):
    table = read("d.csv", text)
    assert table.columns == columns
    assert table.rows == (dict(zip(columns, row, strict=True)),)


@pytest.mark.parametrize("name", ["d.csv", "d.tsv"])
@pytest.mark.parametrize("text", ['[{"a": 1}, {"a": 2}]', '{"a": 1}\n{"a": 2}\n', '[\n  {"a": 1}\n]'])
def test_json_that_is_called_csv_is_to_be_renamed(name, text):
    assert refused(name, text).code == "file.is_json"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("d.json", '{"甲": 1}\n{"甲": 2}\n', "jsonl"),
        ("d.json", '{"甲": 1}\n\n{"甲": 2}', "jsonl"),
        ("d.jsonl", '[{"甲": 1},\n {"甲": 2}]\n', "json"),
    ],
)
def test_json_is_read_in_the_form_that_it_has(name, text, kind, encoding):
    table = read(name, text, encoding)
    assert (table.format, table.rows) == (kind, ({"甲": 1}, {"甲": 2}))


def test_a_broken_line_of_jsonl_that_is_called_json_is_told():
    error = refused("d.json", '{"a": 1}\n{"a": 2\n')
    assert (error.code, error.values["line"]) == ("file.json", 2)


def test_csv_keeps_text_as_it_is():
    text = 'a,b\r\n" x ","say ""hi"""\r\n\r\n"two\nlines",\r\n'
    table = read("d.csv", text)
    assert table.rows == ({"a": " x ", "b": 'say "hi"'}, {"a": "two\nlines", "b": ""})


def test_a_single_column_and_a_long_cell():
    assert read("d.csv", "a\nx;y\n").rows == ({"a": "x;y"},)
    assert len(read("d.csv", "a\n" + "x" * 500_000).rows[0]["a"]) == 500_000


@pytest.mark.parametrize(("name", "text"), [("d.csv", "a,b\n"), ("d.tsv", "a\tb\n\n"), ("d.json", "[]")])
def test_a_table_without_rows_says_so(name, text):
    assert refused(name, text).code == "file.no_rows"


@pytest.mark.parametrize(
    ("text", "code", "values"),
    [
        ("a,b\n1,2\n\n3\n", "file.ragged", {"line": 4, "row": 2, "found": 1, "expected": 2}),
        ('a,b\n"1\n2",3\n4,5,6\n', "file.ragged", {"line": 4, "row": 2, "found": 3, "expected": 2}),
        ("a,b,\n1,2,3\n", "file.ragged", {"line": 2, "found": 3, "expected": 2}),
        ("a,,b\n", "file.column_unnamed", {"line": 1, "number": 2}),
        ("\na, a\n", "file.column_twice", {"line": 2, "columns": "a"}),
        ('a,b\n1,2\n"3,4\n', "file.csv", {"line": 3}),
        ('a,b\n"1"x,2\n', "file.csv", {"line": 2}),
        ("", "file.empty", {}),
        ("\ufeff \n", "file.empty", {}),
    ],
)
def test_what_is_wrong_with_a_csv_is_told_with_its_line(text, code, values):
    error = refused("d.csv", text)
    assert error.code == code
    assert {**error.values, **values} == error.values


def test_jsonl_keeps_types_and_the_union_of_columns():
    table = read("d.jsonl", '{"a": "x\u2028y", "n": 1}\r\n\n{"b": [1], "a": null}\n')
    assert table.columns == ("a", "n", "b")
    assert table.rows == ({"a": "x\u2028y", "n": 1}, {"b": [1], "a": None})


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ('{"a": 1}\n\n{"a": \n', "file.json", 3),
        ('{"a": 1}\n[1]\n', "file.json_object", 2),
        ('"a"\n', "file.json_object", 1),
        ("[" * 100_000 + "\n", "file.json", 1),
        ("1" * 5000 + "\n", "file.json", 1),
    ],
)
def test_what_is_wrong_with_a_jsonl_is_told_with_its_line(text, code, line):
    error = refused("d.jsonl", text)
    assert (error.code, error.values["line"]) == (code, line)


@pytest.mark.parametrize("name", ["d.doc", "csv", "", ".csv", "../../d"])
def test_an_unknown_ending_names_those_that_work(name):
    error = refused(name, "a\n1\n")
    assert error.code == "file.ending"
    assert ".csv, .tsv, .json, .jsonl or .parquet" in str(error)


@pytest.mark.parametrize("name", ["d.xlsx", "d.zip", "d.xls"])
def test_a_workbook_or_an_archive_is_told_what_to_do(name):
    error = refused(name, b"PK\x03\x04")
    assert error.code == "file.archive"
    assert "CSV UTF-8" in str(error)


@pytest.mark.parametrize("name", ["d.csv.gz", "d.tar", "d.jsonl.zst"])
def test_a_packed_file_is_to_be_unpacked(name):
    error = refused(name, b"anything")
    assert error.code == "file.packed"
    assert "Unpack it" in str(error)


def workbook():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    return content.getvalue()


PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(range(256)) * 4


@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.json", "d.jsonl"])
@pytest.mark.parametrize(
    ("content", "code"),
    [
        (PNG, "file.encoding"),
        (random.Random(0).randbytes(5000).replace(b"\0", b"\1"), "file.encoding"),
        (b"a,b\n\xff\xfe\xff,1\n", "file.encoding"),
        (b"\xff\xfea", "file.encoding"),
        (workbook(), "file.archive"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "file.packed"),
        (bz2.compress(b"a,b\n1,2\n"), "file.packed"),
        (lzma.compress(b"a,b\n1,2\n"), "file.packed"),
        ("a,b\n1,2\n".encode("utf-16-le"), "file.encoding"),
        ("name;größe\nMüller;é1\n".encode("cp1252"), "file.encoding"),
        ("name;größe\nMüller;fünf\n".encode("cp1252"), "file.encoding"),
        (b" <!DOCTYPE html>\n<html>\n", "file.web_page"),
        (b'<?xml version="1.0"?>\n<a/>\n', "file.web_page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "file.lfs_pointer"),
        (b"PAR1\x15\x04\x15", "file.is_parquet"),
    ],
)
def test_what_is_no_text_is_refused_whatever_its_name(name, content, code):
    assert refused(name, content).code == code


def test_broken_utf8_is_told_with_its_line_and_not_read_as_gb18030():
    text = "问题,答案\n" + "你好，世界,很好\n" * 3
    content = text.encode() + "再见,".encode() + b"\xe5\xa5" + "吗\n".encode()
    error = refused("d.csv", content)
    assert (error.code, error.values["line"]) == ("file.utf8", 5)
    assert refused("d.csv", b"\xef\xbb\xbfa,b\n1,\xff\n").code == "file.utf8"
    assert refused("d.csv", "问题\n答案".encode()[:-1]).code == "file.utf8"


def test_an_upload_that_is_large_is_refused_with_size_limit_and_remedy():
    error = refused("d.csv", b"x" * (1024 * 1024 * 3 // 2))
    assert error.code == "file.large"
    assert "1.5 MB" in str(error)
    assert "may have 1 MB" in str(error)
    assert "DSPYUI_MAX_UPLOAD_MB" in str(error)
    assert "give its path" in str(error)


def test_a_path_is_read(tmp_path):
    file = tmp_path / "数据.csv"
    file.write_text("a\n1\n", encoding="utf-8")
    assert READER.read_path(str(file)).rows == ({"a": "1"},)


@pytest.mark.parametrize("path", ["no-such.csv", "x\0y.csv", "a" * 5000 + ".csv", "~nobody-here/x.csv"])
def test_a_path_that_is_not_there_is_not_found(path):
    with pytest.raises(NotFoundError) as caught:
        READER.read_path(path)
    assert caught.value.code == "file.missing"


def test_a_path_to_something_else_is_refused(tmp_path):
    reader = FileTableReader(max_bytes=1024, path_bytes=1024 * 1024)
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "big.csv").write_bytes(b"x" * 1024 * 1025)
    for path, code in (
        (tmp_path, "file.folder"),
        (tmp_path / "pipe.csv", "file.special"),
        (tmp_path / "big.csv", "file.large_path"),
    ):
        with pytest.raises(BadRequestError) as caught:
            reader.read_path(str(path))
        assert caught.value.code == code
        assert caught.value.text("zh_CN")


def test_a_hundred_thousand_rows_are_read_in_seconds():
    reader = FileTableReader(max_bytes=50 * 1024 * 1024)
    content = ("question,answer\n" + "what is this,that\n" * 100_000).encode()
    began = time.perf_counter()
    assert len(reader.read("d.csv", content).rows) == 100_000
    assert time.perf_counter() - began < 60


@pytest.mark.parametrize(
    ("encoding", "label"),
    [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8 (BOM)"), ("gb18030", "GB18030"), ("utf-16", "UTF-16")],
)
@pytest.mark.parametrize("name", ["d.csv", "d.tsv", "d.json", "d.jsonl"])
def test_it_is_told_which_encoding_and_format_were_taken(name, encoding, label):
    text = {
        "d.csv": "问题,答案\n你好，世界,很好\n",
        "d.tsv": "问题\t答案\n你好，世界\t很好\n",
        "d.json": '[{"问题": "你好，世界", "答案": "很好"}]',
        "d.jsonl": '{"问题": "你好，世界", "答案": "很好"}\n',
    }[name]
    table = read(name, text, encoding)
    assert (table.encoding, table.format) == (label, name.removeprefix("d."))
    assert table.rows == ({"问题": "你好，世界", "答案": "很好"},)


def test_a_tsv_may_hold_commas_and_quotation_marks():
    table = read("d.tsv", 'a\tb\nx, y; z\t5" pipe\n"two\nlines"\t\n')
    assert table.rows == ({"a": "x, y; z", "b": '5" pipe'}, {"a": "two\nlines", "b": ""})


def test_a_cell_that_never_ends_is_told_with_the_line_it_begins_on():
    content = b'a,b\n1,2\n"' + b"x" * (17 * 1024 * 1024)
    with pytest.raises(BadRequestError) as caught:
        FileTableReader(max_bytes=20 * 1024 * 1024).read("d.csv", content)
    assert (caught.value.code, caught.value.values["line"]) == ("file.csv", 3)


JSON_SHAPES = [
    '[{"a": "x", "b": 1}, {"a": "y", "b": 2}]',
    '{"a": ["x", "y"], "b": [1, 2]}',
    '{"data": [{"a": "x", "b": 1}, {"a": "y", "b": 2}], "version": 3}',
    '{"columns": ["a", "b"], "index": [0, 1], "data": [["x", 1], ["y", 2]]}',
    '{"a": {"0": "x", "1": "y"}, "b": {"0": 1, "1": 2}}',
]


@pytest.mark.parametrize("text", JSON_SHAPES)
def test_json_tables_are_read_in_their_usual_shapes(text):
    table = read("d.json", text)
    assert table.columns == ("a", "b")
    assert table.rows == ({"a": "x", "b": 1}, {"a": "y", "b": 2})


def test_json_keeps_types_and_odd_characters():
    table = read("d.json", '[\n {"a": [1, {"n": null}], "b": "\\ud83d", "c": 123456789012345678901}\n]\n')
    assert table.rows == ({"a": [1, {"n": None}], "b": "\ud83d", "c": 123456789012345678901},)


@pytest.mark.parametrize(
    ("text", "code", "values"),
    [
        ('[{"a": 1},\n {"a": }]', "file.json", {"line": 2}),
        ('[{"a": 1}\n {"a": 2}]', "file.json", {"line": 2}),
        ('[{"a": 1}', "file.json", {"line": 1}),
        ('[{"a": 1}] x', "file.json", {"line": 1}),
        ('{"a": 1', "file.json", {"line": 1}),
        ('[{"a": 1},\n 2]', "file.json_object", {"line": 2}),
        ("[[1, 2]]", "file.json_object", {"line": 1}),
        ('{"a": 1}', "file.json_shape", {}),
        ('{"a": [1], "b": [1, 2]}', "file.json_shape", {}),
        ('{"x": [{"a": 1}], "y": [{"a": 2}, {"a": 3}]}', "file.json_shape", {}),
        ('"text"', "file.json_shape", {}),
        ("12", "file.json_shape", {}),
        ('[{"a": 1, "a": 2}]', "file.column_twice", {"columns": "a"}),
        ('{"columns": ["a", "a"], "data": [[1, 2]]}', "file.twice", {"columns": "a"}),
        ('[{"": 1}]', "file.column_unnamed", {"line": 1, "number": 1}),
        ('{"": [1]}', "file.unnamed", {"number": 1}),
        ('[{"a": 1, "\\ud83d": 1}]', "file.column_broken", {"number": 2}),
        ("[" * 100_000, "file.json", {}),
        (" \n ", "file.empty", {}),
    ],
)
def test_what_is_wrong_with_a_json_file_is_told(text, code, values):
    error = refused("d.json", text)
    assert error.code == code
    assert {**error.values, **values} == error.values


def test_a_json_line_that_names_a_column_twice_is_told():
    error = refused("d.jsonl", '{"a": 1}\n{"b": 1, "b": 2}\n')
    assert (error.code, error.values["line"], error.values["columns"]) == ("file.column_twice", 2, "b")


def parquet(table):
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def test_parquet_gives_what_json_can_hold():
    at = datetime.datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as files have them
    table = pa.table(
        {
            "text": ["你好", None],
            "n": pa.array([1, 2**62], pa.int64()),
            "x": [0.5, float("nan")],
            "ok": [True, False],
            "when": pa.array([at, None], pa.timestamp("ns")),
            "day": [datetime.date(2026, 1, 2), None],
            "price": [decimal.Decimal("1.50"), None],
            "tags": [["a", "b"], []],
            "nested": [{"k": 1, "l": [at]}, None],
            "bytes": [b"abc", b""],
            "kind": pa.array(["bug", "bug"]).dictionary_encode(),
        }
    )
    read_table = READER.read("d.parquet", parquet(table))
    assert (read_table.format, read_table.encoding) == ("parquet", "")
    first, second = read_table.rows
    assert first == {
        "text": "你好", "n": 1, "x": 0.5, "ok": True, "when": "2026-01-02T03:04:05", "day": "2026-01-02",
        "price": "1.50", "tags": ["a", "b"], "nested": {"k": 1, "l": ["2026-01-02T03:04:05"]},
        "bytes": "abc", "kind": "bug",
    }  # fmt: skip
    assert (second["n"], second["text"], second["tags"]) == (2**62, None, [])
    assert second["x"] != second["x"]


def test_parquet_values_fit_the_types_of_fields():
    from dspyui.domain.signatures import FieldSpec, parse_row

    table = pa.table(
        {
            "n": pa.array([3.0, None]), "i": pa.array([1, 2], pa.int8()), "x": pa.array([1, 2], pa.uint16()),
            "f": pa.array([0.25, 1], pa.float32()), "ok": [True, False], "tags": [["a"], ["b", "c"]],
            "d": [decimal.Decimal(2), decimal.Decimal(3)], "s": [1, 2],
        }
    )  # fmt: skip
    types = {
        "n": "int",
        "i": "int",
        "x": "float",
        "f": "float",
        "ok": "bool",
        "tags": "list[str]",
        "d": "int",
    }
    fields = (*(FieldSpec(name=name, type=kind) for name, kind in types.items()), FieldSpec(name="s"))
    rows = list(READER.read("d.parquet", parquet(table)).rows)
    assert parse_row(fields, rows[0], where="#1") == {
        "n": 3, "i": 1, "x": 1.0, "f": 0.25, "ok": True, "tags": ["a"], "d": 2, "s": "1",
    }  # fmt: skip
    with pytest.raises(BadRequestError) as caught:
        parse_row(fields, rows[1], where="#2")
    assert (caught.value.code, caught.value.values["where"]) == ("value.missing", "#2")


def test_what_is_wrong_with_a_parquet_is_told():
    whole = parquet(pa.table({"a": ["x" * 1000, "y"]}))
    twice = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    for content, code in (
        (whole[: len(whole) // 2], "file.parquet"),
        (whole[:-3], "file.parquet"),
        (whole[:40] + b"\xff" * 60 + whole[100:], "file.parquet"),
        (b"a,b\n1,2\n", "file.parquet"),
        (b"", "file.empty"),
        (parquet(twice), "file.twice"),
        (parquet(pa.table({"": [1]})), "file.unnamed"),
        (parquet(pa.table({"a": [b"\xff\x00"]})), "file.parquet_bytes"),
        (parquet(pa.table({"a": pa.array([], pa.string())})), "file.no_rows"),
    ):
        assert refused("d.parquet", content).code == code


def test_a_parquet_that_unpacks_to_more_than_a_table_may_have_is_refused():
    content = parquet(pa.table({"a": ["x" * 1000] * 5000}))
    assert len(content) < 1024 * 1024
    assert refused("d.parquet", content).code == "file.large_unpacked"


def test_a_json_file_by_path_has_the_limit_of_uploads(tmp_path):
    file = tmp_path / "d.json"
    file.write_text("[" + '{"a": "xxxxxxxxxxxxxxxxxxxx"},' * 100 + '{"a": "y"}]', encoding="utf-8")
    reader = FileTableReader(max_bytes=1024)
    with pytest.raises(BadRequestError) as caught:
        reader.read_path(str(file))
    assert caught.value.code == "file.large_json"
    assert "JSONL" in str(caught.value)


@contextmanager
def as_nobody(folder):
    """Root may read everything: act as an account that may not, which must at least get into the folder."""
    if os.getuid() != 0:
        yield
        return
    for around in (folder, *folder.parents):
        if around.stat().st_mode & 0o001 == 0:
            around.chmod(around.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_read_is_told(tmp_path):
    file, closed = tmp_path / "d.csv", tmp_path / "closed"
    closed.mkdir()
    for made in (file, closed / "d.csv"):
        made.write_text("a\n1\n", encoding="utf-8")
    file.chmod(0)
    closed.chmod(0)
    with as_nobody(tmp_path):
        for path in (file, closed / "d.csv"):
            with pytest.raises(BadRequestError) as caught:
                READER.read_path(str(path))
            assert caught.value.code == "file.forbidden"
    closed.chmod(0o755)


def test_a_file_by_path_is_read_once_and_again_when_it_changed(tmp_path):
    file = tmp_path / "d.csv"
    file.write_text("a\n1\n", encoding="utf-8")
    reader = FileTableReader(max_bytes=1024)
    first = reader.read_path(str(file))
    assert reader.read_path(str(file)) is first
    file.write_text("a\n22\n", encoding="utf-8")
    second = reader.read_path(str(file))
    assert second.rows == ({"a": "22"},)
    assert reader.read_path(str(file)) is second
    os.utime(file, ns=(1, 1))
    assert reader.read_path(str(file)) is not second


def test_a_table_has_the_digest_of_its_file(tmp_path):
    content = b"a\n1\n"
    (tmp_path / "d.csv").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert READER.read("d.csv", content).digest == digest
    assert READER.read_path(str(tmp_path / "d.csv")).digest == digest


def test_a_file_that_is_written_to_while_it_is_read_is_never_half_of_each(tmp_path, monkeypatch):
    file, reads = tmp_path / "d.csv", []
    file.write_text("a\n1\n", encoding="utf-8")
    reader = FileTableReader(max_bytes=1024)
    read = tables._read

    def slowly(opened, kind):
        table = read(opened, kind)
        reads.append(table)
        if len(reads) < meanwhile:
            file.write_text("a\n" + "2\n" * (1 + len(reads)), encoding="utf-8")
        return table

    meanwhile = 2
    monkeypatch.setattr(tables, "_read", slowly)
    assert len(reader.read_path(str(file)).rows) == 2
    meanwhile = 100
    os.utime(file, ns=(1, 1))
    with pytest.raises(BadRequestError) as caught:
        reader.read_path(str(file))
    assert caught.value.code == "file.changing"


def test_only_so_many_tables_are_kept(tmp_path):
    reader = FileTableReader(max_bytes=1024)
    files = [tmp_path / f"{number}.csv" for number in range(9)]
    for file in files:
        file.write_text("a\n1\n", encoding="utf-8")
    tables = [reader.read_path(str(file)) for file in files]
    assert reader.read_path(str(files[-1])) is tables[-1]
    assert reader.read_path(str(files[0])) is not tables[0]


def test_a_kept_file_is_read_by_its_format_and_told_by_its_name(tmp_path):
    file = tmp_path / ("0" * 64)
    file.write_text('{"a": 1}\n', encoding="utf-8")
    assert READER.read_path(str(file), kind="jsonl", name="Mine").rows == ({"a": 1},)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(BadRequestError) as caught:
        READER.read_path(str(file), kind="jsonl", name="Mine")
    assert caught.value.values["name"] == "Mine"


def test_packed_rows_are_a_sequence():
    rows = read("d.csv", "a\n1\n2\n3\n").rows
    assert (len(rows), rows[-1], list(rows[:2])) == (3, {"a": "3"}, [{"a": "1"}, {"a": "2"}])
    assert rows == [{"a": "1"}, {"a": "2"}, {"a": "3"}]
    assert rows != [{"a": "1"}]
    assert json.dumps(list(rows))
    with pytest.raises(IndexError):
        rows[3]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("d.csv", "a\n1\n2\n3\n"),
        ("d.jsonl", '{"a": 1}\n' * 3),
        ("d.json", '{"a": [1, 2, 3]}'),
        ("d.json", '[{"a": 1}, {"a": 2}, {"a": 3}]'),
    ],
)
def test_more_rows_than_a_compile_can_hold_are_refused(name, text, monkeypatch):
    monkeypatch.setattr("dspyui.adapters.files.source.MAX_ROWS", 2)
    error = refused(name, text)
    assert (error.code, error.values["limit"]) == ("file.many_rows", "2")
