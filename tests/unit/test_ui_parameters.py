"""The form's fields of every optimizer: each shows its default, and each change stands in the spec of the job."""

import pytest
from nicegui.testing import User

from dspyui.domain.optimizers import OPTIMIZERS, OptimizerKind
from dspyui.services.examples import demo_spec
from tests.adapters.test_optimizer_parameters import changed
from tests.api.world import World
from tests.pages import element, sees, until

# Parameters that DSPy does not take together; what each does alone, tests/adapters/test_optimizer_parameters.py tells.
LEFT = {"gepa": {"max_full_evals": None, "max_metric_calls": 40, "auto": None}}
GIVEN = {"miprov2": {"auto": None, "num_candidates": 2, "num_trials": 3}}


@pytest.mark.parametrize("kind", [kind for kind in OPTIMIZERS if kind != "none"])
async def test_every_field_begins_at_its_default_and_every_change_is_asked_for(
    user: User,
    world: World,
    kind: OptimizerKind,
):
    info = OPTIMIZERS[kind]
    await user.open("/")
    await until(sees(user, marker="form-ready"))
    element(user, "optimizer").set_value(kind)  # type: ignore[attr-defined]
    if info.needs_embedder:
        element(user, "lm-embedder-own").set_value(True)  # type: ignore[attr-defined]
        await until(sees(user, marker="lm-embedder-model"))
        user.find(marker="lm-embedder-model").clear().type("local/smollm2-135m")
    # The form shows an example, which has chosen one optimizer's parameters itself.
    example = demo_spec().optimizer
    begins = example.params if example.kind == kind else info.begins_with
    wanted = {one.name: changed(one) for one in info.parameters} | LEFT.get(kind, {}) | GIVEN.get(kind, {})
    for one in info.parameters:
        await until(sees(user, marker=f"optimizer-{one.name}"))
        control = element(user, f"optimizer-{one.name}")
        assert control.value == begins.get(one.name, one.default)  # type: ignore[attr-defined]
    for name, value in wanted.items():
        element(user, f"optimizer-{name}").set_value(value)  # type: ignore[attr-defined]
    await until(sees(user, marker="form-ready"))
    user.find(marker="compile").click()
    await until(lambda: world.queue.submitted)
    assert world.jobs.spec(world.queue.submitted[0]).optimizer.resolved() == wanted
