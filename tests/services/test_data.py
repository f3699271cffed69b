"""Data sets over real files: kept, named, previewed, split, and used by jobs."""

import json
from pathlib import Path

import pytest

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.tables import FileTableReader
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.domain.batches import BatchSpec
from dspyui.domain.datasets import DataSpec, FileSource
from dspyui.domain.signatures import FieldSpec, SignatureSpec
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.services.data import DataService
from tests.api.world import World, spec
from tests.batch_world import program

SIGNATURE = SignatureSpec(inputs=(FieldSpec(name="message"),), outputs=(FieldSpec(name="product"),))


def csv(count, start=0):
    rows = "".join(f"m{number},p{number}\n" for number in range(start, start + count))
    return f"message,product\n{rows}".encode()


@pytest.fixture
def uploads(tmp_path):
    return FileUploadStore(tmp_path / "data")


@pytest.fixture
def data(uploads):
    return DataService(FileTableReader(max_bytes=100_000), uploads)


def test_a_data_set_is_known_by_digest_its_beginning_or_its_name(data):
    first, _table = data.keep_upload("a.csv", b"x\n1\n")
    second, _table = data.keep_upload("b.csv", b"x\n2\n")
    for info in (first, second):
        for asked in (info.digest, info.digest[:4], info.name):
            assert data.named(asked) == info
        # Three characters could be anybody's.
        with pytest.raises(NotFoundError):
            data.named(info.digest[:3])
    # Sixty-four characters that are no digest are a name.
    long = data.keep_rows("x" * 64, [{"x": 1}])
    assert data.named("x" * 64) == long


def test_an_upload_is_kept_with_what_stands_in_it(data, uploads):
    info, table = data.keep_upload("评论.csv", "message,product\n你好,商品\n".encode("gb18030"))
    assert uploads.get(info.digest) == info
    assert (info.name, info.format, info.encoding, info.rows) == ("评论.csv", "csv", "GB18030", 1)
    assert info.columns == table.columns == ("message", "product")


def test_what_cannot_be_read_is_not_kept(data, uploads):
    for name, content in (("a.csv", b""), ("a.csv", b"a,b\n"), ("a.parquet", b"x"), ("a.xlsx", b"PK")):
        with pytest.raises(BadRequestError):
            data.keep_upload(name, content)
    assert uploads.search() == []


def test_a_renamed_data_set_is_read_as_before(data, uploads):
    info, _table = data.keep_upload("rows.csv", csv(30))
    renamed = uploads.rename(info.digest, "  ../我的 数据 ")
    assert renamed.name == "我的 数据"
    assert len(data.table(DataSpec(upload=info.digest)).rows) == 30
    for name in ("", "  ", "\u202e"):
        with pytest.raises(BadRequestError) as caught:
            uploads.rename(info.digest, name)
        assert caught.value.code == "upload.name"


def test_an_upload_of_an_earlier_version_keeps_working(data, uploads, tmp_path):
    info, _table = data.keep_upload("rows.csv", csv(30))
    old = {name: getattr(info, name) for name in ("digest", "name", "size", "at")}
    (tmp_path / "data" / "uploads" / f"{info.digest}.json").write_text(json.dumps(old))
    assert uploads.search()[0].rows is None
    assert len(data.table(DataSpec(upload=info.digest)).rows) == 30
    assert uploads.rename(info.digest, "mine").name == "mine.csv"
    assert len(data.table(DataSpec(upload=info.digest)).rows) == 30


def test_typed_rows_become_a_data_set(data):
    info = data.keep_rows("typed", [{"message": "a", "product": "b"}])
    assert (info.name, info.format, info.rows, info.columns) == ("typed", "jsonl", 1, ("message", "product"))
    assert data.table(DataSpec(upload=info.digest)).rows == ({"message": "a", "product": "b"},)
    for name, rows, code in ((" ", [{"a": "b"}], "upload.name"), ("x", [], "data.empty")):
        with pytest.raises(BadRequestError) as caught:
            data.keep_rows(name, rows)
        assert caught.value.code == code


def test_a_preview_tells_sizes_notices_and_how_it_was_read(data):
    info, _table = data.keep_upload("rows.csv", csv(30))
    preview = data.preview(SIGNATURE, DataSpec(upload=info.digest))
    assert (preview.rows, preview.format, preview.encoding) == (30, "csv", "UTF-8")
    assert preview.split_sizes == {"train": 15, "validation": 6, "test": 9}
    assert [notice.code for notice in preview.notices] == ["test_small"]
    assert list(preview.head[0]) == ["message", "product"]
    assert len(preview.head) == 5


