"""Valid files -> damaged ones: by their bytes, and by what their format is made of, so that damage gets past a header.

An input is a tree of files, name -> content. Every choice is the generator's: equal seeds give equal inputs.
"""

import gzip
import io
import json
import re
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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
BOMB: Final = 200 << 20
"""Bytes that a small file unpacks to."""


def damaged(tree: Tree, others: list[Tree], rng: Generator) -> Tree:
    """A tree with one to four mutations; `others` lend what is spliced in."""
    made = dict(tree)
    for _ in range(1 + min(3, int(rng.geometric(0.6)) - 1)):
        name = str(rng.choice(sorted(made)))
        draw = rng.random()
        if draw < 0.02 and len(made) > 1:
            del made[name]
        elif draw < 0.04 and len(made) > 1:
            made[name] = made[str(rng.choice(sorted(made)))]
        elif draw < 0.08:
            lent = others[rng.integers(len(others))]
            made[name] = spliced(made[name], lent[str(rng.choice(sorted(lent)))], rng)
        else:
            made[name] = of_kind(name)(made[name], rng)
    return made


def of_kind(name: str) -> Mutation:
    """How a file of this name is damaged: mostly as its format, sometimes as bytes."""
    kinds = {".json": of_json, ".ndjson": of_lines_of_json, ".parquet": of_parquet, ".npz": of_zip, ".xml": of_markup}
    texts = (".csv", ".tsv", ".hea", ".txt", ".toml", ".where", ".set")
    structured = kinds.get(name[name.rfind(".") :], of_text if name.endswith(texts) else of_bytes)

    def mutated(content: bytes, rng: Generator) -> bytes:
        if rng.random() < 0.01:
            return gzip.compress(content, 1) if rng.random() < 0.7 else bomb()
        try:
            return (structured if rng.random() < 0.75 else of_bytes)(content, rng)
        except Exception:
            return of_bytes(content, rng)  # an earlier mutation left nothing of the format

    return mutated


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
        return _replaced(rb"-?\d+(?:\.\d+)?", content, _pick(NUMBERS, rng), rng)
    if draw == 2:
        return _replaced(rb"[^\s,;=\[\]{}()<>\"]+", content, _pick(TEXTS, rng), rng)
    if draw == 3:
        return _replaced(rb"[,;=\t\"\[\]{}()/ ]", content, _pick(TEXTS, rng), rng)
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
        lines.insert(at, _pick((*TEXTS, "[" * DEEP, "a = " + "[" * DEEP, "a." * 20_000, "(" * DEEP, "#"), rng))
    return b"\n".join(lines)


def of_markup(content: bytes, rng: Generator) -> bytes:
    """Elements, attributes and entities of XML."""
    draw = int(rng.integers(6))
    if draw == 0:
        return _replaced(rb"(?<=>)[^<>]+(?=<)", content, _pick((*NUMBERS, *TEXTS), rng), rng)
    if draw == 1:
        return _replaced(rb'(?<==")[^"]*(?=")', content, _pick((*NUMBERS, *TEXTS), rng), rng)
    if draw == 2:
        return _replaced(rb"</?[A-Za-z:]+[^<>]*>", content, b"" if rng.random() < 0.5 else b"<x>", rng)
    if draw == 3:
        found = list(re.finditer(rb"<([A-Za-z]+)[^<>]*>.*?</\1>", content, re.DOTALL))
        one = found[rng.integers(len(found))] if found else None
        times = int(rng.choice([0, 2, 500], p=[0.4, 0.4, 0.2]))
        return content if one is None else content[: one.start()] + one[0][:20_000] * times + content[one.end() :]
    if draw == 4:
        return _replaced(rb"(?<=>)(?=<)", content, b"<a>" * (DEEP if rng.random() < 0.2 else 300), rng)
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    kind = f'<!DOCTYPE x [<!ENTITY l0 "lol">{laughs}<!ENTITY e SYSTEM "file:///etc/passwd">]>'.encode()
    return _replaced(rb"(?<=\?>)", _replaced(rb"(?<=>)(?=<)", content, b"&l9;&e;", rng), kind, rng)


