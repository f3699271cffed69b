"""A fresh process: loads compiled programs from their documents alone, and predicts with each.

A JSON document on stdin (`cache`, `programs`, `inputs`), one on stdout: for each program what `answers` gives.
"""

import json
import sys
from pathlib import Path

from dspyui.adapters.dspy_engine.engine import DspyEngine
from dspyui.domain.programs import CompiledProgram


def answers(engine, live, inputs):
    """Of each row: the outputs, and the messages of every LM call that was made for them, in their order."""
    found = []
    for row in inputs:
        prediction = engine.predict(live, row, tags={})
        calls = sorted(
            (span for span in prediction.trace.spans if span.kind == "LLM"), key=lambda span: span.start_ns
        )
        found.append([prediction.outputs, [span.inputs["messages"] for span in calls]])
    return found


def main():
    asked = json.load(sys.stdin)
    told = []
    for document in asked["programs"]:
        program = CompiledProgram.from_json(document, where="here")
        engine = DspyEngine(program.roles(), environment={}, cache_folder=Path(asked["cache"]))
        told.append(answers(engine, engine.load(program), asked["inputs"]))
    json.dump(told, sys.__stdout__)


if __name__ == "__main__":
    # Libraries print.
    sys.stdout = sys.stderr
    main()
