"""Each kind of job has its row in every table that asks for one."""

from typing import get_args

from dspyui.adapters.files.jobs import FileJobStore
from dspyui.bootstrap import _CHILDREN, _NEEDS
from dspyui.domain.jobs import Job, JobKind
from tests.job_world import ROWS, SPEC


def test_every_kind_has_a_child_and_its_needs():
    assert set(_CHILDREN) == set(_NEEDS) == set(get_args(JobKind))


def test_a_job_written_before_there_were_kinds_is_a_compile(tmp_path):
    store = FileJobStore(tmp_path)
    job = store.create(SPEC, ROWS, title="t", who="w")
    document = job.model_dump(mode="json", exclude={"kind"})
    assert Job.model_validate(document) == job
    assert (job.kind, store.spec(job.id)) == ("compile", SPEC)
    assert _NEEDS["compile"](store, job.id) == (SPEC.lms, SPEC.metrics)
