"""A client's round: load, receive, train, evaluate, send; the same code in every engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.evaluation.evaluate import evaluate
from h2tune.evaluation.result import ACCURACY, Sample, Score
from h2tune.events import Event
from h2tune.federation import checks
from h2tune.federation.attach import HeadStart, attach_adapter
from h2tune.federation.h2tune.reading_cache import default_reading_cache
from h2tune.federation.head_reading import last_layer_inputs
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Download, Tensors, Update, manifest, payload_bytes, spec_of
from h2tune.federation.strategy import AdaptedModel, Strategy
from h2tune.federation.teaching.lesson import Lesson
from h2tune.federation.text_checks import check_texts
from h2tune.heads import last_layer
from h2tune.seeds import derive
from h2tune.training.head_start import start_head
from h2tune.training.local import LocalRound, LocalTraining
from h2tune.training.terms import Progress, Record, Terms


@dataclass(frozen=True)
class RoundResult:
    """A finished round of a client: its update, its private state, its events, and what it answered."""

    update: Update
    state: Tensors
    events: list[Event]
    samples: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    """The first free answers, by stage; texts of the client, which never leave it."""


@dataclass(frozen=True)
class ClientRound:
    """One round of a client, before it runs.

    Args:
        client: The client.
        strategy: The method.
        download: What the server sent.
        state: The client's private state of its last round; None in its first.
        frames: The client's frames, in an anchored basis.
        stage: "trained", or "alone" for the comparison without federation.
        progress: Client → callback after each optimiser step.
        lesson: Public texts with a teacher's targets, a part of every batch.
    """

    client: LocalClient
    strategy: Strategy[Any]
    download: Download
    state: Tensors | None
    frames: Tensors | None = None
    stage: str = "trained"
    progress: Callable[[str], Progress] | None = None
    lesson: Lesson | None = None

    def run(self, base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> RoundResult:
        """Run the round.

        Args:
            base: The client's base model; restored afterwards.
            tokenizer: Its tokenizer.

        Raises:
            H2TuneError: A loss is not finite, tensors do not fit, or nothing is left of a text.
        """
        clock = Clock()
        if self.state is None:
            check_texts(self.client, tokenizer)
        adapted = attach_adapter(
            base, self.client, self.strategy, self.state, self.frames, self._head_start(tokenizer)
        )
        try:
            return self._run(adapted, tokenizer, clock)
        finally:
            adapted.detach()

    def _run(self, adapted: AdaptedModel, tokenizer: PreTrainedTokenizerBase, clock: Clock) -> RoundResult:
        client, number = self.client, self.download.round
        events: list[Event] = []
        samples: dict[str, Sequence[Sample]] = {}
        if self.state is None and client.scores(-1):
            start = self._evaluate(adapted, tokenizer)
            events.append(self._evaluated(-1, "before", start, clock.lap("before")))
            samples["before"] = start.samples
        adapted.receive(self.download)
        loaded = adapted.loaded_digest()
        if self.untaught:
            adapted.set_aside()
        parameters = {name: p for group in self._phases(adapted).values() for name, p in group.items()}
        before = checks.snapshot(parameters)
        if number == 0:
            rows, size = client.encoded("train", tokenizer), client.evaluate_batch_size
            adapted.prepare(rows, tokenizer, causal=client.causal, batch_size=size)
        clock.lap("load")
        record = self._train(adapted, tokenizer)
        clock.lap("train")
        score = self._evaluate(adapted, tokenizer) if client.scores(number) else None
        clock.lap("evaluate")
        sent, movement = adapted.send(), checks.moved(before, parameters)
        with torch.no_grad():
            learned = adapted.learned()
        released = self.strategy.release(client.name, sent)  # the checks compare values before noise
        private, facts = adapted.state(), adapted.facts()
        clock.lap("save")
        measured = {"received_matches": loaded == self.download.digest, "moved": movement, **facts}
        measured["without_gradient"] = sorted(record.without_gradient - adapted.idle())
        events.append(self._trained(record, clock, released) | measured)
        events += checks.warnings_of(
            client=client.name,
            round_number=number,
            download=self.download,
            loaded_digest=loaded,
            sent=sent,
            learned={} if self.untaught else learned,
            movement=movement,
            without_gradient=record.without_gradient - adapted.idle(),
            trained=bool(record.losses),
        )
        if score is not None:
            events.append(self._evaluated(number, self.stage, score, clock.seconds["evaluate"]))
            samples[self.stage] = score.samples
        update = Update(client.name, number, len(client.splits.train), released)
        return RoundResult(update, private, events, samples)

    @property
    def untaught(self) -> bool:
        """Whether clients teach each other, and nobody can teach this one, or it declined its teacher."""
        return self.lesson is not None and not self.lesson.rows

    def _phases(self, adapted: AdaptedModel) -> Mapping[str, Mapping[str, nn.Parameter]]:
        """Return the trained parameters; a client without a teacher trains LoRA and its head alone, as `local` does."""
        phases = adapted.phases()
        return {**phases, "shared": {}} if self.untaught else phases

    def _head_start(self, tokenizer: PreTrainedTokenizerBase) -> HeadStart | None:
        """Return what sets a new head to the lesson's answers or to the labels, in the client's first round.

        Labels that count at least as much as the teacher are the better start.
        """
        client = self.client
        if self.state is not None or client.causal:
            return None
        rows = self.lesson.rows if self.lesson else ()
        rich = bool(rows) and client.training.outweighs_teacher(len(client.splits.train))
        if rich or (not rows and client.head_start == "labels"):
            rows = tuple(client.encoded("train", tokenizer))
        if not rows:
            return None

        def start(base: PreTrainedModel) -> None:
            size, cache = client.evaluate_batch_size, default_reading_cache()
            features = last_layer_inputs(base, tokenizer, rows, cache, batch_size=size)
            start_head(last_layer(base)[1], features, rows)

        return start

    def _train(self, adapted: AdaptedModel, tokenizer: PreTrainedTokenizerBase) -> Record:
        client, numbers, public = self.client, self.client.training, self.lesson.rows if self.lesson else ()
        alternation = adapted.alternation
        if self.untaught:  # the steps of `local` with as many rows; there is no shared phase
            numbers, alternation = numbers.without_teacher(), "joint"
        if public:
            numbers = self._taught
        return LocalRound(
            adapted.model,
            client.encoded("train", tokenizer),
            tokenizer,
            numbers,
            causal=client.causal,
            phases=self._phases(adapted),
            terms=self._terms(adapted) if public else adapted.terms(),
            alternation=alternation,
            round_number=self.download.round,
            seed=derive(client.seed, "client", client.name),
            progress=self.progress(client.name) if self.progress else None,
            public=public,
            head_started=not client.causal and (bool(public) or client.head_start == "labels"),
        ).train()

    def _terms(self, adapted: AdaptedModel) -> Terms:
        """Return the method's loss terms with the distillation term."""
        client = self.client
        return replace(
            adapted.terms(),
            teacher_weight=client.training.teacher_weight(len(client.splits.train)),
            public_items=self._taught.public_batch,
        )

    @property
    def _taught(self) -> LocalTraining:
        """The client's local training with a teacher."""
        return self.client.training.with_teacher(len(self.client.splits.train))

    def _evaluate(self, adapted: AdaptedModel, tokenizer: PreTrainedTokenizerBase) -> Score:
        client = self.client
        return evaluate(
            adapted.model,
            client.task,
            client.scored,
            tokenizer,
            causal=client.causal,
            batch_size=client.evaluate_batch_size,
            encoded=client.encoded("scored", tokenizer),
        )

    def _trained(self, record: Record, clock: Clock, released: Tensors) -> Event:
        """Return the event of a round of training: steps, seconds, and the manifests of what was received and sent."""
        return {
            "event": "client_trained",
            "client": self.client.name,
            "round": self.download.round,
            "stage": self.stage,
            "steps": len(record.losses),
            "losses": [
                {"step": step, "phase": phase, "loss": loss}
                for step, (phase, loss) in enumerate(record.losses, 1)
            ],
            "seconds": {key: round(clock.seconds[key], 3) for key in ("load", "train", "evaluate", "save")},
            "bytes_up": payload_bytes(spec_of(released)),
            "bytes_down": payload_bytes(spec_of(self.download.tensors)),
            "sent": manifest(released),
            "received": manifest(self.download.tensors),
        }

    def _evaluated(self, round_number: int, stage: str, score: Score, seconds: float) -> Event:
        return {
            "event": "evaluated",
            "client": self.client.name,
            "round": round_number,
            "stage": stage,
            "split": self.client.split,
            "accuracy": score.accuracy,
            **({"measure": score.measure} if score.measure != ACCURACY else {}),
            "loss": score.loss,
            "examples": score.examples,
            "seconds": round(seconds, 3),
        }


class Clock:
    """Measures the seconds of successive parts of the work."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> float:
        """Record the seconds since the last lap under `name`, and return them."""
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now
        return self.seconds[name]
