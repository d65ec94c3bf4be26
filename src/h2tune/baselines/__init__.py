"""Baselines by name, one file each.

A baseline is an aggregation rule on the server (`groups.GroupRule`) and an adapted model on the client
(`lora.LoraAdaptedModel` or a subclass). Shared helpers: `groups`, `lora`, `middle`, `pruning`, `stacking`.

| name | what travels | paper (arXiv) | clients share within |
|---|---|---|---|
| local | nothing | 2106.09685 | – |
| linear-head | nothing; no adapter is trained | 2202.10054 | – |
| fedit | A and B, averaged | 2305.05644 | a model and rank |
| ffa-lora | B, averaged; A is frozen | 2403.12313 | a model and rank |
| fedsa-lora | A, averaged; B is private | 2410.01463 | a model and rank |
| hetlora | A and B, padded and truncated | 2401.06432 | a model |
| flexlora | A and B, by the SVD of the update | 2402.11505 | a model |
| flora | A and B, stacked | 2409.05976 | a model |
| fed-sb | R between frozen A and B | 2502.15436 | a model and rank |
| co-lora | P and q between frozen A and B, in some blocks | 2506.11024 | the federation |
| self-training | nothing; public texts as a teacher's | – | – |
| fedmd | predictions on public texts | 1910.03581 | a label set |
| afl | moments in common coordinates | 2405.16240 | a label set |
| pooled | everything: the oracle | – | a label set |

A client that is alone in its group trains as `local` does, which `Strategy.note` states.

An ablation of h2tune is one key of a federation file, or `--set` on the command line; `h2tune compare` has names for
them:

| name | without | switch |
|---|---|---|
| h2tune-leading | learned masks: every client keeps the leading r × r entries | `experimental.mask = "leading"` |
| h2tune-depth | learned alignment: slots by relative depth, fixed | `experimental.alignment = "depth"` |
| h2tune-joint | alternation: all parameters in every step | `experimental.alternation = "joint"` |
| h2tune-alone | sharing: every client alone, with h2tune's adapter | `experimental.alone = true` |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from h2tune import own_code
from h2tune.errors import H2TuneError, nearest

if TYPE_CHECKING:
    from h2tune.federation.messages import Enrolment
    from h2tune.federation.strategy import Strategy

MODULES: dict[str, str] = {
    name: f"h2tune.baselines.{name.replace('-', '_')}"
    for name in (
        "local",
        "linear-head",
        "fedit",
        "ffa-lora",
        "fedsa-lora",
        "hetlora",
        "flexlora",
        "flora",
        "fed-sb",
        "co-lora",
        "self-training",
        "fedmd",
        "afl",
        "pooled",
    )
}
"""Name of a method → the module that builds it, imported on first use."""

UNSHARED = ("local", "linear-head", "self-training", "fedmd", "afl", "pooled")
"""Methods whose clients share no update in a round; some exchange knowledge before the first."""


def build(
    name: str,
    enrolments: Sequence[Enrolment],
    *,
    shared_rank: int,
    alpha: float,
    dropout: float,
    weighting: str,
    seed: int,
) -> Strategy:
    """Return a method by name.

    Raises:
        H2TuneError: No method has that name, or the user's own cannot be loaded.
    """
    import importlib

    settings: dict[str, Any] = {
        "shared_rank": shared_rank,
        "alpha": alpha,
        "dropout": dropout,
        "weighting": weighting,
        "seed": seed,
    }
    if own_code.is_reference(name):
        return _own(name, enrolments, settings)
    if name not in MODULES:
        known = ["h2tune", *MODULES]
        raise H2TuneError(
            f"no strategy is called '{name}'{nearest(name, known)}",
            where="server.strategy",
            remedy=f"Known: {', '.join(known)}; or module:object with a strategy of your own",
        )
    built: Strategy = importlib.import_module(MODULES[name]).build(enrolments, **settings)
    return built


def _own(reference: str, enrolments: Sequence[Enrolment], settings: dict[str, Any]) -> Strategy:
    """Return a strategy of the user's own: what its class or function returns for these arguments.

    Raises:
        H2TuneError: It cannot be loaded, or is no strategy.
    """
    from h2tune.federation.strategy import Strategy

    make = own_code.load(reference, "server.strategy")
    built = make(enrolments, **settings) if callable(make) else make
    if not isinstance(built, Strategy):
        raise H2TuneError(
            f"'{own_code.short(reference)}' makes {type(built).__name__}, not a Strategy",
            where="server.strategy",
            remedy="Name a class or function that takes (enrolments, *, shared_rank, alpha, dropout, weighting, seed) "
            "and returns an h2tune.federation.strategy.Strategy",
        )
    return built
