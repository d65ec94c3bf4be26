"""Ten tiny clients with one task, of whom some are hostile: what they send is altered on its way to the server."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from h2tune.adapter.roles import find_roles
from h2tune.federation.channel import Channel, Downloads, Reply
from h2tune.federation.h2tune.adapted_model import ADAPTER, H2TuneAdaptedModel
from h2tune.federation.h2tune.settings import H2TuneSettings
from h2tune.federation.h2tune.strategy import NAME, H2Tune
from h2tune.federation.messages import Download, Enrolment, Update, digest
from h2tune.quiet import quiet
from h2tune.seeds import generator, isolated

Tensors = dict[str, Tensor]
Attack = Callable[[Tensors, Sequence[Tensors], torch.Generator], Tensors]
"""Own increments of a hostile client, the honest ones' increments, a generator → what it sends."""
Rows = tuple[Tensor, Tensor]
"""Tokens (rows, length) and labels (rows)."""

YES, NO, ASK, WORDS, COLOURED, LENGTH, WIDTH, RANK = 1, 2, 3, 40, 16, 8, 32, 16
"""Tokens 4 to 11 speak for yes, 12 to 19 for no, 20 to 39 for neither; the row ends with ASK."""


def noise(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """Gaussian noise of ten times the standard deviation of its own increments."""
    return {k: 10 * t.std() * torch.randn(t.shape, generator=draw) for k, t in own.items()}


def flip(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """Its own increments with the sign turned."""
    return {k: -t for k, t in own.items()}


def scaled(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """Its own increments, turned and ten times as large."""
    return {k: -10 * t for k, t in own.items()}


def colluding(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """All send the same: the honest mean, in each entry 1.5 standard deviations of the honest nearer zero, or past it.

    "A little is enough" (Baruch et al. 2019, arXiv 1902.06156): near enough to hide among the honest.
    """
    stacks = {k: torch.stack([one[k] for one in honest]) for k in own}
    return {k: s.mean(0) - 1.5 * s.std(0) * s.mean(0).sign() for k, s in stacks.items()}


def opposing(own: Tensors, honest: Sequence[Tensors], draw: torch.Generator) -> Tensors:
    """All send the same: four times the honest mean, turned.

    Inner-product manipulation (Xie et al. 2020, arXiv 1903.03936): the mean of all then points the wrong way.
    """
    return {k: -4 * torch.stack([one[k] for one in honest]).mean(0) for k in own}


ATTACKS: dict[str, Attack] = {
    "noise": noise, "flip": flip, "scaled": scaled, "colluding": colluding, "opposing": opposing,
}  # fmt: skip


@dataclass
class Members(Channel):
    """A channel to clients on this machine: h2tune's adapter and update, a plain Adam loop instead of its trainer.

    All have one base model and the same random frozen frames, and train nothing but T: what is learned passes through
    G. So one adapter serves them all, one after the other, as no client keeps anything.

    Args:
        participant: The adapter.
        rows: Training rows by client.
        hostile: Who is hostile.
        attack: A key of `ATTACKS`, or "none".
        steps: Local steps a round.
        batch: Rows of a step.
        rate: Adam's learning rate.
        seed: Of the order of rows, and of noise.
        test: Rows on which clients are scored after their local steps in the last round.
        last: Number of the last round.
    """

    participant: H2TuneAdaptedModel
    rows: Mapping[str, Rows]
    hostile: frozenset[str]
    attack: str
    steps: int
    batch: int
    rate: float
    seed: int
    test: Rows
    last: int

    def __post_init__(self) -> None:
        self.scores: list[float] = []

    def exchange(self, round_number: int, downloads: Downloads) -> Iterator[Reply]:
        """Train the clients, and turn what the hostile ones send; these know what the honest ones send."""
        sent = {name: self._train(name, download) for name, download in downloads.items()}
        honest = [tensors for name, tensors in sent.items() if name not in self.hostile]
        for name, tensors in sent.items():
            if name in self.hostile and self.attack != "none":
                draw = generator(self.seed, self.attack, name, round_number)
                tensors = ATTACKS[self.attack](tensors, honest, draw)  # noqa: PLW2901
            yield Reply(name, Update(name, round_number, len(self.rows[name][0]), tensors), [])

    def _train(self, name: str, download: Download) -> Tensors:
        self.participant.receive(download)
        deltas = [layer.h2tune_delta[ADAPTER] for layer in self.participant.shared.layers.values()]
        for parameter in self.participant.model.parameters():
            parameter.requires_grad_(False)
        for delta in deltas:
            delta.requires_grad_(True)
        optimiser = torch.optim.Adam(deltas, lr=self.rate)
        tokens, labels = self.rows[name]
        draw = generator(self.seed, "order", name, download.round)
        for _ in range(self.steps):
            some = torch.randint(len(tokens), (self.batch,), generator=draw)
            optimiser.zero_grad()
            cross_entropy(said(self.participant, tokens[some]), labels[some]).backward()
            optimiser.step()
        if download.round == self.last and name not in self.hostile:
            self.scores.append(accuracy(self.participant, self.test))
        return self.participant.send()

    def shared_accuracy(self, state: Mapping[str, Tensor]) -> float:
        """Return the accuracy of G as it is, before anyone trains on from it; in points."""
        tensors = {f"{NAME}.{r}": state[NAME][:, i] for i, r in enumerate(self.participant.shared.roles)}
        self.participant.receive(Download(1, tensors, digest(tensors)))
        return accuracy(self.participant, self.test)


def said(participant: H2TuneAdaptedModel, tokens: Tensor) -> Tensor:
    """Return the logits of "no" and "yes" after each row (rows, 2)."""
    logits = participant.model(input_ids=tokens, logits_to_keep=1).logits[:, -1]
    return logits[:, [NO, YES]]


@torch.no_grad()
def accuracy(participant: H2TuneAdaptedModel, rows: Rows) -> float:
    """Return the share of right answers, in points."""
    return 100 * float((said(participant, rows[0]).argmax(1) == rows[1]).float().mean())


def draw_rows(count: int, seed: int, name: str) -> Rows:
    """Draw rows of seven words, three of which have a colour; the label is that of the most."""
    draw = random.Random(f"{seed}/{name}")
    tokens, labels = [], []
    for _ in range(count):
        good = draw.randint(0, 3)
        words = [draw.randrange(4, 12) for _ in range(good)] + [
            draw.randrange(12, 20) for _ in range(3 - good)
        ]
        words += [draw.randrange(20, WORDS) for _ in range(LENGTH - 4)]
        draw.shuffle(words)
        tokens.append([*words, ASK])
        labels.append(int(good >= 2))
    return torch.tensor(tokens), torch.tensor(labels)


def build(
    *, clients: int, hostile: int, rule: str, attack: str, seed: int, steps: int, batch: int, rate: float, rows: int,
    rounds: int, scale: float,
) -> tuple[H2Tune, Members]:  # fmt: skip
    """Return the strategy and the clients of a federation."""
    base = _base(seed)
    placements = find_roles(base)
    roles: dict[str, list[int]] = {}
    for p in placements:
        roles.setdefault(p.role, []).append(p.block)
    enrolments = [
        Enrolment(
            f"member-{i}", "tiny", 2, RANK, rows, {role: tuple(sorted(b)) for role, b in roles.items()},
            {p.module: (p.d_in, p.d_out) for p in placements},
        )
        for i in range(clients)
    ]  # fmt: skip
    settings = H2TuneSettings(
        shared_rank=RANK, slots=2, mask="leading", alignment="depth", basis="anchored",
        basis_scale=scale, aggregation=rule, hostile=0 if rule == "mean" else hostile,
    )  # fmt: skip
    strategy = H2Tune(enrolments, settings)
    participant = strategy.attach(base, enrolments[0], heads=[], seed=seed)
    frames = {}
    for p in placements:
        draw = generator(seed, "frames", p.module)
        frames[f"{p.module}.down"] = torch.linalg.qr(torch.randn(p.d_in, RANK, generator=draw))[
            0
        ].T.contiguous()
        frames[f"{p.module}.up"] = torch.linalg.qr(torch.randn(p.d_out, RANK, generator=draw))[0].contiguous()
    participant.set_frames(frames)
    names = [e.name for e in enrolments]
    data = {name: draw_rows(rows, seed, name) for name in names}
    bad = frozenset(names[clients - hostile :])
    test = draw_rows(1000, seed, "test")
    return strategy, Members(participant, data, bad, attack, steps, batch, rate, seed, test, rounds - 1)


def _base(seed: int) -> PreTrainedModel:
    config = AutoConfig.for_model(
        "llama", vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=16, pad_token_id=0, bos_token_id=None,
        eos_token_id=None, initializer_range=0.2, attn_implementation="eager",
    )  # fmt: skip
    with quiet(), isolated(seed, "base"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
