"""A valid input -> a damaged one: which file of it, and how."""

import gzip

from fuzz.containers import of_parquet, of_zip
from fuzz.mutations import (
    Generator,
    Mutation,
    Tree,
    bomb,
    of_bytes,
    of_json,
    of_lines_of_json,
    of_markup,
    of_text,
    spliced,
)


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
