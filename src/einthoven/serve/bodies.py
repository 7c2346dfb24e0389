"""What goes over the wire: requests, bounded in every place, and answers, each number with what it is."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints

from einthoven.search.filters import LONGEST
from einthoven.serve.options import MAX_CODES, MAX_ID, MAX_TEXT, MAX_TEXTS, MAX_TOP

Text = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_TEXT, strip_whitespace=True, pattern=r"^[^\x00]+$"),
    Field(description="Words, in any language the model has read."),
]
Code = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$"),
    Field(description="A code as the study has it, such as `SCP//AFIB` or `ICD10CM/I48`."),
]
RecordingId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ID, pattern=r"^[^\x00-\x1f]+$"),
    Field(description="The id of a recording of the study."),
]
Top = Annotated[int, Field(ge=1, le=MAX_TOP, description="How many recordings.")]
Where = Annotated[
    str, StringConstraints(max_length=LONGEST), Field(description="`sex = female and age >= 60 and split = test`")
]
ByPatient = Annotated[bool, Field(description="Of each patient only the best recording.")]


class Request(BaseModel):
    """A request's body: what it does not know, it refuses."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


def exactly_one(*names: str) -> ConfigDict:
    """Says in the schema that one of these must be there, and the others not, or null."""
    there = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    return ConfigDict(json_schema_extra={"oneOf": there})  # type: ignore[dict-item]


class SearchRequest(Request):
    """What to look for: exactly one of text, codes and recording_id."""

    model_config = exactly_one("text", "codes", "recording_id")

    text: Text | None = None
    codes: Annotated[list[Code], Field(min_length=1, max_length=MAX_CODES)] | None = None
    recording_id: RecordingId | None = None
    top: Top = 10
    where: Where = ""
    by_patient: ByPatient = False


class EncodeRequest(Request):
    """What to embed: exactly one of texts and codes."""

    model_config = exactly_one("texts", "codes")

    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    codes: Annotated[list[Code], Field(min_length=1, max_length=MAX_CODES)] | None = None


class FindingsRequest(Request):
    """Whose findings: of a recording of the study. Files go to `/api/findings/ecg`."""

    recording_id: RecordingId


class SessionRequest(Request):
    """Who comes in."""

    token: SecretStr = Field(max_length=1000)


class HitAnswer(BaseModel):
    """A recording that was found."""

    recording_id: str
    score: float = Field(description="Cosine of its embedding with the query's: an order, no probability.")
    split: str
    time: str | None
    age: float | None
    sex: str | None
    codes: list[str] = Field(description="What was read from this very recording.")
    findings: list[str] = Field(description="What the codes mean, as the study has it.")
    quality: list[str] = Field(description="Flags of a doubtful signal.")
    outlier: bool | None = Field(
        description="True: unlike what the model was trained on; null: the model has no detector."
    )


class SearchAnswer(BaseModel):
    """The recordings nearest to a query, best first."""

    data_kind: str = Field(description="real, semi-synthetic or simulated: the recordings of the study.")
    space: str = Field(description="Where they were compared: coarse, where text is, or fine, where codes are.")
    outlier: bool | None = Field(description="Is the ECG that was asked with an outlier? null: no ECG, or no detector.")
    hits: list[HitAnswer]


class EncodeAnswer(BaseModel):
    """Embeddings: vectors of unit length."""

    space: str = Field(description="coarse, where text is, or fine, where codes are.")
    embeddings: list[list[float]]


class ZeroShot(BaseModel):
    """By prompts: no label was seen."""

    score: float = Field(description="Similarity with the finding's prompts less that with a normal ECG's; no bounds.")
    low: float = Field(description="The score by prompts drawn anew with replacement, 200 times: 2.5 % are lower.")
    high: float = Field(description="Likewise: 2.5 % are higher. How much hangs on the wording, no more.")
    higher_than: float | None = Field(description="Per cent of the study's recordings that have a lower score.")


class Probed(BaseModel):
    """By a linear probe on the labels of the training split."""

    probability: float = Field(description="By the probe of all labels; as frequent as the finding was in training.")
    low: float | None = Field(description="The lowest of it and of probes of random parts of the patients.")
    high: float | None = Field(description="The highest of them: a range over parts, no confidence interval.")


class Finding(BaseModel):
    """One class, and what the model says of it."""

    name: str
    zero_shot: ZeroShot | None = Field(description="null: no prompts for it, or a model without text.")
    probe: Probed | None = Field(description="null: no probe learnt it.")


class Outlying(BaseModel):
    """How unlike the training recordings."""

    score: float = Field(description="Distance from the detector's threshold, in its own unit; above 0: an outlier.")
    outlier: bool


class FindingsAnswer(BaseModel):
    """What a model says of an ECG. Research use only, not a medical device."""

    trained_on: str | None = Field(description="real, semi-synthetic or simulated: what the model was trained on.")
    findings: list[Finding]
    outlier: Outlying | None = Field(description="null: the model has no detector.")


class ChartCode(BaseModel):
    """A code around a recording."""

    code: str
    kind: str
    days: float | None = Field(description="From the recording; negative: before; null: without a time.")
    description: str | None


class ChartNote(BaseModel):
    """A note around a recording."""

    kind: str
    time: str | None = Field(description="ISO 8601, the hospital's wall clock.")
    text: str | None = Field(description="null unless the server was started with --show-notes.")


class RecordingAnswer(BaseModel):
    """What a study knows of a recording."""

    recording_id: str
    time: str | None
    split: str
    age: float | None = Field(description="Years at the recording; 90 where the source only says over 89.")
    sex: str | None
    source_rate: float | None = Field(description="Hertz, as recorded.")
    leads: list[str]
    quality: list[str] = Field(description="Flags of a doubtful signal.")
    device: str | None
    site: str | None
    signal: bool = Field(description="Is there a signal, and so a drawing?")
    findings: list[str] = Field(description="What was read from this very recording.")
    codes: list[ChartCode] = Field(description="Of its window, as the pairs have them.")
    notes: list[ChartNote]


class AboutAnswer(BaseModel):
    """What is served."""

    data_kind: str
    trained_on: str | None
    recordings: int = Field(description="With an embedding.")
    modalities: list[str] = Field(description="What can be asked with: ecg, text, codes.")
    show_notes: bool
    max_results: int = Field(description="What `top` may be at most.")


class HealthAnswer(BaseModel):
    """Alive."""

    status: Literal["ok"]


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None