def test_a_preview_is_made_once_until_something_changes(data, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(csv(30))
    asked = DataSpec(path=str(file))
    first = data.preview(SIGNATURE, asked)
    assert data.preview(SIGNATURE.model_copy(update={"instructions": "Try."}), asked) is first
    seeded = asked.model_copy(update={"split": asked.split.model_copy(update={"seed": 1})})
    assert data.preview(SIGNATURE, seeded) is not first
    other = SignatureSpec(inputs=(FieldSpec(name="product"),), outputs=(FieldSpec(name="message"),))
    assert list(data.preview(other, asked).head[0]) == ["product", "message"]
    file.write_bytes(csv(31))
    assert data.preview(SIGNATURE, asked).rows == 31


def test_a_job_is_refused_when_its_rows_are_not_those_that_were_seen(settings, tmp_path):
    world = World(settings)
    file = tmp_path / "rows.csv"
    file.write_bytes(csv(20))
    asked = spec(data={"path": str(file)})
    seen = world.services.data.preview(asked.program.signature, asked.data).fingerprint
    file.write_bytes(csv(21))
    with pytest.raises(BadRequestError) as caught:
        world.services.jobs.submit(asked, who="anna", seen=seen)
    assert (caught.value.code, caught.value.values["rows"]) == ("data.changed", 21)
    assert world.jobs.search() == []
    file.write_bytes(csv(20))
    job = world.services.jobs.submit(asked, who="anna", seen=seen)
    file.write_bytes(csv(5))
    assert len(world.jobs.rows(job.id)) == 20, "what the job works on is its own"


def test_a_kept_data_set_that_was_changed_by_hand_is_never_taken_for_what_was_kept(data, uploads):
    info, _table = data.keep_upload("rows.csv", csv(30))
    Path(uploads.path(info.digest)).write_bytes(csv(31))
    with pytest.raises(BadRequestError) as caught:
        data.preview(SIGNATURE, DataSpec(upload=info.digest))
    assert (caught.value.code, caught.value.values["name"]) == ("upload.changed", "rows.csv")


def test_rows_that_stand_twice_are_counted_as_the_file_has_them(data):
    _info, table = data.keep_upload("a.jsonl", b'{"x": 1, "y": 2}\n{"y": 2, "x": 1}\n{"x": 1}\n')
    assert data.duplicates(table) == 1


def test_splits_with_files_of_their_own_are_named_in_messages(data, tmp_path):
    info, _table = data.keep_upload("main.csv", csv(30))
    test = tmp_path / "held_out.csv"
    test.write_bytes(csv(25, start=100))
    asked = DataSpec(upload=info.digest, test=FileSource(path=str(test)))
    preview = data.preview(SIGNATURE, asked)
    assert preview.split_sizes == {"train": 21, "validation": 9, "test": 25}
    assert preview.notices == ()
    test.write_bytes(csv(25, start=29))
    with pytest.raises(BadRequestError) as caught:
        data.preview(SIGNATURE, asked)
    assert (caught.value.code, caught.value.values["rows"]) == ("data.shared", "held_out.csv #1")
    test.unlink()
    with pytest.raises(NotFoundError):
        data.load(SIGNATURE, asked)


def test_a_job_keeps_its_rows_and_the_splits_that_were_given(settings, tmp_path):
    world = World(settings)
    info, _table = world.services.data.keep_upload("main.csv", csv(20))
    test = tmp_path / "test.csv"
    test.write_bytes(csv(5, start=50))
    dealt = world.submitted(data={"upload": info.digest})
    given = world.submitted(data={"upload": info.digest, "test": {"path": str(test)}})
    world.services.uploads.delete(info.digest)
    test.unlink()
    store = FileJobStore(settings.home)
    assert store.parts(dealt) is None
    parts = store.parts(given)
    assert parts is not None
    assert (len(parts), parts[20:], set(parts[:20])) == (25, ("test",) * 5, {"train", "validation"})
    assert store.rows(given)[20] == {"message": "m50", "product": "p50"}


def test_uses_are_counted_over_all_jobs(settings, tmp_path):
    world = World(settings)
    data = world.services.data
    main, _table = data.keep_upload("main.csv", csv(20))
    test, _table = data.keep_upload("test.csv", csv(20, start=90))
    world.submitted(data={"upload": main.digest})
    damaged = world.submitted(data={"upload": main.digest, "test": {"upload": test.digest}})
    world.submitted()
    assert data.uses(world.jobs, world.services.batches.upload) == {main.digest: 2, test.digest: 1}
    assert spec(data={"upload": main.digest}).data.digests() == (main.digest,)
    (world.jobs.folder(damaged) / "spec.json").write_text("{")
    fresh = DataService(FileTableReader(max_bytes=1000), world.services.uploads)
    assert fresh.uses(world.jobs, world.services.batches.upload) == {main.digest: 1}


def test_a_batch_uses_a_data_set_too(settings, tmp_path):
    services = World(settings).services
    kept, model = services.batches.keep_file("rows.csv", csv(3)), tmp_path / "things.json"
    model.write_text(program("http://127.0.0.1:9/v1").to_json())
    own = tmp_path / "own.csv"
    own.write_bytes(csv(3))
    for given in ({"upload": kept.digest}, {"path": str(own)}):
        services.batches.submit(BatchSpec.model_validate({"model": str(model), **given}), who="t")
    assert services.data.uses(services.job_store, services.batches.upload) == {kept.digest: 1}


def test_a_spec_that_cannot_be_split_costs_no_job(settings):
    world = World(settings)
    for rows, code in (
        ([{"message": "a", "product": "b"}], "data.split_empty"),
        ([], "data.empty"),
        ([{"message": "a"}] * 20, "data.columns"),
    ):
        with pytest.raises(BadRequestError) as caught:
            world.submitted(data={"rows": rows})
        assert caught.value.code == code
    rows = [{"message": f"m{n}", "product": "p", "part": "test"} for n in range(20)]
    with pytest.raises(BadRequestError) as caught:
        world.submitted(data={"rows": rows, "split_column": "part"}, optimizer={"kind": "bootstrap_few_shot"})
    assert caught.value.code == "compile.train_small"
    assert world.jobs.search() == []


def test_what_dspy_runs_without_training_rows_is_queued(settings):
    world = World(settings)
    rows = [{"message": f"m{n}", "product": "p", "part": "test"} for n in range(20)]
    data = {"rows": rows, "split_column": "part"}
    for kind in ("none", "labeled_few_shot"):
        world.submitted(data=data, optimizer={"kind": kind})
    assert len(world.jobs.search()) == 2
