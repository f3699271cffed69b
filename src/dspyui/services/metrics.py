"""Metrics as the faces of the program see them: which of people's own there are, and whether they may run."""

from collections.abc import Iterable, Sequence

from dspyui.domain.metrics import MetricFiles, MetricSpec
from dspyui.errors import BadRequestError, NotFoundError
from dspyui.settings import Settings


class MetricService:
    """Lists people's own metrics and lets a job have one."""

    def __init__(self, settings: Settings, files: MetricFiles) -> None:
        self._settings = settings
        self._files = files

    @property
    def allows_code(self) -> bool:
        """Whether people's own metrics may run: who can reach the program could run code of theirs with it."""
        return self._settings.is_loopback or self._settings.allow_code

    def names(self) -> Sequence[str]:
        """The metrics of the data folder; none when they may not run."""
        return self._files.names() if self.allows_code else ()

    def digests(self, metrics: Iterable[MetricSpec]) -> dict[str, str]:
        """The SHA-256 of each of them that is a person's own, by its file's name; one that is not there is left out."""
        found = {
            metric.own_file: self._files.find_digest(str(metric.resolved().get("name"))) for metric in metrics
        }
        return {file: digest for file, digest in found.items() if file is not None and digest is not None}

    def check(self, metrics: Iterable[MetricSpec]) -> None:
        """Raise BadRequestError for the first metric that is a person's own and may not run, or is not there."""
        for metric in metrics:
            if metric.kind == "custom":
                self._check_own(metric)

    def _check_own(self, metric: MetricSpec) -> None:
        name = str(metric.resolved()["name"])
        if not self.allows_code:
            raise BadRequestError("metric.custom_forbidden", name=name)
        known = self._files.names()
        if name not in known:
            raise NotFoundError("metric.custom_missing", name=name, known=", ".join(known) or "—")
