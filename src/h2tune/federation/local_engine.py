"""The embedded engine: all clients on this machine, one after the other, base models shared in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.errors import H2TuneError
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
from h2tune.training.local import leave_unscanned
from h2tune.training.terms import Progress


class BaseModels:
    """Base models and tokenizers, each loaded once and shared by the clients that use it.

    Args:
        seed: The run's seed, from which a missing head is drawn.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._models: dict[tuple[str, Kind, str], PreTrainedModel] = {}
        self._tokenizers: dict[str, PreTrainedTokenizerBase] = {}

    def reseed(self, seed: int) -> None:
        """Take another seed; models of the one before are forgotten."""
        if seed != self.seed:
            self.seed = seed
            self._models.clear()

    def get(self, model: str, kind: Kind, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return a base model and its tokenizer."""
        key = (model, kind, dtype)
        if key not in self._models:
            self._models[key] = load_model(model, kind, dtype, self.seed)
        if model not in self._tokenizers:
            self._tokenizers[model] = load_tokenizer(model)
        base, tokenizer = self._models[key], self._tokenizers[model]
        # a decoder with a head looks for the last token that is no padding
        if base.config.pad_token_id is None:
            base.config.pad_token_id = pad_token(tokenizer)
        return base, tokenizer


class LocalEngine(Channel):
    """Runs the clients' rounds in this process; each is kept on disk before its update counts.

    Args:
        clients: The clients with their data.
        dtypes: Client → type of its base model's weights.
        strategy: The method.
        models: Base models in memory.
        store: Keeps the clients' state.
        stage: "trained", or "alone".
        first: An engine whose first round was the same: nothing was shared yet, so it need not be done again.
        keep_first: Whether another engine has this one as its `first`.
        progress: Returns what is called after each step, for a client's name.
        starting: Called with round and client before each client's round.
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
    ) -> None:
        self.clients = {client.name: client for client in clients}
        self.dtypes, self.strategy = dtypes, strategy
        self.models, self.store, self.stage = models, store, stage
        self.first, self.keep_first = first, keep_first
        self.progress, self.starting = progress, starting
        self._trained = 0

    def exchange(self, round_number: int, downloads: Downloads) -> Iterator[Reply]:
        """Run the chosen clients one after the other, by name."""
        for client in sorted(downloads):
            yield self.run_client(client, downloads[client])

    def run_client(self, client: str, download: Download) -> Reply:
        """Run one client's round, or return what it sent if the round was run before."""
        path = self.path(client, download.round)
        found = self.store.committed(path) or self._same_first_round(client, download.round)
        if found is not None:
            tensors, facts = found
            update = Update(client, download.round, facts["examples"], tensors.get("update", {}))
            return Reply(client, update, facts["events"])
        if self.starting is not None:
            self.starting(download.round, client)
        member = self.clients[client]
        try:
            base, tokenizer = self.base_of(member)
            state = self.last_state(client, download.round)
            work = ClientRound(
                member,
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
            # one client's trouble is not the federation's: the round goes on while min_clients allow
            return Reply(client, None, [], f"{type(error).__name__}: {error}".removeprefix("H2TuneError: "))
        self._commit(path, outcome.update, outcome.state, outcome.events)
        self._forget(client)
        self._trained += 1
        if self._trained.bit_count() == 1:  # after 1, 2, 4, 8, … of them
            leave_unscanned()
        return Reply(client, outcome.update, outcome.events)

    def _commit(self, path: str, update: Update, state: Tensors, events: list[Event]) -> None:
        facts = {"examples": update.examples, "events": events}
        self.store.commit(path, {"update": update.tensors, "private": state}, facts)

    def _forget(self, client: str) -> None:
        """Remove what a client kept before its last two rounds; it may have been left out of some in between."""
        folder = (self.store.folder / self.path(client, 0)).parent
        numbers = (place.name.removeprefix("round-") for place in folder.glob("round-*"))
        rounds = sorted(int(number) for number in numbers if number.isdecimal())
        for round_number in rounds[:-2]:
            if round_number or not self.keep_first:
                self.store.remove(self.path(client, round_number))

    def base_of(self, member: LocalClient) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return a client's base model and tokenizer."""
        return self.models.get(member.enrolment.model, member.kind, self.dtypes[member.name])

    def _same_first_round(self, client: str, round_number: int) -> Commit | None:
        """Take over the first round of the other engine, where it was the same, as this stage's own.

        It was not for methods that send nothing when alone.
        """
        if round_number or self.first is None or self.first.lesson(client) is not None:
            return None
        if self.strategy.upload_spec(client, 0) != self.first.strategy.upload_spec(client, 0):
            return None
        found = self.store.committed(self.first.path(client, 0))
        if found is None:
            return None
        tensors, facts = found
        events = [{**e, "stage": self.stage} for e in facts["events"] if e.get("stage") == "trained"]
        facts = {**facts, "events": events}
        self.store.commit(self.path(client, 0), tensors, facts)
        return tensors, facts

    def frames(self, client: str) -> Tensors | None:
        """Return a client's frames of an anchored basis; None where there are none.

        Raises:
            H2TuneError: They are there but were altered.
        """
        path = f"clients/{client}/frames"
        found = self.store.committed(path)
        if found is None and self.store.is_damaged(path):
            raise H2TuneError(
                f"the frames of client '{client}' were altered or are incomplete",
                where=str(self.store.folder / path),
                remedy="Go on with --resume, which makes them again",
            )
        return None if found is None else found[0]["frames"]

    def lesson(self, client: str) -> Lesson | None:
        """Return a client's lesson; None where there is none, and for a client by itself.

        Raises:
            H2TuneError: It is there but was altered.
        """
        path = f"clients/{client}/lesson"
        commit = None if self.stage == "alone" else self.store.committed(path)
        if commit is None and self.stage != "alone" and self.store.is_damaged(path):
            raise H2TuneError(
                f"the lesson of client '{client}' was altered or is incomplete",
                where=str(self.store.folder / path),
                remedy="Go on with --resume, which makes it again",
            )
        return None if commit is None else Lesson.of(commit[0]["lesson"], commit[1])

    def path(self, client: str, round_number: int) -> str:
        """Return the folder of a client's round in the run folder."""
        kind = "alone" if self.stage == "alone" else "state"
        return f"clients/{client}/{kind}/round-{round_number:04d}"

    def last_state(self, client: str, before: int) -> Tensors | None:
        """Return what a client kept after its last round before `before`; None if it had none.

        Raises:
            H2TuneError: It is there but was altered; to go on from an older one would be another run.
        """
        for round_number in range(before - 1, -1, -1):
            path = self.path(client, round_number)
            found = self.store.committed(path)
            if found is not None:
                return found[0]["private"]
            if self.store.is_damaged(path):
                raise H2TuneError(
                    f"what client '{client}' kept after round {round_number} was altered or is incomplete",
                    where=str(self.store.folder / path),
                    remedy="Put it back from a copy, or start anew with another --out",
                )
        return None
