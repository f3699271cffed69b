"""Every parameter of every module, changed, arrives at DSPy's own class."""

import inspect

import dspy
import pytest

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.domain.lms import LMRoles, LMSpec
from dspyui.domain.metrics import MetricSpec
from dspyui.domain.programs import MODULES, ModuleSpec, ProgramSpec
from tests.adapters.test_optimizer_parameters import changed
from tests.learner import SIGNATURE

CASES = [(kind, info.name) for kind, made in MODULES.items() for info in made.parameters]
# DSPy has no default for these, and names no inner module.
REQUIRED = {"N", "threshold", "module"}


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_a_changed_parameter_arrives(tmp_path, kind, name):
    info = next(info for info in MODULES[kind].parameters if info.name == name)
    reward = MetricSpec(kind="regex", params={"pattern": "x"}) if MODULES[kind].rewards else None
    engine = DspyEngine(
        LMRoles(task=LMSpec(model="openai/fake", api_base="http://127.0.0.1:9/v1")),
        environment={},
        cache_folder=tmp_path,
    )
    value = changed(info)
    spec = ModuleSpec(kind=kind, params={name: value}, reward=reward)
    live = engine.build(ProgramSpec(signature=SIGNATURE, module=spec))
    assert isinstance(live, getattr(dspy, MODULES[kind].label)) == (kind != "multi_chain_comparison")
    if name == "module":
        assert type(live.module) is {"predict": dspy.Predict, "chain_of_thought": dspy.ChainOfThought}[value]
    elif kind == "multi_chain_comparison":
        compare = live.compare
        assert (spec.resolved()["M"],) * 2 == (live.M, compare.M)
        assert live.temperature == compare.predict.config["temperature"] == spec.resolved()["temperature"]
    else:
        assert getattr(live, name) == value


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_defaults_are_dspys(kind, name):
    info = next(info for info in MODULES[kind].parameters if info.name == name)
    theirs = inspect.signature(getattr(dspy, MODULES[kind].label).__init__).parameters[name].default
    if name in REQUIRED:
        assert theirs is inspect.Parameter.empty
    else:
        assert info.default == theirs
