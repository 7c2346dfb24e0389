"""One model and one study, behind lanes: what routes and pages ask."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from einthoven.errors import EinthovenError
from einthoven.model import NO_CODES, NO_TEXT, STRIPS
from einthoven.search.archive import Answer, Archive, Hit, Placed, Query
from einthoven.search.filters import Filter, FilterError, parse
from einthoven.search.index import Vector
from einthoven.serve.batching import Lane
from einthoven.serve.bodies import (
    AboutAnswer,
    EncodeAnswer,
    EncodeRequest,
    FindingsAnswer,
    HitAnswer,
    RecordingAnswer,
    SearchAnswer,
    SearchRequest,
)
from einthoven.serve.charts import Charts, draw
from einthoven.serve.encoding import Codes, Job, Seen, Strips, Texts, encode, strips_of
from einthoven.serve.metrics import Metrics
from einthoven.serve.options import MAX_TOP, Options
from einthoven.serve.problems import RefusedError
from einthoven.serve.restriction import Restriction
from einthoven.serve.saliency import Occlusion, occlusion
from einthoven.serve.uploads import Upload, Uploads
from einthoven.serve.verdicts import Verdicts
from einthoven.waveforms.draw import Shade
from einthoven.waveforms.formats import Ecg
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import from_store

Work = Callable[[], Any]
Found = TypeVar("Found")
ABSENT = "The study has no such recording."
SILENT = "The recording has no signal."
BLANKINGS = 8
"""That wait: each is a hundred ECGs and more to the model, and other queries shall not wait for them."""


@dataclass
class Service:
    """All methods are called on the event loop, raise RefusedError for what cannot be answered and BusyError where
    too much waits, and leave the work to lanes: of the model, of the index, of tables and drawings, of recordings that
    are blanked to see what drives a match, of uploads."""

    archive: Archive
    charts: Charts
    verdicts: Verdicts
    options: Options
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        self.archive.model.eval()
        self._recordings = len(self.archive.index)  # a server or a disk is not asked for every page
        queue, seen = self.options.queue, self.metrics.batch
        self._model: Lane[Job, Any] = Lane("model", self._encode, queue, most=self.options.batch, batches=seen)
        self._index: Lane[Work, Any] = Lane("index", _each, queue)
        self._tables: Lane[Work, Any] = Lane("tables", _each, queue)
        self._blanking: Lane[Work, Any] = Lane("blanking", _each, min(BLANKINGS, queue))
        self.uploads = Uploads(self.options)
        self.restriction = Restriction.of(self.options)
        for lane in (*self._lanes, self.uploads.lane):
            self.metrics.watch(lane.name, lane.__len__)

    @classmethod
    def of(cls, archive: Archive, options: Options) -> "Service":
        """Serve an archive; of its study the tables are read, too."""
        charts = Charts(archive.study, Store.open(archive.study), options.show_notes)
        return cls(archive, charts, Verdicts.of(archive), options)

    def about(self) -> AboutAnswer:
        """What is served."""
        return AboutAnswer(
            data_kind=self.archive.data_kind,
            trained_on=self.archive.model.card.get("data_kind"),
            recordings=self._recordings,
            modalities=list(self.archive.model.space_config.modalities),
            show_notes=self.options.show_notes,
            max_results=min(self.restriction.most, MAX_TOP),
        )

    async def search(self, asked: SearchRequest) -> SearchAnswer:
        """The recordings nearest to a text, to codes, or to a recording, then of other patients."""
        if [asked.text, asked.codes, asked.recording_id].count(None) != 2:
            raise RefusedError(422, "Expected exactly one of text, codes and recording_id.")
        where = _filter(asked.where)
        self.restriction.check(asked.top)
        if asked.recording_id is not None:
            return await self._like(asked, where)
        vector, space = (await self.vectors(asked.text, asked.codes))[0], _space(asked.text)
        hits = await self.near(vector, space, asked.top, where, asked.by_patient)
        return self._answer(hits, space)

    async def search_ecg(self, ecg: Ecg, top: int = 10, where: str = "", by_patient: bool = False) -> SearchAnswer:
        """The recordings nearest to an uploaded ECG."""
        self.restriction.check(top)
        chosen, seen = _filter(where), await self.seen(ecg)
        hits = await self.near(seen.vector, seen.space, top, chosen, by_patient)
        verdict = (await self.verdict(seen)).outlier
        return self._answer(hits, seen.space, None if verdict is None else verdict.outlier)

    async def encode(self, asked: EncodeRequest) -> EncodeAnswer:
        """Embeddings of texts, or of one set of codes."""
        texts = None if asked.texts is None else tuple(asked.texts)
        vectors = await self.vectors(texts, asked.codes)
        return EncodeAnswer(space=_space(texts), embeddings=vectors.tolist())

    async def encode_ecg(self, ecg: Ecg) -> EncodeAnswer:
        """The embedding of an uploaded ECG, in the coarse space if the model has it."""
        seen = await self.seen(ecg)
        return EncodeAnswer(space=seen.space, embeddings=[seen.vector.tolist()])

    async def findings(self, recording_id: str) -> FindingsAnswer:
        """What the model says of a recording of the study."""
        strips: Strips = await self._tables.do(lambda: self._stored(recording_id))
        return await self.verdict(await self._model.do(strips))

    async def findings_ecg(self, ecg: Ecg) -> FindingsAnswer:
        """What the model says of an uploaded ECG."""
        return await self.verdict(await self.seen(ecg))

    async def recording(self, recording_id: str) -> RecordingAnswer:
        """What the study knows of a recording; RefusedError 404."""
        return _there(await self._tables.do(lambda: self.charts.recording(recording_id)), ABSENT)

    async def drawing(self, recording_id: str) -> str:
        """A recording on ECG paper, as SVG; RefusedError 404."""
        if recording_id not in self.charts:
            raise RefusedError(404, ABSENT)
        return _there(await self._tables.do(lambda: self.charts.drawing(recording_id)), SILENT)

    async def stored(self, recording_id: str) -> Placed:
        """A recording's vector, its space and its patient, to search with; RefusedError 404."""
        if recording_id not in self.charts:
            raise RefusedError(404, ABSENT)
        try:
            found: Placed = await self._index.do(lambda: self.archive.embedded(Query(recording_id=recording_id)))
        except EinthovenError:
            raise RefusedError(404, SILENT) from None
        return found

    async def cosine(self, recording_id: str, vector: Vector, space: str) -> float | None:
        """Of a recording's vector with another in a space; None if the index has none there."""
        row = await self._index.do(lambda: self.archive.row(recording_id))
        own = row[space][0].as_py()
        return None if own is None else self.restriction.score(float(np.asarray(own, np.float32) @ vector))

    async def falls(self, recording_id: str, vector: Vector, space: str) -> Occlusion:
        """How far a recording's cosine with a vector falls without each lead and second; RefusedError 404."""
        if recording_id not in self.charts:
            raise RefusedError(404, ABSENT)
        model, rate = self.archive.model, self.charts.store.sampling_rate
        signal = _there(await self._tables.do(lambda: self.charts.stored(recording_id)), SILENT)
        found: Occlusion = await self._blanking.do(lambda: occlusion(model, signal, rate, vector, space))
        return self.restriction.falls(found)

    async def drawing_shaded(self, recording_id: str, shades: Sequence[Shade]) -> str:
        """A recording on ECG paper with intervals marked; RefusedError 404."""
        return _there(await self._tables.do(lambda: self.charts.drawing(recording_id, shades)), SILENT)

    async def drawing_ecg(self, ecg: Ecg) -> str:
        """An uploaded ECG on paper, as SVG."""
        drawn: str = await self._tables.do(lambda: draw(ecg))
        return drawn

    async def read(self, upload: Upload) -> Ecg:
        """An uploaded ECG, in any format, read in a process of its own; RefusedError 422 if it cannot be."""
        return await self.uploads.read(upload)

    def close(self) -> None:
        """Finish what was taken, take nothing more."""
        self.uploads.close()
        for lane in self._lanes:
            lane.close()

    @property
    def _lanes(self) -> tuple[Lane[Any, Any], ...]:
        return self._model, self._index, self._tables, self._blanking

    def _encode(self, jobs: Sequence[Job]) -> list[Any]:
        return encode(self.archive, jobs)

    async def vectors(self, texts: str | tuple[str, ...] | None, codes: list[str] | None) -> Any:
        """Unit vectors [n, d] of texts or of one set of codes, whichever is there."""
        if (texts is None) == (codes is None):
            raise RefusedError(422, "Expected exactly one of texts and codes.")
        if texts is not None:
            if self.archive.model.text is None:
                raise RefusedError(422, NO_TEXT)
            return await self._model.do(Texts((texts,) if isinstance(texts, str) else texts))
        if self.archive.model.codes is None:
            raise RefusedError(422, NO_CODES)
        try:
            return await self._model.do(Codes(tuple(codes or ()), "fine"))
        except EinthovenError as error:  # it quotes the code
            near = getattr(error, "near", "none is like it")
            raise RefusedError(422, f"The model does not know one of these codes; near ones: {near}.") from None

    async def seen(self, ecg: Ecg) -> Seen:
        """An uploaded ECG as the model sees it."""
        try:
            strips: Strips = await self._tables.do(lambda: strips_of(self.archive.model, ecg))
        except EinthovenError as error:  # of units, leads and lengths
            raise RefusedError(422, str(error)) from None
        seen: Seen = await self._model.do(strips)
        return seen

    async def verdict(self, seen: Seen) -> FindingsAnswer:
        """What the model says of an ECG that it has seen."""
        said: FindingsAnswer = await self._tables.do(lambda: self.verdicts.on(seen))
        return self.restriction.findings(said)

    def _stored(self, recording_id: str) -> Strips:
        if recording_id not in self.charts:
            raise RefusedError(404, ABSENT)
        signal = _there(self.charts.stored(recording_id), SILENT)
        of, rate = self.archive.model.ecg_config, self.charts.store.sampling_rate
        return Strips(from_store(signal[None], rate, of.sampling_rate, of.strip_samples, STRIPS)[0])

    async def _like(self, asked: SearchRequest, where: Filter) -> SearchAnswer:
        query = Query(recording_id=asked.recording_id, top=asked.top, where=where, by_patient=asked.by_patient)
        if query.recording_id not in self.charts:
            raise RefusedError(404, ABSENT)
        try:
            found: Answer = await self._index.do(lambda: self.archive.search(query))
        except EinthovenError:
            raise RefusedError(404, SILENT) from None
        return self._answer(self.restriction.hits(found.hits), found.space, found.outlier)

    async def near(
        self,
        vector: Vector,
        space: str,
        top: int,
        where: Filter = (),
        by_patient: bool = False,
        without: int | None = None,
    ) -> list[Hit]:
        """The recordings nearest to a vector; of each patient only the best, or none of the patient `without`."""
        near, kept = self.archive.near, (where, by_patient, without)
        try:
            hits: list[Hit] = await self._index.do(lambda: near(vector, space, top, *kept))
        except EinthovenError:
            raise RefusedError(422, f"The index has no {space} vectors.") from None
        return self.restriction.hits(hits)

    def _answer(self, hits: Sequence[Hit], space: str, outlier: bool | None = None) -> SearchAnswer:
        said = [
            HitAnswer(
                recording_id=hit.recording_id,
                score=hit.score,
                split=hit.split,
                time=None if hit.time is None else hit.time.isoformat(),
                age=hit.age,
                sex=hit.sex,
                codes=list(hit.codes),
                findings=list(hit.findings),
                quality=list(hit.quality),
                outlier=hit.outlier,
            )
            for hit in hits
        ]
        return SearchAnswer(data_kind=self.archive.data_kind, space=space, outlier=outlier, hits=said)


def _space(texts: object | None) -> str:
    """Where texts or else codes are."""
    return "fine" if texts is None else "coarse"


def _filter(where: str) -> Filter:
    try:
        return parse(where)
    except FilterError as error:  # its message says what was found, too
        raise RefusedError(422, f"where: {error.expected}.") from None


def _there(found: Found | None, otherwise: str) -> Found:
    if found is None:
        raise RefusedError(404, otherwise)
    return found


def _each(jobs: Sequence[Work]) -> list[Any]:
    """Jobs one after the other; what one raises is its answer."""
    return [_tried(job) for job in jobs]


def _tried(job: Work) -> Any:
    try:
        return job()
    except Exception as error:
        return error
