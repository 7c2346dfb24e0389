"""stub until merge"""

from typing import Any

import ibis

from einthoven.config import Entities


def rendered(entities: Any, config: Entities) -> Any:
    e = entities.filter(
        ~entities.negated & ~entities.family & ~entities.hypothetical & entities.label.isin(config.labels)
    )
    if not config.uncertain:
        e = e.filter(~e.uncertain)
    if not config.historical:
        e = e.filter(~e.historical)
    words = ibis.ifelse(e.historical, "history of ", "") + ibis.ifelse(e.uncertain, "possible ", "") + e.term
    return e.select("note_id", "start", words=words)
