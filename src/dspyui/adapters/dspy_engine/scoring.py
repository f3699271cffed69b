"""What metrics ask for: a judge, an embedder, a person's own metric. Each is made when it is first needed."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dspy
from dspy.clients._litellm import get_litellm
from dspy.clients.engines.litellm_errors import litellm_errors
from dspy.clients.errors import error_boundary
from dspy.clients.model_metadata import model_info
from dspy.utils.exceptions import LMError, LMProviderError

from dspyui.adapters.dspy_engine import lms
from dspyui.adapters.dspy_engine.modules import clean
from dspyui.adapters.dspy_engine.optimizers import StoppedError
from dspyui.adapters.files.atomic import file_lock
from dspyui.domain.lms import EmbedderSpec
from dspyui.domain.metrics import CustomMetric, MetricFiles
from dspyui.domain.signatures import Row
from dspyui.errors import BadRequestError, FailedError
from dspyui.settings import Redactor

# Whether a judge is being asked: what goes wrong then is told as a score that is missing.
JUDGING: ContextVar[bool] = ContextVar("dspyui_judging", default=False)
# A provider that is busy is asked again so often.
EMBED_RETRIES = 3
EMBED_SECONDS = 60.0
# Texts a request. Providers take at least so many (Cohere 96, Gemini 100, OpenAI 2,048; text-embeddings-inference 32 by
# default), and so many of the longest stay below OpenAI's limit of 300,000 tokens.
EMBED_BATCH = 32
# A key changes nothing about a vector.
_NOT_IN_KEY = ["api_key"]
_CACHED_AS = f"{__name__}.embedding"


class DspyScoreTools:
    """Implements `domain.metrics.ScoreTools`. Thread-safe: optimizers score from many threads."""

    def __init__(
        self,
        judge: Callable[[], dspy.LM],
        embedder: Callable[[], "Embed"],
        files: MetricFiles | None,
        watching: Callable[[], AbstractContextManager[None]],
        *,
        redact: Redactor,
    ) -> None:
        """`watching` is the context in which the judge's calls are counted and its errors mapped.

        `redact` goes over what a person's own metric says when it fails.
        """
        self._redact = redact
        self._make_judge = judge
        self._make_embedder = embedder
        self._files = files
        self._watching = watching

    @cached_property
    def _judge(self) -> dspy.LM:
        return self._make_judge()

    @cached_property
    def _embed(self) -> "Embed":
        return self._make_embedder()

    def judge(self, prompt: str) -> str:
        """What the judge says. A plain call: no signature, nothing an optimizer could take for a demonstration."""
        judging = JUDGING.set(True)
        try:
            with self._watching():
                said: Any = self._judge(prompt)
        finally:
            JUDGING.reset(judging)
        reply = said[0] if said else ""
        return clean(reply["text"] if isinstance(reply, Mapping) else str(reply or ""))

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text; one that was asked for before comes from the cache."""
        return self._embed(texts)

    def custom(self, name: str) -> CustomMetric:
        """A person's own metric."""
        if self._files is None:
            raise BadRequestError("metric.custom_missing", name=name, known="—")
        files = self._files
        own = files.load(name)

        def metric(example: Row, prediction: Row) -> Any:
            try:
                return own(example, prediction)
            except StoppedError:
                raise
            except BaseException as exc:
                # `sys.exit()` among the rest: in a thread of the child it would end a job without a word.
                # It may ask a server of its own, and what that says goes into the job's folder: without the keys.
                problem = files.without_folder(self._redact(f"{type(exc).__name__}: {exc}"))[:500]
                raise FailedError("metric.custom_raised", file=f"metrics/{name}.py", problem=problem) from exc

        return metric


Embed = Callable[[Sequence[str]], list[list[float]]]


def embedder_of(
    spec: EmbedderSpec | None,
    environment: Mapping[str, str],
    local_base_url: str | None,
    *,
    spent: Callable[[int, float | None], None],
    redact: Redactor,
) -> Embed:
    """What turns texts into vectors. Raises BadRequestError when there is no embedder, or no key for it.

    `spent(tokens, cost)` is told of each request; texts that the cache knows make none.
    """
    if spec is None:
        raise BadRequestError("metric.no_embedder")
    options: dict[str, Any] = {"max_retries": EMBED_RETRIES, "timeout": EMBED_SECONDS}
    model = spec.model
    if spec.is_local:
        model = f"openai/{spec.model.partition('/')[2]}"
        options |= {"api_base": local_base_url, "api_key": "local"}
    else:
        if key := lms.find_key(spec, environment):
            options["api_key"] = key
        if spec.api_base:
            options["api_base"] = spec.api_base
    variable = lms.key_variable(spec, environment)
    return _Embedder(spec, model, options, spent=spent, redact=redact, key_variable=variable)


