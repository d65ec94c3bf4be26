"""A federation as a Python object: from keyword arguments, a dict or a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from h2tune.config import FederationConfig, Stated
from h2tune.own_code import named, reference_of

if TYPE_CHECKING:
    from h2tune.compare.comparison import Comparison
    from h2tune.monitors.monitor import Monitor
    from h2tune.runs.inspect import Forecast
    from h2tune.runs.run import Run


class Federation(Stated):
    """A federation: the keys of a federation file, as keyword arguments, a dict, or the file itself.

    Values are checked as those of a file. Where a file names code of your own by `module:object`, the object itself may
    stand here, if it has a name at the top level of a module or notebook. Relative paths start from the working
    directory, or from the file's folder.

    Args:
        content: A federation file, or its content.
        **keys: Keys of its top level, such as `name`, `server` and `client`; they replace those of `content`.

    Raises:
        H2TuneError: A key or value is not allowed; names the key.

    Example:
        >>> Federation(name="demo", server={"rounds": 2}, client=[{"name": "films", "model": "./m", "task": "tweets"}])
        Federation('demo', clients: films)
    """

    def __init__(self, content: Mapping[str, Any] | str | Path | None = None, /, **keys: Any) -> None:
        if isinstance(content, str | Path):
            file = Stated.read(Path(content))
            content, where, folder = file.raw, file.where, file.folder
        else:
            where, folder = "Federation", Path.cwd()
        super().__init__(named({**(content or {}), **keys}), where, folder)
        self.config  # noqa: B018 - a wrong key is reported here rather than where it is used

    def __repr__(self) -> str:
        return f"Federation({self.config.name!r}, clients: {', '.join(self.config.names)})"

    @cached_property
    def config(self) -> FederationConfig:
        """The federation with every value that its settings imply."""
        return self.resolved()

    def inspect(self) -> Forecast:
        """Return what a run would train and send; errors as in `run`, but no weights are read."""
        from h2tune.runs.inspect import inspect

        return inspect(self.config)

    def run(
        self,
        *,
        out: str | Path | None = None,
        resume: bool = False,
        from_round: int | None = None,
        strict: bool = False,
        monitors: Sequence[Monitor] = (),
        progress: bool = True,
    ) -> Run:
        """Run the federation; see `h2tune.run`.

        Args:
            out: The run folder; `runs/NAME` by default.
            resume: Resume an interrupted run.
            from_round: Resume it from before this round (from 0).
            strict: Raise an error for each warning of a round's checks, and for a client that fails.
            monitors: Watch the run, besides those that the federation names.
            progress: Show a progress bar, and a line for each result.
        """
        from h2tune.monitors.progress import Progress
        from h2tune.runs.run import run

        shown = [Progress()] if progress else []
        watch = [*shown, *monitors]
        return run(self.config, out=out, resume=resume, from_round=from_round, strict=strict, monitors=watch)

    def compare(self, methods: Sequence[Any], **options: Any) -> Comparison:
        """Run methods on the same seeds and compare them; see `h2tune.compare.compare`.

        Args:
            methods: Names of methods, or strategies of your own.
            **options: Options of `h2tune.compare.compare`, such as `seeds`.
        """
        from h2tune.compare import compare

        names = [m if isinstance(m, str) else reference_of(m, "methods") for m in methods]
        return compare(self, names, **options)
