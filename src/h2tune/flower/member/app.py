"""The ClientApp: passes each message to the worker beside the node, or handles it in this process if there is none.

Flower starts a process for every message; it imports nothing heavy where a worker has everything in memory.
"""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from h2tune.errors import H2TuneError
from h2tune.flower import audit
from h2tune.flower.member import worker
from h2tune.flower.member.record import is_refusal, log_answer
from h2tune.flower.messages import parts, wrapped
from h2tune.flower.seal import seal

NODE_KEY = "h2tune"
"""Key of the node's configuration that holds the path of the member's file."""

QUERIES = ("enrol", "keys", "shares", "agree", "reveal", "view", "frames", "knowledge", "lesson")
"""Enrolment; four of secure aggregation; two of an anchored basis: a view of the public texts, and frames;
two of the exchange before the first round."""

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train and evaluate for a round."""
    return respond("train", message, context)


def respond(kind: str, message: Message, context: Context) -> Message:
    """Return the reply to a message of a kind, signed."""
    try:
        file = _member_file(context)
        head, tensors = parts(message.content)
    except H2TuneError as error:
        answer = wrapped(*worker.refusal(str(error)))
        return Message(seal(answer, message.content, None), reply_to=message)
    answer = _answer(kind, file, head, tensors)
    try:
        key, folder = _own_files(file)
        log_answer(folder / audit.FILE, kind, (head, tensors), answer, key)
        sealed = seal(wrapped(*answer), message.content, key)
    except Exception as error:  # what cannot be logged does not leave, nor does an exception's text
        reason = str(error) if isinstance(error, H2TuneError) else "its audit log cannot be written"
        refusal = answer if is_refusal(answer) else worker.refusal(reason)
        sealed = seal(wrapped(*refusal), message.content, None)
    return Message(sealed, reply_to=message)


def _answer(kind: str, file: Path, head: str, tensors: bytes | None) -> tuple[str, bytes | None]:
    answer = worker.ask(file, kind, head, tensors)
    if answer is None:
        from h2tune.flower.member import handlers

        answer = handlers.respond(kind, file, head, tensors)
    return answer


def _own_files(file: Path) -> tuple[Path | None, Path]:
    """Return the node's private key, None if the member's file names none, and the member's folder."""
    home = file.resolve().parent
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None, home  # the answer says what is wrong with the file
    key, folder = (content.get(name) for name in ("key", "folder"))
    return (
        home / Path(key).expanduser() if isinstance(key, str) else None,
        home / Path(folder).expanduser() if isinstance(folder, str) else home,
    )


def _member_file(context: Context) -> Path:
    path = context.node_config.get(NODE_KEY)
    if not isinstance(path, str):
        raise H2TuneError(f"this node was started without --node-config '{NODE_KEY}=\"…/member.toml\"'")
    return Path(path)


for kind in QUERIES:
    app.query(kind)(partial(respond, kind))
