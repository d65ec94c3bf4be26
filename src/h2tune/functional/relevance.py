"""One G per client, moved by the updates that are relevant to it: equation (10); pure.

    (10)  G_i ← G_i + η · Σ_j a_ij U_j        U_j = N_j / C_j,   a_ii = 1,   a_ij = max(0, cos(U_i, U_j))

U_j is the step of equation (5) from client j's update alone, zero where it covers nothing. A client's own step is added
in full, as if it trained alone; the steps of others are weighted by cosine similarity to its own step, over all of G. A
client that does not take part in a round keeps its G and does not receive that round's steps later. A client that joins
later starts from the common G of equation (5).
Deviation: the paper has one G. A weight for each pair of clients is the idea of RELA in Co-LoRA (arXiv 2506.11024).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 2**18
"""Values per client in one matrix product, in double precision."""


def relevance(learned: Float[Tensor, "n D roles R R"]) -> Float[Tensor, "n n"]:
    """Return a of equation (10) from every client's step U; a step of zero has weight zero for all others."""
    products = torch.zeros(len(learned), len(learned), dtype=torch.float64)
    for part in learned.flatten(1).split(BLOCK, dim=1):
        products += part.double() @ part.double().T
    norms = products.diagonal().sqrt().clamp(min=1e-30)
    weights = (products / norms / norms[:, None]).clamp(min=0)
    return weights.fill_diagonal_(1).float()


def personal_steps(
    learned: Float[Tensor, "n D roles R R"], relevant: Float[Tensor, "n n"]
) -> Float[Tensor, "n D roles R R"]:
    """Return Σ_j a_ij U_j of every client i."""
    return (relevant.to(learned.dtype) @ learned.flatten(1)).view_as(learned)
