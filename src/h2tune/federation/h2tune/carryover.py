"""What an h2tune adapter carries from one round to the next: T with its mask, and the remainder of int8 rounding.

Error feedback (arXiv 1901.09847): what rounding removes from an update is added to the next one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from h2tune.adapter.shared import SharedMiddle
from h2tune.federation.messages import Tensors
from h2tune.functional.masks import gather, scatter

ADAPTER = "default"
"""Name of the adapter in the PEFT model."""
PREVIOUS = "previous."
"""Prefix of T at the end of the last round in a client's state: Ω (index) and T (middle) of each module."""
REMAINDER = "owed."
"""Prefix of the remainder of the last update's rounding in a client's state."""
PREFIXES = (PREVIOUS, REMAINDER)

Place = tuple[int, str]
"""(block, role)."""


class Carryover:
    """Tensors of a client's last round, read at the masks of this round.

    Args:
        shared: The shared middle matrices in the client's model.
        wire_dtype: Type of ΔT on the wire; remainders exist for int8 alone.
    """

    def __init__(self, shared: SharedMiddle, wire_dtype: str) -> None:
        self.shared, self.wire_dtype = shared, wire_dtype
        self._previous: dict[Place, tuple[Tensor, Tensor]] = {}
        self._remainders: dict[Place, Tensor] = {}

    def __bool__(self) -> bool:
        """Return whether there was a round before."""
        return bool(self._previous)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state` returned; names without its prefixes are ignored."""
        for place in self.shared.layers:
            block, role = place
            stem = f"{PREVIOUS}{role}.{block}."
            self._previous[place] = (state[stem + "middle"], state[stem + "index"])
            if self.wire_dtype == "int8":
                self._remainders[place] = state[f"{REMAINDER}{role}.{block}"]

    def state(self, middles: Mapping[Place, Tensor], remainders: Mapping[Place, Tensor]) -> Tensors:
        """Return what the next round needs, by name.

        Args:
            middles: T of every (block, role) at the end of this round.
            remainders: What rounding removes from this round's update; {} where nothing is rounded.
        """
        state: Tensors = {}
        masks = self.shared.masks()
        for (block, role), middle in middles.items():
            state[f"{PREVIOUS}{role}.{block}.middle"] = middle.cpu()
            state[f"{PREVIOUS}{role}.{block}.index"] = masks[block, role].cpu()
        for (block, role), remainder in remainders.items():
            state[f"{REMAINDER}{role}.{block}"] = remainder.cpu()
        return state

    def remainder(self, place: Place) -> Tensor | float:
        """Return the last update's remainder at Ω of this round; zero for entries that were not in Ω then."""
        if place not in self._remainders:
            return 0.0
        index = self.shared.layers[place].h2tune_index[ADAPTER]
        before = self._previous[place][1].to(index.device)
        grid = scatter(self._remainders[place].to(index.device), before, self.shared.size)
        return gather(grid, index)

    def previous_middles(self, received: Mapping[Place, Tensor]) -> Tensor | None:
        """Return T_prev (modules, r²) at Ω of this round; None in the first round.

        Args:
            received: T as received, used for entries that were not in Ω of the last round.
        """
        if not self._previous:
            return None
        rows, size = [], self.shared.size
        for place, layer in self.shared.layers.items():
            now = layer.h2tune_index[ADAPTER]
            middle, index = (tensor.to(now.device) for tensor in self._previous[place])
            known = gather(scatter(torch.ones_like(middle), index, size), now) > 0
            before = gather(scatter(middle, index, size), now)
            rows.append(torch.where(known, before, received[place]).flatten())
        return torch.stack(rows)
