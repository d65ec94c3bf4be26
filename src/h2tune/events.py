"""Events: what a run records in `events.jsonl`, one JSON object per line; the report reads nothing else.

`EVENTS` maps each event's name to its type. Rounds count from 0. Sizes are in bytes, durations in seconds, accuracies
are fractions from 0 to 1. Keys marked `NotRequired` are absent where they do not apply; the docstring says when.

Types describe what h2tune writes. What is read back may be older, cut off, or (with Flower) sent by another party, so
`read_events` returns plain mappings and readers must expect missing keys and values of other types.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict, is_typeddict  # pydantic takes typing's from Python 3.12 on

from h2tune.errors import H2TuneError

Event = dict[str, Any]
"""An event as it is read back, whose content is not certain; `AnyEvent` is an event as it is written."""
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


class MethodNote(TypedDict):
    """How a method treats a client, such as why the client shares nothing."""

    method: str
    client: str
    note: str


class MethodProblem(TypedDict):
    """Why a seed of a method has no result, or not one of every client."""

    method: str
    seed: int
    reason: str


class ComparedRow(TypedDict):
    """A method on a client, or on the mean over clients, over seeds; null where a value cannot be computed."""

    method: str  # label of the method
    client: str  # the client; empty for the mean over clients
    mean: float  # mean accuracy over seeds
    low: float | None  # lower end of its 95 % Student t interval
    high: float | None  # upper end
    difference: float | None  # mean difference of accuracy to the reference, paired by seed
    difference_low: float | None  # lower end of its 95 % Student t interval
    difference_high: float | None  # upper end
    bootstrap_low: float | None  # lower end of its 95 % percentile bootstrap interval
    bootstrap_high: float | None  # upper end
    p: float | None  # two-sided p-value of the paired t test
    p_holm: float | None  # the same with Holm's correction
    bytes_up: float  # bytes that one client sends in a run, mean over seeds
    bytes_down: float  # bytes that it receives
    seconds: float  # seconds that it trains in a run
    seeds: int  # number of seeds with a result
    note: str  # how the method treats the client; mostly empty


class ComparedMember(TypedDict):
    """A client of a comparison."""

    name: str
    model: str  # as the federation file names it
    task: str  # name of its task
    rank: str  # rank of its adapter, or "auto"


class RecoveredHeadroom(TypedDict):
    """The share of the headroom, `pooled` − `local`, that one method recovers; accuracies are fractions."""

    method: str  # label of the method
    headroom: float  # mean of pooled − local over seeds and clients
    headroom_low: float | None  # lower end of its 95 % t interval; null with one seed
    headroom_high: float | None  # upper end
    share: float | None  # the method's mean gain over local as a share of the headroom; null without headroom
    share_low: float | None  # lower end of its 95 % interval (Fieller); null where it is not bounded
    share_high: float | None  # upper end
    harmed: int  # clients whose mean over seeds is more than a point below local
    clients: int  # number of clients


class Compared(TypedDict):
    """The only event of a comparison, written by `compare` and replaced after every seed."""

    event: Literal["compared"]
    name: str  # name of the federation
    split: Split  # the split that was scored
    measure: NotRequired[str]  # what clients are scored by, or "score" where they differ; absent before 0.1.0
    reference: str  # label of the method that differences are taken to
    seeds: list[int]  # the seeds that every method runs with
    federation: NotRequired[dict[str, str]]  # settings of the file by dotted key; absent before 0.1.0
    members: NotRequired[list[ComparedMember]]  # the clients; absent before 0.1.0
    environment: NotRequired[dict[str, str]]  # as in `RunStarted`
    settings: dict[str, list[str]]  # by method, the settings in which it differs from the file
    notes: list[MethodNote]  # how methods treat clients
    problems: list[MethodProblem]  # runs and clients that failed
    # the share of the headroom that each method recovers; empty without the methods `local` and `pooled`
    recovered: list[RecoveredHeadroom]
    version: str  # version of h2tune
    remarks: list[str]  # settings, notes and problems as lines of text
    rows: list[ComparedRow]  # the table: the mean over clients first, then each client
    seconds: float  # duration until now
    time: float  # when the event was written, in seconds since the epoch


AnyEvent = (
    RunStarted
    | BasisAgreed
    | LessonPrepared
    | ClientTrained
    | Evaluated
    | ClientFailed
    | RoundWarning
    | Aggregated
    | RoundsTakenBack
    | RunFinished
    | Compared
)

EVENTS: dict[str, type] = {
    "run_started": RunStarted,
    "basis_agreed": BasisAgreed,
    "lesson_prepared": LessonPrepared,
    "client_trained": ClientTrained,
    "evaluated": Evaluated,
    "client_failed": ClientFailed,
    "warning": RoundWarning,
    "aggregated": Aggregated,
    "rounds_taken_back": RoundsTakenBack,
    "run_finished": RunFinished,
    "compared": Compared,
}
"""Every event by its name, in the order of a run."""

WARNINGS = {
    "download_not_loaded": "the client's model does not hold what the server sent",
    "did_not_move": "a kind of parameter did not change in the round",
    "no_gradient": "trained parameters got no gradient",
    "upload_differs": "a tensor was not sent as the model learned it",
    "nothing_learned": "the shared part did not change in training",
    "aggregate_unchanged": "the server's state did not change in the round",
    "directions_copied": "a client's label directions are the same as another's",
    "view_at_chance": "a client's view of the public texts agrees with the others' no more than a random one",
    "one_label": "all examples that a client trains on have the same label",
    "texts_cut": "more than a tenth of a client's texts lose more than half of their length",
    "update_far": "the norm of an update is far above the median of the others",
    "update_refused": "the update is not what this client may send",
    "sent_again": "a message to the client got no answer and was sent again",
    "late_update": "an update arrived after its round was over",
}
"""What each code of a warning means."""


_OF_ROUND = re.compile(r"(?:server|round|failed)/([0-9]{1,9})(?:/|$)")
"""Units of a round: the server's with its clients, and in a member's own log its rounds and failures."""


def read_events(path: Path) -> list[Event]:
    """Return the events of a run, in order, without those of rounds that were taken back.

    An incomplete last line is left out.

    Raises:
        H2TuneError: The file cannot be read, or a line other than the last is not an event.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise H2TuneError(
            f"cannot be read ({error.strerror})", where=str(path), remedy="Give the folder of a run"
        ) from None
    events: list[Event] = []
    for line_number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            event = json.loads(line.decode())
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                raise ValueError("not an event")
        except (ValueError, RecursionError):
            if line_number == len(lines):
                break
            raise H2TuneError(
                "this line is not an event",
                where=f"{path}, line {line_number}",
                remedy="The file was altered after the run wrote it; restore it, or delete the line",
            ) from None
        events.append(event)
    return standing(events)


