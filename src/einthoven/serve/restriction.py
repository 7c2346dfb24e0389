"""What an operator keeps back: how many recordings one answer has, and how many digits a score.

With exact scores whoever asks often enough can work out a recording's vector, which is as good as its ECG for linking
it to another (docs/security.md). The own vector of a text or of an upload is not kept back: its sender has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from einthoven.search.archive import MOST, Hit
from einthoven.serve.bodies import Finding, FindingsAnswer, Outlying, Probed, ZeroShot
from einthoven.serve.options import Options
from einthoven.serve.problems import RefusedError
from einthoven.serve.saliency import Occlusion


@dataclass(frozen=True)
class Restriction:
    """`most` recordings of an answer, `digits` after the point of a score; None of digits: all."""

    most: int = MOST
    digits: int | None = None

    @classmethod
    def of(cls, options: Options) -> "Restriction":
        return cls(min(options.max_results or MOST, MOST), options.round_scores)

    def check(self, top: int) -> None:
        """RefusedError 422 where more is asked for than is told."""
        if top > self.most:
            raise RefusedError(422, f"top: this server answers with {self.most:,} recordings at most.")

    def score(self, exact: float) -> float:
        return exact if self.digits is None else round(exact, self.digits) + 0.0  # no -0.0

    def hits(self, found: Sequence[Hit]) -> list[Hit]:
        """In the order of their exact scores."""
        return [replace(hit, score=self.score(hit.score)) for hit in found] if self.digits is not None else list(found)

    def falls(self, found: Occlusion) -> Occlusion:
        return found if self.digits is None else replace(found, falls=np.round(found.falls, self.digits))

    def findings(self, said: FindingsAnswer) -> FindingsAnswer:
        if self.digits is None:
            return said
        outlier = said.outlier and Outlying(score=self.score(said.outlier.score), outlier=said.outlier.outlier)
        told = [self._finding(one) for one in said.findings]
        return FindingsAnswer(trained_on=said.trained_on, findings=told, outlier=outlier)

    def _finding(self, one: Finding) -> Finding:
        zero, probe = one.zero_shot, one.probe
        if zero is not None:
            share = None if zero.higher_than is None else round(zero.higher_than, max(0, (self.digits or 0) - 2))
            low, high = self.score(zero.low), self.score(zero.high)
            zero = ZeroShot(score=self.score(zero.score), low=low, high=high, higher_than=share)
        if probe is not None:
            ends = (None if end is None else self.score(end) for end in (probe.low, probe.high))
            probe = Probed(probability=self.score(probe.probability), **dict(zip(("low", "high"), ends, strict=True)))
        return Finding(name=one.name, zero_shot=zero, probe=probe)
