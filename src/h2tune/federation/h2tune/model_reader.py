"""How a member's model reads the public texts of an anchored basis, and the frames that follow from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.federation.h2tune.reading_cache import ReadingCache
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Tensors, digest
from h2tune.files import sha256
from h2tune.functional.frames import down_frame, up_frame
from h2tune.training.readings import encode_texts, read_texts

GetModel = Callable[[LocalClient], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
Reading = tuple[Tensor, Tensors, Tensors]
"""Final states, and by module its inputs and outputs; see `read_texts`."""

ROOM = 2 * 2**30
"""Bytes of readings kept in memory from the views to the frames; what finds no room is read a second time."""
SMALL = 5_000_000
"""Parameters of a model below which it reads the texts faster than what an earlier run read is looked up."""
FORMAT = 1
"""Goes up when the same model and texts give other final states or frames."""


class ModelReader:
    """Reads the public texts with members' models, and works out their frames.

    A model takes minutes to read them on a CPU. So a reading is kept for the frames while there is room, and members
    that read alike (one model, one prompt) share it; so do neighbours their frames; and a later run with the same
    weights and texts finds both.

    Args:
        get_model: Returns a member's base model and tokenizer.
        texts: The public texts, the same for all.
        room: Bytes that may be kept in memory.
        cache: Where final states and frames outlive the run; None for nowhere.
    """

    def __init__(
        self, get_model: GetModel, texts: Sequence[str], room: int = ROOM, cache: ReadingCache | None = None
    ) -> None:
        self.get_model, self.texts, self.room, self.cache = get_model, texts, room, cache
        self._readings: dict[Hashable, Reading] = {}
        self._names: dict[Hashable, str] = {}
        self._last: tuple[Hashable, Tensors] | None = None  # one member's: frames are as large as an adapter

    def finals(self, member: LocalClient) -> Tensor:
        """Return the final states (n, width) of a member's model."""
        return self._once(member, "finals", lambda: {"finals": self._read_finals(member)})["finals"]

    def frames(self, member: LocalClient, z: Tensor) -> Tensors:
        """Return a member's frames of coordinates Z (n, R), as NAME.down (R, d_in) and NAME.up (d_out, R)."""
        of = digest({"z": z})
        wanted = (self._key(member), of)
        if self._last is None or self._last[0] != wanted:
            self._last = (wanted, self._once(member, of, lambda: self._work_out(member, z)))
        return self._last[1]

    def _read_finals(self, member: LocalClient) -> Tensor:
        modules = member.enrolment.modules
        wide = sum(d_in + d_out for d_in, d_out in modules.values())
        size = 4 * len(self.texts) * wide
        key = self._key(member)
        if key not in self._readings and size <= self.room:
            self._readings[key] = self._read(member, list(modules))
            self.room -= size
        return self._readings[key][0] if key in self._readings else self._read(member, [])[0]

    def _work_out(self, member: LocalClient, z: Tensor) -> Tensors:
        modules = list(member.enrolment.modules)
        _, inputs, outputs = self._readings.get(self._key(member)) or self._read(member, modules)
        frames: Tensors = {}
        for name in modules:
            frames[f"{name}.down"] = down_frame(inputs[name], z)
            frames[f"{name}.up"] = up_frame(outputs[name], z)
        return frames

    def _once(self, member: LocalClient, what: str, compute: Callable[[], Tensors]) -> Tensors:
        model, _ = self.get_model(member)
        if self.cache is None or model.num_parameters() < SMALL:
            return compute()
        key = self._key(member)
        if key not in self._names:
            self._names[key] = self._name(member)
        return self.cache.get_or_compute(f"{self._names[key]}-{what}", compute)

    def _name(self, member: LocalClient) -> str:
        """Return a checksum of all that decides what is read: weights, tokens, modules, batches, libraries."""
        model, tokenizer = self.get_model(member)
        rows = encode_texts(tokenizer, member.task, self.texts, causal=member.causal)
        content = {
            "format": [FORMAT, torch.__version__, transformers.__version__],
            "weights": digest(model.base_model.state_dict()),
            "config": model.config.to_json_string(),
            "device": model.device.type,
            "causal": member.causal,
            "modules": list(member.enrolment.modules),
            "batch_size": member.evaluate_batch_size,
            "tokens": [row.prompt for row in rows],
        }
        return sha256(json.dumps(content, sort_keys=True).encode())

    def _key(self, member: LocalClient) -> Hashable:
        enrolment, task = member.enrolment, member.task
        model, _ = self.get_model(member)
        prompt = task.template if member.causal else ""
        reading = (prompt, task.max_length, member.evaluate_batch_size)
        return (enrolment.model, member.kind, str(model.dtype), tuple(enrolment.modules), *reading)

    def _read(self, member: LocalClient, modules: Sequence[str]) -> Reading:
        model, tokenizer = self.get_model(member)
        return read_texts(
            model,
            tokenizer,
            member.task,
            self.texts,
            causal=member.causal,
            modules=modules,
            batch_size=member.evaluate_batch_size,
        )