def standing(events: Iterable[Event]) -> list[Event]:
    """Return events without those of rounds that a later event takes back."""
    kept: list[Event] = []
    for event in events:
        if event["event"] == "rounds_taken_back" and isinstance(number := event.get("round"), int):
            kept = [e for e in kept if not is_taken_back(str(e.get("unit", "")), number)]
        kept.append(event)
    return kept


def is_taken_back(unit: str, number: int) -> bool:
    """Return whether a unit of the log belongs to round `number` or a later one of the federation, or to its end."""
    of = round_of_unit(unit)
    return unit == "finish" or (of is not None and of >= number)


def round_of_unit(unit: str) -> int | None:
    """Return the round of the federation that a unit of the log belongs to; None if it belongs to none."""
    found = _OF_ROUND.match(unit)
    return int(found[1]) if found else None


def check_event(event: Mapping[str, Any]) -> None:
    """Compare an event with its type in `EVENTS`: every key, every value, and nothing beyond.

    For tests, and for what members send to a coordinator.

    Raises:
        H2TuneError: The event is unknown, or a key is missing, unknown or of another type.
    """
    from pydantic import ValidationError

    name = event.get("event", "")
    if name not in EVENTS:
        raise H2TuneError("this event is not in the schema", where=str(name))
    try:
        _adapter(name).validate_python(event)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise H2TuneError(found, where=name) from None


@cache
def _adapter(name: str) -> Any:
    from pydantic import TypeAdapter

    for kind in globals().values():
        if is_typeddict(kind):
            kind.__pydantic_config__ = {"strict": True, "extra": "forbid"}
    return TypeAdapter(EVENTS[name])
