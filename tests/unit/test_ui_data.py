"""The pages about data in NiceGUI's simulation: the form's card, the list of data sets, and one of them."""

import asyncio
import datetime
import io
import json
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nicegui import ui
from nicegui.testing import User

from tests.api.world import World
from tests.pages import element, exists, sees, until, words


async def test_a_file_by_path_is_previewed_and_can_be_taken_into_the_rows(user: User, world: World, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("question,answer\n" + "".join(f"q{n},a{n}\n" for n in range(20)), encoding="utf-8")
    await user.open("/?start=empty")
    user.find(marker="data-tab-file").click()
    element(user, "data-path").set_value(str(file))  # type: ignore[attr-defined]
    await until(sees(user, marker="columns-to-fields"))
    user.find(marker="columns-to-fields").click()
    await until(lambda: any("Inputs: " in said and "Output: " in said for said in user.notify.messages))
    user.find(marker="program-name").type("qa")
    await until(sees(user, marker="form-ready"))
    assert "20" in words(user, "summary")
    user.find(marker="file-to-grid").click()
    await until(sees(user, content="1–10 of 20"))


async def test_a_missing_file_is_said_at_the_data(user: User):
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    user.find(marker="data-tab-file").click()
    element(user, "data-path").set_value("nowhere.csv")  # type: ignore[attr-defined]
    await until(sees(user, marker="data-problem"))
    assert "There is no file 'nowhere.csv'" in words(user, "data-problem")


async def upload(user: User, name: str, content: bytes) -> None:
    """Choose a file, as a browser sends it."""
    control = element(user, "upload")
    assert isinstance(control, ui.upload)
    await control.handle_uploads([ui.upload.SmallFileUpload(name, "text/csv", content)])


GOOD_CSV = b"message,product\n" + b"".join(b"m%d,p%d\n" % (n, n) for n in range(20))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bad.csv", b"message,product\na,b\nc\n", "line 3"),
        ("empty.csv", b"", "is empty"),
        ("picture.csv", b"\x89PNG\r\n\x1a\n\x00\x00\x00\xff\xfe", "is not text"),
        ("picture.png", b"\x89PNG\r\n\x1a\n", "cannot be read by its name"),
    ],
)
async def test_a_refused_upload_says_why_beside_it_and_lets_the_file_before_go(
    user: User, world: World, name, content, said
):
    await user.open("/")
    user.find(marker="data-tab-file").click()
    await upload(user, "good.csv", GOOD_CSV)
    await until(sees(user, content="Data set: good.csv"))
    await until(sees(user, marker="form-ready"))
    before = element(user, "upload")

    await upload(user, name, content)
    await until(sees(user, marker="upload-problem"))
    assert said in words(user, "upload-problem")
    assert not exists(user, content="Data set: good.csv")
    assert element(user, "upload") is not before, "a fresh uploader lists no file"
    await until(lambda: "No file is chosen yet" in words(user, "summary"))
    assert not exists(user, marker="data-problem"), "said once"
    user.find(marker="compile").click()
    await asyncio.sleep(0.2)
    assert world.queue.submitted == []

    await upload(user, "good.csv", GOOD_CSV)
    await until(sees(user, marker="form-ready"))
    assert not exists(user, marker="upload-problem")
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert len(world.jobs.rows(world.queue.submitted[0])) == 20


async def test_a_path_takes_the_place_of_an_upload(user: User, world: World, tmp_path):
    (tmp_path / "other.csv").write_bytes(GOOD_CSV[: GOOD_CSV.index(b"m12")])
    await user.open("/")
    user.find(marker="data-tab-file").click()
    await upload(user, "good.csv", GOOD_CSV)
    await until(sees(user, content="Data set: good.csv"))
    element(user, "data-path").set_value(str(tmp_path / "other.csv"))  # type: ignore[attr-defined]
    assert not exists(user, content="Data set: good.csv")
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert len(world.jobs.rows(world.queue.submitted[0])) == 12


async def test_a_file_the_browser_does_not_send_is_refused_in_the_same_place(user: User):
    await user.open("/")
    user.find(marker="data-tab-file").click()
    await upload(user, "good.csv", GOOD_CSV)
    await until(sees(user, content="Data set: good.csv"))
    user.find(marker="upload").trigger("rejected")
    await until(sees(user, marker="upload-problem"))
    assert "only one .csv, .tsv, .json, .jsonl or .parquet file of up to 100 MB" in words(
        user, "upload-problem"
    )
    assert not exists(user, content="Data set: good.csv")


