"""All rules, tried on a study."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

from einthoven.checking.rules import TABLE_RULES, Rule
from einthoven.checking.signals import SIGNAL_RULES
from einthoven.checking.tables import ERROR, NOTE, WARNING, Finding, Tables
from einthoven.checking.windows import PAIR_RULES

RULES: Final[tuple[Rule, ...]] = (*TABLE_RULES[:2], *SIGNAL_RULES[1:], *TABLE_RULES[2:], SIGNAL_RULES[0], *PAIR_RULES)
"""Leakage first."""

HELD, NOT_CHECKED = "held", "not checked"


@dataclass(frozen=True)
class Verdict:
    """What became of a rule: held, not checked, or the gravest of its findings (error, warning, note)."""

    rule: str
    claim: str
    state: str
    missing: tuple[str, ...]  # what was not there to be checked
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def try_rules(tables: Tables, progress: Callable[[int, int], None] | None = None) -> list[Verdict]:
    """Every rule's verdict; a rule whose tables were not made yet, or are broken, is not checked."""
    verdicts = []
    for number, rule in enumerate(RULES, start=1):
        missing = tuple(name for name in rule.needs if name not in tables.there)
        findings = () if missing else tuple(rule.look(tables))
        gravest = [grade for grade in (ERROR, WARNING, NOTE) if any(f.severity == grade for f in findings)]
        state = NOT_CHECKED if missing else gravest[0] if gravest else HELD
        verdicts.append(Verdict(rule.name, rule.claim, state, missing, findings))
        if progress is not None:
            progress(number, len(RULES))
    return verdicts
