"""What the last block of a client does with T, from states that do not depend on T.

T stands in the last block alone, so all before its `attn.o` is computed once for each text: the inputs of `attn.o` and
the block's own input, at the tokens that are read (a decoder's last one, all of an encoder's). What follows is a matter
of milliseconds a text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from anchored import Frame, anchored_frames, probe, ridge, verbaliser
from clients import LATE, ROLES, Client, Texts, by_length
from pairs import public_features
from safetensors.torch import load_file, save
from torch import Tensor

from h2tune.files import write_bytes

LAST = LATE - 1  # slot of the last block
SPLITS = ("source", "pool", "chosen_by", "fresh")
Middle = Mapping[str, Tensor]  # role -> T (k, k)


class Tail:
    """A client from the last block's `attn.o` on.

    Args:
        name: Of the client.
        texts: All texts.
        z: Common coordinates of the public ones (n, k).
        cache: Folder of what is computed once.
    """

    def __init__(self, name: str, texts: Texts, z: Tensor, cache: Path) -> None:
        self.name, self.texts, self.cache = name, texts, cache
        public = public_features(name, texts, cache)
        frames = anchored_frames({k: v for k, v in public.items() if k.startswith(f"{LAST}/")}, z)
        self.frames: dict[str, Frame] = {role: frames[LAST, role] for role in ROLES}
        self.client = Client(name)
        final = public[f"final/{self.client.reading}"]
        self.to_z, _ = ridge(final, z)
        self.center = final.mean(0)
        self.whole = {split: self._states(split) for split in SPLITS}
        self.client.net.float()
        self.block = self.client.blocks[-1]

    def coordinates(self, features: Tensor) -> Tensor:
        """Return final features (n, width) in the common coordinates (n, k)."""
        return (features - self.center) @ self.to_z.T

    def features(self, split: str, middle: Middle, scale: float, rows: Sequence[int] | None = None) -> Tensor:
        """Return final features (n, width) of a split with s · B T A (x − μ) in the last block."""
        states = self.whole[split]
        rows = range(len(states)) if rows is None else rows
        out = []
        for start in range(0, len(rows), 64):
            some = [states[i] for i in rows[start : start + 64]]
            x, h = (torch.cat([pair[end] for pair in some]).float() for end in (0, 1))
            final = self._run(x, h, middle, scale)
            out += [values.mean(0) for values in final.split([len(pair[0]) for pair in some])]
        return torch.stack(out)

    @lru_cache  # noqa: B019 - a handful of clients, each as long-lived as the process
    @torch.no_grad()
    def unchanged(self, split: str) -> Tensor:
        """Return the common coordinates (n, k) of a split without T."""
        return self.coordinates(self.features(split, {}, 0.0))

    def measure(
        self, middle: Middle, scale: float, split: str, run: int, only: int | None = None
    ) -> dict[str, float]:
        """Return the accuracies with s · T: probe on few labels (`only` one draw), decoder by its own words."""
        with torch.no_grad():
            pool, test = (self.features(s, middle, scale) for s in ("pool", split))
        labels = self.texts.labels(split)
        found = {"probe": probe(pool, self.texts.labels("pool"), test, labels, seed=run, only=only)}
        if self.client.answer is not None:
            found["said"], found["said_calibrated"] = verbaliser(self.client, pool, test, labels)
        return found

    def _added(self, role: str, x: Tensor, middle: Middle, scale: float) -> Tensor | float:
        if role not in middle:
            return 0.0
        down, center, up = self.frames[role]
        return scale * ((x - center) @ down.T @ middle[role].T @ up.T)

    def _run(self, x: Tensor, h: Tensor, middle: Middle, scale: float) -> Tensor:
        block, after = self.block, self._added("attn.o", x, middle, scale)
        if self.client.encoder:  # BERT: norms after the sums
            first = block.attention.output
            h = first.LayerNorm(first.dense(x) + after + h)
            inner = block.intermediate(h)
            added = self._added("mlp.down", inner, middle, scale)
            return block.output.LayerNorm(block.output.dense(inner) + added + h)
        mlp, x = block.mlp, block.self_attn.o_proj(x) + after
        gemma = hasattr(block, "pre_feedforward_layernorm")  # with norms on both sides of a sublayer
        h = h + (block.post_attention_layernorm(x) if gemma else x)
        normed = block.pre_feedforward_layernorm(h) if gemma else block.post_attention_layernorm(h)
        inner = mlp.act_fn(mlp.gate_proj(normed)) * mlp.up_proj(normed)
        x = mlp.down_proj(inner) + self._added("mlp.down", inner, middle, scale)
        h = h + (block.post_feedforward_layernorm(x) if gemma else x)
        return self.client.net.norm(h)

    def _states(self, split: str) -> list[tuple[Tensor, Tensor]]:
        """Return for each text the inputs of `attn.o` and of the last block, (tokens read, width) each."""
        path = self.cache / f"tail-{self.name}-{split}.safetensors"
        if not path.exists():
            write_bytes(path, save(self._computed(split)))
        kept = load_file(path)
        return [(kept[f"{i}/x"], kept[f"{i}/h"]) for i in range(len(kept) // 2)]

    @torch.no_grad()
    def _computed(self, split: str) -> dict[str, Tensor]:
        client, seen, out = self.client, {}, {}

        def record(name: str):
            return lambda _, args, named: seen.__setitem__(name, args[0] if args else named["hidden_states"])

        hooked = {"x": client.modules[LAST, "attn.o"], "h": client.blocks[-1]}
        handles = [m.register_forward_pre_hook(record(n), with_kwargs=True) for n, m in hooked.items()]
        states = client.prepare([e.text for e in self.texts.labelled[split]])
        for batch in by_length(states):
            lengths = client.forward([states[i] for i in batch])[1].sum(1).tolist()
            for row, (i, length) in enumerate(zip(batch, lengths, strict=True)):
                read = slice(0 if client.encoder else length - 1, length)
                out |= {f"{i}/{name}": seen[name][row, read].clone() for name in hooked}
        for handle in handles:
            handle.remove()
        return out
