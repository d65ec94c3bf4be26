"""Whether a run that is to go on has the settings it was started with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from h2tune.errors import H2TuneError


def flat(settings: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Return settings by dotted key, such as `server.rounds`.

    Args:
        settings: Sections by name, with their values by key; and values at the top.
        without: Dotted keys that may differ.
    """
    found: dict[str, Any] = {}
    for section, content in settings.items():
        if isinstance(content, Mapping):
            found |= {f"{section}.{key}": value for key, value in content.items()}
        else:
            found[section] = content
    return {key: value for key, value in found.items() if key not in without}


def refuse_other_settings(old: Mapping[str, Any], new: Mapping[str, Any], *, where: str, remedy: str) -> None:
    """Refuse to go on with a run that was started with other settings.

    Args:
        old: The settings of the run, as `flat` returns them.
        new: The settings that are asked for now.
        where: The run's folder or file.
        remedy: What to do.

    Raises:
        H2TuneError: Names the keys that differ.
    """
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
        raise H2TuneError(
            f"this run was started with another {', '.join(differing)}", where=where, remedy=remedy
        )
