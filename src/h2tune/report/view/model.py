"""What the report shows of a run, sorted by client and round; plain data.

All numbers are finite or None, all text is printable; what the events lack is None or empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from h2tune.report.view.coerce import matrix
from h2tune.report.view.comparison import ComparedView, RecoveredView
from h2tune.report.view.traffic import Traffic


@dataclass(frozen=True)
class ScoreView:
    """An evaluation: accuracy (0–1) on a number of examples (None if it is not known)."""

    accuracy: float
    examples: int | None


@dataclass(frozen=True)
class TensorView:
    """A tensor in a message: name, shape, type, bytes, SHA-256."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TrainingView:
    """A client's training in one round. `losses` are (phase, loss) by step; a loss that is not finite is None.

    `raw_relation` and `raw_coverage` are as the event has them: most rounds' matrices are never shown.
    """

    losses: tuple[tuple[str, float | None], ...]
    seconds: dict[str, float]
    bytes_up: int
    bytes_down: int
    sent: tuple[TensorView, ...]
    received: tuple[TensorView, ...]
    received_matches: bool | None
    moved: dict[str, float]
    without_gradient: tuple[str, ...]
    raw_relation: Any
    raw_coverage: Any

    @property
    def relation(self) -> list[list[float]] | None:
        """P (slots, blocks), if the event has it."""
        return matrix(self.raw_relation)

    @property
    def coverage(self) -> list[list[float]] | None:
        """Fraction of modules whose mask keeps an entry, over cells of the R × R grid, if the event has it."""
        return matrix(self.raw_coverage)


@dataclass(frozen=True)
class LessonView:
    """A client's lesson: its peers by name, and what it compared on its own labels; unknown numbers are None."""

    teaching: str
    weights: dict[str, float]
    cosines: dict[str, float]
    taken: bool
    untrained: bool
    reason: str
    own_loss: float | None
    peers_loss: float | None
    standard_error: float | None
    own_right: float | None
    peers_right: float | None
    own_share: float | None
    covered: float | None


@dataclass
class ClientView:
    """A client: what it is, and its scores and training by round. Rounds count from 0."""

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
    measure: str = ""
    """What it is scored by, where that is not accuracy."""
    before: ScoreView | None = None
    federated: dict[int, ScoreView] = field(default_factory=dict)
    alone: dict[int, ScoreView] = field(default_factory=dict)
    trained: dict[int, TrainingView] = field(default_factory=dict)
    trained_alone: dict[int, TrainingView] = field(default_factory=dict)
    once: dict[str, tuple[tuple[TensorView, ...], tuple[TensorView, ...]]] = field(default_factory=dict)
    """What it sent and received before the first round, by kind of message."""
    traffic: Traffic = field(default_factory=Traffic)
    lesson: LessonView | None = None

    @property
    def sent_once(self) -> tuple[TensorView, ...]:
        """What it sent before the first round."""
        return tuple(tensor for sent, _ in self.once.values() for tensor in sent)

    @property
    def received_once(self) -> tuple[TensorView, ...]:
        """What it received before the first round."""
        return tuple(tensor for _, received in self.once.values() for tensor in received)

    def last(self, stage: str) -> ScoreView | None:
        """Return the score of the last round of `"federated"` or `"alone"`."""
        scores = self.federated if stage == "federated" else self.alone
        return scores[max(scores)] if scores else None


@dataclass(frozen=True)
class NoticeView:
    """A warning, or a failure (code "failed"); `alone` if it belongs to the training without federation."""

    client: str
    round: int | None
    code: str
    message: str
    alone: bool


@dataclass(frozen=True)
class PrivacyView:
    """Differential privacy after a round: who adds noise, the settings of the mechanism, ε of all rounds so far."""

    noise: str
    clip: float | None
    multiplier: float | None
    delta: float | None
    epsilon: float | None
    shares: int | None
    epsilon_to_server: float | None
    held_back: tuple[str, ...]


@dataclass(frozen=True)
class RobustView:
    """What a robust rule did in a round: the fraction that it left unchanged, and whom it kept or clipped.

    `norms` are those of the clients' increments before clipping to `clip_norm`; `kept` are the clients that multi-Krum
    kept.
    """

    rule: str
    hostile: int | None
    left: float | None
    left_by_role: dict[str, float]
    kept: tuple[str, ...]
    clip_norm: float | None
    norms: dict[str, float]


@dataclass(frozen=True)
class SecureView:
    """Secure aggregation in a round: clients in the sum, clients that dropped out, clients that revealed no shares."""

    threshold: int | None
    survivors: tuple[str, ...]
    dropped: tuple[str, ...]
    silent: tuple[str, ...]


@dataclass(frozen=True)
class RelevanceView:
    """Weight of each client's step (column) for each client (row)."""

    clients: tuple[str, ...]
    weights: Sequence[Sequence[float]]


@dataclass(frozen=True)
class AggregateView:
    """The aggregation of one round."""

    clients: tuple[str, ...]
    change: float | None
    change_by_role: dict[str, float]
    norm: float | None
    seconds: float | None
    sha256: str
    privacy: PrivacyView | None = None
    robust: RobustView | None = None
    secure: SecureView | None = None
    relevance: RelevanceView | None = None


@dataclass
class ReportView:
    """All that the report shows of a run, or of a comparison."""

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
    clients: list[ClientView] = field(default_factory=list)
    warnings: list[NoticeView] = field(default_factory=list)
    failures: list[NoticeView] = field(default_factory=list)
    aggregates: dict[int, AggregateView] = field(default_factory=dict)
    compared: list[ComparedView] = field(default_factory=list)
    reference: str = ""
    compared_seeds: int | None = None
    compared_measure: str = "accuracy"
    """What the clients of a comparison are scored by."""
    recovered: list[RecoveredView] = field(default_factory=list)
    remarks: tuple[str, ...] = ()
    """Lines below a comparison: settings of methods, failures."""
    seeds: tuple[str, ...] = ()
    federation: dict[str, str] = field(default_factory=dict)
    """Settings of the file of a comparison, by dotted key."""
    members: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Name, model, task and rank of the clients of a comparison."""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions, threads, processor and devices."""
    settings: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Method → the settings in which it differs from the federation file."""
    _by_name: dict[str, ClientView] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shares_middles(self) -> bool:
        """Whether the server holds middle matrices G, by role; other strategies hold other tensors."""
        return self.strategy in ("", "h2tune")

    @property
    def held(self) -> str:
        """What the server holds, in a word or two."""
        return "G" if self.shares_middles else "the shared tensors"

    @property
    def has_alone(self) -> bool:
        """Whether any client also trained alone, which is then what federated training is compared with."""
        return any(client.alone for client in self.clients)

    @property
    def comparison(self) -> bool:
        """Whether this is a comparison of runs, not a run itself."""
        return bool(self.compared) and not self.clients

    def client(self, name: str) -> ClientView:
        """Return the client of that name; a new one if no event has described it."""
        if len(self._by_name) != len(self.clients):
            self._by_name = {client.name: client for client in reversed(self.clients)}
        if name not in self._by_name:
            self.clients.append(ClientView(name))
            self._by_name[name] = self.clients[-1]
        return self._by_name[name]

    @property
    def rounds(self) -> int:
        """Number of rounds that any event belongs to."""
        trained = [r for c in self.clients for r in (*c.trained, *c.federated)]
        return max((r + 1 for r in (*trained, *self.aggregates)), default=0)
