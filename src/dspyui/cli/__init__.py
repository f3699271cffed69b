"""The command line: one file a command. Only `main` is meant for others."""

from dspyui.cli.main import main

__all__ = ["main"]
