"""What do three hostile members of ten do to the exchange before the first round? See README.md."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean
from typing import Any

import members as federation
import torch
from members import HOSTILE, MEMBERS, Member
from torch import Tensor

from h2tune.federation.h2tune.agreement import agreed
from h2tune.federation.h2tune.basis import check_view
from h2tune.federation.teaching import stacking
from h2tune.federation.teaching.knowledge import COORDINATES, Directions
from h2tune.functional.directions import capped, cosines, from_peers, label_coordinates, relevance
from h2tune.functional.frames import common_coordinates
from h2tune.functional.teacher import intercepts, teacher
from h2tune.seeds import generator
from h2tune.training import linear_head

Sent = Callable[[Sequence[Tensor], Sequence[Tensor], torch.Generator], list[Tensor]]
"""What hostile members would send if they were honest, what the honest send, a generator → what they send."""


def unit(direction: Tensor) -> Tensor:
    """Return a direction of norm one, the most that is accepted."""
    return direction / direction.norm().clamp(min=1e-12)


def _noise(like: Tensor, draw: torch.Generator) -> Tensor:
    return unit(torch.randn(like.shape, generator=draw) @ torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))


def _mean(some: Sequence[Tensor]) -> Tensor:
    return unit(torch.stack(list(some)).mean(0))


DIRECTIONS: dict[str, Sent] = {
    "none": lambda own, honest, draw: list(own),
    "flipped": lambda own, honest, draw: [-w for w in own],
    "flipped, norm 0.1": lambda own, honest, draw: [-0.1 * w for w in own],
    "random": lambda own, honest, draw: [_noise(w, draw) for w in own],
    "same random": lambda own, honest, draw: [_noise(own[0], draw)] * len(own),
    "copied": lambda own, honest, draw: [honest[0]] * len(own),
    "copied, flipped": lambda own, honest, draw: [-honest[0]] * len(own),
    "opposing": lambda own, honest, draw: [-_mean(honest)] * len(own),
    # as far from the honest mean as random directions are: one factor that is theirs alone
    "captured": lambda own, honest, draw: [unit(_noise(own[0], draw) - 0.3 * _mean(honest))] * len(own),
}


def _orthonormal(like: Tensor, draw: torch.Generator) -> Tensor:
    drawn = torch.randn(like.shape, generator=draw)
    return torch.linalg.qr(drawn - drawn.mean(0))[0]


VIEWS: dict[str, Sent] = {
    "none": lambda own, honest, draw: list(own),
    "random": lambda own, honest, draw: [_orthonormal(v, draw) for v in own],
    "same random": lambda own, honest, draw: [_orthonormal(own[0], draw)] * len(own),
    "single texts": lambda own, honest, draw: [torch.eye(len(v))[:, : v.shape[1]] for v in own],
}


def coordinates(
    members: Sequence[Member], setting: str, attack: str, draw: torch.Generator, combine: str
) -> Tensor:
    """Return Z of the public texts: of a public encoder, or of all views, of which the last are hostile."""
    if combine == "encoder":
        return common_coordinates([federation.encoder_view(setting)], COORDINATES)
    views = [member.view for member in members]
    views[-HOSTILE:] = VIEWS[attack](views[-HOSTILE:], views[:-HOSTILE], draw)
    for one in views:
        check_view(one)
    return COMBINE[combine](views)


def _all(views: Sequence[Tensor]) -> Tensor:
    return common_coordinates(views, COORDINATES)


def _agreeing(views: Sequence[Tensor]) -> Tensor:
    return agreed({str(i): v for i, v in enumerate(views)}, COORDINATES, HOSTILE)[0]


COMBINE: dict[str, Callable[[Sequence[Tensor]], Tensor]] = {"views": _all, "agreeing": _agreeing}


def default(sent: Tensor) -> list[Tensor]:
    """Return what each member receives, as the server does it by default."""
    return [part["peers"] for part in Directions().combine([{"direction": w} for w in sent]).received]


def capped_rule(sent: Tensor) -> list[Tensor]:
    """Return what each member receives where the f largest cosines of each count as its next one."""
    dimensions = sent.shape[1] * (sent.shape[2] - 1)
    weights = relevance(capped(cosines(sent), HOSTILE), dimensions)
    return list(from_peers(sent, weights))


def left_out_rule(sent: Tensor) -> list[Tensor]:
    """Return the same, without the f members whose cosines have the least median size."""
    found = capped(cosines(sent), HOSTILE)
    typical = found.abs().clone().fill_diagonal_(float("nan")).nanmedian(1).values
    kept = torch.ones(len(sent), dtype=torch.bool)
    kept[typical.argsort()[:HOSTILE]] = False
    weights = relevance(found, sent.shape[1] * (sent.shape[2] - 1), kept)
    return list(from_peers(sent, weights))


def one_each_rule(sent: Tensor) -> list[Tensor]:
    """Return the same as capped, but nobody gets more of a member's direction than of the (f + 1)-th heaviest."""
    weights = relevance(capped(cosines(sent), HOSTILE), sent.shape[1] * (sent.shape[2] - 1))
    size = weights.abs().clone().fill_diagonal_(0)
    most = size.sort(1, descending=True).values[:, HOSTILE : HOSTILE + 1]
    return list(from_peers(sent, weights.clamp(-most, most)))


