"""What a benchmark says of the machine it ran on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def facts(*packages: str) -> dict[str, object]:
    """Processor, cores this process may use, and versions of Python and of `packages`."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return {"processor": named, "cores": len(os.sched_getaffinity(0)), "versions": versions}
