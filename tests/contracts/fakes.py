"""MLflow in memory: what the services, the API and the pages are tested with.

The contract tests in this folder hold these to the same behaviour as the real adapters.
"""

import json
import secrets
from datetime import UTC, datetime
from urllib.parse import quote

from dspyui.domain.base import Fault
from dspyui.domain.feedback import CallTrace, Feedback
from dspyui.domain.programs import CompiledProgram
from dspyui.domain.registry import (
    PAGE_MODELS,
    STAGE_ALIASES,
    ModelPage,
    ModelVersion,
    RegisteredModel,
    StageChange,
    VersionPage,
    check_model_name,
)
from dspyui.domain.runs import RunInfo, RunLink, TrackingState
from dspyui.domain.splits import Splits
from dspyui.errors import BadRequestError, ConflictError, FailedError, NotFoundError, UnavailableError

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

    def send_traces(self, folder, link, *, stop=None):
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
    """A ModelRegistry. `away` makes every call raise UnavailableError; `stages_fail` makes every move fail.

    `models` are descriptions, tags and aliases by name; `versions` what MLflow itself would hold. `put` adds a version
    of another tool.
    """

    def __init__(self, address=ADDRESS, now=None):
        self.away = False
        self.stages_fail = False
        self.models = {}
        self.versions = {}
        self.pickles = {}
        self.input_examples = {}
        self._address = address
        self._now = now
        self._programs = {}

    def register(self, request, program, *, tags, input_example):
        self._reach()
        name = check_model_name(request.name)
        taken = [v for v in self._of(name) if v.run_id == request.run_id]
        if taken:
            raise ConflictError("registry.exists", name=name, version=taken[0].version, run_id=request.run_id)
        tags = {"dspyui.registered_by": request.who, **tags}
        version = self._add(name, run_id=request.run_id, description=request.description, tags=tags)
        key = (name, version.version)
        lm = program.lm.model_copy(update={"api_base": None})
        self._programs[key] = program.model_copy(update={"lm": lm})
        self.input_examples[key] = input_example
        if request.stage == "None":
            return self.get_version(*key)
        try:
            return self.set_stage(*key, request.stage, who=request.who, why=request.why, gate=request.gate)
        except FailedError as exc:
            raise FailedError(
                "registry.stage_failed", name=name, version=key[1], stage=request.stage, problem=str(exc)
            ) from exc

    def put(self, name, *, file=None, **changes):
        """A version of another tool; `file` is the pickle that it is made of."""
        version = self._add(name, **changes)
        self.pickles[name, version.version] = file
        return self.get_version(name, version.version)

    def _add(self, name, *, run_id=None, description="", tags=None, mlflow_stage="None"):
        now = self._now or datetime.now(UTC)
        model = self.models.setdefault(name, {"description": "", "tags": {}, "aliases": {}, "last": 0})
        model["last"] += 1
        model["updated"] = now
        number = model["last"]
        self.versions[name, number] = ModelVersion(
            name=name,
            version=number,
            stage="None",
            description=description,
            run_id=run_id,
            created_at=now,
            model_uri=f"models:/{name}/{number}",
            url=f"{self._address}/#/models/{quote(name, safe='')}/versions/{number}",
            tags=tags or {},
            mlflow_stage=mlflow_stage,
        )
        return self.versions[name, number]

    def get_version(self, name, version):
        self._reach()
        if (name, version) not in self.versions:
            raise NotFoundError("registry.no_version", name=name, version=version)
        return self._seen(self.versions[name, version])

    def get_by_stage(self, name, stage):
        self._reach()
        if stage in STAGE_ALIASES:
            self._model(name)
        held = [v for v in self.search_versions(name) if v.stage == stage]
        if not held:
            raise NotFoundError("registry.no_stage", name=name, stage=stage)
        return held[0]

    def get_by_alias(self, name, alias):
        self._reach()
        aliases = self._model(name)["aliases"]
        if alias not in aliases:
            raise NotFoundError("registry.no_alias", name=name, alias=alias)
        return self.get_version(name, aliases[alias])

    def search_versions(self, name=None, *, promoted=False):
        self._reach()
        found = [self._seen(v) for v in self.versions.values() if name in (None, v.name)]
        if promoted:
            found = [v for v in found if any("Production" in (c.from_stage, c.to_stage) for c in v.history)]
        return tuple(sorted(found, key=lambda v: (v.created_at, v.version), reverse=True))

    def page(self, query, token=None):
        self._reach()
        names = [name for name in self.models if query.name.strip().lower() in name.lower()]
        if query.sort == "name":
            names.sort()
        else:
            names.sort(key=lambda name: self.models[name]["updated"], reverse=True)
        chosen, following = _page(names, token, query.size)
        return ModelPage(models=tuple(map(self.get_model, chosen)), next_token=following)

    def get_model(self, name):
        self._reach()
        model = self._model(name)
        versions = sorted(map(self._seen, self._of(name)), key=lambda v: v.version)
        return RegisteredModel(
            name=name,
            description=model["description"],
            tags=model["tags"],
            url=f"{self._address}/#/models/{quote(name, safe='')}",
            updated_at=model["updated"],
            aliases=model["aliases"],
            newest=versions[-1] if versions else None,
            **{
                key: next((v for v in reversed(versions) if v.stage == stage), None)
                for stage, key in STAGE_ALIASES.items()
            },
        )

    def version_page(self, name, token=None, *, size=PAGE_MODELS):
        self._reach()
        self._model(name)
        found = sorted(map(self._seen, self._of(name)), key=lambda v: v.version, reverse=True)
        chosen, following = _page(found, token, size)
        return VersionPage(versions=tuple(chosen), next_token=following)

    def set_stage(self, name, version, stage, *, who, why="", kind="move", gate=None):
        moved = self.get_version(name, version)
        if self.stages_fail:
            raise FailedError("mlflow.refused", address=ADDRESS, problem="no stages today")
        aliases = self.models[name]["aliases"]
        for alias in [a for a in STAGE_ALIASES.values() if aliases.get(a) == version]:
            del aliases[alias]
        others = [v for v in self._of(name) if v.version != version and v.mlflow_stage == stage]
        if stage in STAGE_ALIASES:
            aliases[STAGE_ALIASES[stage]] = version
            for other in others:
                self._move(
                    other, stage, "Archived", who=who, why=why,
                    kind="replaced", by=version,
                )  # fmt: skip
        last = moved.history[-1].to_stage if moved.history else "None"
        if (moved.stage, last) == (stage, stage):
            self._keep(name, version, mlflow_stage=stage)
        else:
            before = last if moved.stage == stage else moved.stage
            self._move(moved, before, stage, who=who, why=why, kind=kind, gate=gate)
        return self.get_version(name, version)

    def set_alias(self, name, alias, version):
        self.get_version(name, version)
        self.models[name]["aliases"][alias] = version
        return self.get_version(name, version)

    def delete_alias(self, name, alias):
        self.get_by_alias(name, alias)
        del self.models[name]["aliases"][alias]

    def describe(self, name, version, description):
        if version is None:
            self._reach()
            self._model(name)["description"] = description
        else:
            self.get_version(name, version)
            self._keep(name, version, description=description)

    def set_tags(self, name, version, tags):
        if version is None:
            self._reach()
        held = self._model(name)["tags"] if version is None else dict(self.get_version(name, version).tags)
        for key, value in tags.items():
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value
        if version is not None:
            self._keep(name, version, tags=held)

    def delete_version(self, name, version):
        self.get_version(name, version)
        del self.versions[name, version]
        aliases = self.models[name]["aliases"]
        for alias in [alias for alias, number in aliases.items() if number == version]:
            del aliases[alias]

    def delete_model(self, name):
        self._reach()
        self._model(name)
        del self.models[name]
        for key in [key for key in self.versions if key[0] == name]:
            del self.versions[key]

    def program(self, version):
        fault = self.unloadable(version)
        if fault is not None:
            raise NotFoundError(fault.code, **fault.values)
        return self._programs[version.name, version.version]

    def unloadable(self, version):
        self._reach()
        key = (version.name, version.version)
        if key in self._programs:
            return None
        values = {"name": version.name, "version": version.version}
        file = self.pickles.get(key)
        if file is None:
            return Fault(code="registry.no_program", values=values)
        return Fault(code="registry.only_pickle", values={**values, "file": file})

    def _move(self, version, before, stage, **more):
        change = StageChange(at=datetime.now(UTC), from_stage=before, to_stage=stage, **more)
        held = self.versions[version.name, version.version]
        self._keep(version.name, version.version, mlflow_stage=stage, history=(*held.history, change))

    def _keep(self, name, version, **changes):
        self.versions[name, version] = self.versions[name, version].model_copy(update=changes)

    def _seen(self, version):
        """As it is told: the alias decides."""
        aliases = self.models[version.name]["aliases"]
        mine = tuple(sorted(alias for alias, number in aliases.items() if number == version.version))
        stage = version.mlflow_stage
        if STAGE_ALIASES.get(stage) in aliases:
            stage = "None"
        for held in ("Staging", "Production"):
            if STAGE_ALIASES[held] in mine:
                stage = held
        return version.model_copy(update={"aliases": mine, "stage": stage})

    def _model(self, name):
        if name not in self.models:
            raise NotFoundError("registry.no_model", name=name)
        return self.models[name]

    def _of(self, name):
        return [v for v in self.versions.values() if v.name == name]

    def _reach(self):
        if self.away:
            raise UnavailableError("mlflow.unavailable", address=ADDRESS, problem="away")


def _page(found, token, size):
    if token is not None and not token.startswith("at-"):
        raise BadRequestError("registry.page_token", token=token)
    start = int(token.removeprefix("at-")) if token else 0
    following = f"at-{start + size}" if len(found) > start + size else None
    return found[start : start + size], following


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

    def send_waiting(self, stop=None):
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
