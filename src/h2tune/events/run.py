"""Events of a run: every key with its type and its unit."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes typing's from Python 3.12 on

Split = Literal["test", "validation"]
Stage = Literal["trained", "alone"]
"""Whether a round belongs to the federation ("trained") or to the baseline of one client by itself ("alone")."""


class LoggedEvent(TypedDict):
    """Keys that `RunStore.record` adds to every event when it writes the event to the log."""

    # the unit of work that the event belongs to, such as `server/0/films`; a unit is logged once
    unit: NotRequired[str]
    time: NotRequired[float]  # when the event was logged, in seconds since the epoch, to the millisecond


class TensorInfo(TypedDict):
    """One tensor of a message."""

    name: str  # its name in the message
    shape: list[int]  # its sizes
    dtype: str  # its type on the wire, such as "float16"
    bytes: int  # its payload in bytes
    sha256: str  # SHA-256 over name, shape, type and values; of the masked values with secure aggregation


class ExampleCounts(TypedDict):
    """Number of examples in each split of a client; `train` is absent with secure aggregation across machines."""

    train: NotRequired[int]
    validation: int
    test: int


class ClientFacts(TypedDict):
    """A client as `run_started` describes it."""

    name: str  # its name in the federation
    model: str  # its base model as the federation file names it; across machines, the model family
    family: str  # model family, such as "llama"
    task: str  # name of its task; empty if the client does not disclose it
    rank: int  # rank of its adapter
    depth: int  # number of transformer blocks
    width: int  # hidden size
    labels: list[str]  # label names; empty for free answers
    examples: ExampleCounts  # number of examples by split
    unused: NotRequired[int]  # examples left to train on that data.train does not ask for
    repeated: NotRequired[int]  # examples left out since their prompt occurs before
    trainable_parameters: int  # number of trained parameters
    # how the strategy treats it, such as why it shares nothing; mostly empty. Absent across machines
    note: NotRequired[str]
    majority_accuracy: float  # accuracy of always answering the most frequent label; 0 for free answers


class RunStarted(LoggedEvent):
    """Logged first in every run, by `runs.plan` or by Flower's coordinator: the settings and the clients."""

    event: Literal["run_started"]
    name: str  # name of the federation
    version: str  # version of h2tune
    seed: int  # seed that all others are derived from
    strategy: str  # name of the method
    rounds: int  # number of rounds planned; a resumed run may have more
    shared_rank: int  # R, the common rank
    slots: int  # D, the number of shared slots
    roles: list[str]  # roles of modules that are shared, such as "attn.q"; empty for baselines
    alternation: str  # how shared and private parameters take turns in training
    mask: str  # how the mask Ω is chosen
    wire_dtype: str  # type of floating-point tensors on the wire
    # versions of Python and libraries, threads, processor and devices of the process that logs; absent before 0.1.0
    environment: NotRequired[dict[str, str]]
    clients: list[ClientFacts]  # the clients, by name


class BasisAgreed(LoggedEvent):
    """Logged once per client before the first round, when an anchored basis is agreed on, by the server."""

    event: Literal["basis_agreed"]
    client: str  # the client, which now has its frames
    sent: list[TensorInfo]  # its view of the public texts; empty if it joined after the basis was agreed on
    received: list[TensorInfo]  # the common coordinates Z
    bytes_up: int  # bytes that it sent
    bytes_down: int  # bytes that it received
    # what its view shares with the coordinates, and with the others' views (the median over them): 0 as by
    # chance, 1 all that is possible. Absent where it sent no view
    agreement: NotRequired[float]
    with_others: NotRequired[float]
    left_out: NotRequired[bool]  # with a robust rule: whether the coordinates were made without its view


