"""What a batch is asked for, the keys of its rows, the names of its columns."""

import pytest

from dspyui.domain.batches import BatchSpec, content_key, is_sampled, output_format, output_names
from dspyui.domain.means import mean_interval
from dspyui.errors import BadRequestError


def test_exactly_one_input():
    for given in ({}, {"path": "a.csv", "upload": "0" * 64}):
        with pytest.raises(BadRequestError) as caught:
            BatchSpec(model="m", **given)
        assert caught.value.code == "batch.one_input"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("b.csv", "csv"), ("x/y.Parquet", "parquet")],
)
def test_the_ending_tells_the_format(path, kind):
    assert output_format(path) == kind


def test_an_unknown_ending_needs_a_format():
    with pytest.raises(BadRequestError) as caught:
        BatchSpec(model="m", path="a.csv", output="out.xlsx")
    assert caught.value.code == "batch.output_ending"
    assert BatchSpec(model="m", path="a.csv", output="out.dat", format="csv").written_format == "csv"
    assert BatchSpec(model="m", path="a.csv").written_format == "jsonl"


def test_equal_content_has_equal_keys_whatever_the_order():
    assert content_key({"a": 1, "b": "中"}) == content_key({"b": "中", "a": 1})
    assert content_key({"a": 1}) != content_key({"a": "1"})
    assert len(content_key({"a": "\ud83d"})) == 16


def test_a_share_of_rows_is_sampled_and_always_the_same():
    keys = [content_key({"n": n}) for n in range(4000)]
    sampled = [key for key in keys if is_sampled(key, 0.25)]
    assert 850 < len(sampled) < 1150
    assert [key for key in keys if is_sampled(key, 0.25)] == sampled
    assert all(is_sampled(key, 1.0) for key in keys)
    assert not any(is_sampled(key, 0.0) for key in keys)


def test_an_output_never_takes_the_place_of_an_input_column():
    assert output_names(["id", "product", "predicted_product"], ["product", "price"]) == {
        "product": "predicted_predicted_product",
        "price": "price",
    }


@pytest.mark.parametrize(
    ("right", "rows", "low", "high"),
    # Newcombe 1998 (Statistics in Medicine 17, table I), method 3, without continuity correction.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_of_a_share_is_wilsons(right, rows, low, high):
    found = mean_interval(rows, right, right, is_binary=True)
    assert found == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_a_mean():
    scores = [0.2, 0.4, 0.4, 0.6] * 25
    low, high = mean_interval(100, sum(scores), sum(s * s for s in scores), is_binary=False)
    assert (low + high) / 2 == pytest.approx(0.4)
    assert high - low == pytest.approx(2 * 1.96 * 0.14213 / 10, rel=1e-3)
    assert mean_interval(1, 0.5, 0.25, is_binary=False) == (0.0, 1.0)
