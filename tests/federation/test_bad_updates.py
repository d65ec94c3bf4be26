"""Every kind of bad update is refused, each with its own reason: as a file, as a message, and by its values."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import processes
from helpers.strategies import aggregate, h2tune

from h2tune.errors import H2TuneError
from h2tune.federation.h2tune import wire
from h2tune.federation.messages import Enrolment, Tensors, Update, check_update, from_bytes, to_bytes

ENROLMENT = Enrolment("one", "", 3, 2, 10, {"attn.q": (0, 1, 2), "mlp.up": (0, 1, 2)}, {})
RICH = Enrolment("rich", "", 3, 4, 10, {"attn.q": (0, 1, 2), "mlp.up": (0, 1, 2)}, {})
STRATEGY = h2tune([ENROLMENT, RICH], shared_rank=4, slots=3)
ROUND = 2


def good() -> Update:
    masks = [torch.tensor([0, 3, 6, 13])] * 3
    tensors: Tensors = {}
    for role in ENROLMENT.roles:
        tensors[f"delta.{role}"] = torch.arange(12.0).view(3, 2, 2) / 100
        tensors[f"mask.{role}"] = wire.pack_masks(masks, 4)
    tensors["relation"] = torch.eye(3)
    return Update("one", ROUND, 10, tensors)


def accept(update: Update) -> None:
    """The gate that every update goes through, as in the round loop."""
    spec = STRATEGY.upload_spec("one", ROUND)
    check_update(update, spec, client="one", round_number=ROUND, examples=ENROLMENT.examples)
    STRATEGY.decode(update)


def changed(**tensors: Any) -> Update:
    """The good update with other tensors; `_` stands for the dot in a name, None takes one away."""
    content = dict(good().tensors)
    for key, value in tensors.items():
        name = key.replace("__", ".")
        if value is None:
            del content[name]
        else:
            content[name] = value
    return replace(good(), tensors=content)


def at(name: str, place: tuple[int, ...], value: float) -> Update:
    tensors = {n: t.clone() for n, t in good().tensors.items()}
    tensors[name][place] = value
    return replace(good(), tensors=tensors)


DELTA, MASK = good().tensors["delta.attn.q"], good().tensors["mask.attn.q"]
NAN, INFINITE = float("nan"), float("inf")
VALUES: dict[str, tuple[Callable[[], Update], str]] = {
    "another client": (lambda: replace(good(), client="two"), "says it is from 'two'"),
    "no client": (lambda: replace(good(), client=""), "says it is from ''"),
    "an earlier round": (lambda: replace(good(), round=1), "of round 1, not 2"),
    "a later round": (lambda: replace(good(), round=3), "of round 3, not 2"),
    "a negative round": (lambda: replace(good(), round=-1), "of round -1, not 2"),
    "more examples": (lambda: replace(good(), examples=10**9), "claims 1000000000 examples; 10"),
    "no examples": (lambda: replace(good(), examples=0), "claims 0 examples"),
    "negative examples": (lambda: replace(good(), examples=-10), "claims -10 examples"),
    "no tensors": (lambda: replace(good(), tensors={}), "missing 'delta.attn.q'"),
    "a missing increment": (lambda: changed(delta__mlp__up=None), "missing 'delta.mlp.up'"),
    "a missing mask": (lambda: changed(mask__mlp__up=None), "missing 'mask.mlp.up'"),
    "a missing relation": (lambda: changed(relation=None), "missing 'relation'"),
    "a role it has not": (lambda: changed(delta__attn__k=DELTA), "unexpected 'delta.attn.k'"),
    "a private matrix": (lambda: changed(down=torch.zeros(2, 8)), "unexpected 'down'"),
    "a name that is a path": (lambda: changed(**{"../up": torch.zeros(1)}), "unexpected '../up'"),
    "a block too few": (lambda: changed(delta__attn__q=DELTA[:2]), "'delta.attn.q' is ((2, 2, 2)"),
    "a block too many": (lambda: changed(delta__attn__q=DELTA.repeat(2, 1, 1)), "'delta.attn.q' is ((6, 2, 2)"),
    "another rank": (lambda: changed(delta__attn__q=torch.zeros(3, 3, 3)), "'delta.attn.q' is ((3, 3, 3)"),
    "an empty increment": (lambda: changed(delta__attn__q=torch.zeros(0, 2, 2)), "'delta.attn.q' is ((0, 2, 2)"),
    "a flat increment": (lambda: changed(delta__attn__q=DELTA.flatten()), "'delta.attn.q' is ((12,)"),
    "another precision": (lambda: changed(delta__attn__q=DELTA.half()), "'float16'), expected"),
    "double precision": (lambda: changed(delta__attn__q=DELTA.double()), "'float64'), expected"),
    "complex numbers": (lambda: changed(delta__attn__q=DELTA.to(torch.complex64)), "'complex64'), expected"),
    "whole numbers": (lambda: changed(delta__attn__q=DELTA.int()), "'int32'), expected"),
    "not a number": (lambda: at("delta.attn.q", (0, 0, 0), NAN), "'delta.attn.q' holds values that are not finite"),
    "infinity": (lambda: at("delta.mlp.up", (2, 1, 1), INFINITE), "'delta.mlp.up' holds values that are not finite"),
    "minus infinity": (lambda: at("delta.mlp.up", (0, 1, 1), -INFINITE), "'delta.mlp.up' holds"),
    "a number whose sum overflows": (lambda: at("delta.attn.q", (1, 0, 0), 3e38), "holds values beyond 1e+15"),
    "a relation that is no number": (lambda: at("relation", (0, 0), NAN), "'relation' holds values"),
    "a relation of another depth": (lambda: changed(relation=torch.eye(4)[:3]), "'relation' is ((3, 4)"),
    "a relation of other slots": (lambda: changed(relation=torch.eye(4)[:, :3]), "'relation' is ((4, 3)"),
    "a negative relation": (
        lambda: changed(relation=torch.tensor([[2.0, 0, 0], [-1, 1, 0], [0, 0, 1]])), "are not distributions",
    ),
    "a relation above one": (lambda: changed(relation=torch.eye(3) * 50), "are not distributions"),
    "a relation of zeros": (lambda: changed(relation=torch.zeros(3, 3)), "are not distributions"),
    "a mask of too many entries": (
        lambda: changed(mask__attn__q=wire.pack_masks([torch.arange(5)] * 3, 4)[:, :2].bitwise_or(255)),
        "exactly 4 entries",
    ),
    "a mask of nothing": (lambda: changed(mask__attn__q=torch.zeros_like(MASK)), "exactly 4 entries"),
    "a mask for a block too few": (lambda: changed(mask__attn__q=MASK[:2]), "'mask.attn.q' is ((2,"),
    "a mask of another width": (lambda: changed(mask__attn__q=MASK.repeat(1, 2)), "'mask.attn.q' is ((3,"),
    "a mask of another type": (lambda: changed(mask__attn__q=MASK.to(torch.int32)), "'mask.attn.q' is"),
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
def test_values(kind):
    make, reason = VALUES[kind]
    with pytest.raises(H2TuneError) as error:
        accept(make())
    assert reason in str(error.value), str(error.value)


def test_the_good_one_is_accepted():
    accept(good())
    accept(from_bytes(to_bytes(good())))


def test_where_increments_stay_private_no_update_can_change_what_is_shared():
    """Beside a teacher nothing but directions travels: hostile updates are refused, empty ones change no bit."""
    silent = h2tune([ENROLMENT, RICH], shared_rank=4, slots=3, increments="none")
    spec = silent.upload_spec("one", ROUND)
    with pytest.raises(H2TuneError, match="unexpected 'delta"):
        check_update(good(), spec, client="one", round_number=ROUND, examples=10)
    before = silent.start()["shared"] + 0.5
    after, _ = aggregate(silent, {"shared": before}, [Update("one", ROUND, 10, {})])
    assert torch.equal(after["shared"], before)


WIDE = Enrolment("one", "", 1, 2, 10, {"attn.q": (0,)}, {})
WIDE_STRATEGY = h2tune([WIDE, replace(WIDE, name="rich", rank=64)], shared_rank=64, slots=1)
POSITIONS = {
    "positions that fall": [9, 5, 17, 40],
    "a position twice": [5, 5, 17, 40],
    "a position beyond the grid": [5, 9, 17, 64 * 64],
    "a position before the grid": [-1, 9, 17, 40],
}


@pytest.mark.parametrize("kind", POSITIONS)
def test_positions(kind):
    packed = (torch.tensor([POSITIONS[kind]]) - 2**15).to(torch.int16)
    tensors = {"delta.attn.q": torch.zeros(1, 2, 2), "mask.attn.q": packed, "relation": torch.ones(1, 1)}
    with pytest.raises(H2TuneError, match="not 4 rising positions below 4096"):
        WIDE_STRATEGY.decode(Update("one", ROUND, 10, tensors))


def test_bits_beyond_the_grid():
    size = 3
    bits = wire.pack_masks([torch.arange(4)], size)
    assert bits.shape == (1, 2)  # nine entries in two bytes: seven bits are left over
    bits[0, 1] |= 1
    with pytest.raises(H2TuneError, match="beyond"):
        wire.unpack_masks(bits, 2, size)


def framed(head: Any, body: bytes = b"") -> bytes:
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


def header(**changes: Any) -> dict[str, Any]:
    meta = {"format": "h2tune-update-1", "client": "one", "round": "2", "examples": "10"} | changes
    return {"__metadata__": {k: v for k, v in meta.items() if v is not None}}


def tensor(
    dtype: str = "F32", shape: tuple[int, ...] = (2,), offsets: tuple[int, int] = (0, 8)
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


FILES: dict[str, bytes] = {
    "nothing": b"",
    "less than a length": b"\x01\x02",
    "a length beyond the file": (10**6).to_bytes(8, "little") + b"{}",
    "a length beyond all files": (2**63).to_bytes(8, "little") + b"{}",
    "a pickle": b"\x80\x04\x95" + b"\x00" * 40,
    "a zip file": b"PK\x03\x04" + b"\x00" * 40,
    "no JSON": framed(b"{"),
    "a list": framed([1, 2]),
    "no UTF-8": framed(b'{"\xff": 1}'),
    "a cut file": to_bytes(good())[:-1],
    "a file with more behind it": to_bytes(good()) + b"\x00",
    "an unknown type": framed(header() | {"a": tensor("F33")}, b"\x00" * 8),
    "offsets beyond the file": framed(header() | {"a": tensor(shape=(4,), offsets=(0, 16))}, b"\x00" * 8),
    "offsets that overlap": framed(header() | {"a": tensor(), "b": tensor(offsets=(4, 12))}, b"\x00" * 12),
    "a hole": framed(header() | {"a": tensor(), "b": tensor(offsets=(16, 24))}, b"\x00" * 24),
    "a shape that does not fit": framed(header() | {"a": tensor(shape=(3,))}, b"\x00" * 8),
    "a shape beyond all numbers": framed(header() | {"a": tensor(shape=(2**40, 2**40))}, b"\x00" * 8),
    "a negative shape": framed(header() | {"a": tensor(shape=(-2,))}, b"\x00" * 8),
    "no head": framed({"a": tensor()}, b"\x00" * 8),
    "an empty head": framed({"__metadata__": None}),
    "a size that is no integer of torch": framed(header() | {"a": tensor(shape=(0, 2**63), offsets=(0, 0))}),
    "a head that fills memory": framed(header() | {"a" * 2**17: tensor()}, b"\x00" * 8),
    "another format": framed(header(format="h2tune-update-9")),
    "no client": framed(header(client=None)),
    "no round": framed(header(round=None)),
    "a round that is no number": framed(header(round="two")),
    "a round that is no whole number": framed(header(round="2.5")),
    "examples that are no number": framed(header(examples="0x10")),
    "a head that holds numbers": framed({"__metadata__": {"format": 1}}),
    "a number of five thousand digits": framed(header(round="9" * 5000)),
}


@pytest.mark.parametrize("kind", FILES)
def test_files(kind):
    with pytest.raises(H2TuneError, match="update"):
        from_bytes(FILES[kind])


def test_a_file_larger_than_its_tensors_can_be_is_refused_unread():
    most = sum(t.numel() * t.element_size() for t in good().tensors.values())
    assert from_bytes(to_bytes(good()), most).round == ROUND
    with pytest.raises(H2TuneError, match="bytes are more than"):
        from_bytes(to_bytes(changed(delta__attn__q=torch.zeros(10**5))), most)


def test_more_than_forty_kinds_are_refused():
    assert len(VALUES) + len(POSITIONS) + len(FILES) >= 40


def test_a_claim_of_ten_gigabytes_is_refused_without_memory_for_it():
    claim = framed(header() | {"a": tensor(shape=(10**10 // 4,), offsets=(0, 10**10))}, b"\x00" * 1000)
    code = """
