"""Writes the documents that are made from the program itself; a test holds them to it.

    python docs/generate.py

`docs/spec.md` comes from the schema of `CompileSpec`, `docs/settings.md` and `.env.example` from `Settings`,
`docs/cli.md` from the commands' own help; each Markdown file also in Chinese, as `*_zh.md`.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from dspyui.cli.main import build
from dspyui.domain.base import ParameterInfo
from dspyui.domain.compiles import CompileSpec
from dspyui.domain.metrics import METRICS
from dspyui.domain.optimizers import OPTIMIZERS
from dspyui.domain.programs import MODULES
from dspyui.i18n import LANGUAGES, Language, Text
from dspyui.settings import DEFAULT_TRACKING_URI, MLFLOW_LOGIN_VARIABLES, Settings

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES: Mapping[Language, str] = {"en_US": "", "zh_CN": "_zh"}


def documents() -> dict[Path, str]:
    """Every generated file and its text."""
    made = {ROOT / ".env.example": env_example()}
    for language in LANGUAGES:
        for name, make in (("spec", spec_document), ("settings", settings_document), ("cli", cli_document)):
            made[ROOT / "docs" / f"{name}{SUFFIXES[language]}.md"] = make(language)
    return made


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"
    yield ""


def spec_document(language: Language) -> str:
    """The spec file: each part, each key with its type, default and meaning."""
    text = Text(language)
    schema = CompileSpec.model_json_schema()
    example = (ROOT / "examples" / "product_extraction.yaml").read_text(encoding="utf-8")
    lines = [
        f"# {text('docs.spec.title')}",
        "",
        text("docs.spec.intro"),
        "",
        "```yaml",
        example.rstrip(),
        "```",
        "",
    ]
    for name, part in _parts(schema):
        lines += [f"## {name}", "", text(f"spec.{name}.about"), ""]
        lines += _table(_head(text), _keys(text, name, part))
    lines += [f"## {text('docs.spec.modules')}", ""]
    for kind, info in MODULES.items():
        lines += _described(text, f"module.{kind}", kind, info.parameters)
    lines += [f"## {text('docs.spec.optimizers')}", ""]
    for kind, info in OPTIMIZERS.items():
        lines += _described(text, f"optimizer.{kind}", kind, info.parameters)
    lines += [f"## {text('docs.spec.metrics')}", ""]
    for kind, info in METRICS.items():
        lines += _parameters(text, f"metric.{kind}", kind, info.parameters)
    return "\n".join(lines).rstrip() + "\n"


def _head(text: Text) -> tuple[str, ...]:
    return tuple(text(f"docs.column.{name}") for name in ("key", "type", "default", "meaning"))


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The schema's objects, each after the one that first names it."""
    waiting, seen = [("CompileSpec", schema)], {"CompileSpec"}
    while waiting:
        name, part = waiting.pop(0)
        yield name, part
        found = [ref for prop in part["properties"].values() for ref in _references(prop)]
        fresh = [ref for ref in dict.fromkeys(found) if ref not in seen]
        seen |= set(fresh)
        waiting[:0] = [(ref, schema["$defs"][ref]) for ref in fresh]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"].rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _keys(text: Text, owner: str, part: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    required = part.get("required", ())
    for key, prop in part["properties"].items():
        default = text("docs.required") if key in required else _default(text, prop)
        yield f"`{key}`", _type(text, prop), default, text(f"spec.{owner}.{key}")


