"""Published data sets that are not demo assets: from the user's folder, or from the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from h2tune.errors import H2TuneError

FOLDER_VARIABLE = "H2TUNE_DATA"


def data_folder() -> Path | None:
    """Return `$H2TUNE_DATA`, the folder with published files; None means the Hub."""
    own = os.environ.get(FOLDER_VARIABLE)
    return Path(own).expanduser() if own else None


def first_file(folder: Path, patterns: Iterable[str]) -> Path:
    """Return the first file in `folder` that matches one of the patterns, in their order.

    Raises:
        H2TuneError: There is none; names all patterns.
    """
    wanted = list(patterns)
    for pattern in wanted:
        if matches := sorted(path for path in folder.glob(pattern) if path.is_file()):
            return matches[0]
    raise H2TuneError(
        f"contains none of {', '.join(wanted)}",
        where=str(folder),
        remedy=f"Add one of them, or unset {FOLDER_VARIABLE} to load it from the Hugging Face Hub",
    )


def hub_rows(
    dataset: str, *, split: str, files: str, config: str | None = None
) -> Iterable[Mapping[str, Any]]:
    """Load a split of a data set from the Hugging Face Hub.

    Args:
        dataset: Its id.
        split: Name of the split.
        files: The files that a folder of the user's would have, for the message.
        config: Name of the configuration.

    Raises:
        H2TuneError: The package datasets is missing, or the Hub cannot be reached.
    """
    local = f"set {FOLDER_VARIABLE} to a folder with {files}"
    try:
        import datasets
    except ImportError:
        raise H2TuneError(
            "the package datasets is not installed",
            where=dataset,
            remedy=f"Run pip install 'h2tune[hub]', or {local}",
        ) from None
    try:
        rows: Iterable[Mapping[str, Any]] = datasets.load_dataset(dataset, config, split=split)
    except Exception as error:  # its layers raise many types, from requests to the file system
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise H2TuneError(
            f"cannot be loaded from the Hugging Face Hub ({reason})",
            where=dataset,
            remedy=f"Check the connection, or {local}",
        ) from error
    return rows
