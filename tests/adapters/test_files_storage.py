"""Programs, uploads and the data folder."""

import pytest

from dspyui.adapters.files.folder import FileDataFolder
from dspyui.adapters.files.programs import FileProgramStore
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.domain.lms import LMSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram
from dspyui.errors import BadRequestError, FailedError, NotFoundError
from tests.job_world import SPEC

ONE, TWO = "20260101-000000-00000001", "20260101-000000-00000002"
PROGRAM = CompiledProgram(
    spec=SPEC.program,
    lm=LMSpec(model="openai/x"),
    optimizer=OptimizerSpec(),
    state={"demos": ["一"]},
    signature_digest=SPEC.program.signature.digest(),
)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "data"


def test_a_program_is_kept_found_and_deleted(home):
    programs = FileProgramStore(home)
    assert programs.search() == []
    programs.keep(ONE, PROGRAM)
    programs.keep(TWO, PROGRAM)
    assert programs.get(ONE) == PROGRAM
    assert programs.path(ONE) == str(home / "programs" / f"{ONE}.json")
    assert [kept.job_id for kept in programs.search()] == [TWO, ONE]
    assert programs.search()[0].name == SPEC.program.name
    programs.delete(TWO)
    assert [kept.job_id for kept in programs.search()] == [ONE]


def test_a_program_that_is_not_there_is_not_found(home):
    programs = FileProgramStore(home)
    for job_id in (ONE, "../../x", ""):
        for call in (programs.get, programs.path, programs.delete):
            with pytest.raises(NotFoundError):
                call(job_id)
        if job_id != ONE:
            with pytest.raises(NotFoundError):
                programs.keep(job_id, PROGRAM)


def test_an_uploaded_program_is_found_by_its_digest_and_in_no_list(home):
    programs = FileProgramStore(home)
    digest = programs.keep_uploaded(PROGRAM)
    assert programs.keep_uploaded(PROGRAM) == digest
    assert programs.uploaded(digest) == PROGRAM
    assert programs.search() == []
    for other in ("0" * 64, f"../{ONE}", ""):
        with pytest.raises(NotFoundError) as caught:
            programs.uploaded(other)
        assert caught.value.code == "program.not_uploaded"


def test_a_broken_or_altered_program_is_refused_and_not_listed(home, caplog):
    programs = FileProgramStore(home)
    programs.keep(ONE, PROGRAM)
    programs.keep(TWO, PROGRAM)
    file = home / "programs" / f"{ONE}.json"
    file.write_text(file.read_text().replace(PROGRAM.signature_digest, "0" * 64))
    with pytest.raises(BadRequestError) as altered:
        programs.get(ONE)
    assert altered.value.code == "program.digest"
    (home / "programs" / f"{TWO}.json").write_text("{")
    with pytest.raises(FailedError):
        programs.get(TWO)
    assert programs.search() == []
    assert sum("is left out" in message for message in caplog.messages) == 2


def test_an_upload_is_kept_under_its_digest(home):
    uploads = FileUploadStore(home)
    assert uploads.search() == []
    info = uploads.keep("rows.csv", b"a\n1\n")
    assert (info.name, info.size, len(info.digest)) == ("rows.csv", 4, 64)
    assert uploads.read(info.digest) == ("rows.csv", b"a\n1\n")
    again = uploads.keep("other.csv", b"a\n1\n")
    assert again.digest == info.digest
    assert [found.name for found in uploads.search()] == ["other.csv"]
    uploads.delete(info.digest)
    assert uploads.search() == []
    for call in (uploads.read, uploads.delete):
        with pytest.raises(NotFoundError):
            call(info.digest)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/x.csv", "x.csv"),
        ("C:\\data\\行.csv", "行.csv"),
        ("a\x00\u202e.csv", "a.csv"),
        ("", "upload"),
        ("dir/", "upload"),
        ("y" * 500 + ".jsonl", "y" * 194 + ".jsonl"),
    ],
)
def test_a_name_is_only_a_name(home, given, kept):
    info = FileUploadStore(home).keep(given, b"x")
    assert info.name == kept
    assert {path.name for path in (home / "uploads").iterdir()} == {info.digest, f"{info.digest}.json"}


@pytest.mark.parametrize("digest", ["", "x", "..", "../jobs", "0" * 63 + "\n", "0" * 64])
def test_what_is_no_digest_is_not_found(home, digest):
    uploads = FileUploadStore(home)
    uploads.keep("a.csv", b"x")
    for call in (uploads.read, uploads.delete):
        with pytest.raises(NotFoundError):
            call(digest)


def test_usage_is_told_by_part(home):
    folder = FileDataFolder(home)
    assert all((part.size, part.files) == (0, 0) for part in folder.usage())
    assert folder.free() > 0
    FileUploadStore(home).keep("a.csv", b"12345")
    (home / "cache" / "dspy").mkdir(parents=True)
    (home / "cache" / "dspy" / "x").write_bytes(b"123")
    (home / "jobs.db").write_bytes(b"12")
    usage = {part.name: part for part in folder.usage()}
    assert set(usage) == {"jobs", "programs", "uploads", "cache", "spool", "other"}
    assert (usage["cache"].size, usage["cache"].files) == (3, 1)
    assert (usage["other"].size, usage["other"].files) == (2, 1)
    assert usage["uploads"].files == 2


def test_clearing_the_cache_leaves_the_rest(home):
    folder = FileDataFolder(home)
    folder.clear_cache()
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "x").write_bytes(b"123")
    FileProgramStore(home).keep(ONE, PROGRAM)
    folder.clear_cache()
    usage = {part.name: part.files for part in folder.usage()}
    assert (usage["cache"], usage["other"], usage["programs"]) == (0, 0, 1)
