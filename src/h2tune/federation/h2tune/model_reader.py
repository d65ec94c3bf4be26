"""States of a client's model on the public texts of an anchored basis, and the frames computed from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from h2tune.federation.h2tune.reading_cache import SMALL, ReadingCache
from h2tune.federation.head_reading import cached_name
from h2tune.federation.local_client import LocalClient
from h2tune.federation.messages import Tensors, digest
from h2tune.files import sha256
from h2tune.functional.frames import down_frame, up_frame
from h2tune.heads import last_layer
from h2tune.models import load_model, load_tokenizer
from h2tune.tasks.task import Task
from h2tune.training.encode import Encoded
from h2tune.training.readings import HeadReading, encode_texts, read_rows

GetModel = Callable[[LocalClient], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
Watch = Callable[[str, int, int], None]
"""Called with a client's name ("": the public encoder), the number of texts read, and their number."""
Reading = tuple[Tensor, Tensors, Tensors]
"""Final states, and by module its inputs and outputs; see `read_rows`."""

ROOM = 2 * 2**30
"""Bytes of readings cached in memory between views and frames; what does not fit is computed twice."""
PLAIN = Task("", "label", ("",), ("",), "{text}", "", "", "label", max_length=128)
"""How a public encoder reads texts: bare, cut at 128 tokens."""
ENCODER_BATCH = 16
FORMAT = 1
"""Version of the cached content; raise it when the same model and texts give other final states or frames."""


def unwatched(client: str, done: int, total: int) -> None:
    """Show nothing of how far a model has read the texts."""


