"""The coordinator's part of the exchange before the first round: knowledge up, the peers' down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from h2tune.errors import H2TuneError
from h2tune.events import LESSON_NUMBERS
from h2tune.federation.messages import Tensors, Update, check_update
from h2tune.federation.run_store import Commit, RunStore
from h2tune.federation.teaching.exchange import Between, combined, copies, lesson_event
from h2tune.federation.teaching.knowledge import KNOWLEDGE
from h2tune.flower.coordinator.messenger import Messenger
from h2tune.flower.coordinator.queries import ask
from h2tune.flower.messages import WHY

Upload = tuple[Tensors, dict[str, Any]]
"""What a member sent, and its facts: its label set, and why it takes no part."""
NORM = 1.001
"""The largest norm of label directions; honest ones have norm one."""
MOST_LABELS = 1000
DECISION = ("taken", "reason", "untrained", *LESSON_NUMBERS)


class Teaching:
    """Prepares the lessons of members that have none yet, before a round.

    Args:
        messenger: Reaches the members.
        texts: The public texts.
        coordinates: Their common coordinates (n, R), under "z"; none where members compute them.
        size: R.
        store: Keeps what members sent.
    """

    def __init__(
        self, messenger: Messenger, texts: Sequence[str], coordinates: Tensors, size: int, store: RunStore
    ) -> None:
        self.messenger, self.texts, self.store = messenger, texts, store
        self.coordinates, self.size = coordinates, size
        self.coordinator = messenger.coordinator
        self._taught = {unit.removeprefix("lesson/") for unit in store.logged if unit.startswith("lesson/")}

    def prepare(self, members: Iterable[str]) -> None:
        """Ask members for their knowledge, and send those without a lesson what their peers know.

        A member that joins later learns from all, and those that have their lesson keep it.
        """
        new = sorted(set(members) - self._taught)
        if not new:
            return
        uploads = self._uploads()
        received, between = combined("directions", uploads, self.coordinator.server.assumed_hostile)
        for name in new:
            if name in uploads:
                self._teach(name, uploads[name], received[name], between[name])

    def _uploads(self) -> dict[str, Upload]:
        """Return what members sent, now or before; those that are silent are missing."""
        names = sorted(self.messenger.roster.cards)
        kept = {name: self.store.committed(f"server/knowledge/{name}") for name in names}
        wanted = {name: {"texts": self.texts} for name in names if kept[name] is None}
        sent = ask(
            self.messenger,
            "knowledge",
            wanted,
            self._read,
            seconds=self.coordinator.deadline,
            tensors=self.coordinates,
            most=lambda _: 4 * self.size * MOST_LABELS,
        )
        for name, upload in sent.items():
            self.store.commit(f"server/knowledge/{name}", {"sent": upload[0]}, upload[1])
        return {name: _upload(commit) for name, commit in kept.items() if commit is not None} | sent

    def _read(self, member: str, head: Mapping[str, Any], update: Update | None) -> Upload:
        """Return a member's knowledge.

        Raises:
            H2TuneError: It is malformed, or larger than an honest one.
        """
        labels, unable = head.get("labels"), head.get("unable")
        if not isinstance(labels, str) or not re.fullmatch("[0-9a-f]{64}", labels):
            raise H2TuneError("its label set is not valid")
        if not isinstance(unable, str) or len(unable) > 200 or update is None:
            raise H2TuneError("its knowledge is not valid")
        if unable:
            return {}, {"labels": labels, "unable": unable}
        direction = update.tensors.get("direction", torch.empty(0, 0))
        classes = direction.shape[-1] if direction.dim() == 2 else 0
        if not 2 <= classes <= MOST_LABELS:
            raise H2TuneError("its label directions are not valid")
        spec = KNOWLEDGE["directions"].specs(len(self.texts), self.size, classes)[0]
        check_update(update, spec, client=member, round_number=0, examples=0)
        if float(direction.norm()) > NORM:
            raise H2TuneError(f"its label directions have a norm above {NORM}")
        return update.tensors, {"labels": labels, "unable": unable}

    def _teach(self, name: str, upload: Upload, received: Tensors, between: Between) -> None:
        heads = {name: {"texts": self.texts}}
        tensors = {**self.coordinates, **received}
        decided = ask(
            self.messenger,
            "lesson",
            heads,
            lambda _, head, __: _decision(head),
            seconds=self.coordinator.deadline,
            tensors=tensors,
        )
        if name in decided:
            event = lesson_event(name, "directions", upload[0], received, between, decided[name])
            self.store.record(f"lesson/{name}", [event, *copies(name, between)])
            self._taught.add(name)


def _upload(commit: Commit) -> Upload:
    tensors, facts = commit
    return tensors["sent"], facts


def _decision(head: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member's decision, as far as it says one.

    Raises:
        H2TuneError: It is not valid.
    """
    said = {**head, "reason": head[WHY]} if WHY in head else {k: v for k, v in head.items() if k != "reason"}
    facts = {key: said[key] for key in DECISION if key in said}
    numbers = [facts[key] for key in LESSON_NUMBERS if key in facts]
    flags = facts.get("taken"), facts.get("untrained", False)
    if not all(isinstance(flag, bool) for flag in flags) or not isinstance(facts.get("reason", ""), str):
        raise H2TuneError("its decision is not valid")
    if (
        not all(isinstance(n, float) and -1e6 < n < 1e6 for n in numbers)
        or len(facts.get("reason", "")) > 200
    ):
        raise H2TuneError("its decision is not valid")
    return facts
