"""In which sums a member's values were: a small file in its folder, over all runs.

With the same values in two sums, one with and one without another member, the difference is that member's values. So a
member lets the same values into one sum alone, also where a round or a whole run is repeated.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from pathlib import Path

from h2tune import files
from h2tune.errors import H2TuneError

FILE = "sums.json"


def note(folder: Path, round_number: int, values: str, survivors: Sequence[str]) -> None:
    """Keep that values are in a sum, before this member's part in unmasking it leaves.

    Args:
        folder: The member's folder.
        round_number: Number of the round; values without an increment may be the same in several.
        values: Checksum of the values; nothing is kept where it is empty.
        survivors: Whose values are in the sum, in order.

    Raises:
        H2TuneError: They were in the sum of other members, or the record cannot be read or written.
    """
    if not values:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{FILE}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known, entry = _read(folder / FILE), f"{round_number}/{values}"
            before = known.get(entry)
            if before is None:
                files.write_json(folder / FILE, known | {entry: list(survivors)})
    except OSError as error:
        raise H2TuneError(f"its folder cannot be written ({error.strerror})") from None
    if before is not None and before != list(survivors):
        others = ", ".join(sorted(set(before) ^ set(survivors)))
        raise H2TuneError(
            f"its values of this round were in the sum of {', '.join(before)}, and now it is that of "
            f"{', '.join(survivors)}: the difference would show the values of {others}"
        )


def _read(path: Path) -> dict[str, list[str]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return {str(entry): [str(name) for name in names] for entry, names in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        raise H2TuneError("its record of sums (sums.json) cannot be read") from None