class LessonPrepared(LoggedEvent):
    """Logged once per client before the first round, when clients teach each other on the public texts."""

    event: Literal["lesson_prepared"]
    client: str  # the client, which now has its lesson
    teaching: Literal["own", "directions", "predictions", "moments"]  # what the clients exchanged
    sent: list[TensorInfo]  # what it sent, such as its label directions; empty if it takes no part
    received: list[TensorInfo]  # what it received, such as the weighted sum of its peers' directions
    bytes_up: int  # bytes that it sent
    bytes_down: int  # bytes that it received
    weights: dict[str, float]  # weight of each peer with the same labels, with its sign: equation (13)
    cosines: dict[str, float]  # cosine similarity of the label directions to each peer's
    taken: bool  # whether it trains on the lesson
    reason: NotRequired[str]  # why it takes no part
    untrained: NotRequired[bool]  # true where it has neither a teacher nor labels, and is not trained
    own_loss: NotRequired[float]  # cross-validated log-loss of its own linear head, nats per example
    peers_loss: NotRequired[float]  # log-loss of the teacher on the same examples
    own_right: NotRequired[float]  # share of these examples that its own head answers right
    peers_right: NotRequired[float]  # share of these examples that the teacher answers right
    covered: NotRequired[float]  # how much of its own texts the public ones cover: about 1 for the same kind
    own_share: NotRequired[float]  # share of its own head in its teacher, from 0 to 1
    standard_error: NotRequired[float]  # of the difference of these losses


LESSON_NUMBERS = (
    "own_loss",
    "peers_loss",
    "standard_error",
    "own_right",
    "peers_right",
    "own_share",
    "covered",
)
"""Measured numbers of `LessonPrepared`, each absent where it was not measured."""


class StepLoss(TypedDict):
    """The loss of one optimiser step."""

    step: int  # number of the step in its round, from 1
    phase: str  # what the step trained: "joint", "shared" or "specific"
    loss: float  # training loss of the step


class ClientTrained(LoggedEvent):
    """Logged by a client when it has finished the training of a round.

    Across machines with `privacy.metrics = "private"`, the keys that measure the client's data are absent: `losses`,
    `seconds`, `moved`, `without_gradient`, `relation` and `coverage`.
    """

    event: Literal["client_trained"]
    client: str  # the client
    round: int  # the round
    stage: Stage  # whether it trained in the federation or alone
    steps: int  # number of optimiser steps
    losses: NotRequired[list[StepLoss]]  # the loss of every step
    seconds: NotRequired[dict[str, float]]  # seconds by activity: "load", "train", "evaluate" and "save"
    bytes_up: int  # bytes of the tensors that it sent
    bytes_down: int  # bytes of the tensors that it received
    sent: list[TensorInfo]  # the tensors that it sent
    received: list[TensorInfo]  # the tensors that it received
    received_matches: bool  # whether its model held exactly what it received before training began
    # L2 norm of the change in this round, by kind of parameter: "delta", "scores", "relation", "down", "up"
    # or "head"
    moved: NotRequired[dict[str, float]]
    without_gradient: NotRequired[list[str]]  # trained parameters whose gradient stayed zero
    # P, the relation (D slots, blocks of the client); only with h2tune, and not with secure aggregation
    relation: NotRequired[list[list[float]]]
    # fraction of modules whose mask keeps an entry of the R × R grid, averaged over at most 16 × 16 cells; as
    # `relation`
    coverage: NotRequired[list[list[float]]]


class Evaluated(LoggedEvent):
    """Logged by a client when its model has been scored: before training, and after each round that is scored."""

    event: Literal["evaluated"]
    client: str  # the client
    round: int  # the round; −1 before training
    stage: Literal["before", "trained", "alone"]  # "before", or as in `ClientTrained`
    split: Split  # the split that was scored
    accuracy: float  # fraction of correct answers; where `measure` is there, the mean of that
    measure: NotRequired[str]  # what is measured instead, such as "ROUGE-L"
    loss: float  # mean loss in nats per example
    examples: int  # number of examples scored
    seconds: float  # duration of scoring


class ClientFailed(LoggedEvent):
    """Logged by the server when a client's round ended without an update that could be used; the round may go on.

    A client on its own machine also logs it in its own log. Training alone is recognised by the unit
    (`clients/NAME/alone/…`).
    """

    event: Literal["client_failed"]
    client: str  # the client
    round: int  # the round
    reason: str  # why, in one line


class RoundWarning(LoggedEvent):
    """Logged when a round shows a problem that does not end it, by the client or the server that saw it."""

    event: Literal["warning"]
    client: str  # the client; empty if the warning concerns the server's state
    round: int  # the round
    code: str  # what kind of problem, one of `WARNINGS`; a client on another machine may send another text
    message: str  # the problem, in one line


