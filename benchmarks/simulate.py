"""Rate of the ECG simulator: python benchmarks/simulate.py [--recordings 1000]. Prints one JSON line."""

import argparse
import json
import time

import numpy as np

from einthoven.simulation import findings, heart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", type=int, default=1000)
    n = parser.parse_args().recordings
    drawn = findings.draw_findings(n, np.random.default_rng(0))
    rates = {}
    for hertz in (100, 500):
        began = time.perf_counter()
        heart.simulate(drawn, np.random.default_rng(0), sampling_rate=hertz)
        rates[f"ecgs_per_s_{hertz}hz"] = round(n / (time.perf_counter() - began), 1)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