def median_rule(sent: Tensor) -> list[Tensor]:
    """Return the same as capped, with the median over peers of each entry in place of their sum."""
    weights = relevance(capped(cosines(sent), HOSTILE), sent.shape[1] * (sent.shape[2] - 1))
    found = []
    for i, row in enumerate(weights):
        others = [w.sign() * sent[j] for j, w in enumerate(row) if j != i and w != 0]
        middle = torch.stack(others).median(0).values if others else torch.zeros_like(sent[0])
        found.append(unit(middle) * from_peers(sent, weights)[i].norm())
    return found


def without_odd_rule(sent: Tensor) -> list[Tensor]:
    """Return the same as capped, without the f members that are least like the median direction of all."""
    similarity = capped(cosines(sent), HOSTILE)
    weights = relevance(similarity, sent.shape[1] * (sent.shape[2] - 1))
    signs = torch.where(weights.sum(0) < 0, -1.0, 1.0)[:, None, None]
    middle = (signs * sent / sent.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None]).median(0).values
    like = torch.stack([(unit(w) * unit(middle)).sum().abs() for w in sent])
    weights[:, like.argsort()[:HOSTILE]] = 0
    return list(from_peers(sent, weights))


RULES: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "default": default,
    "capped": capped_rule,
    "left out": left_out_rule,
    "one each": one_each_rule,
    "median": median_rule,
    "without odd": without_odd_rule,
}


def trial(setting: str, seed: int, attack: str, views: str, combine: str, rule: str) -> dict[str, float]:
    """Return the mean accuracy of honest members, their own heads', and how many decline their teacher."""
    members = people(setting, seed)
    draw = generator(seed, "hostile", attack, views)
    z = coordinates(members, setting, views, draw, combine)
    sent = [label_coordinates(z, member.known.public) for member in members]
    sent[-HOSTILE:] = DIRECTIONS[attack](sent[-HOSTILE:], sent[:-HOSTILE], draw)
    received, found, declined = RULES[rule](torch.stack(sent)), [], 0
    for member, own, peers in list(zip(members, sent, received, strict=True))[:-HOSTILE]:
        taught = Directions().teach(z, member.known, {"direction": own}, {"peers": peers})
        declined += not taught.facts["taken"]
        if not taught.facts["taken"]:
            found.append(member.own_accuracy)
            continue
        scores = linear_head.extrapolate(member.known.features, taught.public, member.test)
        answers = teacher(scores, intercepts(taught.own, member.known.labels)).argmax(1)
        found.append(100 * float((answers == member.wanted).float().mean()))
    honest = cosines(torch.stack(sent))[: MEMBERS - HOSTILE]
    return {
        "accuracy": fmean(found),
        "own": fmean(m.own_accuracy for m in members[:-HOSTILE]),
        "declined": declined,
        "cosine": float(
            honest[:, : MEMBERS - HOSTILE].fill_diagonal_(0).sum()
            / (MEMBERS - HOSTILE)
            / (MEMBERS - HOSTILE - 1)
        ),
    }


