"""A shared G for each client, made of what is relevant to it: equation (10); pure.

    (10)  G_i ← G_i + η · Σ_j a_ij N_j        a_ii = 1,   a_ij = max(0, cos(N_i, N_j))

A client's own step comes back whole, and those of others in the measure in which they point where its own points; the
cosine is over all of G; where a client keeps no entry, N is zero. Clients with unrelated tasks then train as they would
by themselves, those with related tasks add to each other, and nobody says beforehand which is which.
Deviation: the paper has one G. A weight for each pair of clients is the idea of RELA in Co-LoRA (arXiv 2506.11024).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def relevance(learned: Float[Tensor, "n D roles R R"]) -> Float[Tensor, "n n"]:
    """Return a of equation (10) from N of every client; a client that learned nothing is relevant to none."""
    flat = learned.flatten(1).double()
    unit = flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-30)
    found = (unit @ unit.T).clamp(min=0)
    return found.fill_diagonal_(1).float()


def personal_steps(
    learned: Float[Tensor, "n D roles R R"], relevant: Float[Tensor, "n n"]
) -> Float[Tensor, "n D roles R R"]:
    """Return Σ_j a_ij N_j of every client i."""
    return (relevant.to(learned.dtype) @ learned.flatten(1)).view_as(learned)
