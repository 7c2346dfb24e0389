"""Records read, checked and stored per second, and per second of processor time. Prints one JSON line.

python benchmarks/ingest.py --source DIR --records 4000       # replicates the WFDB records found below DIR
python benchmarks/ingest.py --records 4000 --rate 500         # simulates format-16 records
python benchmarks/ingest.py --gain 200 --out results/ingest.json  # units of 5 µV, as MIMIC-IV-ECG has them

Everything is in the page cache, source and store: what is measured is the processor, not the disk. `read_only` is the
least that can be done with the same files, opening and reading them, in one thread.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import facts

from einthoven.schema import LEADS
from einthoven.study import write_json
from einthoven.waveforms.loading import load_records, wfdb_reader


def replicate(source: Path, folder: Path, count: int, rate: int) -> list[str]:
    """Copy the records below `source` at `rate` hertz into `folder` until there are `count`."""
    headers = [h for h in sorted(source.rglob("*.hea")) if h.read_text().split("\n")[0].split()[2] == str(rate)]
    if not headers:
        raise SystemExit(f"{source}: no WFDB records at {rate} Hz below it")
    names = []
    for number in range(count):
        header = headers[number % len(headers)]
        names.append(f"{number // 1000:05d}/{number // len(headers):05d}/{header.stem}")
        target = folder / names[-1]
        target.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (".hea", ".dat"):
            shutil.copyfile(header.with_suffix(suffix), target.with_suffix(suffix))
    return names


def simulate(folder: Path, count: int, rate: int, gain: int) -> list[str]:
    """Write `count` 10-second 12-lead random walks in format 16."""
    random = np.random.default_rng(0)
    names = []
    for number in range(count):
        names.append(f"{number // 1000:05d}/{number:06d}")
        target = folder / names[-1]
        target.parent.mkdir(exist_ok=True)
        signal = np.cumsum(random.integers(-9, 10, (10 * rate, len(LEADS))), axis=0).astype("<i2")
        sums = signal.sum(axis=0, dtype=np.int64) & 0xFFFF
        lines = [f"{target.name} {len(LEADS)} {rate} {len(signal)}"]
        for lead, start, total in zip(LEADS, signal[0], sums, strict=True):
            lines.append(f"{target.name}.dat 16 {gain}.0(0)/mV 16 0 {start} {total} 0 {lead}")
        target.with_suffix(".hea").write_text("\n".join(lines) + "\n")
        target.with_suffix(".dat").write_bytes(signal.tobytes())
    return names


def best(repeats: int, work: Callable[[], object]) -> tuple[float, float]:
    """The least wall time and the least processor time of all threads, in seconds; the first run warms the cache."""
    times = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        work()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return min(wall for wall, _ in times), min(processor for _, processor in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--source", type=Path, help="folder of WFDB records; without it, records are simulated")
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--rate", type=int, default=500, help="hertz of the records")
    parser.add_argument("--gain", type=int, default=1000, help="stored units in a millivolt, of simulated records")
    parser.add_argument("--target-rate", type=int, help="hertz of the store; default: as the records")
    parser.add_argument("--threads", type=int, help="default: one per core, 8 at most")
    parser.add_argument("--repeats", type=int, default=3, help="the best is reported; the first warms the cache")
    parser.add_argument("--scratch", type=Path, help="where the temporary tree is made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        folder = Path(scratch) / "source"
        folder.mkdir()
        if arguments.source:
            names = replicate(arguments.source, folder, arguments.records, arguments.rate)
        else:
            names = simulate(folder, arguments.records, arguments.rate, arguments.gain)
        reader = wfdb_reader(folder)
        target, kept = arguments.target_rate or arguments.rate, 0

        def ingest() -> None:
            nonlocal kept
            results = load_records(Path(scratch) / "study", reader, names, target, threads=arguments.threads)
            kept = sum(not isinstance(result, Exception) for result in results)

        def read_only() -> None:
            for name in names:
                for suffix in (".hea", ".dat"):
                    folder.joinpath(name + suffix).read_bytes()

        wall, processor = best(arguments.repeats, ingest)
        bare = best(arguments.repeats, read_only)[1]
    result = {
        "benchmark": "ingest",
        "command": "make bench-ingest",
        "data_kind": "real" if arguments.source else "simulated",
        "records": len(names),
        "kept": kept,
        "rate": arguments.rate,
        "gain": None if arguments.source else arguments.gain,
        "target_rate": target,
        "threads": arguments.threads,
        **facts("numpy"),
        "seconds": round(wall, 3),
        "records_per_second": round(len(names) / wall),
        "records_per_processor_second": round(len(names) / processor),
        "read_only_per_processor_second": round(len(names) / bare),
    }
    print(json.dumps(result))
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
