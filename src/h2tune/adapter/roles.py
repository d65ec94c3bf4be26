"""Which linear layer of a model plays which role in which block: what lets models of different families share.

A module is placed by the client's own word, else by its family's names, else by names that many families use, else,
for what is left of a plain MLP or a fused attention, by its shape. What cannot be placed is refused by name: a layer
that were left out in silence would be missing from the federation without anybody's knowing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from h2tune.adapter.families import FAMILIES, in_attention, role_by_words
from h2tune.adapter.linears import Linear, block_linears
from h2tune.errors import H2TuneError, nearest

ROLES: tuple[str, ...] = (
    "attn.q", "attn.k", "attn.v", "attn.qkv", "attn.o", "mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down",
)  # fmt: skip
"""All roles in canonical order; a fused projection is a role of its own."""

SKIP = "skip"
"""Beside the roles in a client's `roles` table: modules to leave alone."""

_CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)


@dataclass(frozen=True)
class Placement:
    """One module and its part in the model.

    Args:
        module: Name relative to the model that was looked at.
        block: Index of its block, from 0.
        role: One of `ROLES`.
        d_in: Input width.
        d_out: Output width.
    """

    module: str
    block: int
    role: str
    d_in: int
    d_out: int


def find_roles(model: nn.Module, overrides: Mapping[str, str] | None = None) -> tuple[Placement, ...]:
    """Return every module to adapt, by block and then in the order of `ROLES`.

    Only linear layers inside the model's numbered blocks are looked at, so never an embedding or a head. Weights are
    not read: a model on the meta device will do.

    Args:
        model: A Transformers model or anything built alike, with or without adapters already in it.
        overrides: Role → suffix of module names, or a regular expression for it. It replaces what would have been
            found for that role. Under the key "skip", modules to leave alone.

    Raises:
        H2TuneError: Modules cannot be placed, or several play one role in a block; the message names them and the
            setting that decides.
    """
    where = type(model).__name__
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise H2TuneError(
            "encoder–decoder models are not supported", where=where, remedy="Take a decoder or an encoder"
        )
    overrides = overrides or {}
    linears = block_linears(model)
    stated = _stated(linears, overrides, where)
    linears = _one_stack(linears, stated, where)
    family = FAMILIES.get(getattr(config, "model_type", None) or "", {})
    blocks = [[x for x in linears if x.block == index] for index in sorted({x.block for x in linears})]
    roles: dict[str, str] = {}
    for block in blocks:
        roles |= _place(block, family, stated)
    lost = {x.name for x in linears if x.name not in roles}
    roles = {
        name: role
        for name, role in roles.items()
        if role != SKIP and (name in stated or role not in overrides)
    }
    widths = Counter(_stream(x, roles[x.name]) for x in linears if x.name in roles)
    width = max(widths, key=widths.__getitem__, default=0)
    lost |= set().union(*(_misfits(block, roles, width) for block in blocks)) - stated.keys()
    if lost:
        raise _unplaced([x for x in linears if x.name in lost], where)
    if not roles:
        raise H2TuneError("no module is left to adapt", where=where, remedy="Skip less in the client's roles")
    _refuse_rivals(linears, roles, where)
    placements = [
        Placement(x.name, x.block, roles[x.name], x.d_in, x.d_out) for x in linears if x.name in roles
    ]
    return tuple(sorted(placements, key=lambda p: (p.block, ROLES.index(p.role))))


def target_modules(placements: Iterable[Placement]) -> list[str]:
    """Return the full module names, as PEFT's `target_modules` takes them."""
    return [p.module for p in placements]


def depth(placements: Iterable[Placement]) -> int:
    """Return the number of blocks L; blocks below the last one count even if nothing in them is adapted."""
    return 1 + max((p.block for p in placements), default=-1)


def _stated(linears: Sequence[Linear], overrides: Mapping[str, str], where: str) -> dict[str, str]:
    """Return module name → role (or `SKIP`) as the client states it."""
    stated: dict[str, str] = {}
    for role, pattern in overrides.items():
        where_set = f"{where}, roles.{role}"
        if role not in (*ROLES, SKIP):
            raise H2TuneError(
                f"no role '{role}'{nearest(role, ROLES)}",
                where=where,
                remedy=f"Roles: {', '.join(ROLES)}, {SKIP}",
            )
        try:
            matcher = re.compile(rf"(?:.*\.)?(?:{pattern})")
        except re.error as error:
            raise H2TuneError(f"'{pattern}' is no regular expression ({error})", where=where_set) from None
        matches = [x for x in linears if matcher.fullmatch(x.name)]
        if not matches:
            close = nearest(pattern, sorted({x.path for x in linears}))
            raise H2TuneError(f"no linear layer in a block is called '{pattern}'{close}", where=where_set)
        for linear in matches:
            if stated.setdefault(linear.name, role) != role:
                raise H2TuneError(f"'{linear.name}' is also {stated[linear.name]}", where=where_set)
    return stated


