"""Assign every linear layer of a model a block and a role, by which models of different families share.

A module's role is the one the client states, else that of its name in its family, else that of its name in many
families, else (for the last layers of a plain MLP or a fused attention) the one its shape implies. A module without a
role is an error that names it: a layer that was skipped silently would be missing from the federation unnoticed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from h2tune.adapter.families import FAMILIES, in_attention, role_by_words
from h2tune.adapter.linears import Linear, block_linears
from h2tune.adapter.stacked import refuse_stacked, skips
from h2tune.errors import H2TuneError, nearest
from h2tune.functional.roles import ROLES as ROLES

SKIP = "skip"
"""Key of a client's `roles` table, besides the roles: modules that are not adapted."""

_CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)


@dataclass(frozen=True)
class Placement:
    """A module with its block and role.

    Args:
        module: Its name in the model.
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
    """Return every module to adapt, sorted by block and then in the order of `ROLES`.

    Only linear layers in the model's numbered blocks are considered, never an embedding or a head. Weights are not
    read: the model may be on the meta device.

    Args:
        model: A Transformers model or a module of the same structure, with or without adapters.
        overrides: Role → suffix of module names, or a regular expression for it, in place of the default for that
            role. The key "skip" names modules that are not adapted.

    Raises:
        H2TuneError: Modules have no role, or several have the same role in a block; the message names them and the
            setting that assigns a role.
    """
    where = type(model).__name__
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise H2TuneError(
            "encoder–decoder models are not supported", where=where, remedy="Use a decoder or an encoder"
        )
    overrides = overrides or {}
    stacked = refuse_stacked(model, overrides.get(SKIP, ""), where)
    linears = block_linears(model)
    stated = _stated(linears, overrides, where, stacked)
    linears = _one_stack(linears, stated, where)
    family = FAMILIES.get(getattr(config, "model_type", None) or "", {})
    blocks = [[x for x in linears if x.block == index] for index in sorted({x.block for x in linears})]
    roles: dict[str, str] = {}
    for block in blocks:
        roles |= _place(block, family, stated)
    unplaced = {x.name for x in linears if x.name not in roles}
    roles = {
        name: role
        for name, role in roles.items()
        if role != SKIP and (name in stated or role not in overrides)
    }
    widths = Counter(_stream(x, roles[x.name]) for x in linears if x.name in roles)
    width = max(widths, key=widths.__getitem__, default=0)
    unplaced |= set().union(*(_misfits(block, roles, width) for block in blocks)) - stated.keys()
    if unplaced:
        raise _unplaced([x for x in linears if x.name in unplaced], where)
    if not roles:
        raise H2TuneError(
            "no module is left to adapt", where=where, remedy="Skip fewer modules in the client's roles"
        )
    _refuse_rivals(linears, roles, where)
    placements = [
        Placement(x.name, x.block, roles[x.name], x.d_in, x.d_out) for x in linears if x.name in roles
    ]
    return tuple(sorted(placements, key=lambda p: (p.block, ROLES.index(p.role))))


def target_modules(placements: Iterable[Placement]) -> list[str]:
    """Return the full module names, as PEFT's `target_modules` takes them."""
    return [p.module for p in placements]


def depth(placements: Iterable[Placement]) -> int:
    """Return the number of blocks L up to the last adapted one; blocks below it count even if they are not adapted."""
    return 1 + max((p.block for p in placements), default=-1)


def _stated(
    linears: Sequence[Linear], overrides: Mapping[str, str], where: str, stacked: Iterable[str] = ()
) -> dict[str, str]:
    """Return module name → role (or `SKIP`) as the client's table states it; `stacked`: what else may be skipped."""
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
            raise H2TuneError(
                f"'{pattern}' is not a valid regular expression ({error})", where=where_set
            ) from None
        matches = [x for x in linears if matcher.fullmatch(x.name)]
        if not matches and not (role == SKIP and skips(pattern, stacked)):
            close = nearest(pattern, sorted({x.path for x in linears}))
            raise H2TuneError(f"no linear layer in a block is called '{pattern}'{close}", where=where_set)
        for linear in matches:
            if stated.setdefault(linear.name, role) != role:
                raise H2TuneError(f"'{linear.name}' is already {stated[linear.name]}", where=where_set)
    return stated


