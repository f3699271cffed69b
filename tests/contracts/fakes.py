"""MLflow in memory: what the services, the API and the pages are tested with.

The contract tests in this folder hold these to the same behaviour as the real adapters.
"""

import json
import secrets
from datetime import UTC, datetime
from urllib.parse import quote

from dspyui.domain.feedback import CallTrace, Feedback
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import STAGE_ALIASES, ModelVersion, StageChange, check_model_name
from dspyui.domain.runs import RunInfo, RunLink, TrackingState
from dspyui.domain.splits import Splits
from dspyui.errors import ConflictError, FailedError, NotFoundError, UnavailableError

ADDRESS = "http://127.0.0.1:5000"
SPLITS = ("train", "validation", "test")


class StaticTracking:
    """A TrackingServer at one address that is ready, or `away`."""

    def __init__(self, address=ADDRESS):
        self._address = address
        self.away = False

    def start(self):
        pass

    def state(self):
        status = "unreachable" if self.away else "ready"
        return TrackingState(status=status, address=self._address, origin="given", version="3.17.2")

    def address(self):
        if self.away:
            raise UnavailableError("mlflow.unavailable", address=self._address, problem="away")
        return self._address

    def wait(self, seconds):
        return self.state()

    def start_local(self):
        pass

    def close(self):
        pass


class InMemoryRunStore:
    """A RunStore. `away` makes every call raise UnavailableError; `refuses` makes `send` raise FailedError."""

    def __init__(self):
        self.away = False
        self.refuses = False
        self.records = {}
        self.files = {}
        self.traces = {}

    def send(self, record):
        self._reach()
        if self.refuses:
            raise FailedError("mlflow.refused", address=ADDRESS, problem="refused")
        run_id = f"run-{record.job_id}"
        self.records[run_id] = record
        files = self.files.setdefault(run_id, {})
        for artifact in record.artifacts:
            files[artifact.artifact_path] = artifact.file.read_text(encoding="utf-8", errors="replace")
        return self._link(run_id)

    def get_run(self, run_id):
        self._reach()
        if run_id not in self.records:
            raise NotFoundError("run.unknown", run_id=run_id, address=ADDRESS)
        record, link = self.records[run_id], self._link(run_id)
        points = {name: series[-1].value for name, series in record.series.items() if series}
        return RunInfo(
            run_id=run_id,
            experiment_id=link.experiment_id,
            url=link.url,
            name=record.name,
            status=record.status,
            job_id=record.job_id,
            started_at=record.started_at,
            ended_at=record.ended_at,
            params=record.params,
            metrics={**record.metrics, **points},
            tags={**record.tags, "dspyui.job_id": record.job_id},
        )

    def search_runs(self, *, limit=100):
        self._reach()
        runs = [self.get_run(run_id) for run_id in self.records]
        return tuple(sorted(runs, key=lambda run: run.started_at, reverse=True)[:limit])

    def program(self, run_id):
        return self._file(run_id, "program/program.json", "run.no_program")

    def input_example(self, run_id):
        signature = CompiledProgram.model_validate_json(self.program(run_id)).spec.signature
        row = json.loads(self._file(run_id, "dataset/test.jsonl", "run.no_rows").splitlines()[0])
        return {field.name: row[field.name] for field in signature.inputs}

    def spec(self, run_id):
        return self._file(run_id, "spec/compile.yaml", "run.no_spec")

    def splits(self, run_id):
        self.get_run(run_id)
        files = {name: self.files[run_id].get(f"dataset/{name}.jsonl", "") for name in SPLITS}
        rows = {
            name: tuple(json.loads(line) for line in text.split("\n") if line) for name, text in files.items()
        }
        if not any(rows.values()):
            raise NotFoundError("run.no_data", run_id=run_id)
        return Splits(**rows)

    def describe(self, run_id, *, name, note):
        self.get_run(run_id)
        tags = {} if note is None else {"mlflow.note.content": note}
        record = self.records[run_id]
        self.records[run_id] = record.model_copy(update={"name": name, "tags": {**record.tags, **tags}})

    def send_traces(self, folder, link):
        self._reach()
        found = sorted(folder.glob("*.otlp"))
        for file in found:
            self.traces.setdefault(link.run_id, []).append(file.read_bytes())
            file.unlink()
        return len(found), 0

    def _file(self, run_id, path, code):
        self.get_run(run_id)
        if path not in self.files[run_id]:
            raise NotFoundError(code, run_id=run_id, path=path)
        return self.files[run_id][path]

    def _link(self, run_id):
        return RunLink(run_id=run_id, experiment_id="1", url=f"{ADDRESS}/#/experiments/1/runs/{run_id}")

    def _reach(self):
        if self.away:
            raise UnavailableError("mlflow.unavailable", address=ADDRESS, problem="away")


