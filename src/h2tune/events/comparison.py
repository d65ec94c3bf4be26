"""The event of a comparison: every key with its type and its unit."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

from h2tune.events.run import Split


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
