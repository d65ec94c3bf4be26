"""What the report shows of a run, sorted by client and round: plain data.

All numbers are finite or None, all text is printable; what is missing in the events is None or empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Score:
    """An evaluation: accuracy (0–1) on a number of examples (None if it is not known)."""

    accuracy: float
    examples: int | None


@dataclass(frozen=True)
class WireTensor:
    """A tensor in a message: name, shape, type, bytes, SHA-256."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Trained:
    """A client's training in one round. `losses` are (phase, loss) by step; a loss that is not finite is None."""

    losses: tuple[tuple[str, float | None], ...]
    seconds: dict[str, float]
    bytes_up: int
    bytes_down: int
    sent: tuple[WireTensor, ...]
    received: tuple[WireTensor, ...]
    received_matches: bool | None
    moved: dict[str, float]
    without_gradient: tuple[str, ...]
    relation: list[list[float]] | None
    coverage: list[list[float]] | None


@dataclass
class Client:
    """A client: its facts, and by round its scores and its training. Rounds count from 0."""

    name: str
    model: str = ""
    family: str = ""
    task: str = ""
    rank: int | None = None
    depth: int | None = None
    width: int | None = None
    labels: tuple[str, ...] = ()
    examples: dict[str, float] = field(default_factory=dict)
    trainable_parameters: int | None = None
    majority: float | None = None
    before: Score | None = None
    federated: dict[int, Score] = field(default_factory=dict)
    alone: dict[int, Score] = field(default_factory=dict)
    trained: dict[int, Trained] = field(default_factory=dict)
    trained_alone: dict[int, Trained] = field(default_factory=dict)

    def last(self, stage: str) -> Score | None:
        """Return the score of the last round of `"federated"` or `"alone"`."""
        scores = self.federated if stage == "federated" else self.alone
        return scores[max(scores)] if scores else None


@dataclass(frozen=True)
class Notice:
    """A warning or (code "failed") a failure; `alone` if it is of the training without federation."""

    client: str
    round: int | None
    code: str
    message: str
    alone: bool


@dataclass(frozen=True)
class Privacy:
    """Differential privacy after a round: who adds noise, the numbers of the mechanism, ε until then."""

    noise: str
    clip: float | None
    multiplier: float | None
    delta: float | None
    epsilon: float | None
    shares: int | None
    epsilon_to_server: float | None
    held_back: tuple[str, ...]


@dataclass(frozen=True)
class Robust:
    """What a robust rule did in a round: how much of what clients covered it left as it was, whom it kept or clipped.

    `norms` are of the clients' increments before clipping to `clip_norm`; `kept` are those that multi-Krum kept.
    """

    rule: str
    hostile: int | None
    left: float | None
    left_by_role: dict[str, float]
    kept: tuple[str, ...]
    clip_norm: float | None
    norms: dict[str, float]


@dataclass(frozen=True)
class Secure:
    """Secure aggregation in a round: whose values are in the sum, who dropped out, who revealed no shares."""

    threshold: int | None
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    silent: tuple[str, ...]


@dataclass(frozen=True)
class Relevance:
    """How relevant what each client learned (column) was to each (row)."""

    clients: tuple[str, ...]
    weights: Sequence[Sequence[float]]


@dataclass(frozen=True)
class Aggregate:
    """One step of the server."""

    clients: tuple[str, ...]
    change: float | None
    change_by_role: dict[str, float]
    norm: float | None
    seconds: float | None
    sha256: str
    privacy: Privacy | None = None
    robust: Robust | None = None
    secure: Secure | None = None
    relevance: Relevance | None = None


@dataclass(frozen=True)
class Compared:
    """A row of `compare`: a method over seeds on a client ("": the mean over clients); accuracies are fractions."""

    method: str
    client: str
    mean: float | None
    low: float | None
    high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    bootstrap_low: float | None
    bootstrap_high: float | None
    p: float | None
    p_holm: float | None
    bytes_up: float | None
    bytes_down: float | None
    seconds: float | None
    seeds: int | None


@dataclass
class View:
    """All that the report shows of a run."""

    name: str = ""
    version: str = ""
    seed: int | None = None
    strategy: str = ""
    planned: int | None = None
    shared_rank: int | None = None
    slots: int | None = None
    roles: tuple[str, ...] = ()
    alternation: str = ""
    mask: str = ""
    wire_dtype: str = ""
    split: str = "test"
    started: float | None = None
    ended: float | None = None
    finished: bool = False
    clients: list[Client] = field(default_factory=list)
    warnings: list[Notice] = field(default_factory=list)
    failures: list[Notice] = field(default_factory=list)
    aggregates: dict[int, Aggregate] = field(default_factory=dict)
    compared: list[Compared] = field(default_factory=list)
    reference: str = ""
    compared_seeds: int | None = None
    remarks: tuple[str, ...] = ()
    """Lines below a comparison: settings of methods, what failed."""
    _by_name: dict[str, Client] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shares_middles(self) -> bool:
        """Whether what the server holds are the middle matrices G, by role; other strategies hold other tensors."""
        return self.strategy in ("", "h2tune")

    @property
    def held(self) -> str:
        """What the server holds, in a word."""
        return "G" if self.shares_middles else "what is shared"

    @property
    def comparison(self) -> bool:
        """Whether this is a comparison of runs, and no run itself."""
        return bool(self.compared) and not self.clients

    def client(self, name: str) -> Client:
        """Return the client of that name; a new one if it was not announced."""
        if len(self._by_name) != len(self.clients):
            self._by_name = {client.name: client for client in reversed(self.clients)}
        if name not in self._by_name:
            self.clients.append(Client(name))
            self._by_name[name] = self.clients[-1]
        return self._by_name[name]

    @property
    def rounds(self) -> int:
        """Number of rounds of which something is known."""
        trained = [r for c in self.clients for r in (*c.trained, *c.federated)]
        return max((r + 1 for r in (*trained, *self.aggregates)), default=0)
