"""Events → `ReportView`. Pure.

A log may belong to a run that is in progress, was killed or was resumed; it may come from an older version, and parts
of it from other parties. What is missing or of another type is None or empty here, never an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from h2tune.events import LESSON_NUMBERS, Event
from h2tune.report.view.coerce import flag, integer, items, matrix, number, numbers, record, text, texts
from h2tune.report.view.comparison import compared, recovered
from h2tune.report.view.model import (
    AggregateView,
    LessonView,
    NoticeView,
    PrivacyView,
    RelevanceView,
    ReportView,
    RobustView,
    ScoreView,
    SecureView,
    TensorView,
    TrainingView,
)
from h2tune.report.view.traffic import traffic_by_client

MOST_ROUNDS = 100_000


def build_view(events: Iterable[Event]) -> ReportView:
    """Sort events by client and round; of two events about the same thing (a resumed run) the later one counts."""
    shown = ReportView()
    events = list(events)
    if not any(e["event"] == "evaluated" and e.get("split", "test") == "test" for e in events):
        shown.split = next((text(e.get("split")) for e in events if e["event"] == "evaluated"), "test")
    for event in events:
        if (time := number(event.get("time"))) is not None:
            shown.started = time if shown.started is None else shown.started
            shown.ended = time
        reader = _READERS.get(event["event"])
        if reader is not None:
            reader(shown, event)
    traffic = traffic_by_client(events)
    for client in shown.clients:
        client.traffic = traffic.get(client.name, client.traffic)
    return shown


def _run_started(shown: ReportView, event: Event) -> None:
    shown.name, shown.version = text(event.get("name")), text(event.get("version"))
    shown.strategy, shown.alternation = text(event.get("strategy")), text(event.get("alternation"))
    shown.mask, shown.wire_dtype = text(event.get("mask")), text(event.get("wire_dtype"))
    shown.seed, shown.planned = integer(event.get("seed")), integer(event.get("rounds"))
    shown.shared_rank, shown.slots = integer(event.get("shared_rank")), integer(event.get("slots"))
    shown.roles = texts(event.get("roles"))
    shown.environment = _named(event.get("environment"))
    shown.finished = False
    for facts in map(record, items(event.get("clients"))):
        client = shown.client(text(facts.get("name")))
        client.model, client.family = text(facts.get("model")), text(facts.get("family"))
        client.task, client.labels = text(facts.get("task")), texts(facts.get("labels"))
        client.rank, client.depth = integer(facts.get("rank")), integer(facts.get("depth"))
        client.width = integer(facts.get("width"))
        client.examples = numbers(facts.get("examples"))
        client.trainable_parameters = integer(facts.get("trainable_parameters"))
        client.majority = number(facts.get("majority_accuracy"))


def _evaluated(shown: ReportView, event: Event) -> None:
    accuracy, where = number(event.get("accuracy")), _round(event)
    stage = text(event.get("stage"))
    if accuracy is None or text(event.get("split", "test")) != shown.split:
        return
    examples = integer(event.get("examples"))
    score = ScoreView(accuracy, examples if examples and examples > 0 else None)
    client = shown.client(text(event.get("client")))
    client.measure = text(event.get("measure"))
    if stage == "before":
        client.before = score
    elif where is not None:
        (client.alone if stage == "alone" else client.federated)[where] = score


def _client_trained(shown: ReportView, event: Event) -> None:
    where = _round(event)
    if where is None:
        return
    losses = [record(item) for item in items(event.get("losses"))]
    matches = event.get("received_matches")
    trained = TrainingView(
        losses=tuple((text(item.get("phase", "joint")), number(item.get("loss"))) for item in losses),
        seconds=numbers(event.get("seconds")),
        bytes_up=integer(event.get("bytes_up")) or 0,
        bytes_down=integer(event.get("bytes_down")) or 0,
        sent=_tensors(event.get("sent")),
        received=_tensors(event.get("received")),
        received_matches=flag(matches),
        moved=numbers(event.get("moved")),
        without_gradient=texts(event.get("without_gradient")),
        raw_relation=event.get("relation"),
        raw_coverage=event.get("coverage"),
    )
    client = shown.client(text(event.get("client")))
    (client.trained_alone if _alone(event) else client.trained)[where] = trained


def _basis_agreed(shown: ReportView, event: Event) -> None:
    client = shown.client(text(event.get("client")))
    client.once[event["event"]] = _tensors(event.get("sent")), _tensors(event.get("received"))


def _lesson_prepared(shown: ReportView, event: Event) -> None:
    client = shown.client(text(event.get("client")))
    client.once[event["event"]] = _tensors(event.get("sent")), _tensors(event.get("received"))
    client.lesson = LessonView(
        text(event.get("teaching")),
        numbers(event.get("weights")),
        numbers(event.get("cosines")),
        flag(event.get("taken")) is True,
        flag(event.get("untrained")) is True,
        text(event.get("reason")),
        **{key: number(event.get(key)) for key in LESSON_NUMBERS},
    )


def _tensors(value: Any) -> tuple[TensorView, ...]:
    return tuple(
        TensorView(
            name=text(item.get("name")),
            shape=tuple(integer(size) or 0 for size in items(item.get("shape"))),
            dtype=text(item.get("dtype")),
            bytes=integer(item.get("bytes")) or 0,
            sha256=text(item.get("sha256")),
        )
        for item in map(record, items(value))
    )


def _notice(event: Event, code: str, message: Any) -> NoticeView:
    return NoticeView(
        text(event.get("client")), integer(event.get("round")), code, text(message), _alone(event)
    )


def _client_failed(shown: ReportView, event: Event) -> None:
    shown.failures.append(_notice(event, "failed", event.get("reason")))


def _warning(shown: ReportView, event: Event) -> None:
    shown.warnings.append(_notice(event, text(event.get("code")), event.get("message")))


def _taken_back(shown: ReportView, event: Event) -> None:
    where = text(event.get("folder"))
    message = f"this round and those after it were taken back and run again; the old ones are in {where}"
    shown.warnings.append(_notice(event, "rounds_taken_back", message))


def _aggregated(shown: ReportView, event: Event) -> None:
    where = _round(event)
    if where is None or _alone(event):
        return
    shown.aggregates[where] = AggregateView(
        clients=texts(event.get("clients")),
        change=number(event.get("change")),
        change_by_role=numbers(event.get("change_by_role")),
        norm=number(event.get("norm")),
        seconds=number(event.get("seconds")),
        sha256=text(event.get("sha256")),
        privacy=_privacy(record(event.get("privacy"))),
        robust=_robust(event),
        secure=_secure(record(event.get("secure_aggregation"))),
        relevance=_relevance(record(event.get("relevance"))),
    )


def _relevance(facts: dict[str, Any]) -> RelevanceView | None:
    clients, weights = texts(facts.get("clients")), matrix(facts.get("weights"))
    if not weights or {len(weights), len(weights[0])} != {len(clients)}:
        return None
    return RelevanceView(clients, weights)


def _privacy(facts: dict[str, Any]) -> PrivacyView | None:
    if not facts:
        return None
    names = ("clip", "multiplier", "delta", "epsilon", "epsilon_to_server")
    return PrivacyView(
        noise=text(facts.get("noise")),
        shares=integer(facts.get("shares")),
        held_back=texts(facts.get("held_back")),
        **{name: number(facts.get(name)) for name in names},
    )


def _robust(event: Event) -> RobustView | None:
    if not text(event.get("aggregation")):
        return None
    return RobustView(
        rule=text(event.get("aggregation")),
        hostile=integer(event.get("hostile")),
        left=number(event.get("left")),
        left_by_role=numbers(event.get("left_by_role")),
        kept=texts(event.get("kept")),
        clip_norm=number(event.get("clip_norm")),
        norms=numbers(event.get("norms")),
    )


def _secure(facts: dict[str, Any]) -> SecureView | None:
    if not facts:
        return None
    named = {name: texts(facts.get(name)) for name in ("survivors", "dropped", "silent")}
    return SecureView(threshold=integer(facts.get("threshold")), **named)


def _compared(shown: ReportView, event: Event) -> None:
    shown.reference = text(event.get("reference"))
    shown.seeds = texts(event.get("seeds"))
    shown.compared_seeds = len(shown.seeds) or None
    shown.settings = {text(k): texts(v) for k, v in record(event.get("settings")).items()}
    shown.remarks = texts(event.get("remarks"))
    shown.compared_measure = text(event.get("measure")) or "accuracy"
    shown.federation = _named(event.get("federation"))
    shown.environment = shown.environment or _named(event.get("environment"))
    keys = ("name", "model", "task", "rank")
    members = map(record, items(event.get("members")))
    shown.members = [tuple(text(m.get(key)) for key in keys) for m in members]  # type: ignore[misc]
    for problem in map(record, items(event.get("problems"))):
        seed, reason = text(problem.get("seed")), text(problem.get("reason"))
        shown.failures.append(
            NoticeView(text(problem.get("method")), None, "failed", f"seed {seed}: {reason}", False)
        )
    if not shown.clients:
        shown.name, shown.version = text(event.get("name")), text(event.get("version"))
        shown.split = text(event.get("split")) or "test"
    shown.compared, shown.recovered = compared(event), recovered(event)


def _named(value: Any) -> dict[str, str]:
    """Return an object's texts by name."""
    return {text(key): text(item) for key, item in record(value).items()}