import resource, sys
from h2tune.errors import H2TuneError
from h2tune.federation.messages import from_bytes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try: from_bytes(sys.stdin.buffer.read())
except H2TuneError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=claim,
        env=processes.environment(),
        capture_output=True,
        check=True,
    )
    grown = int(done.stdout) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 50e6


@pytest.mark.parametrize("key", ["round", "examples"])
@pytest.mark.parametrize("text", ["1_0", " 2", "+2", "２", "-1", "1e3", "9" * 19, ""])
def test_a_count_is_written_in_plain_digits(key, text):
    data = to_bytes(good())
    length = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + length])
    head["__metadata__"][key] = text
    changed = json.dumps(head).encode()
    changed += b" " * (-len(changed) % 8)
    with pytest.raises(H2TuneError, match="is no count"):
        from_bytes(len(changed).to_bytes(8, "little") + changed + data[8 + length :])


def test_int8_values_are_checked_after_they_are_decoded():
    strategy = h2tune([RICH], shared_rank=4, slots=3, wire_dtype="int8")
    tensors: Tensors = {"relation": torch.eye(3)}
    for role in RICH.roles:
        tensors |= wire.write_matrices("delta", role, torch.full((3, 4, 4), 1e14), "int8")
    tensors = {
        name: t * 1000 if t.is_floating_point() and name != "relation" else t for name, t in tensors.items()
    }
    update = Update("rich", ROUND, 10, tensors)
    check_update(update, strategy.upload_spec("rich", ROUND), client="rich", round_number=ROUND, examples=10)
    with pytest.raises(H2TuneError, match="beyond 1e\\+15"):
        strategy.codec.decode(update)
