"""The tokens of coded records: built from the patients of the train split, kept with the model, strict when read."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EinthovenError
from einthoven.study import write_json
from einthoven.vocabulary import rules as rule_tables
from einthoven.vocabulary.codes import KINDS, kind_of
from einthoven.vocabulary.medications import Medications
from einthoven.vocabulary.rules import Rules

FILE: Final = "vocabulary.json"
VERSION: Final = 1
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
MAX_BYTES: Final = 1 << 30
MAX_KNOWN: Final = 1 << 20
"""Spellings whose token is remembered: more come from texts, and are told anew each time."""

EXACT, UNKNOWN = "exact", "unknown"
_KIND_ORDER: Final = {kind: place for place, kind in enumerate([*dict.fromkeys(KINDS.values()), "other"])}


class _Ids(dict[str, int]):
    """Token of each spelling, found when first asked for."""

    def __init__(self, vocabulary: "Vocabulary") -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def __missing__(self, code: str) -> int:
        found = self.vocabulary.token_of(code)[0]
        if len(self) < MAX_KNOWN:
            self[code] = found
        return found


@dataclass(frozen=True)
class Vocabulary:
    """Tokens 0 to 4 are SPECIAL, then codes and wider codes by kind and code. Compare by `digest`."""

    tokens: tuple[str, ...]
    patients: tuple[int, ...]  # of the train split, for whom a token stands; 0: a special token
    floor: int  # no other token stands for fewer patients
    rules: Rules = field(repr=False)
    _index: dict[str, int] = field(init=False, repr=False, compare=False)
    _ids: _Ids = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        places = range(len(SPECIAL), len(self.tokens))  # a code written "[MASK]" is a code, and unknown
        object.__setattr__(self, "_index", {self.tokens[place]: place for place in places})
        object.__setattr__(self, "_ids", _Ids(self))

    def __len__(self) -> int:
        return len(self.tokens)

    def token_of(self, code: str) -> tuple[int, str]:
        """The token that stands for a code, and how: "exact", what it is to the code (codes.wider), or "unknown"."""
        canonical = self.rules.canonical(code)
        for name, how in ((canonical, EXACT), *self.rules.chain(canonical)):
            if name in self._index:
                return self._index[name], how
        return UNK, UNKNOWN

    def encode(self, codes: Sequence[str]) -> NDArray[np.int64]:
        """int64 [len(codes)], of codes in any spelling: a token itself, else the nearest wider one, else UNK."""
        return np.fromiter(map(self._ids.__getitem__, codes), np.int64, len(codes))

    def coverage(self, codes: Iterable[str]) -> dict[str, dict[str, float]]:
        """By kind of code and for "all": `codes`, how many, and the shares told exactly, by each step up, or unknown.

        Occurrences count as often as they come; a Counter does too. `unknown` is the out-of-vocabulary rate.
        """
        counts: dict[str, Counter[str]] = {}
        for code, times in Counter(codes).items():
            how = self.token_of(code)[1]
            for kind in (kind_of(self.rules.canonical(code)), "all"):
                counts.setdefault(kind, Counter())[how] += times
        return {kind: _shares(counts[kind]) for kind in sorted(counts, key=lambda k: (_KIND_ORDER.get(k, 9), k))}

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides which token a code becomes: two that are equal encode alike."""
        return str(self._as_json()["digest"])

    def _as_json(self) -> dict[str, Any]:
        body = {
            "version": VERSION,
            "floor": self.floor,
            "tokens": list(self.tokens),
            "patients": list(self.patients),
            "rules": self.rules.as_json(),
        }
        return body | {"digest": _digest(body)}

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, self._as_json())


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    shares = {how: counts[how] / total for how in (EXACT, *sorted(set(counts) - {EXACT, UNKNOWN}), UNKNOWN)}
    return {"codes": total, **shares}


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def build(
    seen: Mapping[str, Collection[int] | NDArray[np.int64]], floor: int, rules: Rules | None = None
) -> Vocabulary:
    """Make the vocabulary of `seen`: codes in any spelling -> the subjects of the train split who have them.

    A code that at least `floor` patients have is a token. The patients of another are counted with its next wider code,
    which is a token if with them at least `floor` have it, and so on upwards. So no token stands for fewer patients,
    and more rare codes never take a token away. EinthovenError: no code reaches the floor.
    """
    rules = Rules() if rules is None else rules
    waiting: dict[int, dict[str, list[NDArray[np.int64]]]] = {}
    for code, subjects in seen.items():
        canonical = rules.canonical(code)
        level = waiting.setdefault(len(rules.chain(canonical)), {})
        level.setdefault(canonical, []).append(np.asarray(list(subjects), np.int64))
    kept: dict[str, int] = {}
    while waiting:
        depth = max(waiting)
        for code, parts in sorted(waiting.pop(depth).items()):
            subjects = np.unique(np.concatenate(parts))
            if len(subjects) >= floor:
                kept[code] = len(subjects)
            elif depth:
                above = rules.chain(code)[0][0]
                height = len(rules.chain(above))
                if height < depth:  # else parents go round in a circle
                    waiting.setdefault(height, {}).setdefault(above, []).append(subjects)
    if not kept:
        raise EinthovenError(f"vocabulary: no code is had by {floor} patients of the train split; lower the floor.")
    ordered = sorted(kept, key=lambda code: (_KIND_ORDER[kind_of(code)], code))
    return Vocabulary((*SPECIAL, *ordered), (0,) * len(SPECIAL) + tuple(kept[code] for code in ordered), floor, rules)


