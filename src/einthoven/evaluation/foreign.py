"""Embeddings from elsewhere: a file of arrays that any model's user can write, measured as our own models are.

One `.npz`, as `numpy.savez` makes it, with these arrays and no other:

    recording_id        strings [n]           as the study names them
    features            floats [n, f]         what a linear probe reads
    ecg                 floats [n, d]         where text is; needs `text` or prompts
    text                floats [m, d]         of the recordings' texts in the study
    text_recording_id   strings [m]           whose they are
    prompt_<CLASS>      floats [k, d]         one or more for a class of the study, e.g. prompt_MI
    concatenation       a string              which of the study's texts were read, "report" (the default) or "entity"

The file is not trusted: nothing in it is unpickled, every array's type, shape and size is read from its header and
checked before the array is.
"""

import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.lib import format as npy
from numpy.typing import NDArray

from einthoven import schema
from einthoven.config import Evaluation
from einthoven.embed import matrix, table_of
from einthoven.errors import EinthovenError
from einthoven.evaluation import report
from einthoven.evaluation.figures import ReportFigures
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.labels import super_classes
from einthoven.evaluation.measures import Represented
from einthoven.evaluation.protocol import by_group, collect, mapped, prompt_embeddings, with_scores
from einthoven.evaluation.scores import write_scores
from einthoven.evaluation.split import Split, counts, read_split
from einthoven.evaluation.transfer import Probe
from einthoven.evaluation.zeroshot import PROMPTS
from einthoven.model_directory import load
from einthoven.study import atomic, data_kind, read_table, sha256
from einthoven.training.probes import labelled_training

SUFFIX: Final = ".npz"
PROMPT: Final = "prompt_"
ARRAYS: Final = {
    "recording_id": ("strings", 1),
    "features": ("floats", 2),
    "ecg": ("floats", 2),
    "text": ("floats", 2),
    "text_recording_id": ("strings", 1),
    "concatenation": ("strings", 0),
}
"""Name -> what it holds and how many dimensions it has."""

KINDS: Final = {"strings": "U", "floats": "f"}
HEADER: Final = (tokenize.TokenError, SyntaxError)
"""Of an array's header, which NumPy reads as Python."""

