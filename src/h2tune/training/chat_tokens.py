"""Conversations in tokens: rendered by the chat template, cut by turns, with the turns of the assistant marked."""

from __future__ import annotations

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from h2tune.errors import H2TuneError
from h2tune.tasks.prompts import capped, most_that_fits
from h2tune.tasks.task import Example, Messages, Task
from h2tune.training.prompt_tokens import Tokens, common_length, prompt_tokens


def rendered(messages: Messages, task: Task, tokenizer: PreTrainedTokenizerBase, *, asking: bool) -> str:
    """Return a conversation as the chat template writes it.

    Args:
        messages: Roles and contents.
        task: The task, whose own template counts before the tokenizer's.
        tokenizer: A tokenizer.
        asking: Whether the beginning of an answer follows.

    Raises:
        H2TuneError: There is no template, or it cannot write these messages.
    """
    if not task.chat_template and not tokenizer.chat_template:
        raise H2TuneError(
            "its model's tokenizer has no chat template",
            where=f"task '{task.name}'",
            remedy='Use an instruction-tuned model, or give one: chat_template = "template.jinja"',
        )
    turns = [{"role": role, "content": content} for role, content in messages]
    try:
        return str(
            tokenizer.apply_chat_template(
                turns,
                chat_template=task.chat_template or None,
                tokenize=False,
                add_generation_prompt=asking,
            )
        )
    except TemplateError as error:
        raise H2TuneError(
            f"the chat template cannot write a conversation ({str(error).splitlines()[0]})",
            where=f"task '{task.name}'",
            remedy="Change the rows, or give another template with chat_template",
        ) from None


def fitted_chat(
    messages: Messages, task: Task, tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[Messages, float]:
    """Return what is left of a conversation before its answer, and the share of its characters that is.

    Its oldest turns are left out first, and never the system's; then the middle of its longest messages.

    Args:
        messages: The messages before the answer.
        task: The task.
        tokenizer: A tokenizer.
        limit: Most tokens, with the beginning of the answer.
    """

    def count(part: Messages) -> int:
        return len(prompt_tokens(rendered(part, task, tokenizer, asking=True), tokenizer))

    kept = messages
    while count(kept) > limit and (fewer := _without_oldest(kept)):
        kept = fewer
    if count(kept) > limit:
        longest = max(len(content) for _, content in kept)
        most = most_that_fits(longest, lambda m: count(_shorter(kept, m)) <= limit)
        kept = _shorter(kept, most)
    whole, left = (sum(len(content) for _, content in part) for part in (messages, kept))
    return kept, left / whole


def conversation(
    task: Task, example: Example, tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[Tokens, Tokens, tuple[bool, ...], float]:
    """Return a conversation in tokens, with its last answer.

    The tokens before the assistant's first turn, the others, which of these are the assistant's, and the share of the
    conversation that is left.

    Args:
        task: The task.
        example: The conversation.
        tokenizer: A tokenizer.
        limit: Most tokens before the last answer.

    Raises:
        H2TuneError: As `rendered`; or the template writes an answer otherwise than it asks for it.
    """
    asked, kept = fitted_chat(example.messages, task, tokenizer, limit)
    messages: Messages = (*asked, ("assistant", example.answer))
    text = rendered(messages, task, tokenizer, asking=False).rstrip()
    whole = prompt_tokens(text, tokenizer)
    spans = []
    for place, (role, _) in enumerate(messages):
        if role == "assistant":
            before = rendered(messages[:place], task, tokenizer, asking=True)
            until = rendered(messages[: place + 1], task, tokenizer, asking=False).rstrip()
            if not (text.startswith(before) and text.startswith(until)):
                raise H2TuneError(
                    "the chat template writes an answer otherwise than it asks for it",
                    where=f"task '{task.name}'",
                    remedy="Give another template with chat_template",
                )
            spans.append(
                tuple(common_length(prompt_tokens(part, tokenizer), whole) for part in (before, until))
            )
    first = spans[0][0]
    own = tuple(any(start <= i < end for start, end in spans) for i in range(first, len(whole)))
    return whole[:first], whole[first:], own, kept


def _without_oldest(messages: Messages) -> Messages:
    """Return a conversation without its oldest question and answer; () if it has only one."""
    system = messages[:1] if messages[0][0] == "system" else ()
    rest = messages[len(system) :]
    later = [i for i, (role, _) in enumerate(rest) if role == "user" and i > 0]
    return (*system, *rest[later[0] :]) if later else ()


def _shorter(messages: Messages, most: int) -> Messages:
    """Return messages of which each has at most so many characters."""
    return tuple((role, capped(content, most)) for role, content in messages)
