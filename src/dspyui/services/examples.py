"""The examples that come with the program: the files of `examples/`, found in a checkout and in a wheel."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from dspyui.domain.compiles import CompileSpec
from dspyui.domain.signatures import Row
from dspyui.services.data import DataService
from dspyui.services.documents import parse_spec

_PACKAGE = Path(__file__).resolve().parents[1]
# A wheel carries the folder inside the package (pyproject.toml puts it there), a checkout beside `src`.
_PLACES = (_PACKAGE / "examples_data", _PACKAGE.parents[1] / "examples")

ExampleName = Literal["products", "orders", "tickets"]
EXAMPLES: Mapping[ExampleName, str] = {
    "products": "product_extraction.yaml",
    "orders": "order_numbers.yaml",
    "tickets": "api_model.yaml",
}
"""The examples a form can start from; what each is for stands under `example.<name>`."""
FIRST_EXAMPLE: ExampleName = "products"

DEMO_MODEL_NAME = "dspyui-demo"
DEMO_INPUT: Row = {"message": "The camping stove does not light anymore."}
"""A row of the demo's kind that is not among its rows."""


def examples_folder() -> Path:
    """The folder of the example files."""
    return next(place for place in _PLACES if place.is_dir())


def example_spec(name: ExampleName) -> CompileSpec:
    """The spec of an example. The path of its data is absolute, so that it can be used from any folder."""
    folder = examples_folder()
    spec = parse_spec((folder / EXAMPLES[name]).read_text(encoding="utf-8"))
    data = spec.data.model_copy(update={"path": str(folder / (spec.data.path or ""))})
    return spec.model_copy(update={"data": data})


def demo_spec(*, seed: int = 0) -> CompileSpec:
    """Product extraction from customer messages on the bundled model. `seed` deals out the rows."""
    spec = example_spec("products")
    split = spec.data.split.model_copy(update={"seed": seed})
    return spec.model_copy(update={"data": spec.data.model_copy(update={"split": split}), "seed": seed})


def example_rows(data: DataService) -> tuple[Row, ...]:
    """The demo's rows as they stand in its file, for a grid that a person can edit."""
    return tuple(data.table(demo_spec().data).rows)
