"""Read the constants and operations of an ONNX file, without the library onnx.

An ONNX file is a protocol buffer (https://protobuf.dev/programming-guides/encoding), with the field numbers of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. The library would add 30 MB of compiled code and a constraint on
protobuf, for a small part of two files with known checksums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from h2tune.errors import H2TuneError

GRAPH = 7  # field of ModelProto
NODE, INITIALIZER = 1, 5  # of GraphProto
INPUT, OUTPUT, NAME, OPERATION = 1, 2, 3, 4  # of NodeProto
DIMENSIONS, TYPE, FLOATS, INTEGERS, TENSOR_NAME, RAW = 1, 2, 4, 5, 8, 9  # of TensorProto
TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8"}  # TensorProto.DataType

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Node:
    """One operation of a graph.

    Args:
        operation: Its kind, such as "MatMul".
        name: Its name, such as "/encoder/layer.0/MatMul".
        inputs: Names of its inputs.
        outputs: Names of its outputs.
    """

    operation: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The constants of a graph by name, and its operations in order."""

    tensors: dict[str, Array]
    nodes: tuple[Node, ...]


def read_onnx(data: bytes, where: str) -> Graph:
    """Return the graph in an ONNX file.

    Args:
        data: The file.
        where: Name of the file in errors.

    Raises:
        H2TuneError: It is truncated or malformed, or a constant has an unsupported type.
    """
    tensors: dict[str, Array] = {}
    nodes: list[Node] = []
    try:
        for number, graph in _fields(memoryview(data)):
            if number != GRAPH:
                continue
            for kind, value in _fields(graph):
                if kind == INITIALIZER:
                    name, tensor = _tensor(value)
                    tensors[name] = tensor
                elif kind == NODE:
                    nodes.append(_node(value))
    except (IndexError, TypeError, ValueError) as error:
        raise H2TuneError(f"is not a readable ONNX file ({error})", where=where) from None
    if not tensors:
        raise H2TuneError("has no constants", where=where)
    return Graph(tensors, tuple(nodes))


def _fields(message: Any) -> Iterator[tuple[int, Any]]:
    """Yield (number, value) of each field: an int for wire type 0, else the bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(message, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
        if at + size > len(message):
            raise ValueError("truncated")
        yield number, message[at : at + size]
        at += size


def _varint(message: Any, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number longer than 64 bits")


def _numbers(value: Any) -> list[int]:
    """Return the signed integers of a field, which is one integer or packed."""
    numbers, at = ([value], 0) if isinstance(value, int) else ([], 0)
    while not isinstance(value, int) and at < len(value):
        number, at = _varint(value, at)
        numbers.append(number)
    return [number - (1 << 64) if number >> 63 else number for number in numbers]


def _tensor(message: Any) -> tuple[str, Array]:
    name, kind, raw = "", 0, None
    shape: list[int] = []
    floats, integers = b"", []
    for number, value in _fields(message):
        if number == DIMENSIONS:
            shape += _numbers(value)
        elif number == TYPE:
            kind = value
        elif number == FLOATS:
            floats += bytes(value)
        elif number == INTEGERS:
            integers += _numbers(value)
        elif number == TENSOR_NAME:
            name = str(value, "utf-8")
        elif number == RAW:
            raw = value
    if kind not in TYPES:
        raise ValueError(f"constant {name} has type {kind}")
    if raw is not None:
        flat = np.frombuffer(raw, TYPES[kind])
    elif kind == 1:
        flat = np.frombuffer(floats, TYPES[kind])
    else:
        flat = np.array(integers, TYPES[kind])
    if flat.size != math.prod(shape):
        raise ValueError(f"constant {name} has {flat.size} numbers for the shape {shape}")
    return name, flat.reshape(shape)


def _node(message: Any) -> Node:
    names: dict[int, list[str]] = {INPUT: [], OUTPUT: [], NAME: [], OPERATION: []}
    for number, value in _fields(message):
        if number in names:
            names[number].append(str(value, "utf-8"))
    return Node(
        operation="".join(names[OPERATION]),
        name="".join(names[NAME]),
        inputs=tuple(names[INPUT]),
        outputs=tuple(names[OUTPUT]),
    )
