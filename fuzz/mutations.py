"""Valid files -> damaged ones: by their bytes, and by what their format is made of, so that damage gets past a header.

An input is a tree of files, name -> content. Every choice is the generator's: equal seeds give equal inputs.
"""

import gzip
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np

Tree = dict[str, bytes]
Generator = np.random.Generator
Mutation = Callable[[bytes, Generator], bytes]

NUMBERS: Final = (
    "0",
    "-0",
    "1",
    "-1",
    "255",
    "32768",
    "65536",
    "2147483648",
    "-2147483649",
    "9223372036854775808",
    "1e308",
    "-1e309",
    "1e-320",
    "nan",
    "inf",
    "-inf",
    "0x10",
    "1.5",
    "1_000",
    "²",
    "१२",
    "9" * 5000,
    "",
    "0000-00-00",
    "9999-12-31T23:59:59",
    "-32768",
    "1e9",
    "100000000",
    "4294967295",
)
"""What stands where a number was."""

TEXTS: Final = (
    "",
    "\0",
    "'",
    '"',
    '""',
    "\\",
    "\n",
    "\r",
    "\t",
    ",",
    "../../../etc/passwd",
    "/dev/zero",
    "/dev/stdin",
    "%s%n",
    "{{7*7}}",
    "=1+1",
    "💔",
    "\u202e",
    "\ufeff",
    "');--",
    "null",
    "true",
    "[]",
    "{}",
    "a" * 70_000,
    "//",
    "and",
    "ß" * 300,
    "\x1b[2J",
    "NaN",
    "undefined",
    "[bold]",
    "$(id)",
    "__class__",
    "I48.9\u0301",
)
BYTES: Final = (b"\xff", b"\xfe\xff", b"\xed\xa0\x80", b"\0\0\0\0", b"\x80", b"\xc0\xaf", b"\x1f\x8b\x08")
DEEP: Final = 100_000
"""Levels: more than any parser's stack holds."""
BOMB: Final = 80 << 20
"""Bytes that a small file unpacks to."""


@cache
def bomb() -> bytes:
    return gzip.compress(bytes(BOMB), 9)


def spliced(first: bytes, second: bytes, rng: Generator) -> bytes:
    """The beginning of one and the end of the other."""
    return first[: rng.integers(len(first) + 1)] + second[rng.integers(len(second) + 1) :]


def of_bytes(content: bytes, rng: Generator) -> bytes:
    """A bit, a byte, a number in the machine's form, a cut, a hole, a repetition."""
    data, size = bytearray(content), len(content)
    at = _place(size, rng)
    some = int(rng.integers(1, 65))
    match int(rng.integers(8)):
        case 0 if size:
            data[at] ^= 1 << int(rng.integers(8))
        case 1 if size:
            data[at] = int(rng.integers(256))
        case 2:
            width, order = int(rng.choice([2, 4, 8])), ("little", "big")[rng.integers(2)]
            value = int(rng.choice([0, 1, 2, 255, (1 << (8 * width - 1)) - 1, 1 << (8 * width - 1)], shuffle=False))
            value = (1 << (8 * width)) - 1 if rng.random() < 0.3 else value
            data[at : at + width] = value.to_bytes(width, order)  # type: ignore[arg-type]
        case 3:
            del data[int(rng.integers(size + 1)) :]
        case 4:
            del data[at : at + some]
        case 5:
            data[at:at] = data[at : at + some] * int(rng.integers(1, 20))
        case 6:
            data[at:at] = BYTES[rng.integers(len(BYTES))]
        case _:
            data += bytes(rng.integers(0, 256, some, np.uint8))
    return bytes(data)


def _place(size: int, rng: Generator) -> int:
    """Half of the time in what is likely a header."""
    most = min(size, 1024) if rng.random() < 0.5 else size
    return int(rng.integers(most)) if most else 0


def of_text(content: bytes, rng: Generator) -> bytes:
    """Numbers, words, lines and cells of a text."""
    draw = int(rng.integers(7))
    if draw <= 1:
        return replaced(rb"-?\d+(?:\.\d+)?", content, picked(NUMBERS, rng), rng)
    if draw == 2:
        return replaced(rb"[^\s,;=\[\]{}()<>\"]+", content, picked(TEXTS, rng), rng)
    if draw == 3:
        return replaced(rb"[,;=\t\"\[\]{}()/ ]", content, picked(TEXTS, rng), rng)
    lines = content.split(b"\n")
    at = int(rng.integers(len(lines)))
    if draw == 4:
        lines[at : at + 1] = (
            [] if rng.random() < 0.5 else [lines[at]] * int(rng.choice([2, 3, 2000], p=[0.6, 0.35, 0.05]))
        )
    elif draw == 5:
        other = int(rng.integers(len(lines)))
        lines[at], lines[other] = lines[other], lines[at]
    elif rng.random() < 0.1:
        return content.decode("utf-8", "replace").encode("utf-16")
    else:
        lines.insert(at, picked((*TEXTS, "[" * DEEP, "a = " + "[" * DEEP, "a." * 20_000, "(" * DEEP, "#"), rng))
    return b"\n".join(lines)


