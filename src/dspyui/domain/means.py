"""How sure one can be of a mean of scores."""

import math
from typing import Final

_Z: Final = 1.959963984540054


def mean_interval(count: int, total: float, squares: float, *, is_binary: bool) -> tuple[float, float]:
    """The 95 % interval of the mean of `count` scores from 0.0 to 1.0, given their sum and the sum of their squares.

    Scores of 0 and 1 alone get Wilson's score interval (1927, Journal of the American Statistical Association 22);
    others the normal one, kept inside 0.0 and 1.0.
    """
    mean = total / count
    if is_binary:
        spread = _Z * math.sqrt(mean * (1 - mean) / count + _Z * _Z / (4 * count * count))
        middle, scale = mean + _Z * _Z / (2 * count), 1 + _Z * _Z / count
        return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)
    if count < 2:
        return 0.0, 1.0
    variance = max(0.0, (squares - total * mean) / (count - 1))
    half = _Z * math.sqrt(variance / count)
    return max(0.0, mean - half), min(1.0, mean + half)
