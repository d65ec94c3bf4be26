"""A client's round: load, receive, train, evaluate, send. The same code under every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.evaluation.evaluate import evaluate
from h2tune.evaluation.result import Score
from h2tune.federation import checks
from h2tune.federation.messages import Download, Enrolment, Tensors, Update, manifest, payload_bytes, spec_of
from h2tune.federation.strategy import AdaptedModel, Strategy, released
from h2tune.models import Kind, base_seed, head_modules, set_head
from h2tune.seeds import derive
from h2tune.tasks.task import Example, Splits, Task
from h2tune.training.encode import Encoded, encode_causal, encode_texts
from h2tune.training.local import LocalTraining, train_locally, training_device
from h2tune.training.terms import Progress, Record


@dataclass(frozen=True)
class LocalClient:
    """A client with its data: all that stays on its machine.

    Args:
        enrolment: What the server knows of it.
        kind: Whether it answers with words or through a head.
        task: Its task.
        splits: Its examples.
        training: Numbers of its local training.
        split: The split that is scored: "test" or "validation".
        evaluate_batch_size: Examples of an evaluation batch.
        seed: The run's seed.
        evaluate_rounds: Whether it is scored before training and after every round, or after the last one alone.
    """

    enrolment: Enrolment
    kind: Kind
    task: Task
    splits: Splits
    training: LocalTraining
    split: str
    evaluate_batch_size: int
    seed: int
    evaluate_rounds: Literal["all", "last"] = "all"
    _tokens: dict[str, Sequence[Encoded]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.enrolment.name

    @property
    def causal(self) -> bool:
        return self.kind == "causal"

    def scores(self, round_number: int) -> bool:
        """Return whether it is scored after a round; round −1 is before training."""
        return self.evaluate_rounds == "all" or round_number == self.training.rounds - 1

    def encoded(
        self, split: Literal["train", "scored"], tokenizer: PreTrainedTokenizerBase
    ) -> Sequence[Encoded]:
        """Return the examples of a split in tokens; they are tokenised once, whatever the number of rounds."""
        if split not in self._tokens:
            examples = self.splits.train if split == "train" else self.scored
            encode = encode_causal if self.causal else encode_texts
            self._tokens[split] = encode(self.task, examples, tokenizer)
        return self._tokens[split]

    @property
    def scored(self) -> tuple[Example, ...]:
        return self.splits.test if self.split == "test" else self.splits.validation


@dataclass(frozen=True)
class RoundResult:
    """A finished round of a client: what it sends, what it keeps, what there is to tell."""

    update: Update
    state: Tensors
    events: list[dict[str, Any]]


def attach(
    base: PreTrainedModel,
    member: LocalClient,
    strategy: Strategy,
    state: Tensors | None,
    frames: Tensors | None = None,
) -> AdaptedModel:
    """Put the strategy's adapter (and a fresh head) on a base model, and load what the client kept.

    The base model goes to the Trainer's device first, so that all that is made beside it is there too.
    """
    device = training_device(member.training)
    if base.device != device:
        base.to(device)
    heads: list[str] = []
    if not member.causal:
        heads = head_modules(base)
        set_head(base, len(member.task.labels), derive(member.seed, "head", member.name))
    participant = strategy.participant(
        base, member.enrolment, heads=heads, seed=base_seed(member.seed, member.enrolment.model)
    )
    try:
        if frames is not None:
            participant.set_frames(frames)
        if state is not None:
            participant.load_state(state)
    except BaseException:
        participant.detach()  # the base model is shared: it must not keep the adapter of a client that failed
        raise
    return participant


def run_round(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    member: LocalClient,
    strategy: Strategy,
    download: Download,
    state: Tensors | None,
    *,
    frames: Tensors | None = None,
    stage: str = "trained",
    progress: Callable[[str], Progress] | None = None,
) -> RoundResult:
    """Run one client's round.

    Args:
        base: Its base model; comes back unchanged.
        tokenizer: Its tokenizer.
        member: The client.
        strategy: The method.
        download: What the server sent.
        state: What the client kept; None in its first round.
        frames: The client's frames, in an anchored basis.
        stage: "trained", or "alone" for the comparison without federation.
        progress: Returns what is called after each step, for a client's name.

    Raises:
        H2TuneError: A loss that is not finite, or tensors that do not fit.
    """
    clock = Clock()
    participant = attach(base, member, strategy, state, frames)
    try:
        events = []
        if state is None and member.scores(-1):
            start = _evaluate(participant, member, tokenizer)
            events.append(_evaluated(member, -1, "before", start, clock.lap("before")))
        participant.receive(download)
        loaded = participant.loaded_digest()
        parameters = {name: p for group in participant.phases().values() for name, p in group.items()}
        before = checks.snapshot(parameters)
        if download.round == 0:
            rows, size = member.encoded("train", tokenizer), member.evaluate_batch_size
            participant.begin(rows, tokenizer, causal=member.causal, batch_size=size)
        clock.lap("load")
        record = _train(participant, member, tokenizer, download.round, progress)
        clock.lap("train")
        score = _evaluate(participant, member, tokenizer) if member.scores(download.round) else None
        clock.lap("evaluate")
        sent, movement = participant.send(), checks.moved(before, parameters)
        with torch.no_grad():
            learned = participant.learned()
        leaving = released(strategy, member.name, sent)  # the proof compares what was before noise
        kept, facts = participant.state(), participant.facts()
        clock.lap("save")
    finally:
        participant.detach()

    measured = {"received_matches": loaded == download.digest, "moved": movement, **facts}
    events.append(_trained(member, stage, record, clock, download, leaving) | measured)
    events += checks.warnings_of(
        client=member.name,
        round_number=download.round,
        download=download,
        loaded_digest=loaded,
        sent=sent,
        learned=learned,
        movement=movement,
        without_gradient=record.without_gradient,
    )
    if score is not None:
        events.append(_evaluated(member, download.round, stage, score, clock.seconds["evaluate"]))
    update = Update(member.name, download.round, len(member.splits.train), leaving)
    return RoundResult(update, kept, events)


def _trained(
    member: LocalClient, stage: str, record: Record, clock: Clock, download: Download, leaving: Tensors
) -> dict[str, Any]:
    """Return the event of a round of training: its steps, its seconds, and what came and went."""
    return {
        "event": "client_trained",
        "client": member.name,
        "round": download.round,
        "stage": stage,
        "steps": len(record.losses),
        "losses": [
            {"step": step, "phase": phase, "loss": loss}
            for step, (phase, loss) in enumerate(record.losses, 1)
        ],
        "seconds": {key: round(clock.seconds[key], 3) for key in ("load", "train", "evaluate", "save")},
        "bytes_up": payload_bytes(spec_of(leaving)),
        "bytes_down": payload_bytes(spec_of(download.tensors)),
        "sent": manifest(leaving),
        "received": manifest(download.tensors),
        "without_gradient": sorted(record.without_gradient),
    }


class Clock:
    """Seconds of one part of the work after the other."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> float:
        """Note the seconds since the last lap under `name`, and return them."""
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now
        return self.seconds[name]


