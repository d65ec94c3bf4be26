"""The ClientApp: passes each message to the worker beside the node, or handles it in this process if there is none.

Flower starts a process for every message; it imports nothing heavy where a worker has everything in memory.
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
"""Enrolment; three of secure aggregation; two of an anchored basis: a view of the public texts, and frames;
two of the exchange before the first round."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train and evaluate for a round."""
    return respond("train", message, context)


def respond(kind: str, message: Message, context: Context) -> Message:
    """Return the reply to a message of a kind."""
    try:
        file = _member_file(context)
        head, tensors = parts(message.content)
    except H2TuneError as error:
        return Message(wrapped(*worker.refusal(str(error))), reply_to=message)
    answer = worker.ask(file, kind, head, tensors)
    if answer is None:
        from h2tune.flower.member import handlers

        answer = handlers.respond(kind, file, head, tensors)
    return Message(wrapped(*answer), reply_to=message)


def _member_file(context: Context) -> Path:
    path = context.node_config.get(NODE_KEY)
    if not isinstance(path, str):
        raise H2TuneError(f"this node was started without --node-config '{NODE_KEY}=\"…/member.toml\"'")
    return Path(path)


for kind in QUERIES:
    app.query(kind)(partial(respond, kind))
