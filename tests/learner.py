"""A fake language model that can be taught: a demo or the right instruction makes it answer better.

The task: name the thing in "My lamp broke on Monday." Untaught, it gets the rows right whose number is even, so that
there is something to bootstrap from. Asked for anything else (an instruction, rules, advice), it gives the one
sentence that helps.
"""

import json
import re

from dspyui.domain.signatures import FieldSpec, SignatureSpec
from tests.fake_openai import chat, last_input

SIGNATURE = SignatureSpec(
    instructions="Name the product.",
    inputs=(FieldSpec(name="message"),),
    outputs=(FieldSpec(name="product", description="lower case"),),
)
LESSON = "Answer with the SECOND WORD of the message."
_DAYS = ("Monday", "Tuesday", "Friday", "Sunday")


def rows(count: int, *, start: int = 0) -> list[dict[str, str]]:
    """Rows of the task."""
    return [
        {"message": f"My thing{i} broke on {_DAYS[i % 4]}.", "product": f"thing{i}"}
        for i in range(start, start + count)
    ]


def learn(messages: list[dict[str, str]]) -> str:
    """The reply."""
    system = messages[0]["content"]
    outputs = _outputs(system)
    if "product" not in dict(outputs) and "rationale" not in dict(outputs):
        return _said({name: _helpful(kind, messages) for name, kind in outputs}, system)
    word = last_input(messages, "message").split()[1]
    demos = sum(message["role"] == "user" for message in messages) - 1
    knows = "SECOND WORD" in messages[0]["content"] + messages[-1]["content"]
    product = word if demos or knows or int(word.removeprefix("thing")) % 2 == 0 else "something"
    values = {"product": product, "reasoning": "It is named.", "rationale": "They agree."}
    return _said({name: values[name] for name, _ in outputs}, system)


def _outputs(system: str) -> list[tuple[str, str]]:
    listed = system.split("Your output fields are:", 1)[1].split("All interactions", 1)[0]
    return re.findall(r"^\d+\. `(\w+)` \((.*?)\)", listed, flags=re.MULTILINE)


def _helpful(kind: str, messages: list[dict[str, str]]) -> object:
    if kind.startswith("dict"):
        names = re.findall(
            r'"([\w.]+)"', messages[-1]["content"].split("[[ ## module_names ## ]]", 1)[1].split("[[", 1)[0]
        )
        return dict.fromkeys(names, LESSON)
    return LESSON


def _said(values: dict[str, object], system: str) -> str:
    if "[[ ## completed ## ]]" not in system:
        return json.dumps(values)
    return chat(
        **{name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    )