def many(count: int, names: str = "message,product") -> bytes:
    return f"{names}\n{''.join(f'm{n},p{n}' + chr(10) for n in range(count))}".encode()


async def open_file_tab(user: User, path: str = "/?start=products") -> None:
    await user.open(path)
    await until(sees(user, marker="form-ready"))
    user.find(marker="data-tab-file").click()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.tsv", "message\tproduct\n" + "".join(f"m{n}\tp{n}\n" for n in range(30))),
        ("rows.json", json.dumps({"message": list(range(30)), "product": list(range(30))})),
        ("rows.jsonl", "".join(json.dumps({"message": f"m{n}", "product": "p"}) + "\n" for n in range(30))),
    ],
)
async def test_files_of_every_kind_are_uploaded_and_compiled(user: User, world: World, name, content):
    await open_file_tab(user)
    await upload(user, name, content.encode())
    await until(lambda: "15 / 6 / 9" in words(user, "summary"))
    assert name.rpartition(".")[2].upper() in words(user, "read-as")
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert len(world.jobs.rows(world.queue.submitted[0])) == 30


async def test_a_parquet_is_shown_with_its_types_and_compiled(user: User, world: World):
    columns = {
        "message": [f"m{n}" for n in range(30)],
        "product": [n % 2 == 0 for n in range(30)],
        "when": [datetime.date(2026, 1, 2)] * 30,
        "score": [float("nan"), None, *([0.5] * 28)],
    }
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content)
    await open_file_tab(user)
    await upload(user, "rows.parquet", content.getvalue())
    await until(lambda: "15 / 6 / 9" in words(user, "summary"))
    told = words(user, "file-glance")
    assert words(user, "read-as") == "Parquet"
    for shown in ("true", "false", "2026-01-02", "NaN", "0.5"):
        assert shown in told
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert world.jobs.rows(world.queue.submitted[0])[0] == {"message": "m0", "product": "true"}


async def test_the_proposal_is_made_in_chinese_too(user: User):
    await open_file_tab(user, "/?start=products&lang=zh")
    await upload(user, "rows.csv", many(30, "留言,商品"))
    await until(sees(user, marker="accept-columns"))
    told = words(user, "column-proposal")
    assert "建议的对应关系" in told
    assert "product ← 商品" in told
    user.find(marker="accept-columns").click()
    await until(sees(user, marker="form-ready"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", b"PK\x03\x04 and so on", "is a workbook or an archive"),
        ("rows.csv", b"\x1f\x8b\x08 and so on", "is compressed"),
        ("rows.csv", b"message,product\n", "holds no row"),
        ("rows.csv", b"a,a\n1,2\n", "more than once"),
        ("rows.csv", b'message,product\n"two\nlines",p\nm\n', "line 4 (row 2 of the data)"),
        ("rows.csv", b'[{"message": 1}]', "is JSON by what it holds"),
        ("rows.jsonl", b'{"a": 1, "a": 2}\n', "more than once"),
        ("rows.parquet", b"PAR1 cut off", "cannot be read as Parquet"),
    ],
)
async def test_a_file_that_is_something_else_gets_its_sentence(user: User, name, content, said):
    await open_file_tab(user)
    await upload(user, name, content)
    await until(sees(user, marker="upload-problem"))
    assert said in words(user, "upload-problem")


async def test_a_data_set_with_odd_columns_and_values_has_its_page(user: User, world: World):
    row = {"__proto__": {"k": [1, None]}, "id": "\ud83d", "long": "x" * 100_000}
    info, _table = world.services.data.keep_upload("odd.jsonl", (json.dumps(row) + "\n").encode())
    await user.open(f"/data/{info.digest}")
    await until(sees(user, marker="dataset-rows"))
    told = words(user, "dataset-rows")
    assert "__proto__" in told
    assert '{"k": [1, null]}' in told
    assert len(told) < 5000


async def test_a_data_set_whose_file_is_gone_says_so_and_can_be_deleted(user: User, world: World):
    info, _table = world.services.data.keep_upload("rows.csv", many(3))
    (world.settings.home / "uploads" / info.digest).unlink()
    await user.open(f"/data/{info.digest}")
    await until(sees(user, marker="load-problem"))
    await user.open("/data")
    await until(sees(user, marker=f"delete-{info.digest[:8]}"))
    user.find(marker=f"delete-{info.digest[:8]}").click()
    await until(sees(user, marker="confirm-yes"))
    assert not exists(user, content="Jobs that used it")
    user.find(marker="confirm-yes").click()
    await until(sees(user, marker="no-data"))