def load(path: Path, digest: str | None = None) -> Vocabulary:
    """Read what `save` wrote. `digest`: of the vocabulary a model was trained with.

    EinthovenError: no such file, another one, one that was changed, or one of other rules than this version's.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EinthovenError(f"{path}: larger than {MAX_BYTES >> 20} MB; expected a {FILE}.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EinthovenError(f"{path}: {error.strerror}; expected the {FILE} of a model.") from None
    except (ValueError, RecursionError):
        raise EinthovenError(f"{path}: not a JSON file; expected the {FILE} of a model.") from None
    vocabulary = _checked(found, path)
    if found["digest"] != vocabulary.digest:
        raise EinthovenError(f"{path}: was changed since it was written. Copy it again from its model.")
    if digest is not None and digest != found["digest"]:
        raise EinthovenError(f"{path}: not the vocabulary that the model was trained with. Use the one saved with it.")
    return vocabulary


def _checked(found: Any, path: Path) -> Vocabulary:
    damaged = EinthovenError(f"{path}: not a vocabulary of this program; expected the {FILE} of a model.")
    shape = {"version": int, "floor": int, "tokens": list, "patients": list, "rules": dict, "digest": str}
    if not _is_shaped(found, shape):
        raise damaged
    tables = found["rules"]
    if found["version"] != VERSION or tables.get("version") != rule_tables.VERSION:
        raise EinthovenError(
            f"{path}: format {found['version']} and rules {tables.get('version')}; this einthoven has format "
            f"{VERSION} and rules {rule_tables.VERSION}. Use the version that the model was trained with."
        )
    names = ("names", "classes", "parents", "ingredients", "icd9")
    tokens, patients = found["tokens"], found["patients"]
    if not (
        _is_shaped(tables, {"version": int} | dict.fromkeys(names, dict))
        and all(isinstance(v, str) for name in names if name != "parents" for v in tables[name].values())
        and all(isinstance(v, list) and all(isinstance(p, str) for p in v) for v in tables["parents"].values())
        and all(isinstance(token, str) for token in tokens)
        and tuple(tokens[: len(SPECIAL)]) == SPECIAL
        and len(set(tokens)) == len(tokens) == len(patients)
        and all(type(count) is int for count in patients)
    ):
        raise damaged
    parents = {code: tuple(above) for code, above in tables["parents"].items()}
    drugs = Medications(tables["names"], tables["classes"])
    rules = Rules(drugs, parents, tables["ingredients"], tables["icd9"])
    return Vocabulary(tuple(tokens), tuple(patients), found["floor"], rules)


def _is_shaped(found: Any, shape: Mapping[str, type]) -> bool:
    same = isinstance(found, dict) and set(found) == set(shape)
    return same and all(type(found[key]) is kind for key, kind in shape.items())
