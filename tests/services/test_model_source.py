"""Programs by name: versions by number, stage and alias; Runs, jobs, files."""

import os

import pytest

from dspyui.adapters.files.programs import FileProgramStore
from dspyui.domain.registry import OWN_ADDRESS_TAG, RegisterRequest
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.services.model_source import ModelSource
from tests.contracts.fakes import InMemoryRegistry, InMemoryRunStore
from tests.mlflow_world import RunMaker, compiled

JOB = "20261124-120000-0a1b2c3d"


@pytest.fixture
def registry():
    made = InMemoryRegistry()
    for number in (1, 2):
        request = RegisterRequest(run_id=f"r{number}", name="产品 names", who="tester")
        tags = {OWN_ADDRESS_TAG: "true"} if number == 2 else {}
        made.register(request, compiled(), tags=tags, input_example={})
    made.set_stage("产品 names", 1, "Production", who="tester")
    made.set_alias("产品 names", "champion", 1)
    return made


@pytest.fixture
def source(registry, tmp_path):
    def make(api_base=None):
        runs = InMemoryRunStore()
        source = ModelSource(registry, runs, FileProgramStore(tmp_path / "data"), api_base=api_base)
        return source, runs

    return make


@pytest.mark.parametrize(
    "uri",
    [
        "models:/产品 names/1",
        "models:/产品 names/Production",
        "models:/产品 names/production",
        "models:/产品 names@production",
        "models:/产品 names@champion",
    ],
)
def test_a_version_by_number_stage_and_alias(source, uri):
    found = source()[0].get(uri)
    assert (found.name, found.version, found.uri, found.run_id) == (
        "产品 names",
        1,
        "models:/产品 names/1",
        "r1",
    )
    assert len(found.digest) == 64


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("models:/产品 names/9", NotFoundError),
        ("models:/产品 names/Staging", NotFoundError),
        ("models:/nobody/1", NotFoundError),
        ("models:/产品 names@staging", NotFoundError),
        ("models:/产品 names@challenger", NotFoundError),
        ("models:/nobody@champion", NotFoundError),
        ("models:/产品 names", BadRequestError),
        ("models:/产品 names/newest", BadRequestError),
        ("runs:/nothing", NotFoundError),
        (f"job:{JOB}", NotFoundError),
        ("no/such/file.json", NotFoundError),
    ],
)
def test_what_is_not_there_is_said(source, uri, kind):
    with pytest.raises(kind) as caught:
        source()[0].get(uri)
    for language in ("en_US", "zh_CN"):
        assert caught.value.text(language)


def test_a_version_without_its_address_is_not_sent_elsewhere(source):
    with pytest.raises(BadRequestError) as caught:
        source()[0].get("models:/产品 names/2")
    assert caught.value.code == "predict.address_needed"
    moved = source("http://127.0.0.1:8/v1")[0].get("models:/产品 names/2")
    assert moved.program.lm.api_base == "http://127.0.0.1:8/v1"
    assert source()[0].get("models:/产品 names/2", has_own_lm=True).version == 2


def test_a_run_a_job_and_a_file(source, tmp_path):
    found, runs = source()
    run_id = RunMaker(runs, tmp_path)()
    assert found.get(f"runs:/{run_id}").run_id == run_id
    FileProgramStore(tmp_path / "data").keep(JOB, compiled())
    assert found.get(f"job:{JOB}").uri == f"job:{JOB}"
    path = tmp_path / "private" / "mine.json"
    path.parent.mkdir()
    path.write_text(compiled().to_json())
    assert (found.get(str(path)).uri, found.get(str(path)).version) == ("mine.json", None)
    path.write_text("{}")
    with pytest.raises(BadRequestError) as caught:
        found.get(str(path))
    assert caught.value.code == "program.unreadable"


def test_what_is_no_ordinary_file_or_too_large_is_not_read(source, tmp_path):
    found, _ = source()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(256 * 1024 * 1024 + 1)
    for path, code in (
        (pipe, "batch.model_special"),
        ("/dev/zero", "batch.model_special"),
        (tmp_path, "batch.model_special"),
        (large, "batch.model_large"),
        ("a\0b", "batch.model_file"),
    ):
        with pytest.raises(BadRequestError) as caught:
            found.get(str(path))
        assert caught.value.code == code


def test_a_copy_of_a_version_is_asked_where_its_server_is_now(source):
    old, new = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"
    kept = source(old)[0].get("models:/产品 names/2")
    assert kept.program.lm.api_base == old
    assert source(new)[0].at_its_address(kept).program.lm.api_base == new
    assert source()[0].at_its_address(kept) == kept
    public = source()[0].get("models:/产品 names/1")
    assert source(new)[0].at_its_address(public) == public