async def test_many_data_sets_are_listed_a_page_at_a_time(user: User, world: World):
    kept = [world.services.data.keep_upload(f"{n}.csv", f"a\n{n}\n".encode())[0] for n in range(28)]
    await user.open("/data")
    await until(sees(user, content="1–25 of 28"))
    assert "Data sets: 28" in words(user, "datasets-disk")
    user.find(marker="datasets-next").click()
    await until(sees(user, content="26–28 of 28"))
    shown = [info for info in kept if exists(user, marker=f"delete-{info.digest[:8]}")]
    assert len(shown) == 3
    user.find(marker=f"delete-{shown[0].digest[:8]}").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(sees(user, content="26–27 of 27"))


async def test_a_job_that_started_meanwhile_is_told_before_a_data_set_goes(user: User, world: World):
    info, _table = world.services.data.keep_upload("rows.csv", many(30))
    await user.open("/data")
    await until(sees(user, marker=f"delete-{info.digest[:8]}"))
    world.submitted(data={"upload": info.digest})
    user.find(marker=f"delete-{info.digest[:8]}").click()
    await until(sees(user, content="Jobs that used it: 1"))
    user.find(marker="confirm-no").click()
    assert world.services.uploads.search() == [info]


async def test_columns_of_other_names_are_proposed_and_taken_in_one_click(user: User, world: World):
    await open_file_tab(user)
    await upload(user, "rows.csv", many(30, "The Message,Product").replace(b"m0,", "第一,".encode()))
    await until(sees(user, marker="accept-columns"))
    told = words(user, "column-proposal")
    assert "no column called message, product" in told
    assert "message ← The Message" in told
    assert "product ← Product" in told
    assert element(user, "map-f2").value is None  # type: ignore[attr-defined]
    assert not exists(user, marker="data-problem"), "nothing is wrong yet"
    assert "d-hint" in element(user, "form-problem-0").classes
    assert not exists(user, marker="form-ready"), "never silently"
    user.find(marker="accept-columns").click()
    await until(sees(user, marker="form-ready"))
    assert not exists(user, marker="column-proposal")
    assert element(user, "map-f1").value == "The Message"  # type: ignore[attr-defined]
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    job_id = world.queue.submitted[0]
    assert world.jobs.spec(job_id).data.columns == {"message": "The Message", "product": "Product"}
    assert world.jobs.rows(job_id)[0] == {"message": "第一", "product": "p0"}


async def test_columns_without_a_proposal_are_chosen_by_hand(user: User, world: World):
    await open_file_tab(user)
    await upload(user, "rows.csv", b"x,y,__proto__\n" + b"".join(b"m%d,p%d,z\n" % (n, n) for n in range(30)))
    await until(sees(user, marker="column-map"))
    assert not exists(user, marker="accept-columns")
    element(user, "map-f1").set_value("x")  # type: ignore[attr-defined]
    await until(lambda: "no column called product." in words(user, "column-proposal"))
    assert not exists(user, marker="accept-columns"), "two columns are left"
    element(user, "map-f2").set_value("__proto__")  # type: ignore[attr-defined]
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert world.jobs.rows(world.queue.submitted[0])[3] == {"message": "m3", "product": "z"}


@pytest.mark.parametrize(
    ("name", "content", "read"),
    [
        ("rows.csv", "甲,乙,丙\n一,二,三\n一,二,三\n".encode("gb18030"), "CSV · GB18030"),
        ("rows.tsv", "甲\t乙\t丙\n一\t二\t三\n一\t二\t三\n".encode("utf-16"), "TSV · UTF-16"),
        (
            "rows.json",
            '[{"甲":"一","乙":1,"丙":null}, {"乙":1,"甲":"一","丙":null}]'.encode(),
            "JSON · UTF-8",
        ),
        ("rows.jsonl", '\ufeff{"甲":"一","乙":1,"丙":[]}\n'.encode() * 1, "JSONL · UTF-8 (BOM)"),
    ],
)
async def test_a_file_is_shown_before_it_fits(user: User, world: World, name, content, read):
    await open_file_tab(user)
    await upload(user, name, content)
    await until(sees(user, marker="file-glance"))
    await until(sees(user, marker="file-duplicates"))
    told = words(user, "file-glance")
    assert read in told
    assert "甲, 乙, 丙" in told
    assert "一" in told, "its first rows"
    assert world.services.uploads.search()[0].digest[:12] in told
    assert words(user, "file-duplicates") == ("0" if name == "rows.jsonl" else "1")
    assert exists(user, marker="column-proposal")