def _one_stack(linears: list[Linear], stated: Mapping[str, str], where: str) -> list[Linear]:
    """Keep the one list of blocks there is, or the one that the client's statements point to."""
    stacks = {x.stack for x in linears if stated.get(x.name, SKIP) != SKIP}
    stacks = stacks or {x.stack for x in linears if x.name not in stated}
    if len(stacks) > 1:
        example = Counter(x.stack for x in linears).most_common(1)[0][0]
        raise H2TuneError(
            f"has several stacks of blocks: {', '.join(sorted(stacks))}",
            where=where,
            remedy=f"Name one in the client's table: roles = {{ \"attn.q\" = '{re.escape(example)}.*q_proj' }}",
        )
    return [x for x in linears if x.stack in stacks]


def _place(block: Sequence[Linear], family: Mapping[str, str], stated: Mapping[str, str]) -> dict[str, str]:
    """Return module name → role for one block: as stated, by name, and what is left by shape."""
    paths = {x.path for x in block}
    free = [x for x in block if x.name not in stated and not _CROSS.search(x.path)]
    roles = {x.name: stated[x.name] for x in block if x.name in stated}
    for x in free:
        if role := family.get(x.path) or role_by_words(x.path, paths):
            roles[x.name] = role
    for kind in ("attn", "mlp"):  # two layers without an attention beside them are no MLP, but a mixer
        kinds = {role.partition(".")[0] for role in roles.values()}
        rest = [x for x in free if x.name not in roles and in_attention(x.path) == (kind == "attn")]
        if kind not in kinds and (kind == "attn" or "attn" in kinds):
            roles |= _pair(rest, kind)
    inner = {x.d_in for x in block if roles.get(x.name) == "mlp.down"}
    if "mlp.gate" not in roles.values():
        fused = [
            x for x in free if roles.get(x.name) == "mlp.up" and x.d_out in {2 * i for i in inner} - inner
        ]
        roles |= {x.name: "mlp.gate_up" for x in fused}
    return roles


def _pair(rest: Sequence[Linear], kind: str) -> dict[str, str]:
    """Place the only two layers of an attention or MLP, if one widens and the other leads back."""
    for first, last in (rest, rest[::-1]) if len(rest) == 2 else ():
        if first.d_in == last.d_out < first.d_out:
            if kind == "attn" and first.d_out > last.d_in:
                return {first.name: "attn.qkv", last.name: "attn.o"}
            if kind == "mlp" and first.d_out in (last.d_in, 2 * last.d_in):
                return {first.name: "mlp.up", last.name: "mlp.down"}
    return {}


def _misfits(block: Sequence[Linear], roles: Mapping[str, str], width: int) -> set[str]:
    """Return the names of modules in a block whose shape contradicts their role; `width` is the model's width."""
    inner = {x.d_in for x in block if roles.get(x.name) == "mlp.down"}
    mixed = max((x.d_in for x in block if roles.get(x.name) == "attn.o"), default=0)
    misfits = set()
    for x in (x for x in block if x.name in roles):
        role = roles[x.name]
        fits = _stream(x, role) == width
        if role in ("mlp.gate", "mlp.up") and inner:
            fits &= x.d_out in inner
        elif role == "attn.qkv" and mixed:  # queries, and at most as much again for keys and for values
            fits &= mixed < x.d_out <= 3 * mixed
        if not fits:
            misfits.add(x.name)
    return misfits


def _stream(linear: Linear, role: str) -> int:
    """Return the width at which a layer reads from or writes to the residual stream."""
    return linear.d_out if role in ("attn.o", "mlp.down") else linear.d_in


def _unplaced(unplaced: Sequence[Linear], where: str) -> H2TuneError:
    """Return the refusal that names the modules without a role, and the setting that gives them one."""
    names = list(dict.fromkeys(str(x) for x in unplaced))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    role = "attn.q" if in_attention(unplaced[0].path) else "mlp.up"
    return H2TuneError(
        f"no role is known for {', '.join(names[:8])}{more}",
        where=where,
        remedy=f'Say in the client\'s table what they are, as in roles = {{ "{role}" = "{unplaced[0].path}" }}, '
        f'or leave them alone with {SKIP} = "…". Roles: {", ".join(ROLES)}',
    )


def _refuse_rivals(linears: Sequence[Linear], roles: Mapping[str, str], where: str) -> None:
    """Raise if a block has several modules of one role, such as the experts of a mixture."""
    seen: dict[tuple[int, str], Linear] = {}
    for x in (x for x in linears if x.name in roles):
        role = roles[x.name]
        rival = seen.setdefault((x.block, role), x)
        if rival is not x:
            raise H2TuneError(
                f"'{rival.name}' and '{x.name}' are both {role}, and a block has one module of a role",
                where=where,
                remedy=f'Choose in the client\'s table, as in roles = {{ "{role}" = "{rival.path}" }}',
            )
