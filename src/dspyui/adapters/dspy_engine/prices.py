"""The prices that come with DSPy, read from its file: importing DSPy for them would hold the pages up for seconds."""

import gzip
import json
import math
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from dspyui.domain.estimates import Price

# Where DSPy 3.4 keeps what it works costs out with (`dspy.clients.model_metadata`); a test holds the place.
_FILE: Final = ("clients", "model_metadata", "snapshot.json.gz")


class ListedPrices:
    """Implements `domain.estimates.PriceList`. Reads the file once, when it is first asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: Mapping[str, Any] | None = None

    def find(self, model: str) -> Price | None:
        """The price of a model under its full name, or under its own name when the provider is the same."""
        provider, _, name = model.partition("/")
        with self._lock:
            if self._models is None:
                self._models = _read()
            known, bare = self._models.get(model), self._models.get(name)
        if known is None and isinstance(bare, dict) and bare.get("litellm_provider") == provider:
            known = bare
        return _price(known) if isinstance(known, dict) else None


def _read() -> Mapping[str, Any]:
    """The list; empty when this DSPy has none, and then no price is known."""
    found = find_spec("dspy")
    if found is None or found.origin is None:
        return {}
    try:
        packed = Path(found.origin).parent.joinpath(*_FILE).read_bytes()
    except FileNotFoundError:
        return {}
    return json.loads(gzip.decompress(packed))


def _price(entry: Mapping[str, Any]) -> Price | None:
    sent, came = _amount(entry.get("input_cost_per_token")), _amount(entry.get("output_cost_per_token"))
    return None if sent is None or came is None else Price(input=sent, output=came)


def _amount(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None