class InMemoryRegistry:
    """A ModelRegistry. `away` makes every call raise UnavailableError; `stages_fail` makes every move fail."""

    def __init__(self):
        self.away = False
        self.stages_fail = False
        self._versions = {}
        self._programs = {}
        self.aliases = {}
        self.input_examples = {}

    def register(self, request, program, *, tags, input_example):
        self._reach()
        name = check_model_name(request.name)
        taken = [v for v in self._of(name) if v.run_id == request.run_id]
        if taken:
            raise ConflictError("registry.exists", name=name, version=taken[0].version, run_id=request.run_id)
        number = len(self._of(name)) + 1
        self._versions[name, number] = ModelVersion(
            name=name,
            version=number,
            stage="None",
            description=request.description,
            run_id=request.run_id,
            created_at=datetime.now(UTC),
            model_uri=f"models:/{name}/{number}",
            url=f"{ADDRESS}/#/models/{quote(name, safe='')}/versions/{number}",
            tags={**tags, "dspyui.registered_by": request.who},
        )
        lm = program.lm.model_copy(update={"api_base": None})
        self._programs[name, number] = program.model_copy(update={"lm": lm})
        self.input_examples[name, number] = input_example
        if request.stage == "None":
            return self._versions[name, number]
        try:
            return self.set_stage(name, number, request.stage, who=request.who)
        except FailedError as exc:
            raise FailedError(
                "registry.stage_failed", name=name, version=number, stage=request.stage, problem=str(exc)
            ) from exc

    def get_version(self, name, version):
        self._reach()
        if (name, version) not in self._versions:
            raise NotFoundError("registry.no_version", name=name, version=version)
        return self._versions[name, version]

    def get_by_stage(self, name, stage):
        self._reach()
        if not self._of(name):
            code = "registry.no_model" if stage in STAGE_ALIASES else "registry.no_stage"
            raise NotFoundError(code, name=name, stage=stage)
        held = [v for v in self.search_versions(name) if v.stage == stage]
        if not held:
            raise NotFoundError("registry.no_stage", name=name, stage=stage)
        return held[0]

    def get_by_alias(self, name, alias):
        self._reach()
        if not self._of(name):
            raise NotFoundError("registry.no_model", name=name)
        number = self.aliases.get((name, alias))
        if number is None:
            raise NotFoundError("registry.no_alias", name=name, alias=alias)
        return self.get_version(name, number)

    def search_versions(self, name=None):
        self._reach()
        found = [v for v in self._versions.values() if name in (None, v.name)]
        return tuple(sorted(found, key=lambda v: (v.created_at, v.version), reverse=True))

    def set_stage(self, name, version, stage, *, who, why=""):
        moved = self.get_version(name, version)
        if self.stages_fail:
            raise FailedError("mlflow.refused", address=ADDRESS, problem="no stages today")
        self._move(moved, stage, who, why)
        for other in self._of(name):
            if stage in STAGE_ALIASES and other.version != version and other.stage == stage:
                self._move(other, "Archived", who, f"replaced by version {version}")
        return self.get_version(name, version)

    def program(self, version):
        self._reach()
        return self._programs[version.name, version.version]

    def _move(self, version, stage, who, why):
        if version.stage == stage:
            return
        change = StageChange(who=who, at=datetime.now(UTC), from_stage=version.stage, to_stage=stage, why=why)
        self._versions[version.name, version.version] = version.model_copy(
            update={"stage": stage, "history": (*version.history, change)}
        )

    def _of(self, name):
        return [v for v in self._versions.values() if v.name == name]

    def _reach(self):
        if self.away:
            raise UnavailableError("mlflow.unavailable", address=ADDRESS, problem="away")


class MemoryFeedback:
    """A FeedbackStore. `away` makes every call that needs MLflow raise UnavailableError.

    `call` is what a runner does: it leaves a trace, which waits until it is sent.
    """

    def __init__(self):
        self.away = False
        self.held = {}
        self.refused = set()
        self._waiting = {}
        self._traces = {}

    def call(self, tags):
        trace_id = f"tr-{secrets.token_hex(16)}"
        self._waiting[trace_id] = dict(tags)
        return trace_id

    def waiting(self):
        return len(self._waiting)

    def send_waiting(self):
        if not self._waiting:
            return 0
        self._reach()
        sent = {id_: tags for id_, tags in self._waiting.items() if id_ not in self.refused}
        self._traces |= sent
        self._waiting.clear()
        return len(sent)

    def state(self, trace_id):
        if trace_id in self._waiting:
            return CallTrace(status="waiting")
        if trace_id in self.refused:
            return CallTrace(status="refused")
        self.tags(trace_id)
        url = f"{ADDRESS}/#/experiments/1/traces?selectedEvaluationId={trace_id}"
        return CallTrace(status="stored", url=url)

    def tags(self, trace_id):
        self._reach()
        if trace_id not in self._traces:
            raise NotFoundError("feedback.no_trace", trace_id=trace_id)
        return self._traces[trace_id]

    def give(self, trace_id, feedback, *, who):
        self.tags(trace_id)
        before = self.held.get((trace_id, who), Feedback())
        thumb = before if feedback.thumbs_up is None else feedback
        self.held[trace_id, who] = Feedback(
            thumbs_up=thumb.thumbs_up,
            comment=thumb.comment,
            correction=feedback.correction or before.correction,
        )
        return self.held[trace_id, who]

    def get(self, trace_id, *, who):
        self.tags(trace_id)
        return self.held.get((trace_id, who), Feedback())

    def _reach(self):
        if self.away:
            raise UnavailableError("mlflow.unavailable", address=ADDRESS, problem="away")
