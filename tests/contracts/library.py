"""A RunLibrary in memory, over a run store in memory; the contract tests hold it to MLflow's behaviour."""

import json

from dspyui.domain.run_list import Registration, RunPage
from dspyui.errors import BadRequestError, NotFoundError

VALUES = {
    "started": lambda run: run.started_at,
    "name": lambda run: run.name,
    "program": lambda run: run.tags.get("dspyui.program"),
    "module": lambda run: run.params.get("module"),
    "optimizer": lambda run: run.params.get("optimizer"),
    "lm": lambda run: run.params.get("lm.task.model"),
    "baseline": lambda run: run.metrics.get("baseline_score"),
    "score": lambda run: run.metrics.get("evaluation_score"),
    "difference": lambda run: run.metrics.get("score_improvement"),
    "cost": lambda run: run.metrics.get("cost"),
    "duration": lambda run: run.metrics.get("duration_seconds"),
}


class MemoryLibrary:
    """`runs` gives the Runs (`search_runs`, `get_run`); `files` are artifacts by (Run, path)."""

    def __init__(self, runs, registry=None):
        self._runs = runs
        self._registry = registry
        self.deleted = set()
        self.files = {}

    def page(self, query, token=None):
        start = self._start(token)
        found = [run for run in self._all() if _fits(query, run)]
        found.sort(key=lambda run: run.started_at, reverse=True)
        value = VALUES[query.sort]
        there = sorted((r for r in found if value(r) is not None), key=value, reverse=query.descending)
        found = there + [run for run in found if value(run) is None]
        end = start + query.size
        return RunPage(runs=tuple(found[start:end]), next_token=f"at-{end}" if len(found) > end else None)

    def get(self, run_id):
        return self._marked(self._runs.get_run(run_id))

    def registrations(self, run_ids):
        versions = self._registry.search_versions() if self._registry else ()
        return {
            run_id: tuple(
                Registration(run_id=run_id, name=version.name, version=version.version)
                for version in versions
                if version.run_id == run_id
            )
            for run_id in run_ids
        }

    def file(self, run_id, path):
        self.get(run_id)
        found = self.files.get((run_id, path))
        if found is None:
            found = getattr(self._runs, "files", {}).get(run_id, {}).get(path)
        if found is None:
            raise NotFoundError("run.no_file", run_id=run_id, path=path)
        return found.encode() if isinstance(found, str) else found

    def paths(self, run_id, folders):
        self.get(run_id)
        known = {path for run, path in self.files if run == run_id}
        known |= set(getattr(self._runs, "files", {}).get(run_id, {}))
        return frozenset(path for path in known if path.rpartition("/")[0] in folders)

    def delete(self, run_id):
        self.get(run_id)
        self.deleted.add(run_id)

    def restore(self, run_id):
        self.get(run_id)
        self.deleted.discard(run_id)

    def put_result(self, run_id, result, spec=None):
        """What a finished compile leaves among the artifacts."""
        self.files[run_id, "evaluation/result.json"] = result.model_dump_json()
        if spec is not None:
            self.files[run_id, "spec/compile.yaml"] = json.dumps(spec.model_dump(mode="json"))

    def _all(self):
        return [self._marked(run) for run in self._runs.search_runs(limit=10**9)]

    def _marked(self, run):
        return run.model_copy(update={"deleted": run.run_id in self.deleted})

    @staticmethod
    def _start(token):
        if token is None:
            return 0
        if not token.startswith("at-"):
            raise BadRequestError("run.page_token", token=token)
        return int(token.removeprefix("at-"))


def _fits(query, run):
    contained = (
        (query.name, run.name),
        (query.program, run.tags.get("dspyui.program", "")),
        (query.lm, run.params.get("lm.task.model", "")),
    )
    equal = (
        (query.kind, run.kind),
        (query.state, run.status),
        (query.module, run.params.get("module")),
        (query.optimizer, run.params.get("optimizer")),
    )
    return (
        run.deleted == query.deleted
        and all(wanted.strip().lower() in said.lower() for wanted, said in contained)
        and all(wanted is None or wanted == said for wanted, said in equal)
    )
