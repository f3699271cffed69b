"""Every parameter of every optimizer, changed, arrives at DSPy's own class: a spy looks at what that is called with."""

import dspy
import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.lms import EmbedderSpec, LMRoles, LMSpec
from dspyui.domain.optimizers import OPTIMIZERS, OptimizerSpec
from dspyui.domain.programs import ProgramSpec
from tests.fake_openai import FakeOpenAI
from tests.learner import SIGNATURE, learn, rows

# What has to be there for a parameter to be allowed at all.
WITH = {
    ("miprov2", "num_candidates"): {"auto": None, "num_trials": 2},
    ("miprov2", "num_trials"): {"auto": None, "num_candidates": 2},
    ("miprov2", "auto"): {},
    ("gepa", "auto"): {},
    ("gepa", "max_full_evals"): {},
    ("gepa", "max_metric_calls"): {},
}
CASES = [(kind, info.name) for kind, made in OPTIMIZERS.items() for info in made.parameters]


def changed(info):
    """A value that is allowed and is not the default."""
    match info.type:
        case "bool":
            return not info.default
        case "choice":
            return next(choice for choice in info.choices if choice != info.default)
        case "int":
            return (info.default or 1) + 1
        case _:
            return 0.25 if info.default != 0.25 else 0.75


def spied(monkeypatch, name):
    """What the class of that name is made and compiled with; nothing is compiled."""
    seen = {}
    optimizer = getattr(dspy, name)
    make = optimizer.__init__

    def init(self, *args, **kwargs):
        seen.update(kwargs)
        make(self, *args, **kwargs)

    def compile_(_self, student, **kwargs):
        seen.update(kwargs)
        return student

    monkeypatch.setattr(optimizer, "__init__", init)
    monkeypatch.setattr(optimizer, "compile", compile_)
    return seen


@pytest.fixture
def optimise(tmp_path):
    with FakeOpenAI(learn) as server:
        roles = LMRoles(
            task=LMSpec(model="openai/fake", api_base=server.base_url),
            embedder=EmbedderSpec(model="openai/words", api_base=server.base_url),
        )
        engine = DspyEngine(roles, environment={}, cache_folder=tmp_path / "cache")

        def run(kind, params):
            spec = CompileSpec(
                program=ProgramSpec(signature=SIGNATURE),
                lms=roles,
                optimizer=OptimizerSpec(kind=kind, params=params),
                data={"rows": rows(4)},
                threads=7,
            )
            live = engine.build(spec.program)
            made = engine.optimise(
                live, spec, train=rows(4), validation=rows(2, start=8), on_trial=lambda *_: None
            )
            if kind == "knn_few_shot":
                # DSPy's class is made at the first call.
                engine.predict(made, {"message": "My thing9 broke."}, tags={})

        yield run


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_changed_parameter_arrives(optimise, monkeypatch, kind, name):
    info = next(info for info in OPTIMIZERS[kind].parameters if info.name == name)
    value = changed(info)
    others = WITH.get((kind, name), dict(OPTIMIZERS[kind].begins_with))
    seen = spied(monkeypatch, OPTIMIZERS[kind].label)
    optimise(kind, {**others, name: value})
    # DSPy counts this one score up to 100.
    assert seen[name] == (100 * value if name == "stop_at_score" else value)


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "none"])
def test_rows_go_where_they_belong_and_threads_arrive(optimise, monkeypatch, kind):
    seen = spied(monkeypatch, OPTIMIZERS[kind].label)
    optimise(kind, dict(OPTIMIZERS[kind].begins_with))
    trained = sorted(example["product"] for example in seen["trainset"])
    assert trained == ["thing0", "thing1", "thing2", "thing3"]
    if OPTIMIZERS[kind].uses_validation:
        assert [example["product"] for example in seen["valset"]] == ["thing8", "thing9"]
    else:
        assert seen.get("valset") is None
    if "num_threads" in seen:
        assert seen["num_threads"] == 7
    else:
        assert (
            kind in {"labeled_few_shot", "bootstrap_few_shot", "knn_few_shot"}
            or seen["eval_kwargs"]["num_threads"] == 7
        )