async def test_a_value_that_does_not_fit_is_told_once_in_red_below_the_rows(user: User, world: World):
    await open_file_tab(user)
    element(user, "outputs-0-type").set_value("int")  # type: ignore[attr-defined]
    await upload(user, "rows.csv", b"message,product\nm,many\n")
    await until(sees(user, marker="data-problem"))
    assert "many" in words(user, "file-glance")
    assert "#1" in words(user, "data-problem")
    assert "d-hint" in element(user, "form-problem-0").classes


async def test_values_that_are_no_text_are_shown_as_json_and_long_ones_without_their_end(user: User):
    await open_file_tab(user)
    row = {"a": {"k": [1, True, None]}, "b": "x" * 100_000, "c": False, "d": "\ud83d", "id": 7}
    await upload(user, "rows.jsonl", (json.dumps(row) + "\n").encode())
    await until(sees(user, marker="file-glance"))
    told = words(user, "file-glance")
    assert '{"k": [1, true, null]}' in told
    assert "false" in told
    assert len(told) < 5000


async def test_a_very_wide_file_shows_some_columns_and_counts_the_others(user: User):
    await open_file_tab(user)
    names = [f"c{number}" for number in range(60)]
    await upload(user, "rows.csv", f"{','.join(names)}\n{','.join('x' * 60)}\n".encode())
    await until(sees(user, marker="file-glance"))
    told = words(user, "file-glance")
    assert "c39 and 20 more" in told
    assert "not shown here: 20" in told
    assert "c40" not in told


async def test_a_file_that_changes_on_disk_is_told_and_nothing_starts_on_other_rows(
    user: User, world: World, tmp_path
):
    file = tmp_path / "rows.csv"
    file.write_bytes(many(30))
    await open_file_tab(user)
    element(user, "data-path").set_value(str(file))  # type: ignore[attr-defined]
    await until(lambda: "15 / 6 / 9" in words(user, "summary"))
    file.write_bytes(many(40))
    user.find(marker="compile").click()
    await until(sees(user, marker="data-changed"))
    assert "has 40 rows now" in words(user, "data-changed")
    assert "20 / 8 / 12" in words(user, "summary"), "the new rows are shown"
    assert world.queue.submitted == []
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert len(world.jobs.rows(world.queue.submitted[0])) == 40


async def test_another_file_is_no_changed_file(user: User, tmp_path):
    for name, count in (("a.csv", 30), ("b.csv", 40)):
        (tmp_path / name).write_bytes(many(count))
    await open_file_tab(user)
    element(user, "data-path").set_value(str(tmp_path / "a.csv"))  # type: ignore[attr-defined]
    await until(lambda: "15 / 6 / 9" in words(user, "summary"))
    element(user, "data-path").set_value(str(tmp_path / "b.csv"))  # type: ignore[attr-defined]
    await until(lambda: "20 / 8 / 12" in words(user, "summary"))
    assert not exists(user, marker="data-changed")


async def test_it_is_told_what_difference_the_test_rows_can_show(user: User):
    await user.open("/?start=products")
    await until(sees(user, marker="form-ready"))
    assert "What 36 test rows can show" in words(user, "can-show")
    assert "5 have to get better (a gain of 0.14)" in words(user, "can-show")


async def test_several_columns_can_be_outputs(user: User):
    await open_file_tab(user)
    rows = "".join(f"m{n},p{n},{n}\n" for n in range(30))
    await upload(user, "rows.csv", f"message,product,count\n{rows}".encode())
    await until(sees(user, marker="columns-to-fields"))
    user.find(marker="columns-to-fields").click()
    await until(sees(user, marker="output-columns"))
    chosen = element(user, "output-columns")
    assert chosen.value == ["count"]  # type: ignore[attr-defined]
    for wrong in ([], ["message", "product", "count"]):
        chosen.set_value(wrong)  # type: ignore[attr-defined]
        user.find(marker="outputs-confirm").click()
        await until(lambda: "at least one" in str(chosen.error))  # type: ignore[attr-defined]
    chosen.set_value(["product", "count"])  # type: ignore[attr-defined]
    user.find(marker="outputs-confirm").click()
    await until(
        lambda: any("Inputs: message. Output: product, count." in said for said in user.notify.messages)
    )
    await until(sees(user, marker="form-ready"))


