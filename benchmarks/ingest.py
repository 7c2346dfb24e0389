"""Records read, checked and stored per second. Prints one JSON line.

python benchmarks/ingest.py --source DIR --records 4000       # replicates the WFDB records found below DIR
python benchmarks/ingest.py --records 4000 --rate 500         # simulates format-16 records
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from einthoven.schema import LEADS
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


def simulate(folder: Path, count: int, rate: int) -> list[str]:
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
            lines.append(f"{target.name}.dat 16 1000.0(0)/mV 16 0 {start} {total} 0 {lead}")
        target.with_suffix(".hea").write_text("\n".join(lines) + "\n")
        target.with_suffix(".dat").write_bytes(signal.tobytes())
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="folder of WFDB records; without it, records are simulated")
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--rate", type=int, default=500, help="hertz of the records")
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
            names = simulate(folder, arguments.records, arguments.rate)
        reader = wfdb_reader(folder)
        target, best, kept = arguments.target_rate or arguments.rate, float("inf"), 0
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            results = load_records(Path(scratch) / "study", reader, names, target, threads=arguments.threads)
            best = min(best, time.perf_counter() - start)
            kept = sum(not isinstance(result, Exception) for result in results)
    result = {
        "benchmark": "ingest",
        "data": "real" if arguments.source else "simulated",
        "records": len(names),
        "kept": kept,
        "rate": arguments.rate,
        "target_rate": target,
        "cores": len(os.sched_getaffinity(0)),
        "threads": arguments.threads,
        "seconds": round(best, 3),
        "records_per_second": round(len(names) / best),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
