"""Conversations: rows with a list of messages, which a decoder reads in its tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from h2tune.errors import H2TuneError
from h2tune.own_code import Reference, is_reference
from h2tune.tasks.own_task import MOST_NEW_TOKENS, OwnTask
from h2tune.tasks.sources import title
from h2tune.tasks.task import Example, Messages, Task

ROLES = {"system": "system", "user": "user", "assistant": "assistant", "human": "user", "gpt": "assistant"}
"""Roles of messages, with those of ShareGPT's rows (`from`, `value`)."""


class ChatTask(OwnTask):
    """Rows with conversations, as a table in the federation file; each field describes its key.

    All turns of the assistant are trained on; the last one is the answer that is scored.
    """

    messages: str | tuple[str, str] = Field(
        description="Field of a row with the messages, `{role, content}` as for trl, the last the assistant's; or "
        'two fields, such as `["prompt", "completion"]`, each a text or messages.'
    )
    chat_template: str | None = Field(
        default=None, description="File with a Jinja chat template; the tokenizer's own if left out."
    )
    scorer: Literal["f1", "exact", "rouge", "likelihood", "number", "option", "word"] | Reference = Field(
        default="f1",
        description="How the last answer is scored: token F1, exact match, ROUGE-L, or without generating by its "
        "likelihood (1 / perplexity).",
    )

    @property
    def files(self) -> dict[str, str]:
        template = {"chat_template": self.chat_template} if self.chat_template else {}
        return super().files | template | ({"scorer": self.scorer} if is_reference(self.scorer) else {})

    def describe(self) -> Task:
        """Return the task without reading a file of rows.

        Raises:
            H2TuneError: The template's file cannot be read.
        """
        return Task(
            name=title(self.sources["train"]),
            kind="generate",
            labels=(),
            verbalisers=(),
            template="{text}",
            source=f"rows of {self.dataset or Path(str(self.file)).name}",
            license="that of the client's own file",
            scorer=self.scorer,
            max_length=self.max_length,
            new_tokens=self.max_new_tokens or MOST_NEW_TOKENS,
            chat=True,
            chat_template=_read(self.chat_template) if self.chat_template else "",
        )

    def example(self, row: Mapping[str, Any], where: str) -> Example:
        messages = self._messages(row, where)
        if not messages or messages[-1][0] != "assistant":
            raise H2TuneError(
                f"'{self._fields[-1]}' does not end with a message of the assistant",
                where=where,
                remedy="Add the answer, or remove the row",
            )
        return _example(messages[:-1], messages[-1][1], where)

    def question(self, row: Mapping[str, Any], where: str) -> Example:
        asked = self._fields if self._fields[-1] in row else self._fields[:1]  # a completion may be left out
        messages = self._messages(row, where, asked)
        return _example(messages[:-1] if messages and messages[-1][0] == "assistant" else messages, "", where)

    @property
    def _fields(self) -> tuple[str, ...]:
        return (self.messages,) if isinstance(self.messages, str) else self.messages

    def _messages(self, row: Mapping[str, Any], where: str, fields: Sequence[str] = ()) -> Messages:
        """Return the messages of the row's fields; a prompt may be the user's text, a completion the assistant's."""
        given: list[Any] = []
        for field, role in zip(fields or self._fields, ("user", "assistant"), strict=False):
            found = row.get(field)
            if isinstance(found, str) and not isinstance(self.messages, str):
                found = [{"role": role, "content": found}]
            if not isinstance(found, list):
                kind = "is missing" if field not in row else "is no list of messages"
                raise H2TuneError(
                    f"field '{field}' {kind}", where=where, remedy=f"Its fields: {', '.join(row)}"
                )
            given += found
        return tuple(_message(message, f"{where}, message {i}") for i, message in enumerate(given, start=1))


def _message(message: Any, where: str) -> tuple[str, str]:
    """Return the role and content of a message, also of ShareGPT's form."""
    if not isinstance(message, Mapping):
        raise H2TuneError("is no message", where=where, remedy='Write {"role": "user", "content": "…"}')
    role, content = (message.get(a, message.get(b)) for a, b in (("role", "from"), ("content", "value")))
    if role not in ROLES:
        raise H2TuneError(
            f"its role is {role!r}",
            where=where,
            remedy="Roles: system, user and assistant; tools are not supported",
        )
    if not isinstance(content, str) or not content.strip():
        raise H2TuneError("its content is no text, or empty", where=where)
    return ROLES[role], content


def _example(messages: Messages, answer: str, where: str) -> Example:
    if not any(role == "user" for role, _ in messages):
        raise H2TuneError("it has no message of the user before the answer", where=where)
    said = "\n".join(f"{role}: {content}" for role, content in messages)
    return Example(said, answer, None, said, messages=messages)


def _read(path: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise H2TuneError(f"cannot be read ({reason})", where=path) from None