async def test_columns_become_the_fields_and_say_the_split(user: User, world: World):
    await open_file_tab(user)
    rows = "".join(f"m{n},{'train' if n < 8 else 'Test'},p{n}\n" for n in range(30))
    await upload(user, "rows.csv", f"User Message,Split,Label\n{rows}".encode())
    await until(sees(user, marker="columns-to-fields"))
    user.find(marker="columns-to-fields").click()
    await until(lambda: "8 / 0 / 22" in words(user, "summary"))
    await until(sees(user, marker="form-ready"))
    user.find(marker="file-to-grid").click()
    await until(sees(user, marker="cell-0-split"))
    element(user, "cell-0-split").set_value("test")  # type: ignore[attr-defined]
    await until(lambda: "7 / 0 / 23" in words(user, "summary"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    parts = world.jobs.parts(world.queue.submitted[0])
    assert parts == ("test", *["train"] * 7, *["test"] * 22)


async def test_a_split_with_a_word_that_is_none_is_told(user: User):
    await open_file_tab(user)
    await upload(user, "rows.csv", b"message,product,part\nm,p,train\nn,q,later\n")
    element(user, "split-dealing").set_value("column")  # type: ignore[attr-defined]
    await until(lambda: "No split column is chosen yet" in words(user, "summary"))
    element(user, "split-column").set_value("part")  # type: ignore[attr-defined]
    await until(sees(user, marker="data-problem"))
    assert "#2: column part says 'later'" in words(user, "data-problem")


async def test_a_test_file_of_its_own_is_chosen_among_kept_data_sets(user: User, world: World, tmp_path):
    test, _table = world.services.data.keep_upload(
        "held out.csv", many(4).replace(b"m", b"x").replace(b"xe", b"me")
    )
    await open_file_tab(user)
    file = tmp_path / "rows.csv"
    file.write_bytes(many(30))
    element(user, "data-path").set_value(str(file))  # type: ignore[attr-defined]
    element(user, "split-dealing").set_value("files")  # type: ignore[attr-defined]
    await until(sees(user, marker="test-kept"))
    await until(lambda: "No validation or test file" in words(user, "summary"))
    element(user, "test-kept").set_value(test.digest)  # type: ignore[attr-defined]
    await until(lambda: "21 / 9 / 4" in words(user, "summary"))
    assert "fewer than 5" in words(user, "notice-test_tiny")
    assert not exists(user, marker="can-show")
    assert "held out.csv · 4 rows · CSV · UTF-8" in words(user, "test-chosen")
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    data = world.jobs.spec(world.queue.submitted[0]).data
    assert (data.path, data.test and data.test.upload) == (str(file), test.digest)


async def test_test_rows_seen_in_training_are_refused_until_allowed(user: User, world: World):
    world.services.data.keep_upload("same.csv", many(10))
    await open_file_tab(user)
    await upload(user, "rows.csv", many(30))
    element(user, "split-dealing").set_value("files")  # type: ignore[attr-defined]
    await until(sees(user, marker="test-kept"))
    same = next(info for info in world.services.uploads.search() if info.name == "same.csv")
    element(user, "test-kept").set_value(same.digest)  # type: ignore[attr-defined]
    await until(sees(user, marker="data-problem"))
    assert "10 test rows (same.csv #1, same.csv #2" in words(user, "data-problem")
    element(user, "allow-shared").set_value(True)  # type: ignore[attr-defined]
    await until(sees(user, marker="notice-shared_test"))
    await until(sees(user, marker="form-ready"))


async def test_typed_rows_are_saved_and_chosen_again(user: User, world: World):
    await user.open("/?start=products")
    await until(sees(user, marker="form-ready"))
    user.find(marker="save-rows").click()
    await until(sees(user, marker="rows-name"))
    user.find(marker="rows-name").clear().type("my rows")
    user.find(marker="save-rows-confirm").click()
    await until(world.services.uploads.search)
    info = world.services.uploads.search()[0]
    assert (info.name, info.rows, info.columns) == ("my rows", 120, ("message", "product"))
    user.find(marker="data-tab-file").click()
    await until(sees(user, marker="kept"))
    element(user, "kept").set_value(info.digest)  # type: ignore[attr-defined]
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert world.jobs.spec(world.queue.submitted[0]).data.upload == info.digest


async def test_the_data_page_lists_shows_renames_and_deletes(user: User, world: World):
    await user.open("/data")
    await until(sees(user, marker="no-data"))
    info, _table = world.services.data.keep_upload(
        "rows.csv", "message,product\n你好,<b>x</b>\n".encode("gb18030")
    )
    more, _table = world.services.data.keep_upload("more.csv", many(30))
    world.submitted(data={"upload": more.digest})
    await user.open("/data")
    await until(sees(user, marker=f"data-{more.digest[:8]}"))
    assert "30" in words(user, f"data-{more.digest[:8]}")
    await user.open(f"/data/{info.digest}")
    await until(sees(user, content="<b>x</b>"))
    assert "CSV · GB18030" in words(user, "dataset")
    user.find(marker="rename").click()
    await until(sees(user, marker="new-name"))
    user.find(marker="new-name").clear().type("评论")
    shown = user.client
    user.find(marker="rename-confirm").click()
    # The page opens itself anew then; another that is opened before that would give way to it.
    await until(lambda: user.client is not shown)
    await until(sees(user, marker="dataset"))
    assert world.services.uploads.get(info.digest).name == "评论"
    await user.open("/data")
    await until(sees(user, content="评论"))
    user.find(marker=f"delete-{more.digest[:8]}").click()
    await until(sees(user, marker="confirm-yes"))
    assert exists(user, content="Jobs that used it: 1")
    assert exists(user, content="Data sets: 2")
    user.find(marker="confirm-yes").click()
    await until(lambda: [kept.name for kept in world.services.uploads.search()] == ["评论"])


async def test_a_data_set_is_used_in_the_form_from_its_page(user: User, world: World):
    info, _table = world.services.data.keep_upload("rows.csv", many(40))
    await user.open("/data")
    await until(sees(user, marker=f"use-{info.digest[:8]}"))
    assert element(user, f"use-{info.digest[:8]}").props["href"] == f"/?data={info.digest}"
    await user.open(f"/?data={info.digest}")
    await until(sees(user, marker="form-ready"))
    assert "40" in words(user, "summary")
    assert exists(user, content="The data set rows.csv is chosen")
    await user.open(f"/?data={'0' * 64}")
    await until(sees(user, content="There is no kept data set '000000000000'"))


async def test_an_unknown_data_set_says_so(user: User):
    await user.open(f"/data/{'0' * 64}")
    await until(sees(user, marker="load-problem"))
    assert "There is no kept data set" in words(user, "load-problem")


async def test_a_file_that_takes_long_is_said_to_be_read(user: User, world: World, monkeypatch, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(many(30))
    waiting, read = threading.Event(), world.services.data.table

    def slowly(data):
        if data.path:
            waiting.wait(20)
        return read(data)

    await open_file_tab(user)
    monkeypatch.setattr(world.services.data, "table", slowly)
    element(user, "data-path").set_value(str(file))  # type: ignore[attr-defined]
    await until(sees(user, marker="data-reading"))
    waiting.set()
    await until(lambda: not exists(user, marker="data-reading"))
    await until(lambda: "15 / 6 / 9" in words(user, "summary"))


async def test_a_data_set_that_cannot_be_deleted_keeps_its_page_and_says_why(user: User, world: World):
    info, _table = world.services.data.keep_upload("rows.csv", many(40))
    await user.open(f"/data/{info.digest}")
    await until(sees(user, marker="delete-data"))
    world.services.uploads.delete(info.digest)
    user.find(marker="delete-data").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(lambda: any(info.digest[:12] in said for said in user.notify.messages))
    assert user.back_history[-1] == f"/data/{info.digest}"
    assert exists(user, marker="dataset")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("message,product\nMy lamp,lamp\nMy <b>table</b>\n灯,lamp\n".encode(), "3: My <b>table</b>"),
        ("message,product\n我的台灯坏了,台灯\n我的桌子坏了\n".encode("gb18030"), "3: 我的桌子坏了"),
        ("message,product\n我的台灯坏了,台灯\n我的桌子坏了\n".encode("utf-16"), "3: 我的桌子坏了"),
    ],
)
async def test_a_kept_file_with_a_broken_row_shows_its_lines_and_can_be_deleted(
    user: User, world: World, content: bytes, shown: str
):
    kept = world.services.batches.keep_file("rows.csv", content)
    await user.open(f"/data/{kept.digest}")
    await until(sees(user, marker="dataset-problem"))
    assert "line 3" in words(user, "dataset-problem")
    assert shown in words(user, "dataset-lines")
    user.find(marker="delete-data").click()
    await until(sees(user, marker="confirm-yes"))
    user.find(marker="confirm-yes").click()
    await until(lambda: not world.services.uploads.search())
