"""What a compile will ask and cost, told before it starts."""

from collections.abc import Mapping

from dspyui.domain.compiles import CompileSpec
from dspyui.domain.datasets import SplitName
from dspyui.domain.estimates import Asked, Estimate, asked_by_role, cost_of, role_model
from dspyui.services.data import DataPreview
from dspyui.services.lms import LMService


def estimate(spec: CompileSpec, data: DataPreview, lms: LMService) -> Estimate:
    """At most so many calls, and about what they take. The data's splits must be ones the optimizer can run on."""
    sizes: Mapping[SplitName, int] = data.split_sizes
    roles = asked_by_role(spec, sizes, data.mean_tokens)
    costs = [cost_of(asked, lms.price(role_model(spec, role))) for role, asked in roles.items()]
    known = [cost for cost in costs if cost is not None]
    return Estimate(
        asked=sum(roles.values(), Asked()),
        cost=sum(known) if len(known) == len(costs) else None,
    )
