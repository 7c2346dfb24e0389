"""One file per source: each turns published files into the tables of a study."""

from typing import Final

from einthoven.errors import EinthovenError

SOURCES: Final = ("ptbxl", "mimic", "meds", "omop", "fhir", "challenge", "simulated")


def refuse_unknown(name: str) -> None:
    """EinthovenError where no source has this name."""
    if name not in SOURCES:
        raise EinthovenError(f"unknown source {name!r}; known: {', '.join(SOURCES)}.")
