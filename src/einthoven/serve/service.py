"""One model and one study, behind lanes: what routes and pages ask."""

from dataclasses import dataclass, field
from pathlib import Path

from einthoven.serve.batching import Lane
from einthoven.serve.bodies import (
    AboutAnswer,
    EncodeAnswer,
    EncodeRequest,
    FindingsAnswer,
    RecordingAnswer,
    SearchAnswer,
    SearchRequest,
    Split,
)
from einthoven.serve.charts import Charts
from einthoven.serve.options import Options
from einthoven.serve.problems import RefusedError
from einthoven.waveforms.formats import Ecg


@dataclass
class Service:
    """All methods are called on the event loop, raise RefusedError for what cannot be answered and BusyError where
    too much waits, and leave the work to lanes."""

    charts: Charts
    options: Options
    lanes: list[Lane] = field(default_factory=list)  # type: ignore[type-arg]

    @classmethod
    def open(cls, model: Path, study: Path, options: Options) -> "Service":
        """Read a model directory and a study that has its embeddings."""
        raise NotImplementedError

    def about(self) -> AboutAnswer:
        """What is served."""
        raise NotImplementedError

    async def search(self, asked: SearchRequest) -> SearchAnswer:
        """The recordings nearest to a text, to codes, or to a recording."""
        raise NotImplementedError

    async def read(self, content: bytes) -> Ecg:
        """An uploaded ECG, in any format, read in a process of its own; RefusedError 422 if it cannot be."""
        raise NotImplementedError

    async def search_ecg(self, ecg: Ecg, top: int, split: Split) -> SearchAnswer:
        """The recordings nearest to an uploaded ECG."""
        raise NotImplementedError

    async def encode(self, asked: EncodeRequest) -> EncodeAnswer:
        """Embeddings of texts or of one set of codes."""
        raise NotImplementedError

    async def encode_ecg(self, ecg: Ecg) -> EncodeAnswer:
        """The embedding of an uploaded ECG, in the coarse space if the model has it."""
        raise NotImplementedError

    async def findings(self, recording_id: str) -> FindingsAnswer:
        """What the model says of a recording of the study."""
        raise NotImplementedError

    async def findings_ecg(self, ecg: Ecg) -> FindingsAnswer:
        """What the model says of an uploaded ECG."""
        raise NotImplementedError

    async def recording(self, recording_id: str) -> RecordingAnswer:
        """What the study knows of a recording; RefusedError 404."""
        raise NotImplementedError

    async def drawing(self, recording_id: str) -> str:
        """A recording on ECG paper, as SVG; RefusedError 404."""
        raise NotImplementedError

    async def drawing_ecg(self, ecg: Ecg) -> str:
        """An uploaded ECG on paper, as SVG."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish what was taken, take nothing more."""
        for lane in self.lanes:
            lane.close()


def not_found() -> RefusedError:
    return RefusedError(404, "The study has no such recording.")
