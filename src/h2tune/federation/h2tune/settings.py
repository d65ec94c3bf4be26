"""The settings of the h2tune method, built once from a federation file and passed to all of its parts."""

from __future__ import annotations

from dataclasses import dataclass

from h2tune.adapter.config import Basis
from h2tune.federation import dp
from h2tune.federation.h2tune.own_rule import OwnRule
from h2tune.functional.alignment import Alignment
from h2tune.functional.masks import Mask
from h2tune.functional.quorum import Increments, Rule
from h2tune.training.schedule import Alternation


@dataclass(frozen=True)
class H2TuneSettings:
    """The hyperparameters and options of the h2tune method.

    Args:
        shared_rank: R.
        slots: D.
        roles: Shared roles, in order; None for every role of an enrolled client.
        mask: How Ω is chosen.
        alignment: Whether the relation is learned or fixed by depth.
        temperature: τ of the relation.
        basis: Whether T is between private A and B, equation (1), or between frames, equation (8).
        basis_scale: s of equation (8).
        start_norm: c of equation (9); 0 initialises T with zero.
        start_blocks: Number of blocks, counted from the output, in which T is initialised from labels.
        alpha: LoRA's α.
        dropout: Dropout on the adapters' inputs.
        alternation: How the phases alternate.
        size_weight: λ_reg of equation (6).
        drift_weight: λ_kl of equation (6).
        distillation_weight: λ_kd of equation (7).
        rate: η of equation (5).
        weighting: w_i: `"examples"` or `"uniform"`.
        wire_dtype: Type of ΔT and G on the wire.
        increments: Whether G moves by the mean of the clients' increments, equation (5), or by their sum; or whether
            there is one G per client, equation (10). With "none" nothing is sent, and G stays zero.
        aggregation: `"mean"` is equation (5); the others are robust rules, see `functional.robust`.
        hostile: f, the number of hostile clients that a robust rule tolerates.
        own_rule: A function of the user's own, in place of `aggregation`: see `own_rule.OwnRule`.
        clip_norm: The bound of `"clip"`; None for the median of the clients' norms.
        mechanism: Noise of differential privacy, if any.
        secure_clients: With secure aggregation the number of clients in the federation, else 0.
    """

    shared_rank: int
    slots: int
    roles: tuple[str, ...] | None = None
    mask: Mask = "entry"
    alignment: Alignment = "learned"
    temperature: float = 1.0
    basis: Basis = "free"
    basis_scale: float = 1.0
    start_norm: float = 0.0
    start_blocks: int = 1
    alpha: float = 16.0
    dropout: float = 0.0
    alternation: Alternation = "step"
    size_weight: float = 0.0
    drift_weight: float = 0.0
    distillation_weight: float = 0.0
    rate: float = 1.0
    weighting: str = "examples"
    wire_dtype: str = "float32"
    increments: Increments = "mean"
    aggregation: Rule = "mean"
    hostile: int = 0
    own_rule: OwnRule | None = None
    clip_norm: float | None = None
    mechanism: dp.Mechanism | None = None
    secure_clients: int = 0

    @property
    def shares_middles(self) -> bool:
        """Whether ΔT and G travel; else each client keeps its own T."""
        return self.increments != "none"

    @property
    def noised_by_clients(self) -> bool:
        """Whether each client adds its share of the noise."""
        return self.mechanism is not None and self.mechanism.by == "member"
