"""What the tests of batches share: a program of one's own, a file of rows, a run of the batch in this process."""

import json

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.adapters.files.batch_inputs import FileInputReader
from dspyui.adapters.files.batches import FileBatchStore
from dspyui.adapters.files.jobs import FileJobStore
from dspyui.adapters.files.uploads import FileUploadStore
from dspyui.adapters.mlflow_store.spool import FileTraceSink
from dspyui.domain.batches import BatchModel, BatchSpec
from dspyui.domain.limits import CallLimiter
from dspyui.domain.lms import LMSpec
from dspyui.domain.optimizers import OptimizerSpec
from dspyui.domain.programs import CompiledProgram, ProgramSpec
from dspyui.domain.registry import RegisterRequest
from dspyui.services.batch_hands import OwnCrew
from dspyui.services.batch_rows import Tracing
from dspyui.services.batch_run import BatchRun
from dspyui.services.batches import BatchFiles
from tests.fake_openai import chat, last_input
from tests.learner import SIGNATURE


def program(base_url, **lm):
    """Names the thing of a message (`tests/learner.py`), asked at an address."""
    fields = [{"prefix": f"{field.name.capitalize()}:", "description": "d"} for field in SIGNATURE.fields]
    return CompiledProgram(
        spec=ProgramSpec(name="things", signature=SIGNATURE),
        lm=LMSpec(**{"model": "openai/fake", "api_base": base_url, "cache": False, **lm}),
        optimizer=OptimizerSpec(kind="none"),
        state={
            "traces": [], "train": [], "demos": [], "lm": None,
            "signature": {"instructions": SIGNATURE.instructions, "fields": fields},
        },
        signature_digest=SIGNATURE.digest(),
    )  # fmt: skip


def variant(made, word):
    """Another version of the program, whose instructions end in the word."""
    signature = {**made.state["signature"], "instructions": f"{SIGNATURE.instructions} {word}"}
    return made.model_copy(update={"state": {**made.state, "signature": signature}})


def instructions(made):
    """What the program tells its model."""
    return made.state["signature"]["instructions"]


def put_version(registry, made, word, stage="Production"):
    """Register a version of the program `things` whose instructions end in the word, and give it the stage."""
    request = RegisterRequest(run_id=f"run-{word}", name="things", stage=stage, who="tester")
    return registry.register(request, variant(made, word), tags={}, input_example={"message": "m"})


def second_word(messages):
    """The right answer."""
    return chat(product=last_input(messages, "message").split()[1])


def message(number):
    return f"My thing{number} broke."


def asked(server):
    """The number of every row that was asked, in the order of the requests."""
    words = [last_input(request["messages"], "message").split()[1] for request in list(server.requests)]
    return [int(word.removeprefix("thing")) for word in words]


def write_rows(path, count, **more):
    """A JSONL file of so many rows."""
    rows = ({"id": n, "message": message(n), **more} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class Batches:
    """Batches on a data folder, each run in this process as the child would run it."""

    def __init__(self, home):
        self.home = home
        self.jobs = FileJobStore(home)
        self.store = FileBatchStore(self.jobs)

    def create(self, spec, made):
        model = BatchModel(program=made, uri="things.json", name="things", version=3)
        return self.store.create(spec, model, title="things", who="tester").id

    def run(self, job_id, *, share=1.0):
        """The result. Raises what the child would report."""
        spec = self.store.spec(job_id)
        limiter = CallLimiter(
            spec.concurrency, requests=spec.requests_per_minute, tokens=spec.tokens_per_minute
        )
        lms = spec.lms(self.store.model(job_id).program)
        engine = DspyEngine(lms, environment={}, cache_folder=self.home / "cache", gate=limiter)
        sink = FileTraceSink(self.jobs.folder(job_id) / "traces")
        try:
            return BatchRun(
                job_id,
                jobs=self.jobs,
                batches=self.store,
                open_input=BatchFiles(FileInputReader(), FileUploadStore(self.home)).open,
                crew=OwnCrew(engine, limiter),
                tracing=Tracing(sink, share),
            ).run()
        finally:
            sink.close()

    def __call__(self, made, path, *, share=1.0, **more):
        """Create one and run it; gives the job's id and the result."""
        spec = BatchSpec(**{"model": "m", "path": str(path), "concurrency": 4, **more})
        job_id = self.create(spec, made)
        return job_id, self.run(job_id, share=share)

    def lines(self, job_id):
        """The results as they stand on disk."""
        return [json.loads(line) for line in self.store.results(job_id).read_text().splitlines()]

    def events(self, job_id, kind):
        return [event for event in self.jobs.events(job_id)[0] if event.kind == kind]