def _one_stack(linears: list[Linear], stated: Mapping[str, str], where: str) -> list[Linear]:
    """Return the layers of the only stack of blocks, or of the one that the client's table names."""
    stacks = {x.stack for x in linears if stated.get(x.name, SKIP) != SKIP}
    stacks = stacks or {x.stack for x in linears if x.name not in stated}
    if len(stacks) > 1:
        largest = Counter(x.stack for x in linears).most_common(1)[0][0]
        first = next(x for x in linears if x.stack == largest)
        role = role_by_words(first.path, {x.path for x in linears if x.stack == largest}) or (
            "attn.q" if in_attention(first.path) else "mlp.up"
        )
        name = rf"{re.escape(largest)}\.\d+\.{re.escape(first.path)}"
        raise H2TuneError(
            f"has several stacks of blocks: {', '.join(sorted(stacks))}",
            where=where,
            remedy=f"Name one in the client's table: roles = {{ \"{role}\" = '{name}' }}",
        )
    return [x for x in linears if x.stack in stacks]


def _place(block: Sequence[Linear], family: Mapping[str, str], stated: Mapping[str, str]) -> dict[str, str]:
    """Return module name → role for one block: as stated, by name, and the rest by shape."""
    paths = {x.path for x in block}
    free = [x for x in block if x.name not in stated and not _CROSS.search(x.path)]
    roles = {x.name: stated[x.name] for x in block if x.name in stated}
    for x in free:
        if role := family.get(x.path) or role_by_words(x.path, paths):
            roles[x.name] = role
    for kind in ("attn", "mlp"):  # two layers without an attention beside them are a mixer, not an MLP
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
    """Return the roles of the only two layers of an attention or MLP, if one widens and the other narrows."""
    for first, last in (rest, rest[::-1]) if len(rest) == 2 else ():
        if first.d_in == last.d_out < first.d_out:
            if kind == "attn" and first.d_out > last.d_in:
                return {first.name: "attn.qkv", last.name: "attn.o"}
            if kind == "mlp" and first.d_out in (last.d_in, 2 * last.d_in):
                return {first.name: "mlp.up", last.name: "mlp.down"}
    return {}


def _misfits(block: Sequence[Linear], roles: Mapping[str, str], width: int) -> set[str]:
    """Return the names of modules in a block whose shape contradicts their role; `width` is the hidden size."""
    inner = {x.d_in for x in block if roles.get(x.name) == "mlp.down"}
    mixed = max((x.d_in for x in block if roles.get(x.name) == "attn.o"), default=0)
    misfits = set()
    for x in (x for x in block if x.name in roles):
        role = roles[x.name]
        fits = _stream(x, role) == width
        if role in ("mlp.gate", "mlp.up") and inner:
            fits &= x.d_out in inner
        elif role == "attn.qkv" and mixed:  # queries, and at most as many keys and values
            fits &= mixed < x.d_out <= 3 * mixed
        if not fits:
            misfits.add(x.name)
    return misfits


def _stream(linear: Linear, role: str) -> int:
    """Return the width at which a layer reads from or writes to the residual stream."""
    return linear.d_out if role in ("attn.o", "mlp.down") else linear.d_in


def _unplaced(unplaced: Sequence[Linear], where: str) -> H2TuneError:
    """Return the error that names the modules without a role, and the setting that assigns one."""
    names = list(dict.fromkeys(str(x) for x in unplaced))
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    role = "attn.q" if in_attention(unplaced[0].path) else "mlp.up"
    return H2TuneError(
        f"no role is known for {', '.join(names[:8])}{more}",
        where=where,
        remedy=f'Assign roles in the client\'s table, as in roles = {{ "{role}" = "{unplaced[0].path}" }}, '
        f'or skip the modules with {SKIP} = "…". Roles: {", ".join(ROLES)}',
    )


def _refuse_rivals(linears: Sequence[Linear], roles: Mapping[str, str], where: str) -> None:
    """Raise if a block has several modules of one role, such as the experts of a mixture."""
    seen: dict[tuple[int, str], Linear] = {}
    for x in (x for x in linears if x.name in roles):
        role = roles[x.name]
        rival = seen.setdefault((x.block, role), x)
        if rival is not x:
            raise H2TuneError(
                f"'{rival.name}' and '{x.name}' are both {role}, but a block can have only one module of a role",
                where=where,
                remedy=f'Choose one in the client\'s table, as in roles = {{ "{role}" = "{rival.path}" }}',
            )
