"""Coverage-guided fuzzing of a target by atheris, which changes inputs towards code not yet reached.

    python -m fuzz.guided TARGET [-max_total_time=600] [further options of libFuzzer]

The first byte of an input chooses the file of the target's first valid input that the rest replaces. Valid inputs are
the corpus it begins with, below `.cache/fuzz-corpus/TARGET`; what it finds, it writes where it stands. Beside
libFuzzer's own mutations stand those of `fuzz.mutations`.
"""

import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

CORPUS: Final = Path(".cache/fuzz-corpus")
MEASURED: Final = ["einthoven", "ecgdatakit", "wfdb", "tomllib"]
"""Packages whose coverage leads."""
LIBFUZZER: Final = ("-timeout=30", "-rss_limit_mb=4096", "-max_len=200000")


def main(arguments: list[str]) -> None:
    import atheris  # the extra `fuzz`

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as place:
        with atheris.instrument_imports(include=MEASURED):
            from fuzz.targets import TARGETS

            if arguments[1:2] == [] or arguments[1] not in TARGETS:
                raise SystemExit(f"expected one of {', '.join(TARGETS)}")
            (Path(place) / arguments[1]).mkdir()
            seeds, run = TARGETS[arguments[1]].prepare(Path(place) / arguments[1])
            run(seeds[0])
        names, corpus = sorted(seeds[0]), CORPUS / arguments[1]
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds):
            for at, name in enumerate(names):
                (corpus / f"seed-{number}-{at}").write_bytes(bytes([at]) + seed.get(name, b""))
        fuzz(atheris, run, seeds[0], [arguments[0], *LIBFUZZER, *arguments[2:], str(corpus)])


def fuzz(atheris: Any, run: Any, seed: dict[str, bytes], arguments: list[str]) -> None:
    """Until libFuzzer ends the process."""
    import numpy as np

    from einthoven.errors import EinthovenError
    from fuzz.damage import of_kind

    names = sorted(seed)

    def tested(data: bytes) -> None:
        try:
            run(seed | {names[data[0] % len(names)]: data[1:]} if data else seed)
        except EinthovenError:
            return

    def mutated(data: bytes, most: int, number: int) -> bytes:
        rng = np.random.default_rng(number)
        if not data or rng.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        return (data[:1] + of_kind(names[data[0] % len(names)])(data[1:], rng))[:most]

    atheris.Setup(arguments, tested, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
