"""From what a file states to what a run uses: what one choice implies is filled in, and contradictions are refused."""

from __future__ import annotations

from typing import Any, TypeVar

from h2tune.config.checks import check, least_clients
from h2tune.config.sections import ClientConfig, DataConfig, FederationConfig, SharedConfig
from h2tune.errors import H2TuneError
from h2tune.tasks.load import describe_task
from h2tune.tasks.own_task import OwnTask

Shared = TypeVar("Shared", bound=SharedConfig)
TESTED = 0.2
"""Share of a file's rows that a client is tested on."""


def resolve(stated: Shared) -> Shared:
    """Return a file with what its choices imply filled in; what it states itself is left as it is.

    * `privacy.noise` fixes masks and relations, unless `experimental.privacy_structure = "public"`: the mask is
      "leading" and the alignment "depth".
    * `privacy.noise` and `server.secure_aggregation` weight all clients the same.
    * Clients teach each other (`basis.consensus`) where two or more have the same labels, in an anchored basis without
      noise and secure aggregation. A batch then holds as many public texts as examples, and all parameters train in one
      pass: alternation "joint". ΔT, which adds nothing to a teacher, stays private, unless a robust rule is set.
    * A client with a file of its own trains on all rows but a fifth, on which it is tested, where nothing else is said;
      rows of a file for one split alone are all used.
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
    consensus = stated.basis.consensus or (
        "consensus" not in stated.basis.model_fields_set and _teaches(stated)
    )
    if consensus:
        experimental |= {"alternation": "joint"}
        if stated.server.aggregation == "mean" and not noisy and not stated.server.secure_aggregation:
            experimental |= {"increments": "none"}
    if consensus or stated.teaching != "none":
        experimental |= {"public_batch": stated.train.batch_size}
    implied = {"server": server, "basis": {"consensus": consensus}, "experimental": experimental}
    changes = {name: _filled(stated, name, values) for name, values in implied.items()}
    if isinstance(stated, FederationConfig):
        changes["client"] = tuple(_with_splits(client, stated.data) for client in stated.client)
    found = stated.model_copy(update=changes)
    check(found)
    return found


def _teaches(config: SharedConfig) -> bool:
    """Return whether two clients or more have the same labels, and nothing hides or alters what they would send."""
    protected = config.privacy.noise != "none" or config.server.secure_aggregation
    if not isinstance(config, FederationConfig) or not config.anchored or protected:
        return False
    sets = [labels for client in config.client if (labels := _labels(client))]
    return len(set(sets)) < len(sets)


def _labels(client: ClientConfig) -> frozenset[str]:
    """Return the names of a client's labels; none for free answers, and for a task that nobody knows."""
    try:
        return frozenset(describe_task(client.task).labels)
    except H2TuneError:  # said with its reason when the task is loaded
        return frozenset()


def _with_splits(client: ClientConfig, data: DataConfig) -> ClientConfig:
    """Return a client with a file of its own and the size of each split that neither it nor [data] states."""
    if not isinstance(client.task, OwnTask):
        return client
    implied = {
        "train": "all",
        "validation": "all" if "validation" in client.task.sources else 0,
        "test": "all" if "test" in client.task.sources else TESTED,
    }
    stated = client.model_fields_set | data.model_fields_set
    return client.model_copy(update={split: size for split, size in implied.items() if split not in stated})


def _filled(config: SharedConfig, section: str, implied: dict[str, Any]) -> Any:
    """Return a section with implied values for the keys that the file left out."""
    stated = getattr(config, section)
    return stated.model_copy(update={k: v for k, v in implied.items() if k not in stated.model_fields_set})
