"""The linear layers in a model's numbered blocks, which may be adapted; never an embedding, a head or a router."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from h2tune.errors import H2TuneError

_HEAD = re.compile(r"(lm_)?heads?|.*classifiers?|cls|scores?|pooler|.*embed.*", re.IGNORECASE)


@dataclass(frozen=True)
class Linear:
    """A linear layer in a numbered block: `{stack}.{block}.{path}` is its name.

    Args:
        name: Name relative to the model.
        stack: Name of the list of blocks, such as "model.layers".
        block: Index in that list.
        path: Name within the block, such as "mlp.up_proj".
        d_in: Input width.
        d_out: Output width.
    """

    name: str
    stack: str
    block: int
    path: str
    d_in: int
    d_out: int

    def __str__(self) -> str:
        return f"{self.stack}.*.{self.path} ({self.d_in} → {self.d_out})"


def block_linears(model: nn.Module) -> list[Linear]:
    """Return the linear layers in numbered blocks, without routers and without the parts of adapted layers.

    Raises:
        H2TuneError: There are none, or an attention module bypasses its linear layers.
    """
    where = type(model).__name__
    modules = dict(model.named_modules())
    linears: list[Linear] = []
    for name, module in modules.items():
        parts = name.split(".")
        at = next((i for i, part in enumerate(parts[:-1]) if part.isdigit()), None)
        if at is None or any(_HEAD.fullmatch(part) for part in parts[:at]):
            continue
        if isinstance(module, nn.MultiheadAttention):
            raise H2TuneError(
                f"'{name}' is a torch.nn.MultiheadAttention, which bypasses any adapter on its layers",
                where=where,
                remedy="Use a model whose attention calls its linear layers",
            )
        widths = _widths(module)
        parent, _, leaf = name.rpartition(".")
        router = "router" in name or (leaf.endswith("gate") and f"{parent}.experts" in modules)
        if widths and not router and not (linears and name.startswith(f"{linears[-1].name}.")):
            linears.append(
                Linear(name, ".".join(parts[:at]), int(parts[at]), ".".join(parts[at + 1 :]), *widths)
            )
    if not linears:
        raise H2TuneError(
            "has no numbered blocks with linear layers", where=where, remedy="Use a transformer"
        )
    return linears


def _widths(module: Any) -> tuple[int, int] | None:
    """Return (d_in, d_out) of a linear layer, also if it is quantised or adapted; None for any other module."""
    layer: Any = module.get_base_layer() if hasattr(module, "get_base_layer") else module
    names = ("nx", "nf") if type(layer).__name__ == "Conv1D" else ("in_features", "out_features")
    d_in, d_out = (getattr(layer, name, None) for name in names)
    return (d_in, d_out) if isinstance(d_in, int) and isinstance(d_out, int) else None
