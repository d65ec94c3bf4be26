"""From what a file states to what a run uses: what one choice implies is filled in, and contradictions are refused."""

from __future__ import annotations

from typing import Any, TypeVar

from h2tune.config.checks import check, least_clients
from h2tune.config.sections import SharedConfig

Shared = TypeVar("Shared", bound=SharedConfig)


def resolve(stated: Shared) -> Shared:
    """Return a file with what its choices imply filled in; what it states itself is left as it is.

    * `privacy.noise` fixes masks and relations, unless `experimental.privacy_structure = "public"`: the mask is
      "leading" and the alignment "depth".
    * `privacy.noise` and `server.secure_aggregation` weight all clients the same.
    * With a consensus a batch holds public texts too, and all parameters train in one pass: alternation "joint".
    * A robust rule and secure aggregation raise `server.min_clients` to the least number they need.

    A resolved file resolves to itself.

    Raises:
        H2TuneError: Two settings contradict each other; names them and says what to do.
    """
    server: dict[str, Any] = {"min_clients": least_clients(stated.server, len(stated.names))}
    experimental: dict[str, Any] = {}
    noisy = stated.privacy.noise != "none"
    if noisy or stated.server.secure_aggregation:
        server["weighting"] = "uniform"
    if noisy and stated.experimental.privacy_structure != "public":
        experimental |= {"mask": "leading", "alignment": "depth"}
    if stated.basis.consensus:
        experimental |= {"alternation": "joint"}
    implied = {"server": server, "experimental": experimental}
    found = stated.model_copy(
        update={name: _filled(stated, name, values) for name, values in implied.items()}
    )
    check(found)
    return found


def _filled(config: SharedConfig, section: str, implied: dict[str, Any]) -> Any:
    """Return a section with implied values for the keys that the file left out."""
    stated = getattr(config, section)
    return stated.model_copy(update={k: v for k, v in implied.items() if k not in stated.model_fields_set})
