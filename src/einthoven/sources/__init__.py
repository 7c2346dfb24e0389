"""One file per source: each turns published files into the tables of a study."""

from typing import Final

SOURCES: Final = ("ptbxl", "mimic", "meds", "omop", "fhir", "challenge", "simulated")
