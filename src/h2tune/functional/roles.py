"""The roles of linear layers by which models share; without torch, since files are checked before it is imported."""

from __future__ import annotations

ROLES: tuple[str, ...] = (
    "attn.q", "attn.k", "attn.v", "attn.qkv", "attn.o", "mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down",
)  # fmt: skip
"""All roles in canonical order; a fused projection has its own role."""
