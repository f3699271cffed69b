"""Each kind of job has its row in every table that asks for one."""

from typing import get_args

from dspyui.adapters.dbos_jobs.states import JobStates
from dspyui.adapters.files.batches import FileBatchStore
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.bootstrap import _CHILDREN, _NEEDS, _SHOW_WAITING, _after_change, make_app
from dspyui.domain.jobs import Job, JobKind
from tests.job_world import ROWS, SPEC


def test_every_kind_has_a_child_and_its_needs():
    assert set(_CHILDREN) == set(_NEEDS) == set(_SHOW_WAITING) == set(get_args(JobKind))


def test_a_job_written_before_there_were_kinds_is_a_compile(tmp_path):
    store = FileJobStore(tmp_path)
    job = store.create(SPEC, ROWS, title="t", who="w")
    document = job.model_dump(mode="json", exclude={"kind"})
    assert Job.model_validate(document) == job
    assert (job.kind, store.spec(job.id)) == ("compile", SPEC)
    assert _NEEDS["compile"](store, job.id) == (SPEC.lms, SPEC.metrics)


def test_a_batch_with_a_damaged_document_ends_and_the_queue_goes_on(settings, caplog):
    store = FileJobStore(settings.home)
    job = store.create(SPEC, ROWS, title="t", who="w")
    store.update(job.id, lambda j: j.model_copy(update={"kind": "batch"}))
    (store.folder(job.id) / "batch.json").write_text("{")
    record = make_app(settings).services.record
    states = JobStates(
        store, lambda job_id: _after_change(settings, store, FileBatchStore(store), record, job_id)
    )
    states.end(job.id, "cancelled")
    assert store.get(job.id).status == "cancelled"
    assert "could not be tidied up" in caplog.text
