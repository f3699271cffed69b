"""`dspyui data`: kept data sets, from a terminal or a script."""

import os

import pytest

from dspyui.settings import Settings
from tests.api.world import World

CSV = "message,product\n" + "".join(f"m{n},p{n}\n" for n in range(12))


@pytest.fixture
def world():
    """On the data folder that the commands use."""
    return World(Settings.load())


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "评论.csv"
    path.write_text(CSV, encoding="utf-8")
    return path


def test_a_file_is_kept_listed_shown_renamed_and_deleted(dspyui, world, file):
    kept = dspyui("data", "add", str(file), "--json").document
    digest = kept["digest"]
    assert (kept["name"], kept["rows"], kept["columns"]) == ("评论.csv", 12, ["message", "product"])
    assert dspyui("data", "list", "--json").document == {"data": [kept]}
    size = f"{file.stat().st_size} B"
    assert dspyui("data", "list").out == f"{digest[:12]}  {'12':9}  {size:8}  评论.csv\n"
    world.submitted(data={"upload": digest})
    shown = dspyui("data", "show", digest[:6], "--json").document
    assert shown.items() >= kept.items()
    assert (shown["jobs"], len(shown["head"]), shown["head"][0]) == (1, 5, {"message": "m0", "product": "p0"})
    assert dspyui("data", "show", "评论.csv").out.splitlines()[:4] == [
        "评论.csv",
        f"Rows: 12; columns: message, product; format: csv; size: {size}",
        f"Digest (`upload` under `data` in a spec): {digest}",
        "Used in jobs: 1",
    ]
    assert dspyui("data", "rename", "评论.csv", "Reviews", "--json").document["name"] == "Reviews"
    said = dspyui("data", "delete", "Reviews", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "cli.yes_needed")
    assert "Reviews (12 rows) goes for good. Jobs that used it: 1." in said.err
    assert dspyui("data", "delete", digest, "--yes", "--json").document == {
        "deleted": digest,
        "name": "Reviews",
    }
    assert dspyui("data", "list").out == "No data set is kept.\n"
    assert dspyui("data", "list", "--lang", "zh_CN").out == "没有已保存的数据集。\n"


def test_a_file_is_kept_under_another_name(dspyui, file):
    assert dspyui("data", "add", str(file), "--name", "Mine", "--json").document["name"] == "Mine"
    said = dspyui("data", "add", str(file), "--name", " ", "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "upload.name")


@pytest.mark.parametrize("language", ["en_US", "zh_CN"])
def test_what_fits_several_is_asked_for_more_closely(dspyui, world, file, language):
    digests = [dspyui("data", "add", str(file), "--json").document["digest"]]
    file.write_text(CSV + "x,y\n")
    digests.append(dspyui("data", "add", str(file), "--json").document["digest"])
    said = dspyui("data", "show", "评论.csv", "--json", "--lang", language)
    assert (said.code, said.document["error"]["code"]) == (2, "upload.several")
    assert all(digest[:12] in said.err for digest in digests)
    assert dspyui("data", "show", digests[0][:12], "--json").document["rows"] == 12


@pytest.mark.parametrize("command", [["show"], ["rename", "x"], ["delete", "--yes"]], ids=lambda c: c[0])
@pytest.mark.parametrize("asked", ["0" * 64, "0000", "", "../../jobs.db"])
def test_a_data_set_that_is_not_there(dspyui, file, command, asked):
    dspyui("data", "add", str(file))
    said = dspyui("data", command[0], asked, *command[1:], "--json")
    assert (said.code, said.document["error"]["code"]) == (2, "upload.unknown")


def test_what_is_no_data_file_is_told_and_not_kept(dspyui, tmp_path, monkeypatch):
    monkeypatch.setenv("DSPYUI_MAX_UPLOAD_MB", "1")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "big.csv").write_bytes(b"a\n" * 600_000)
    (tmp_path / "x.png").write_bytes(b"x")
    (tmp_path / "empty.csv").write_bytes(b"")
    for name, code in (
        ("none.csv", "file.missing"), (".", "file.folder"), ("pipe.csv", "file.special"), ("big.csv", "file.large"),
        ("x.png", "file.ending"), ("empty.csv", "file.empty"),
    ):  # fmt: skip
        said = dspyui("data", "add", str(tmp_path / name), "--json")
        assert (said.code, said.document["error"]["code"]) == (2, code), name
    assert dspyui("data", "list", "--json").document == {"data": []}
