"""What an index holds of each recording: its embeddings, and what a search may ask for beside them."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.embed import Rows, matrix, table_of
from einthoven.evaluation.labels import codes_of
from einthoven.evaluation.outliers import FILE, load_outliers
from einthoven.model_directory import read_config
from einthoven.study import read_table

ABOUT = ("time", "sex", "age", "device", "site", "quality")


def rows_of(model_directory: Path, study: Path) -> pa.Table:
    """The embedded recordings of a study, with the columns of schema.INDEX."""
    seen = read_table(table_of(model_directory), study)
    about = read_table(schema.RECORDINGS, study, ["recording_id", *ABOUT])
    about = about.take(pc.index_in(seen["recording_id"], value_set=about["recording_id"].combine_chunks()))
    columns: dict[str, Any] = {name: seen[name] for name in ("recording_id", "subject_id", "split", "fine")}
    columns |= {name: about[name] for name in ABOUT}
    ids = seen["recording_id"].to_pylist()
    found = codes_of(study, ids)
    columns["findings"] = pa.array([found.get(name, []) for name in ids], pa.list_(pa.string()))
    columns["outlier"] = pa.nulls(len(seen), pa.float32())
    if (model_directory / FILE).exists() and len(seen):
        vectors, features, early = (matrix(seen[name]) for name in ("embedding", "features", "early"))
        scores = load_outliers(model_directory).scores(Rows(vectors, features, early, None))
        columns["outlier"] = pa.array(scores, pa.float32())
    with_text = "text" in read_config(model_directory)["space"]["modalities"]
    empty = pa.nulls(len(seen), schema.INDEX.columns.field("coarse").type)
    columns["coarse"] = seen["embedding"] if with_text else empty
    return pa.table({name: columns[name] for name in schema.INDEX.columns.names}).cast(schema.INDEX.columns)


def descriptions(study: Path) -> dict[str, str]:
    """What the codes of a study mean, where it says so."""
    codes = read_table(schema.CODES, study, ["code", "description"])
    named = zip(codes["code"].to_pylist(), codes["description"].to_pylist(), strict=True)
    return {code: name for code, name in named if name}
