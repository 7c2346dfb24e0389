"""What a benchmark says of the machine it ran on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def processor() -> str:
    """Its name, or that of its kind where the system tells none."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def facts(*packages: str) -> dict[str, object]:
    """Processor, cores this process may use, and versions of Python and of `packages`."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "versions": versions}