def _run_finished(shown: ReportView, event: Event) -> None:
    shown.finished = True
    last = (shown.rounds or integer(event.get("rounds")) or 1) - 1
    for row in map(record, items(event.get("table"))):
        client = shown.client(text(row.get("client")))
        if client.majority is None:
            client.majority = number(row.get("majority"))
        values = {stage: number(row.get(stage)) for stage in ("before", "federated", "alone")}
        if client.before is None and values["before"] is not None:
            client.before = ScoreView(values["before"], None)
        for stage, scores in (("federated", client.federated), ("alone", client.alone)):
            value = values[stage]
            if not scores and value is not None:
                scores[last] = ScoreView(value, None)


def _round(event: Event) -> int | None:
    """Return an event's round; None if it has none, or one beyond any run: charts have a place for each round."""
    found = integer(event.get("round"))
    return found if found is not None and 0 <= found < MOST_ROUNDS else None


def _alone(event: Event) -> bool:
    """Whether an event belongs to the training without federation; failures and warnings show it by their unit only."""
    return event.get("stage") == "alone" or "/alone/" in text(event.get("unit"))


_READERS = {
    "run_started": _run_started,
    "basis_agreed": _basis_agreed,
    "lesson_prepared": _lesson_prepared,
    "evaluated": _evaluated,
    "client_trained": _client_trained,
    "client_failed": _client_failed,
    "warning": _warning,
    "aggregated": _aggregated,
    "rounds_taken_back": _taken_back,
    "compared": _compared,
    "run_finished": _run_finished,
}
