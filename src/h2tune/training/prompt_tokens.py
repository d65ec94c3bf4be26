"""The tokens of a prompt and of the answers that continue it, always taken from both together.

Tokenised apart they differ from what the model reads: some tokenizers end every text with a token, which would stand
between prompt and answer, and some begin every text with a space. As lm-evaluation-harness does, spaces at the end of a
prompt count to the answer, since most vocabularies write a word with the space before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from h2tune.errors import H2TuneError
from h2tune.tasks.prompts import fields, fill, shorten
from h2tune.tasks.task import Task

Tokens = tuple[int, ...]
_ADDED: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[int, int]] = WeakKeyDictionary()
"""What `_added` found: it is asked for every text."""


@dataclass(frozen=True)
class Continued:
    """The tokens of a prompt, and of each answer after it."""

    prompt: Tokens
    answers: tuple[Tokens, ...]


def continued(prompt: str, answers: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Continued:
    """Return the tokens of a prompt and of answers after it; where a token spans both, it is the answer's.

    Args:
        prompt: The prompt.
        answers: Answers, with the space that separates them from the prompt.
        tokenizer: A tokenizer.
    """
    stem = prompt.rstrip(" ")
    gap = prompt[len(stem) :]
    texts = [stem, *(stem + gap + (answer.lstrip(" ") if gap else answer) for answer in answers)]
    alone, *together = _without_end(texts, tokenizer)
    common = min((common_length(alone, whole) for whole in together), default=len(alone))
    return Continued(alone[:common], tuple(whole[common:] for whole in together))


def prompt_tokens(prompt: str, tokenizer: PreTrainedTokenizerBase) -> Tokens:
    """Return the tokens of a prompt after which an answer is generated."""
    return _without_end([prompt.rstrip(" ")], tokenizer)[0]


def fitted(
    prompt: str, spans: Sequence[tuple[int, int]], tokenizer: PreTrainedTokenizerBase, limit: int
) -> tuple[str, float]:
    """Return a prompt shortened to `limit` tokens, and the share of its fields' characters that is left.

    Args:
        prompt: A filled template.
        spans: Where the values of its fields stand; without any, all of it may be cut.
        tokenizer: A tokenizer.
        limit: Most tokens.
    """
    spans = spans or ((0, len(prompt)),)
    short = shorten(prompt, spans, lambda text: len(prompt_tokens(text, tokenizer)), limit)
    whole = sum(end - start for start, end in spans)
    return short, 1 - (len(prompt) - len(short)) / whole if whole else 1.0


def room(task: Task, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the most tokens of a prompt: `max_length`, or fewer where the answer needs a part of the positions.

    Raises:
        H2TuneError: No position is left.
    """
    if task.positions is None:
        return task.max_length
    if task.kind == "generate":
        answer = task.new_tokens + len(prompt_tokens(task.one_shot, tokenizer))
        what = f"{task.new_tokens} tokens of an answer" + (" and a solved problem" if task.one_shot else "")
    else:
        answer = max(map(len, label_answers(task, tokenizer)))
        what = f"the longest label's {answer} tokens"
    if answer >= task.positions:
        raise H2TuneError(
            f"its model has {task.positions} positions, and {what} leave none for a prompt",
            where=f"task '{task.name}'",
            remedy="Lower max_new_tokens, or use a model with more positions",
        )
    return min(task.max_length, task.positions - answer)


def label_answers(task: Task, tokenizer: PreTrainedTokenizerBase) -> tuple[Tokens, ...]:
    """Return the tokens of each label's words after a prompt of the task, before any row is read.

    Raises:
        H2TuneError: As `with_ends`.
    """
    prompt = fill(task.template, dict.fromkeys(fields(task.template), "text"))
    return with_ends(continued(prompt, task.verbalisers, tokenizer).answers, task, tokenizer)


def with_ends(
    answers: Sequence[Tokens], task: Task, tokenizer: PreTrainedTokenizerBase
) -> tuple[Tokens, ...]:
    """Return the tokens of each label, after which a decoder's answer is trained and scored.

    Where one label's tokens begin another's, as those of "1" begin those of "10", all end with the end-of-sequence
    token: without an end the shorter label has always the greater likelihood.

    Raises:
        H2TuneError: Two labels have the same tokens, or there is no end-of-sequence token where one is needed.
    """
    pairs = [
        (i, j) for i, a in enumerate(answers) for j, b in enumerate(answers) if i != j and b[: len(a)] == a
    ]
    if not pairs:
        return tuple(answers)
    for i, j in pairs:
        one, other = task.verbalisers[i].strip(), task.verbalisers[j].strip()
        if answers[i] == answers[j]:
            raise H2TuneError(
                f"the labels {one!r} and {other!r} have the same tokens",
                where=f"task '{task.name}'",
                remedy="Name the labels by words that this model's tokenizer tells apart",
            )
        if tokenizer.eos_token_id is None:
            raise H2TuneError(
                f"the tokens of label {one!r} begin those of {other!r}, and the tokenizer has no end-of-sequence "
                "token to tell them apart",
                where=f"task '{task.name}'",
                remedy="Name the labels by words of which none begins another",
            )
    return tuple((*answer, int(tokenizer.eos_token_id)) for answer in answers)


def _without_end(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[Tokens]:
    """Return the tokens of texts without those that the tokenizer adds after each.

    A beginning that a text has already, as a prompt taken from a chat template may, is not added to it once more.
    """
    begin, end = _added(tokenizer)
    # `verbose` would warn of texts longer than the tokenizer's own limit, which are cut afterwards
    rows = [tuple(row[: len(row) - end]) for row in tokenizer(list(texts), verbose=False)["input_ids"]]
    return [row[begin:] if begin and row[:begin] == row[begin : 2 * begin] else row for row in rows]


def _added(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return how many tokens a tokenizer adds before and after a text."""
    if tokenizer not in _ADDED:
        bare, full = (list(tokenizer("a", add_special_tokens=a)["input_ids"]) for a in (False, True))
        places = [i for i in range(len(full)) if bare and full[i : i + len(bare)] == bare]
        _ADDED[tokenizer] = (places[0], len(full) - places[0] - len(bare)) if places else (0, 0)
    return _ADDED[tokenizer]


def common_length(one: Tokens, other: Tokens) -> int:
    """Return the number of tokens with which both begin."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