MOST_BYTES: Final = 64 << 30
"""Of all arrays together: 2,000,000 recordings with 8,000 features, each a float32."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Foreign:
    """A file of embeddings, checked."""

    path: Path
    ids: tuple[str, ...]
    features: Floats  # [n, f]
    ecg: Floats | None  # [n, d]
    text: Floats | None  # [m, d]
    text_ids: tuple[str, ...]
    prompts: dict[str, Floats]  # class -> [k, d]
    concatenation: str

    def rows(self, wanted: Sequence[str], of: str) -> Integers:
        """Where these recordings are. EinthovenError counts those that are not there; `of` says what they are."""
        return self._places(self.ids, wanted, "recording_id", of)

    def text_rows(self, wanted: Sequence[str], of: str) -> Integers:
        """Where the texts of these recordings are, as `rows`."""
        return self._places(self.text_ids, wanted, "text_recording_id", of)

    def _places(self, ids: Sequence[str], wanted: Sequence[str], array: str, of: str) -> Integers:
        found = pc.index_in(pa.array(wanted, pa.string()), pa.array(ids, pa.string()))
        if found.null_count:
            raise EinthovenError(
                f"{self.path}: {array} lacks {found.null_count} of the {len(wanted)} {of}; expected all of them, "
                "spelled as recordings.parquet of the study spells them. Embed those too: figures on fewer "
                "recordings could not be compared."
            )
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def read_npz(path: Path) -> Foreign:
    """Read and check a file of embeddings; EinthovenError names the file, the array and what is expected."""
    arrays = _arrays(path)
    for name in ("recording_id", "features"):
        _expect(name in arrays, path, name, "expected to be there")
    _expect(("text" in arrays) == ("text_recording_id" in arrays), path, "text", "expected beside text_recording_id")
    prompts = {name.removeprefix(PROMPT): array for name, array in arrays.items() if name.startswith(PROMPT)}
    other = "text" in arrays or bool(prompts)
    _expect(("ecg" in arrays) == other, path, "ecg", f"expected exactly where there is text or {PROMPT}<CLASS>")
    for name, ids in (("features", "recording_id"), ("ecg", "recording_id"), ("text", "text_recording_id")):
        if name in arrays:
            rows, wanted = len(arrays[name]), len(arrays[ids])
            _expect(rows == wanted, path, name, f"has {rows} rows; expected {wanted}, one for each of {ids}")
    for name in ("recording_id", "text_recording_id"):
        twice = len(arrays[name]) - len(np.unique(arrays[name])) if name in arrays else 0
        _expect(not twice, path, name, f"names {twice} recordings again; expected each once")
    for name in ("text", *(f"{PROMPT}{name}" for name in prompts)):
        if name in arrays:
            size, wanted = arrays[name].shape[1], arrays["ecg"].shape[1]
            _expect(size == wanted, path, name, f"has {size} columns; expected {wanted}, as ecg has")
    kept = str(arrays["concatenation"]) if "concatenation" in arrays else "report"
    known = " or ".join(schema.CONCATENATIONS)
    _expect(kept in schema.CONCATENATIONS, path, "concatenation", f"expected {known}")
    return Foreign(
        path,
        tuple(arrays["recording_id"].tolist()),
        arrays["features"],
        arrays.get("ecg"),
        arrays.get("text"),
        tuple(arrays["text_recording_id"].tolist()) if "text" in arrays else (),
        prompts,
        kept,
    )


def _expect(holds: bool, path: Path, array: str, said: str) -> None:
    if not holds:
        raise EinthovenError(f"{path}: array {array} {said}. docs/evaluate.md describes the file.")


def _arrays(path: Path) -> dict[str, Array]:
    """The arrays of a file by name, floats as float32; of each only what its header promised is read."""
    if not path.is_file():
        raise EinthovenError(f"{path}: no such file of embeddings; numpy.savez writes one (docs/evaluate.md).")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            _expect(len(members) == len(archive.infolist()), path, "names", "are there twice; expected each once")
            size = sum(member.file_size for member in members.values())
            if size > MOST_BYTES:
                raise EinthovenError(f"{path}: {size:,} bytes of arrays; at most {MOST_BYTES:,} are read.")
            for name, member in members.items():
                with archive.open(member) as stream:
                    _check_header(path, name, stream, member.file_size)
            return {name: _read(path, name, archive, member) for name, member in members.items()}
    except (zipfile.BadZipFile, zlib.error, *HEADER, ValueError, EOFError, RuntimeError, OSError) as error:
        raise EinthovenError(
            f"{path} is not a readable .npz ({type(error).__name__}); write it again by numpy.savez."
        ) from None
    except MemoryError:
        raise EinthovenError(f"{path}: its arrays do not fit into memory.") from None


def _check_header(path: Path, name: str, stream: Any, size: int) -> None:
    """Refuse an array by what its header says, before anything else of it is read."""
    kind, dimensions = ("floats", 2) if re.fullmatch(f"{PROMPT}.+", name) else ARRAYS.get(name, ("", 0))
    _expect(kind != "", path, ascii(name[:40]), f"is unknown; expected {', '.join(ARRAYS)} or {PROMPT}<CLASS>")
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(version)
    shape, _, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    cure = ", by astype(str)" if kind == "strings" else ""
    found = "Python objects, which are never read" if dtype.hasobject else str(dtype)
    _expect(dtype.kind == KINDS[kind], path, name, f"holds {found}; expected {kind}{cure}")
    _expect(len(shape) == dimensions, path, name, f"has {len(shape)} dimensions; expected {dimensions}")
    _expect(0 not in shape, path, name, "is empty; expected at least one row and one column")
    if prod(shape) * dtype.itemsize + stream.tell() != size:
        raise ValueError(shape)


def _read(path: Path, name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as stream:
        array = np.asarray(npy.read_array(stream, allow_pickle=False))
    if array.dtype.kind != KINDS["floats"]:
        return array
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    bad = int((~np.isfinite(array).all(axis=1)).sum())
    _expect(not bad, path, name, f"has {bad} rows with NaN or what float32 cannot hold; expected finite values")
    return array


def evaluate_file(
    path: Path,
    study: Path,
    split: str,
    out: Path,
    options: Evaluation,
    command: str,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Write `metrics.json`, `report.html` and `scores.parquet` of a file of embeddings to `out`; return the counts.

    Linear probes are fitted here, on the study's train split, where the file has its labelled recordings.
    """
    if options.lead_subsets:
        raise EinthovenError("evaluation.lead_subsets needs a model; a file has embeddings of one set of leads only.")
    foreign = read_npz(path)
    data = read_split(study, split, foreign.concatenation)
    of = represent_file(foreign, data, study, split, options, progress)
    found, kept = with_scores(of, data, options)
    metrics: dict[str, Any] = {
        "data_kind": data_kind(study),
        "embeddings": sha256(path),
        "command": command,
        "seed": options.seed,
        "resamples": options.resamples,
        "split": split,
        "counts": counts(data, study) | {"probes_fitted_on": max((probe.recordings for probe in of.probes), default=0)},
        "concatenation": foreign.concatenation,
        "model": found,
        "subgroups": by_group(kept, study, options),
    }
    figures: dict[str, Any] = {"map": mapped(of.features if of.ecg is None else of.ecg, data)}
    collect(figures, kept, "model")
    write_scores(out, {"model": kept})
    report.write_report(out, metrics, ReportFigures(**figures))
    return dict(metrics["counts"])


