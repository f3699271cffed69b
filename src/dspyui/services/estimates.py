"""What a compile will ask and cost, and what is to be known of its data, told before it starts."""

from collections.abc import Mapping

from dspyui.domain.base import Frozen, Notice
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.datasets import SplitName
from dspyui.domain.estimates import Asked, Estimate, asked_by_role, cost_of, role_model
from dspyui.services.data import DataPreview, DataService
from dspyui.services.lms import LMService


class Forecast(Frozen):
    """An estimate as the command line and the API tell it; the cost is in US dollars, None when a price is not known.

    `warnings` say what the data cannot show, and what the optimizer would rather have.
    """

    lm_calls_at_most: int
    input_tokens_about: int
    output_tokens_about: int
    cost_about_at_most: float | None
    warnings: tuple[Notice, ...] = ()


def forecast(spec: CompileSpec, data: DataService, lms: LMService) -> Forecast:
    """What the compile would ask and cost. Raises BadRequestError for data it could not run on."""
    preview = data.preview(spec.program.signature, spec.data)
    sizes = preview.split_sizes
    spec.optimizer.check_rows(train=sizes["train"], validation=sizes["validation"])
    found = estimate(spec, preview, lms)
    return Forecast(
        lm_calls_at_most=found.asked.calls,
        input_tokens_about=found.asked.input_tokens,
        output_tokens_about=found.asked.output_tokens,
        cost_about_at_most=found.cost,
        warnings=data_warnings(spec, preview),
    )


def data_warnings(spec: CompileSpec, data: DataPreview) -> tuple[Notice, ...]:
    """What is odd about the data, and what the optimizer would rather have; a compile runs all the same."""
    sizes = data.split_sizes
    return (
        *data.notices,
        *spec.optimizer.warnings(train=sizes["train"], validation=sizes["validation"]),
    )


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
