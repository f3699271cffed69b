"""`dspyui lm`: which language models can be called, and whether one answers."""

from typing import Any

import typer
from typer.core import TyperCommand

from dspyui.cli.console import Console
from dspyui.cli.flags import Flags
from dspyui.cli.session import opened_quietly
from dspyui.domain.engine import LMReply
from dspyui.domain.lms import LMSpec
from dspyui.services.documents import part_of
from dspyui.services.lms import ProviderState
from dspyui.settings import Settings


def add(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    """Add the commands."""
    _add_test(app, flags, cls)
    _add_list(app, flags, cls)


def _add_test(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    text = flags.text
    model_argument = typer.Argument(..., metavar="MODEL", help=text("cli.lm.model"))
    base_option = typer.Option(None, "--api-base", metavar="URL", help=text("cli.lm.api_base"))
    key_option = typer.Option(None, "--api-key-env", metavar="NAME", help=text("cli.lm.api_key_env"))
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("test", cls=cls, help=text("cli.lm.test"))
    def test(
        model: str = model_argument,
        api_base: str | None = base_option,
        api_key_env: str | None = key_option,
        as_json: bool = json_flag,
        lang: str | None = lang_flag,
    ) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        lm = part_of(LMSpec, {"model": model, "api_base": api_base, "api_key_env": api_key_env})
        with opened_quietly(Settings.load(language=console.language)) as services:
            reply = services.lms.test(lm)
        console.answer({"model": model, "status": "done", **_document(reply)}, _lines(console, model, reply))
        return 0


def _document(reply: LMReply) -> dict[str, Any]:
    return {
        "reply": reply.text,
        "seconds": round(reply.seconds, 3),
        **reply.usage.model_dump(mode="json", include={"input_tokens", "output_tokens", "cost"}),
    }


def _lines(console: Console, model: str, reply: LMReply) -> tuple[str, ...]:
    return (
        console.text(
            "cli.lm.answered",
            model=model,
            seconds=f"{reply.seconds:.2f}",
            tokens=reply.usage.total_tokens,
        ),
        reply.text,
    )


def _add_list(app: typer.Typer, flags: Flags, cls: type[TyperCommand]) -> None:
    json_flag, lang_flag = flags.json, flags.lang

    @app.command("list", cls=cls, help=flags.text("cli.lm.list"))
    def list_(as_json: bool = json_flag, lang: str | None = lang_flag) -> int:
        console = flags.console(as_json=as_json, lang=lang)
        with opened_quietly(Settings.load(language=console.language)) as services:
            providers, models = services.lms.providers(), services.lms.models()
        document = {
            "models": list(models),
            "providers": [
                {"provider": found.provider.name, "variable": found.variable, "key": found.state}
                for found in providers
            ],
        }
        console.answer(document, (*models, "", *(_provider_line(console, found) for found in providers)))
        return 0


def _provider_line(console: Console, found: ProviderState) -> str:
    state = console.text(f"lm.key.{found.state}")
    return f"{found.provider.label}: {found.variable}: {state}"