class ModelReader:
    """Runs the public texts through clients' models, and computes frames.

    On a CPU a model takes minutes for the texts. A reading is therefore cached in memory up to a limit, and shared by
    clients with the same model and prompt. The last frames are cached too, for the next client with the same key.
    Final states and frames are also cached on disk, for later runs with the same weights and texts.

    Args:
        get_model: Returns a client's base model and tokenizer.
        texts: The public texts, the same for all.
        room: Bytes that may be cached in memory.
        cache: Cache on disk; None for none.
        watch: Called before the first batch of texts that a model reads, and after each.
    """

    def __init__(
        self,
        get_model: GetModel,
        texts: Sequence[str],
        room: int = ROOM,
        cache: ReadingCache | None = None,
        watch: Watch = unwatched,
    ) -> None:
        self.get_model, self.texts, self.room, self.cache, self.watch = get_model, texts, room, cache, watch
        self._readings: dict[Hashable, Reading] = {}
        self._names: dict[Hashable, str] = {}
        # rows and frames of one client alone: frames are as large as an adapter
        self._rows: tuple[str, list[Encoded]] | None = None
        self._last: tuple[Hashable, Tensors] | None = None

    def rows(self, client: LocalClient) -> list[Encoded]:
        """Return the public texts as a client's model gets them, in tokens."""
        if self._rows is None or self._rows[0] != client.name:
            _, tokenizer = self.get_model(client)
            self._rows = client.name, encode_texts(tokenizer, client.task, self.texts, causal=client.causal)
        return self._rows[1]

    def finals(self, client: LocalClient) -> Tensor:
        """Return the final states (n, width) of a client's model."""
        return self._cached(client, "finals", lambda: {"finals": self._read_finals(client)})["finals"]

    def states(self, encoder: str) -> Tensor:
        """Return the final states (n, width) of a public encoder, which is no client's.

        Raises:
            H2TuneError: It cannot be loaded.
        """
        # somebody else may have named it
        model = load_model(encoder, "classifier", "float32", 0, safetensors=True)
        tokenizer = load_tokenizer(encoder)
        rows = encode_texts(tokenizer, PLAIN, self.texts, causal=False)

        def compute() -> Tensors:
            finals, _, _ = read_rows(
                model,
                tokenizer,
                rows,
                causal=False,
                modules={},
                batch_size=ENCODER_BATCH,
                progress=self._progress(""),
            )
            return {"finals": finals}

        if self.cache is None:
            return compute()["finals"]
        content = _content(model) | {"tokens": [row.prompt for row in rows]}
        return self.cache.get_or_compute(f"{_checksum(content)}-states", compute)["finals"]

    def frames(self, client: LocalClient, z: Tensor) -> Tensors:
        """Return a client's frames of coordinates Z (n, R), as NAME.down (R, d_in) and NAME.up (d_out, R)."""
        of = digest({"z": z})
        wanted = (self._key(client), of)
        if self._last is None or self._last[0] != wanted:
            self._last = (wanted, self._cached(client, of, lambda: self._compute_frames(client, z)))
        return self._last[1]

    def _read_finals(self, client: LocalClient) -> Tensor:
        modules = client.enrolment.modules
        wide = sum(d_in + d_out for d_in, d_out in modules.values())
        size = 4 * len(self.texts) * wide
        key = self._key(client)
        if key not in self._readings and size <= self.room:
            self._readings[key] = self._read(client, list(modules))
            self.room -= size
        return self._readings[key][0] if key in self._readings else self._read(client, [])[0]

    def _compute_frames(self, client: LocalClient, z: Tensor) -> Tensors:
        modules = list(client.enrolment.modules)
        finals, inputs, outputs = self._readings.get(self._key(client)) or self._read(client, modules)
        # the exchange that comes after the frames needs them, too
        self._cached(client, "finals", lambda: {"finals": finals})
        frames: Tensors = {}
        for name in modules:
            frames[f"{name}.down"] = down_frame(inputs[name], z)
            frames[f"{name}.up"] = up_frame(outputs[name], z)
        return frames

    def _cached(self, client: LocalClient, what: str, compute: Callable[[], Tensors]) -> Tensors:
        model, _ = self.get_model(client)
        if self.cache is None or model.num_parameters() < SMALL:
            return compute()
        key = self._key(client)
        if key not in self._names:
            self._names[key] = self._name(client)
        return self.cache.get_or_compute(f"{self._names[key]}-{what}", compute)

    def _name(self, client: LocalClient) -> str:
        """Return a checksum of everything that a reading depends on: weights, tokens, modules, batches, libraries."""
        model, _ = self.get_model(client)
        content = _content(model) | {
            "causal": client.causal,
            "modules": list(client.enrolment.modules),
            "batch_size": client.evaluate_batch_size,
            "tokens": [row.prompt for row in self.rows(client)],
        }
        return _checksum(content)

    def _key(self, client: LocalClient) -> Hashable:
        enrolment, task = client.enrolment, client.task
        model, _ = self.get_model(client)
        prompt = task.template if client.causal else ""
        reading = (prompt, task.max_length, client.evaluate_batch_size)
        return (enrolment.model, client.kind, str(model.dtype), tuple(enrolment.modules), *reading)

    def _read(self, client: LocalClient, modules: Sequence[str]) -> Reading:
        model, tokenizer = self.get_model(client)
        rows, size = self.rows(client), client.evaluate_batch_size
        cache = None if client.causal or model.num_parameters() < SMALL else self.cache
        head = HeadReading(last_layer(model)[1]) if cache else None
        reading = read_rows(
            model,
            tokenizer,
            rows,
            causal=client.causal,
            modules={name: model.get_submodule(name) for name in modules},
            batch_size=size,
            progress=self._progress(client.name),
            head=head,
        )
        if cache and head:  # a head that starts at a teacher needs its inputs
            cache.get_or_compute(cached_name(model, rows, size), lambda: {"inputs": head.inputs})
        return reading

    def _progress(self, name: str) -> Callable[[int], None]:
        return lambda done: self.watch(name, done, len(self.texts))


def _content(model: PreTrainedModel) -> dict[str, Any]:
    """Return what a model's states depend on besides the texts: libraries, weights, configuration and device."""
    return {
        "format": [FORMAT, torch.__version__, transformers.__version__],
        "weights": digest(model.base_model.state_dict()),
        "config": model.config.to_json_string(),
        "device": model.device.type,
    }


def _checksum(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())