def _train(
    participant: AdaptedModel,
    member: LocalClient,
    tokenizer: PreTrainedTokenizerBase,
    round_number: int,
    progress: Callable[[str], Progress] | None,
) -> Record:
    return train_locally(
        participant.model,
        member.encoded("train", tokenizer),
        tokenizer,
        member.training,
        causal=member.causal,
        phases=participant.phases(),
        terms=participant.terms(),
        alternation=participant.alternation,
        round_number=round_number,
        seed=derive(member.seed, "client", member.name),
        progress=progress(member.name) if progress else None,
    )


def _evaluate(participant: AdaptedModel, member: LocalClient, tokenizer: PreTrainedTokenizerBase) -> Score:
    return evaluate(
        participant.model,
        member.task,
        member.scored,
        tokenizer,
        causal=member.causal,
        batch_size=member.evaluate_batch_size,
        encoded=member.encoded("scored", tokenizer),
    )


def _evaluated(
    member: LocalClient, round_number: int, stage: str, score: Score, seconds: float
) -> dict[str, Any]:
    return {
        "event": "evaluated",
        "client": member.name,
        "round": round_number,
        "stage": stage,
        "split": member.split,
        "accuracy": score.accuracy,
        "loss": score.loss,
        "examples": score.examples,
        "seconds": round(seconds, 3),
    }


def majority(examples: Sequence[Example]) -> float:
    """Return the accuracy of always giving the most frequent label; 0 for free answers."""
    labels = [example.label for example in examples if example.label is not None]
    return max(labels.count(label) for label in set(labels)) / len(labels) if labels else 0.0
