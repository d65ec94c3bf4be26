"""The embedded engine: all clients on this machine, one at a time, with base models shared in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune import files
from h2tune.errors import H2TuneError
from h2tune.evaluation.result import Sample
from h2tune.events import Event
from h2tune.federation.channel import Channel, Downloads, Reply
from h2tune.federation.client_round import ClientRound
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Download, Tensors, Update
from h2tune.federation.run_store import Commit, RunStore
from h2tune.federation.strategy import Strategy
from h2tune.federation.teaching.lesson import Lesson
from h2tune.models import Kind, load_model, load_tokenizer
from h2tune.training.encode import pad_token
from h2tune.training.garbage import freeze_new_objects
from h2tune.training.terms import Progress

KEPT = 3
"""Rounds of which a client keeps its state: of two it could not take the last whole round back in the next one."""
KEPT_ALONE = 2
"""Rounds of which it keeps its state alone, which are never taken back."""


class BaseModels:
    """Cache of base models and tokenizers, shared by the clients that use them.

    Args:
        seed: The run's seed, from which a missing head is drawn.
        trusted: Models whose own Python files may run.
    """

    def __init__(self, seed: int, trusted: Iterable[str] = ()) -> None:
        self.seed, self.trusted = seed, set(trusted)
        self._models: dict[tuple[str, Kind, str], PreTrainedModel] = {}
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}

    def reseed(self, seed: int) -> None:
        """Set another seed; drops the models of the one before."""
        if seed != self.seed:
            self.seed = seed
            self._models.clear()

    def tokenizer(self, model: str) -> PreTrainedTokenizerBase:
        """Return a model's tokenizer; its weights are not loaded."""
        if model not in self._tokenizers:
            self._tokenizers[model] = load_tokenizer(model, code=model in self.trusted)
        return self._tokenizers[model]

    def get(self, model: str, kind: Kind, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return a base model and its tokenizer."""
        key = (model, kind, dtype)
        if key not in self._models:
            self._models[key] = load_model(model, kind, dtype, self.seed, code=model in self.trusted)
        base, tokenizer = self._models[key], self.tokenizer(model)
        known = base.get_input_embeddings().num_embeddings
        if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= known:
            tokenizer.pad_token = tokenizer.eos_token  # one was added, and the embeddings were not resized
        # a decoder with a head reads the last token that is not padding
        if base.config.pad_token_id is None:
            base.config.pad_token_id = pad_token(tokenizer)
        return base, tokenizer


class LocalEngine(Channel):
    """Runs the clients' rounds in this process; each is committed to disk before its update is returned.

    Args:
        clients: The clients with their data.
        dtypes: Client → type of its base model's weights.
        strategy: The method.
        models: Base models in memory.
        store: Stores the clients' state.
        stage: "trained", or "alone".
        first: An engine with the same first round (nothing is shared yet), whose results are reused.
        keep_first: Whether another engine uses this one as its `first`.
        progress: Client → callback after each optimiser step.
        starting: Called with round and client before each client's round.
        samples: Whether some free answers of each evaluation are written beside the client's results.
    """

    def __init__(
        self,
        clients: Sequence[LocalClient],
        dtypes: Mapping[str, str],
        strategy: Strategy[Any],
        models: BaseModels,
        store: RunStore,
        *,
        stage: str = "trained",
        first: LocalEngine | None = None,
        keep_first: bool = False,
        progress: Callable[[str], Progress] | None = None,
        starting: Callable[[int, str], None] | None = None,
        samples: bool = False,
    ) -> None:
        self.clients = {client.name: client for client in clients}
        self.dtypes, self.strategy = dtypes, strategy
        self.models, self.store, self.stage = models, store, stage
        self.first, self.keep_first = first, keep_first
        self.progress, self.starting, self.samples = progress, starting, samples
        self._trained = 0

    def exchange(self, round_number: int, downloads: Downloads) -> Iterator[Reply]:
        """Run the chosen clients one at a time, by name."""
        for client in sorted(downloads):
            yield self.run_client(client, downloads[client])

    def run_client(self, client: str, download: Download) -> Reply:
        """Run one client's round, or return its stored reply if the round was run before."""
        if (reply := self.stored(client, download.round)) is not None:
            return reply
        if self.starting is not None:
            self.starting(download.round, client)
        return self.train(client, download)

    def stored(self, client: str, round_number: int) -> Reply | None:
        """Return the reply of a client's round that was run before; None if it was not."""
        commit = self.store.committed(self.path(client, round_number))
        commit = commit or self._reuse_first_round(client, round_number)
        if commit is None:
            return None
        self._remove_old_rounds(client)  # a crash may have come between this commit and that
        tensors, facts = commit
        update = Update(client, round_number, facts["examples"], tensors.get("update", {}))
        return Reply(client, update, facts["events"])

    def train(self, client: str, download: Download) -> Reply:
        """Run one client's round and commit it; a failure is a reply with its reason."""
        local = self.clients[client]
        try:
            base, tokenizer = self.base_of(local)
            state = self.last_state(client, download.round)
            work = ClientRound(
                local,
                self.strategy,
                download,
                state,
                self.frames(client),
                self.stage,
                self.progress,
                self.lesson(client),
            )
            outcome = work.run(base, tokenizer)
        except Exception as error:
            # one client's failure does not end the round, unless fewer than min_clients remain
            return Reply(client, None, [], f"{type(error).__name__}: {error}".removeprefix("H2TuneError: "))
        self._write_samples(client, download.round, outcome.samples)
        self._commit(self.path(client, download.round), outcome.update, outcome.state, outcome.events)
        self._remove_old_rounds(client)
        self._trained += 1
        if self._trained.bit_count() == 1:  # after 1, 2, 4, 8, … rounds
            freeze_new_objects()
        return Reply(client, outcome.update, outcome.events)

    def _write_samples(
        self, client: str, round_number: int, by_stage: Mapping[str, Sequence[Sample]]
    ) -> None:
        """Write free answers beside the client's results, a line each; they are in no event, and travel nowhere."""
        for stage, samples in by_stage.items():
            name = "before" if stage == "before" else f"{stage}-{round_number + 1:04d}"
            if samples and self.samples:
                lines = (json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in samples)
                file = self.store.folder / "clients" / client / "samples" / f"{name}.jsonl"
                files.write_text(file, "".join(lines))

    def _commit(self, path: str, update: Update, state: Tensors, events: list[Event]) -> None:
        facts = {"examples": update.examples, "events": events}
        self.store.commit(path, {"update": update.tensors, "private": state}, facts)

    def _remove_old_rounds(self, client: str) -> None:
        """Remove a client's commits before its last `KEPT` rounds (`KEPT_ALONE`), which need not be consecutive."""
        folder = (self.store.folder / self.path(client, 0)).parent
        numbers = (place.name.removeprefix("round-") for place in folder.glob("round-*"))
        rounds = sorted(int(number) for number in numbers if number.isdecimal())
        for round_number in rounds[: -(KEPT_ALONE if self.stage == "alone" else KEPT)]:
            if round_number or not self.keep_first:
                self.store.remove(self.path(client, round_number))

    def base_of(self, client: LocalClient) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return a client's base model and tokenizer."""
        return self.models.get(client.enrolment.model, client.kind, self.dtypes[client.name])

    def _reuse_first_round(self, client: str, round_number: int) -> Commit | None:
        """Commit the first round of the other engine as this stage's own, if it is the same; else return None.

        It differs for clients with a teacher, and for methods that send nothing when a client is alone.
        """
        if round_number or self.first is None:
            return None
        if (lesson := self.first.lesson(client)) is not None and lesson.rows:
            return None
        if self.strategy.upload_spec(client, 0) != self.first.strategy.upload_spec(client, 0):
            return None
        commit = self.store.committed(self.first.path(client, 0))
        if commit is None:
            return None
        tensors, facts = commit
        events = [{**e, "stage": self.stage} for e in facts["events"] if e.get("stage") == "trained"]
        facts = {**facts, "events": events}
        path = self.path(client, 0)
        self.store.commit(path, tensors, facts)
        files.share(self.store.folder / self.first.path(client, 0), self.store.folder / path)
        return tensors, facts

    def frames(self, client: str) -> Tensors | None:
        """Return a client's frames of an anchored basis, or None if it has none.

        Raises:
            H2TuneError: They were altered on disk.
        """
        path = f"clients/{client}/frames"
        commit = self.store.committed(path)
        if commit is None and self.store.is_damaged(path):
            raise H2TuneError(
                f"the frames of client '{client}' were altered or are incomplete",
                where=str(self.store.folder / path),
                remedy="Start the run again, which computes them again",
            )
        return None if commit is None else commit[0]["frames"]

    def lesson(self, client: str) -> Lesson | None:
        """Return a client's lesson; None if it has none. It has no rows where the client trains alone.

        Raises:
            H2TuneError: It was altered on disk.
        """
        path = f"clients/{client}/lesson"
        commit = self.store.committed(path)
        if commit is None and self.store.is_damaged(path):
            raise H2TuneError(
                f"the lesson of client '{client}' was altered or is incomplete",
                where=str(self.store.folder / path),
                remedy="Start the run again, which computes it again",
            )
        if commit is not None and self.stage == "alone":
            # as many rows of its own: see `ClientRound.untaught`
            return Lesson((), commit[1])
        return None if commit is None else Lesson.of(commit[0]["lesson"], commit[1])

    def path(self, client: str, round_number: int) -> str:
        """Return the path of a client's round, relative to the run folder."""
        kind = "alone" if self.stage == "alone" else "state"
        return f"clients/{client}/{kind}/round-{round_number:04d}"

    def last_state(self, client: str, before: int) -> Tensors | None:
        """Return a client's private state after its last round before `before`; None if there was none.

        Raises:
            H2TuneError: As `last_round`.
        """
        commit = self.last_round(client, before)
        return None if commit is None else commit[0]["private"]

    def last_round(self, client: str, before: int) -> Commit | None:
        """Return a client's last round before `before`, its tensors and facts; None if there was none.

        Raises:
            H2TuneError: It was altered on disk; continuing from an older state would give other results.
        """
        for round_number in range(before - 1, -1, -1):
            path = self.path(client, round_number)
            commit = self.store.committed(path)
            if commit is not None:
                return commit
            if self.store.is_damaged(path):
                raise H2TuneError(
                    f"the state of client '{client}' after round {round_number} was altered or is incomplete",
                    where=str(self.store.folder / path),
                    remedy="Restore it from a copy, or start a new run in another folder",
                )
        return None