def _default(text: Text, prop: Mapping[str, Any]) -> str:
    value = prop.get("default")
    if value is None:
        return "—"
    if isinstance(value, dict) and value:
        return text("docs.its_defaults")
    return f"`{_literal(value)}`" if value != "" else text("docs.empty")


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _type(text: Text, prop: Mapping[str, Any]) -> str:
    if "$ref" in prop:
        name = prop["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in prop:
        return _type(text, next(option for option in prop["anyOf"] if option.get("type") != "null"))
    if "const" in prop:
        return f"`{prop['const']}`"
    if "enum" in prop:
        return ", ".join(f"`{value}`" for value in prop["enum"])
    if prop["type"] == "array":
        return text("docs.list_of", item=_type(text, prop["items"]))
    return text(f"docs.type.{prop['type']}") + _bounds(prop)


def _bounds(prop: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥ ", "exclusiveMinimum": "> ", "maximum": "≤ ", "exclusiveMaximum": "< "}
    found = [f"{sign}{_literal(prop[key])}" for key, sign in signs.items() if key in prop]
    return f" ({', '.join(found)})" if found else ""


def _described(text: Text, owner: str, kind: str, parameters: tuple[ParameterInfo, ...]) -> Iterator[str]:
    """The parameters, under the sentence on when to use it."""
    head, blank, *rest = _parameters(text, owner, kind, parameters)
    yield from (head, blank, text(f"{owner}.help"), "", *rest)


def _parameters(text: Text, owner: str, kind: str, parameters: tuple[ParameterInfo, ...]) -> Iterator[str]:
    yield f"### `{kind}`"
    yield ""
    if not parameters:
        yield text("docs.no_parameters")
        yield ""
        return
    rows = ((f"`{info.name}`", _parameter_type(info), _parameter_default(info), text(f"{owner}.param.{info.name}.help"))
            for info in parameters)  # fmt: skip
    yield from _table(_head(text), rows)


def _parameter_type(info: ParameterInfo) -> str:
    if info.choices:
        return ", ".join(f"`{choice}`" for choice in info.choices)
    bounds = {"minimum": info.minimum, "maximum": info.maximum}
    return info.type + _bounds({key: value for key, value in bounds.items() if value is not None})


def _parameter_default(info: ParameterInfo) -> str:
    return "—" if info.default in {None, ""} else f"`{_literal(info.default)}`"


def settings_document(language: Language) -> str:
    """A table of every setting."""
    text = Text(language)
    lines = [f"# {text('docs.settings.title')}", "", text("docs.settings.intro"), ""]
    head = tuple(text(f"docs.column.{name}") for name in ("variable", "default", "meaning"))
    rows = ((f"`{name}`", f"`{shown}`" if (shown := _shown(field)) else "—", text(f"setting.{name}"))
            for name, field in _settings())  # fmt: skip
    lines += _table(head, rows)
    lines += [text("docs.settings.mlflow"), ""]
    logins = ((f"`{name}`", text(f"setting_mlflow.{name}")) for name in MLFLOW_LOGIN_VARIABLES)
    lines += _table((head[0], head[2]), logins)
    lines += [text("docs.settings.keys"), "", text("docs.settings.index")]
    return "\n".join(lines) + "\n"


def _settings() -> Iterator[tuple[str, FieldInfo]]:
    return ((field.alias, field) for field in Settings.model_fields.values() if field.alias)


def _shown(field: FieldInfo) -> str:
    if field.alias == "MLFLOW_TRACKING_URI":
        return DEFAULT_TRACKING_URI
    return "" if field.default is None else _literal(field.default)


def env_example() -> str:
    """Every setting with its default, commented out: a plain copy changes nothing."""
    lines = [Text(language)("docs.settings.env") for language in LANGUAGES]
    for name, field in _settings():
        lines += [""] + [Text(language)(f"setting.{name}") for language in LANGUAGES]
        lines.append(f"{name}={_shown(field)}")
    lines += [""] + [Text(language)("docs.settings.env_mlflow") for language in LANGUAGES]
    for name in MLFLOW_LOGIN_VARIABLES:
        lines += [Text(language)(f"setting_mlflow.{name}") for language in LANGUAGES]
        lines.append(f"{name}=")
    lines += [""] + [Text(language)("docs.settings.env_keys") for language in LANGUAGES]
    lines += ["OPENAI_API_KEY=", "DSPYUI_LM_API_KEY="]
    return "".join(f"# {line}\n" if line else "\n" for line in lines)


def cli_document(language: Language) -> str:
    """The help of every command."""
    text = Text(language)
    lines = [f"# {text('docs.cli.title')}", "", text("docs.cli.intro"), ""]
    for words, command in _commands(("dspyui",), build(language)):
        lines += [f"## {' '.join(words)}", "", "```", _help(words, command), "```", ""]
    lines += [f"## {text('docs.cli.codes')}", "", text("docs.cli.codes_text")]
    return "\n".join(lines) + "\n"


def _commands(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands((*words, name), child)


def _help(words: tuple[str, ...], command: Any) -> str:
    return command.get_help(command.context_class(command, info_name=" ".join(words))).rstrip()


def main() -> None:
    """Write all of them."""
    for path, content in documents().items():
        path.write_text(content, encoding="utf-8")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    # The help is laid out for the terminal's width; the documents have one of their own.
    os.environ["COLUMNS"] = "100"
    sys.exit(main())
