"""The bundled model's server: `python -m dspyui.adapters.local_stack.lm_child --model FILE --port N`.

An OpenAI-compatible server (llama.cpp's, in xllamacpp) on loopback alone. It runs until it is told to stop.
"""

import argparse
import importlib
import os
import signal
from collections.abc import Sequence
from typing import Any

ALIAS = "smollm2-135m"
# How many requests are answered at a time, and how many tokens (prompt and reply) each of them may have.
SLOTS, SLOT_TOKENS = 4, 4096
# More threads than this do not make a model this small any faster.
MOST_THREADS = 8


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    asked = parser.parse_args(arguments)
    # Blocked before the server's threads are made, so that none of them takes the signal.
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    server = _serve(asked.model, asked.port)
    print(f"Listening on {server.listening_address}", flush=True)  # noqa: T201 - stdout is the log
    signal.sigwait(stop)
    # Its destructor waits for requests that are under way; nobody needs their answers any more.
    os._exit(0)


def _serve(model: str, port: int) -> Any:
    # Not every machine has it, and it has no types.
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {ALIAS}
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel, params.n_ctx = SLOTS, SLOTS * SLOT_TOKENS
    params.cont_batching = params.cache_prompt = params.warmup = params.offline = True
    # One model answers and embeds: it measured no slower in chat for that. The mean over the tokens is the vector.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = min(_processors(), MOST_THREADS)
    # The default keeps up to 8 GiB of old prompts in memory; the slots themselves remember the last ones.
    params.cache_ram_mib = 0
    # The default lets every web page the user visits read the answers. Only the server's own address is allowed,
    # where no page is.
    params.cors_origins, params.cors_origins_explicit = f"http://127.0.0.1:{port}", True
    params.cors_credentials = False
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.verbosity = 1
    return xllamacpp.Server(params)


def _processors() -> int:
    """The processors this process may use; macOS tells only how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