@cache
def people(setting: str, seed: int) -> list[Member]:
    """Return the members of a seed."""
    return federation.members(setting, seed)


class Ridge:
    """`linear_head.extrapolate` from the same features again and again: one decomposition serves all scores."""

    def __init__(self, features: Tensor) -> None:
        self.mean = features.double().mean(0)
        self.u, self.s, self.v = torch.linalg.svd(features.double() - self.mean, full_matrices=False)

    def __call__(self, scores: Tensor, others: Tensor) -> Tensor:
        """Return scores of other texts; the penalty has the least leave-one-out error, as in scikit-learn."""
        y = scores.double()
        middle, inner, rows = y.mean(0), self.u.T @ (y - y.mean(0)), len(y)
        best: tuple[float, Tensor] | None = None
        for penalty in linear_head.PENALTIES:
            shrunk = self.s.square() / (self.s.square() + penalty)
            leverage = self.u.square() @ shrunk + 1 / rows
            error = float(
                (((y - middle) - self.u @ (shrunk[:, None] * inner)) / (1 - leverage)[:, None])
                .square()
                .mean()
            )
            if best is None or error < best[0]:
                weight = self.v.T @ ((shrunk / self.s.clamp(min=1e-12))[:, None] * inner)
                best = error, weight
        assert best is not None
        return ((others.double() - self.mean) @ best[1] + middle).float()


def speed_up() -> None:
    """Keep what does not depend on an attack, so that a table takes minutes: decompositions, heads, coverages."""
    ridges: dict[int, Ridge] = {}

    def extrapolate(features: Tensor, scores: Tensor, others: Tensor) -> Tensor:
        if id(features) not in ridges:
            ridges[id(features)] = Ridge(features)
        return ridges[id(features)](scores, others)

    kept: dict[Any, Any] = {}

    def once(function: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any) -> Any:
            name = function.__name__, key(*arguments)
            if name not in kept:
                kept[name] = function(*arguments)
            return kept[name]

        return wrapped

    head = once(
        stacking._head,
        lambda own, some, texts: (own.seed, tuple(some.tolist()), len(texts), float(texts.sum())),
    )
    near = once(stacking.covered, lambda public, own: (id(public), float(own.sum())))
    for owner, name, new in (
        (stacking, "_head", head), (stacking, "covered", near),
        (stacking, "extrapolate", extrapolate), (linear_head, "extrapolate", extrapolate),
    ):  # fmt: skip
        setattr(owner, name, new)


def main() -> None:
    """Print a table of attacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("setting", choices=federation.SETTINGS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[711, 712, 713, 714, 715])
    parser.add_argument("--combine", nargs="+", default=["views"], choices=[*COMBINE, "encoder"])
    parser.add_argument("--rules", nargs="+", default=["default", "capped"], choices=RULES)
    parser.add_argument("--attacks", nargs="+", default=list(DIRECTIONS), choices=DIRECTIONS)
    parser.add_argument("--views", nargs="+", default=["none"], choices=VIEWS)
    parser.add_argument("--public", type=int, default=federation.PUBLIC, help="number of public texts")
    args = parser.parse_args()
    federation.PUBLIC = min(args.public, federation.PUBLIC)
    speed_up()
    print("| coordinates | views | directions | rule | honest | least | own heads | decline, of 7 | cosine |")
    print("|---|---|---|---|---|---|---|---|---|")
    for combine in args.combine:
        for views in args.views:
            for attack in args.attacks:
                for rule in args.rules:
                    rows = [trial(args.setting, seed, attack, views, combine, rule) for seed in args.seeds]
                    cells = [fmean(r["accuracy"] for r in rows), min(r["accuracy"] for r in rows)]
                    cells += [fmean(r[key] for r in rows) for key in ("own", "declined", "cosine")]
                    said = " | ".join(f"{value:.2f}" for value in cells)
                    print(f"| {combine} | {views} | {attack} | {rule} | {said} |", flush=True)


if __name__ == "__main__":
    main()
