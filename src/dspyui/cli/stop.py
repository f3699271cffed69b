"""Ctrl-C and SIGTERM, as one exception."""


class Stopped(BaseException):
    """A person, or the system, told the command to stop. Not an Exception: nothing may swallow it."""
