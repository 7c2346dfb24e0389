"""All targets by name, in the order they are run in."""

from typing import Final

from fuzz import ecg, models, service, settings, sources
from fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target for module in (ecg, settings, sources, models, service) for target in module.TARGETS
}