@contextmanager
def _local_turn(address: str) -> Iterator[None]:
    """Wait until nobody else embeds on this bundled server, in whichever process.

    It gives some of the texts that it embeds at the same time a wrong vector (0.69 to 0.73 by cosine to the right
    one), in one request or in several; one after the other it gives each its own.
    """
    port = urlsplit(address).port
    with file_lock(Path(tempfile.gettempdir()) / f"dspyui-embedding-{os.getuid()}-{port}.lock"):
        yield


class _Embedder:
    """Asks the server for what the cache does not know, several texts a request. Thread-safe.

    DSPy's own Embedder tells nobody what the server says of tokens, and caches a request whole: here each text is
    known by itself, whatever it is asked together with.
    """

    def __init__(
        self,
        spec: EmbedderSpec,
        model: str,
        options: Mapping[str, Any],
        *,
        spent: Callable[[int, float | None], None],
        redact: Redactor,
        key_variable: str | None,
    ) -> None:
        self._spec = spec
        self._key_variable = key_variable
        self._model = model
        self._options = dict(options)
        self._spent = spent
        self._redact = redact
        self._first = threading.Lock()
        self._is_warm = threading.Event()

    def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector for each text, in the order of the texts."""
        found: dict[str, list[float]] = {}
        # LiteLLM keeps one connection pool an address; threads that come first together would each make one.
        with (
            _mapped(self._spec.model, self._redact, self._key_variable),
            nullcontext() if self._is_warm.is_set() else self._first,
        ):
            for text in dict.fromkeys(texts):
                known = dspy.cache.get(self._request(text), _NOT_IN_KEY)
                if known is not None:
                    found[text] = known
            missing = [text for text in dict.fromkeys(texts) if text not in found]
            size = 1 if self._spec.is_local else EMBED_BATCH
            for start in range(0, len(missing), size):
                with _local_turn(self._options["api_base"]) if self._spec.is_local else nullcontext():
                    found |= self._ask(missing[start : start + size])
            self._is_warm.set()
        return [found[text] for text in texts]

    def _request(self, text: str) -> dict[str, Any]:
        """What the cache knows a text by."""
        return {**self._options, "model": self._model, "text": text, "_fn_identifier": _CACHED_AS}

    def _ask(self, texts: Sequence[str]) -> dict[str, list[float]]:
        tokens, cost = 0, 0.0 if self._spec.is_local else None
        try:
            reply: Any = get_litellm(feature="embeddings").embedding(
                model=self._model, input=list(texts), caching=False, **self._options
            )
            tokens = int(getattr(reply.usage, "prompt_tokens", 0) or 0)
            cost = _embedding_cost(self._spec, tokens)
        finally:
            self._spent(tokens, cost)
        found = dict(zip(texts, _vectors(reply.data, len(texts)), strict=True))
        for text, vector in found.items():
            dspy.cache.put(self._request(text), vector, _NOT_IN_KEY)
        return found


def _vectors(data: Sequence[Any], count: int) -> list[list[float]]:
    """The vectors of a reply in the order of its texts, which `index` says where the server tells it."""
    if len(data) != count:
        raise LMProviderError(f"{len(data)} vectors for {count} texts")
    # Sorting is stable: servers that number none of them, or all alike, send them in order.
    ordered = sorted(data, key=lambda entry: entry.get("index") or 0)
    return [[float(number) for number in entry["embedding"]] for entry in ordered]


def _embedding_cost(spec: EmbedderSpec, tokens: int) -> float | None:
    """By the list of prices that comes with DSPy. A server of somebody's own has none, whatever its model is called."""
    if spec.is_local:
        return 0.0
    provider, _, name = spec.model.partition("/")
    price = None if spec.api_base else model_info(provider, name).get("input_cost_per_token")
    return None if price is None or not tokens else tokens * float(price)


@contextmanager
def _mapped(model: str, redact: Redactor, key_variable: str | None) -> Iterator[None]:
    """LiteLLM's errors, read as DSPy reads them for its LMs: for embeddings it does not do so by itself."""
    try:
        with error_boundary(model, unexpected=True), litellm_errors(model=model):
            yield
    except LMError as exc:
        raise lms.failed(exc, redact, model=model, variable=key_variable) from exc