def represent_file(
    foreign: Foreign,
    data: Split,
    study: Path,
    split: str,
    options: Evaluation,
    progress: Callable[[int, int, str], None],
) -> Represented:
    """A split as a file of embeddings has it, with probes fitted on its features of the train split."""
    for name in foreign.prompts:
        classes = ", ".join(data.classes) or "none"
        _expect(name in data.classes, foreign.path, PROMPT + name, f"is of no class of the study; it has {classes}")
    rows = foreign.rows(data.ids, f"recordings of the {split} split")
    texts = None
    if foreign.text is not None:
        told = [name for name, text in zip(data.ids, data.texts, strict=True) if text is not None]
        texts = foreign.text[foreign.text_rows(told, f"recordings of the {split} split that have a text")]
    training, probes = labelled_training(study), list[Probe]()
    if len(training.ids) >= 2 and not set(training.ids).isdisjoint(foreign.ids):
        features = foreign.features[foreign.rows(training.ids, "labelled recordings of the train split")]
        progress(0, 1, "linear probes")
        probes = training.fit(features, options)
        progress(1, 1, "linear probes")
    ecg = None if foreign.ecg is None else foreign.ecg[rows]
    return Represented(foreign.features[rows], ecg, texts, foreign.prompts, None, training.classes, tuple(probes))


def write_npz(directory: Path, study: Path, out: Path) -> dict[str, Any]:
    """Write what a model makes of a study, embedded before, as such a file; return its arrays' rows and columns."""
    model, embedded = load(directory), read_table(table_of(directory), study)
    arrays: dict[str, Any] = {
        "recording_id": np.array(embedded["recording_id"].to_pylist(), np.str_),
        "features": matrix(embedded["features"]),
    }
    if model.text is not None:
        concatenation = model.card.get("concatenation", "report")
        column = schema.CONCATENATIONS[concatenation]
        pairs = read_table(schema.PAIRS, study, ["recording_id", "row", column])
        told = pairs.filter(pc.and_(pc.is_valid(pairs["row"]), pc.is_valid(pairs[column])))
        if len(told):
            arrays["text"] = model.encode_text(told[column].to_pylist())
            arrays["text_recording_id"] = np.array(told["recording_id"].to_pylist(), np.str_)
        classes = [name for name in super_classes(study).classes if name in PROMPTS]
        arrays |= {PROMPT + name: vectors for name, vectors in prompt_embeddings(model, classes).items()}
        if len(told) or classes:
            arrays["ecg"] = matrix(embedded["embedding"])
        arrays["concatenation"] = np.array(concatenation)
    with atomic(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)
    return {name: "x".join(map(str, array.shape)) for name, array in arrays.items() if array.ndim}