def of_markup(content: bytes, rng: Generator) -> bytes:
    """Elements, attributes and entities of XML."""
    draw = int(rng.integers(6))
    if draw == 0:
        return replaced(rb"(?<=>)[^<>]+(?=<)", content, picked((*NUMBERS, *TEXTS), rng), rng)
    if draw == 1:
        return replaced(rb'(?<==")[^"]*(?=")', content, picked((*NUMBERS, *TEXTS), rng), rng)
    if draw == 2:
        return replaced(rb"</?[A-Za-z:]+[^<>]*>", content, b"" if rng.random() < 0.5 else b"<x>", rng)
    if draw == 3:
        found = list(re.finditer(rb"<([A-Za-z]+)[^<>]*>.*?</\1>", content, re.DOTALL))
        one = found[rng.integers(len(found))] if found else None
        times = int(rng.choice([0, 2, 500], p=[0.4, 0.4, 0.2]))
        return content if one is None else content[: one.start()] + one[0][:20_000] * times + content[one.end() :]
    if draw == 4:
        return replaced(rb"(?<=>)(?=<)", content, b"<a>" * (DEEP if rng.random() < 0.2 else 300), rng)
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    kind = f'<!DOCTYPE x [<!ENTITY l0 "lol">{laughs}<!ENTITY e SYSTEM "file:///etc/passwd">]>'.encode()
    return replaced(rb"(?<=\?>)", replaced(rb"(?<=>)(?=<)", content, b"&l9;&e;", rng), kind, rng)


def replaced(pattern: bytes, content: bytes, by: bytes, rng: Generator) -> bytes:
    """One place that a pattern finds, by something else; half of the time among the first forty."""
    found = list(re.finditer(pattern, content))
    if not found:
        return content + by
    one = found[rng.integers(min(len(found), 40) if rng.random() < 0.5 else len(found))]
    return content[: one.start()] + by + content[one.end() :]


def picked(of: tuple[str, ...], rng: Generator) -> bytes:
    return of[rng.integers(len(of))].encode("utf-8", "surrogatepass")


def of_lines_of_json(content: bytes, rng: Generator) -> bytes:
    """One line as JSON, or the lines as a text."""
    if rng.random() < 0.2:
        return of_text(content, rng)
    lines = content.split(b"\n")
    at = int(rng.integers(max(1, len(lines) - 1)))
    lines[at] = of_json(lines[at], rng)
    return b"\n".join(lines)


def of_json(content: bytes, rng: Generator) -> bytes:
    """One node of a document: another value, no value, twice, or nested beyond measure."""
    if rng.random() < 0.05:
        return content.replace(b":", b":" + b"[" * DEEP, 1)
    tree = json.loads(content)
    places = list(_nodes(tree))
    if not places:
        return of_text(content, rng)
    holder, key = places[rng.integers(len(places))]
    draw = rng.random()
    if draw < 0.2:
        del holder[key]
    elif draw < 0.3 and isinstance(holder, dict):
        holder[picked(TEXTS, rng).decode("utf-8", "replace")] = holder[key]
    elif draw < 0.4 and isinstance(holder[key], list):
        holder[key] = holder[key] * int(rng.choice([2, 1000]))
    else:
        holder[key] = _value(rng)
    return json.dumps(tree, ensure_ascii=bool(rng.random() < 0.5)).encode("utf-8", "surrogatepass")


def _nodes(tree: Any) -> Any:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _nodes(tree[key])


def _value(rng: Generator) -> Any:
    others: list[Any] = [None, True, False, [], {}, [[]], {"": None}, -1, 0, 1, 2**31, 2**63, 2**64, 10**30, -(2**70)]
    others += [0.5, -0.0, 1e308, float("inf"), float("nan"), "\ud800", "a\0b", ["a"] * 300, {"a": {"a": {"a": []}}}]
    draw = int(rng.integers(len(others) + 30))
    if draw < len(others):
        return others[draw]
    return picked(NUMBERS if rng.random() < 0.4 else TEXTS, rng).decode("utf-8", "replace")
