"""Check that a resumed run has the settings that it was started with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from h2tune.errors import H2TuneError


def flat(settings: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """Return settings by dotted key, such as `server.rounds`.

    Args:
        settings: Sections by name, with their values by key; and values at the top level.
        without: Dotted keys to leave out.
    """
    by_key: dict[str, Any] = {}
    for section, content in settings.items():
        if isinstance(content, Mapping):
            by_key |= {f"{section}.{key}": value for key, value in content.items()}
        else:
            by_key[section] = content
    return {key: value for key, value in by_key.items() if key not in without}


def refuse_other_settings(old: Mapping[str, Any], new: Mapping[str, Any], *, where: str, remedy: str) -> None:
    """Refuse to resume a run that was started with other settings.

    Args:
        old: The settings of the run, as `flat` returns them.
        new: The settings to resume it with.
        where: The run's folder or file, for the message.
        remedy: What to do, for the message.

    Raises:
        H2TuneError: Names the keys that differ.
    """
    differing = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if differing:
        raise H2TuneError(
            f"this run was started with another {', '.join(differing)}", where=where, remedy=remedy
        )