def _replaced(pattern: bytes, content: bytes, by: bytes, rng: Generator) -> bytes:
    """One place that a pattern finds, by something else; half of the time among the first forty."""
    found = list(re.finditer(pattern, content))
    if not found:
        return content + by
    one = found[rng.integers(min(len(found), 40) if rng.random() < 0.5 else len(found))]
    return content[: one.start()] + by + content[one.end() :]


def _pick(of: tuple[str, ...], rng: Generator) -> bytes:
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
        holder[_pick(TEXTS, rng).decode("utf-8", "replace")] = holder[key]
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
    return _pick(NUMBERS if rng.random() < 0.4 else TEXTS, rng).decode("utf-8", "replace")


def of_parquet(content: bytes, rng: Generator) -> bytes:
    """A column: gone, twice, null, of another type or of other values; rows: none, or many."""
    rows = pq.read_table(io.BytesIO(content))
    names = rows.column_names
    at = int(rng.integers(len(names)))
    match int(rng.integers(9)):
        case 0:
            rows = rows.remove_column(at)
        case 1:
            rows = rows.rename_columns([*names[:at], names[int(rng.integers(len(names)))].upper(), *names[at + 1 :]])
        case 2:
            rows = rows.set_column(at, names[at], pa.nulls(len(rows), rows.schema.types[at]))
        case 3:
            rows = rows.set_column(
                at, names[at], pa.array([_pick((*TEXTS, *NUMBERS), rng).decode() for _ in range(len(rows))])
            )
        case 4:
            kinds = [
                pa.int8(),
                pa.float64(),
                pa.large_string(),
                pa.binary(),
                pa.timestamp("ns"),
                pa.bool_(),
                pa.null(),
                pa.date32(),
            ]
            kind = kinds[rng.integers(len(kinds))]
            rows = rows.set_column(
                at, names[at], rows[at].cast(kind) if rng.random() < 0.3 else pa.nulls(len(rows), kind)
            )
        case 5:
            extreme = pa.array(rng.choice([-(2**63), 2**63 - 1, 0, -1, 10**15], len(rows)), pa.int64())
            rows = rows.set_column(at, names[at], extreme)
        case 6:
            rows = rows.slice(0, 0) if rng.random() < 0.3 else pa.concat_tables([rows] * int(rng.choice([2, 50])))
        case 7:
            nested = pa.array([[float("nan")]] * len(rows)) if rng.random() < 0.5 else pc.list_slice(rows[at], 0, 1)
            rows = rows.set_column(at, names[at], nested)
        case _:
            rows = rows.set_column(at, names[at], pa.array(rng.choice([np.nan, np.inf, -1e300, 1e-300], len(rows))))
    out = io.BytesIO()
    pq.write_table(rows, out)
    return out.getvalue()


def of_zip(content: bytes, rng: Generator) -> bytes:
    """A member: damaged, renamed, twice, gone, or a bomb."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = int(rng.integers(len(members)))
    name, data = members[at]
    match int(rng.integers(6)):
        case 0:
            members[at] = (name, of_bytes(data[:128], rng) + data[128:])
        case 1:
            members[at] = (
                name,
                _replaced(
                    rb"(?<=\()\d+|(?<= )\d+(?=\))|<f8|<f4|<U\d+",
                    data[:128],
                    _pick((*NUMBERS, "|O", "<c16", "(2,)"), rng),
                    rng,
                )
                + data[128:],
            )
        case 2:
            members[at] = (_pick(TEXTS[:30], rng).decode("utf-8", "replace")[:60].replace("\0", "") + ".npy", data)
        case 3:
            members.append((name, data))
        case 4:
            del members[at]
        case _:
            members[at] = (name, data[:128] + bytes(BOMB if rng.random() < 0.1 else 1000))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()
