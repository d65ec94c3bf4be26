"""A shared G for each client, made of what is relevant to it: equation (10); pure.

    (10)  G_i ← G_i + η · Σ_j a_ij U_j        U_j = N_j / C_j,   a_ii = 1,   a_ij = max(0, cos(U_i, U_j))

U is the step that equation (5) would make of a client's update alone, zero where it covers nothing. So a client's own
step comes back as it does to one that trains by itself, and those of others in the measure in which they point where
its own points; the cosine is over all of G. Who sits a round out keeps its G as it is and does not get that round's
steps later; who first comes after others begins with their G after (5).
Deviation: the paper has one G. A weight for each pair of clients is the idea of RELA in Co-LoRA (arXiv 2506.11024).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2**18
"""Values of a client that are compared at once, in double precision."""


def relevance(learned: Float[Tensor, "n D roles R R"]) -> Float[Tensor, "n n"]:
    """Return a of equation (10) from every client's step U; one that learned nothing is relevant to none."""
    products = torch.zeros(len(learned), len(learned), dtype=torch.float64)
    for part in learned.flatten(1).split(BLOCK, dim=1):
        products += part.double() @ part.double().T
    norms = products.diagonal().sqrt().clamp(min=1e-30)
    found = (products / norms / norms[:, None]).clamp(min=0)
    return found.fill_diagonal_(1).float()


def personal_steps(
    learned: Float[Tensor, "n D roles R R"], relevant: Float[Tensor, "n n"]
) -> Float[Tensor, "n D roles R R"]:
    """Return Σ_j a_ij U_j of every client i."""
    return (relevant.to(learned.dtype) @ learned.flatten(1)).view_as(learned)
