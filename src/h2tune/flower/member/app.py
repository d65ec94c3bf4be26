"""The ClientApp: hands each message to the worker beside the node, or does by itself what it asks.

Flower starts a process for every message; nothing heavy is imported where a worker has it in memory already.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from h2tune.errors import H2TuneError
from h2tune.flower.member import worker
from h2tune.flower.messages import parts, wrapped

NODE_KEY = "h2tune"
"""Key of the node's configuration that holds the path of the member's file."""

QUERIES = ("enrol", "keys", "shares", "reveal", "view", "frames", "knowledge", "lesson")
"""Who this is; secure aggregation's three; how its model reads public texts; coordinates for its frames."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train and evaluate for a round."""
    return _answer("train", message, context)


def _answer(kind: str, message: Message, context: Context) -> Message:
    try:
        file = _file(context)
        head, tensors = parts(message.content)
    except H2TuneError as error:
        return Message(wrapped(*worker.refused(str(error))), reply_to=message)
    found = worker.ask(file, kind, head, tensors)
    if found is None:
        from h2tune.flower.member.handlers import answered

        found = answered(kind, file, head, tensors)
    return Message(wrapped(*found), reply_to=message)


def _file(context: Context) -> Path:
    path = context.node_config.get(NODE_KEY)
    if not isinstance(path, str):
        raise H2TuneError(f"this node was started without --node-config '{NODE_KEY}=\"…/member.toml\"'")
    return Path(path)


for kind in QUERIES:
    app.query(kind)(partial(_answer, kind))
