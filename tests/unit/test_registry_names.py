"""Names of registered models: those that MLflow and every store behind it take."""

import pytest

from dspyui.domain.registry import MAX_MODEL_NAME, check_model_name, model_name_from
from dspyui.errors import BadRequestError


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "1",
        "-",
        "_",
        "product-extraction",
        "v1.2",
        "my model",
        "产品提取",
        "Größe",
        "हिन्दी",
        "x" * MAX_MODEL_NAME,
    ],
)
def test_a_name_that_is_taken_as_it_is(name: str) -> None:
    assert check_model_name(name) == name


def test_a_name_is_composed() -> None:
    assert check_model_name("Cafe\u0301") == "Café"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "model_name.empty"),
        (" ", "model_name.edge"),
        (".", "model_name.edge"),
        ("...", "model_name.edge"),
        (" a", "model_name.edge"),
        ("a ", "model_name.edge"),
        (".a", "model_name.edge"),
        ("a.", "model_name.edge"),
        ("a  b", "model_name.spaces"),
        ("a/b", "model_name.character"),
        ("../../x", "model_name.edge"),
        ("x/../../y", "model_name.character"),
        ("a:b", "model_name.character"),
        ("a\\b", "model_name.character"),
        ("a\tb", "model_name.character"),
        ("a\n", "model_name.character"),
        ("a\x00", "model_name.character"),
        ("a🙂", "model_name.character"),
        ("a\u202eb", "model_name.character"),
        ("a\u200fb", "model_name.character"),
        ("a\u00a0b", "model_name.character"),
        ("a'b", "model_name.character"),
        ("a%b", "model_name.character"),
        ("½", "model_name.character"),
        ("x" * (MAX_MODEL_NAME + 1), "model_name.long"),
    ],
)
def test_a_name_that_is_refused(name: str, code: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        check_model_name(name)
    assert caught.value.code == code
    assert caught.value.text("zh_CN")


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("best run", "best run"),
        ("产品 extraction/1", "产品 extraction-1"),
        (" a:  b. ", "a- b"),
        ("x" * 300, "x" * 200),
    ],
)
def test_a_title_becomes_a_name_that_can_be_one(title: str, name: str) -> None:
    assert model_name_from(title) == name
    assert check_model_name(name) == name