class PrivacySpent(TypedDict):
    """Differential privacy after a round."""

    noise: Literal["server", "member"]  # who adds the noise: "server", or "member" for a share by each client
    clip: float  # clipping norm of one client's contribution
    multiplier: float  # standard deviation of the noise on the sum, divided by the clipping norm
    delta: float  # δ
    epsilon: float  # ε of all rounds until this one
    shares: NotRequired[int]  # with noise from the members, the number of shares that add up to the noise
    # with noise from the members, ε against the coordinator, which sees each message alone
    epsilon_to_server: NotRequired[float]
    held_back: list[str]  # roles that were not changed in this round because too few clients contributed


class RelevanceFacts(TypedDict):
    """How similar the clients' increments are."""

    clients: list[str]  # names of rows and columns
    # weight of each client's step (column) for each client's own G (row); 1 on the diagonal
    weights: list[list[float]]


class LateUpdate(TypedDict):
    """An update of an earlier round that was used."""

    client: str  # its client
    round: int  # the round that it was trained in


class SecureAggregationFacts(TypedDict):
    """How secure aggregation went in a round."""

    threshold: int  # number of clients that must reveal their shares
    survivors: list[str]  # clients whose values are in the sum
    dropped: list[str]  # clients that were asked and are not in the sum
    silent: list[str]  # clients in the sum that did not reveal their shares
    bytes_up_of_keys_and_shares: int  # most bytes of keys and shares that a client sent


class Aggregated(LoggedEvent):
    """Logged by the server at the end of a round, when it has combined the updates."""

    event: Literal["aggregated"]
    round: int  # the round
    stage: Stage  # as in `ClientTrained`
    clients: list[str]  # clients whose updates of this round were used
    change: float  # L2 norm of the change of the server's state
    change_by_role: dict[str, float]  # the same by role, or by kind of tensor for baselines
    norm: float  # L2 norm of the server's state after the round
    seconds: float  # duration of the aggregation
    sha256: str  # SHA-256 of the server's state after the round
    late: NotRequired[list[LateUpdate]]  # updates of earlier rounds that were used; absent if there were none
    groups: NotRequired[list[list[str]]]  # baselines only: the clients that share one model, group by group
    privacy: NotRequired[PrivacySpent]  # with differential privacy: what was spent
    aggregation: NotRequired[str]  # with a robust rule: its name. The keys below up to `norms` belong to it
    hostile: NotRequired[int]  # number of hostile clients that the rule must tolerate
    # fraction of the covered entries that too few clients covered, and that therefore did not change
    left: NotRequired[float]
    left_by_role: NotRequired[dict[str, float]]  # the same by role
    kept: NotRequired[list[str]]  # with `krum`: the clients whose updates were kept
    clip_norm: NotRequired[float]  # with `clip`: the norm that increments were clipped to
    norms: NotRequired[dict[str, float]]  # with `clip`: the norm of each client's increment before clipping
    relevance: NotRequired[RelevanceFacts]  # with one G for each client: how similar the increments are
    secure_aggregation: NotRequired[SecureAggregationFacts]  # with secure aggregation: who is in the sum


class RoundsTakenBack(LoggedEvent):
    """Logged when rounds are taken back; `read_events` leaves out what they had logged before."""

    event: Literal["rounds_taken_back"]
    round: int  # the first round that was taken back; the run goes on with it
    rounds: int  # number of rounds that were begun until then
    folder: str  # where what came of them was moved to, in the run folder


class FinalScores(TypedDict):
    """A client's accuracies at the end of a run; null where it was not scored."""

    client: str  # the client
    before: float | None  # before training
    alone: float | None  # after training alone
    federated: float | None  # after training in the federation
    majority: float  # accuracy of always answering the most frequent label; 0 for free answers
    measure: NotRequired[str]  # as in `Evaluated`


class RunFinished(LoggedEvent):
    """Logged last, when a run is complete, by `runs.run` or by Flower's coordinator."""

    event: Literal["run_finished"]
    rounds: int  # number of rounds
    table: list[FinalScores]  # accuracies of every client
    seconds: float  # duration since the run was started or last resumed
