"""The traces of a Run and of a model version, from MLflow, a page at a time."""

from dspyui.domain.trace_list import TraceLibrary, TracePage, TraceQuery


class TraceService:
    """Checks what is asked for, so that no question finds nothing without saying why."""

    def __init__(self, library: TraceLibrary) -> None:
        self._library = library

    def of_run(self, run_id: str, query: TraceQuery, token: str | None = None) -> TracePage:
        """Raises NotFoundError, BadRequestError, UnavailableError."""
        query.check()
        return self._library.of_run(run_id, query, token)

    def of_version(self, name: str, version: int, query: TraceQuery, token: str | None = None) -> TracePage:
        """Raises BadRequestError, UnavailableError."""
        query.check()
        return self._library.of_version(name, version, query, token)
