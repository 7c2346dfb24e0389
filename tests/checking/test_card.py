"""The data card: its numbers are those of the tables, its page is whole, and the command tells by its exit status."""

import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests.checking.conftest import rows_of, settle, write_rows

from einthoven import cli, pipeline, schema
from einthoven.checking.card import TOP_CODES
from einthoven.config import Pairing, Recipe
from einthoven.disclosure import HIDDEN, SMALL, SMALL_CELL
from einthoven.errors import EinthovenError
from einthoven.study import read_manifest, stage_manifest, write_json, write_manifest


@pytest.fixture(scope="module")
def card(unspoilt: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("card")
    return pipeline.check(unspoilt, out, "einthoven check <script>"), out


def cells(counts: list[int]) -> list[int | str]:
    return [SMALL if 0 < count < SMALL_CELL else count for count in counts]


def test_counts_are_those_of_the_tables(unspoilt: Path, card) -> None:
    recordings, pairs = rows_of(schema.RECORDINGS, unspoilt), rows_of(schema.PAIRS, unspoilt)
    rows = {row["name"]: row for row in card[0]["counts"]}
    by_split = Counter(row["split"] for row in recordings)
    for name in ("recordings", "with a signal", "with a time"):
        assert [cell for cell in rows[name]["cells"] if isinstance(cell, int)]
        for cell, split in zip(rows[name]["cells"], schema.SPLITS, strict=False):
            assert cell in ("hidden", *cells([by_split[split]]))
    assert rows["patients"]["cells"][3] == len({row["subject_id"] for row in recordings}) == 40
    for kind in ("diagnosis", "procedure", "medication", "finding"):
        having = sum(kind in pair["code_kinds"] for pair in pairs)
        assert rows[f"with a {kind} code"]["cells"][3] == (having if having == len(pairs) else HIDDEN)
        assert len(pairs) - having < SMALL_CELL  # so this study tries what is hidden
    whole = {"diagnosis", "procedure", "medication"}
    both = sum(whole <= set(pair["code_kinds"]) for pair in pairs)
    assert both < len(pairs) and rows["with diagnosis, procedure, medication codes, all"]["cells"][3] == HIDDEN
    kinds = {note["note_id"]: note["kind"] for note in rows_of(schema.NOTES, unspoilt)}
    for kind in ("echo", "radiology", "clinical"):
        reports = sum(any(kinds[name] == kind for name in pair["note_ids"]) for pair in pairs)
        found = rows[f"with a text of {kind} notes"]
        assert found["cells"][3] == reports and found["shares"][3] == reports / len(recordings)


def test_distributions_are_those_of_the_tables(unspoilt: Path, card) -> None:
    recordings, pairs = rows_of(schema.RECORDINGS, unspoilt), rows_of(schema.PAIRS, unspoilt)
    patient, age, codes, days = card[0]["histograms"]
    per_patient = Counter(Counter(row["subject_id"] for row in recordings).values())
    assert 0 < sum(per_patient[number] for number in range(2, 99)) < SMALL_CELL  # so they share the bin of the others
    assert patient["series"]["patients"] == [40] and patient["bins"] == ["1+"]
    assert set(age["series"]) == {"female", "male"} and len(age["bins"]) == 11
    in_bin = sum(10 <= len(pair["codes"]) < 20 for pair in pairs)
    assert codes["series"]["pairs"][codes["bins"].index("10–19")] in (in_bin, "hidden")
    dated = [code for pair in pairs for code in zip(pair["code_kinds"], pair["code_days"], strict=True)]
    today = sum(kind == "finding" and 0 <= day < 730 / 40 for kind, day in dated if day is not None)
    assert days["series"]["finding"][days["bins"].index("0")] == today
    assert set(days["series"]) == {"diagnosis", "procedure", "medication", "finding"}


def test_notes_codes_dates_and_exclusions(unspoilt: Path, card) -> None:
    found = card[0]
    notes, pairs = rows_of(schema.NOTES, unspoilt), rows_of(schema.PAIRS, unspoilt)
    by_kind = Counter(note["kind"] for note in notes)
    assert {row["name"]: row["cells"][-1] for row in found["notes"]} == dict(
        zip(by_kind, cells(list(by_kind.values())), strict=True)
    )
    patients = Counter(code for _, code in {(pair["subject_id"], code) for pair in pairs for code in pair["codes"]})
    top = sorted(patients.items(), key=lambda item: (-item[1], item[0]))
    enough = [(code, HIDDEN if 0 < 40 - n < SMALL_CELL else n) for code, n in top if n >= SMALL_CELL]
    assert [(row["code"], row["patients"]) for row in found["codes"]] == enough[:TOP_CODES]
    assert len(enough) < len(top) and HIDDEN in dict(enough).values()
    months = sorted(note["time"].strftime("%Y-%m") for note in notes)
    assert found["dates"]["notes"] == {"first": months[0], "last": months[-1], "undated": 0}
    assert found["dates"]["events"]["undated"] == 40
    assert found["excluded"] == [] and found["splits"] == {"by": "hash", "unlike_hash": 0}
    assert found["tokens"]["report"]["mean"] == 60.0


def test_no_small_count_of_people_is_in_the_card(card) -> None:
    told = [cell for part in ("counts", "notes") for row in card[0][part] for cell in row["cells"]]
    told += [cell for each in card[0]["histograms"] for series in each["series"].values() for cell in series]
    told += [row["patients"] for row in card[0]["codes"]] + [row["recordings"] for row in card[0]["quality"]]
    told += [*card[0]["totals"].values()]
    assert not any(0 < cell < SMALL_CELL for cell in told if isinstance(cell, int))
    assert SMALL in told


def test_no_small_count_of_people_follows_by_subtraction(card) -> None:
    rows = {row["name"]: row["cells"] for row in card[0]["counts"]}
    wholes = [("recordings", name) for name in rows if name != "recordings"]
    wholes += [("with a text", name) for name in rows if name.startswith("with a text of")]
    for whole, part in wholes:
        for of, cell in zip(rows[whole], rows[part], strict=True):
            assert not (isinstance(of, int) and isinstance(cell, int) and 0 < of - cell < SMALL_CELL), (whole, part)
    by_kind = [row["cells"][-1] for row in card[0]["notes"]]
    assert SMALL in by_kind and card[0]["totals"]["notes"] == HIDDEN


def pair_manifest(study: Path, config=None, counts=None) -> None:
    path = stage_manifest(study, "pair")
    manifest = read_manifest(path)
    assert manifest is not None
    write_manifest(
        path, manifest | {"config": manifest["config"] | (config or {}), "counts": counts or manifest["counts"]}
    )


def test_means_of_few_tell_no_count(study: Path, tmp_path: Path) -> None:
    found = {"mean": 61.5, "median": 50.0, "p95": 120.0, "with_text": 7, "notes": {"clinical": 0.778}}
    pair_manifest(study, counts={"tokens": {"tokenizer": "bert", "sample": 9, "report": found, "entity": found}})
    tokens = pipeline.check(study, tmp_path, "einthoven check STUDY")["tokens"]
    few = {"with_text": SMALL, "notes": {}}
    assert tokens == {"tokenizer": "bert", "sample": SMALL, "report": few, "entity": few}
    assert "0.778" not in (tmp_path / "data_card.html").read_text()
    found |= {"with_text": 195, "notes": {"clinical": 0.978, "echo": 0.005}}  # 5 have none, 1 has an echo
    pair_manifest(study, counts={"tokens": {"tokenizer": "bert", "sample": 200, "report": found, "entity": found}})
    report = pipeline.check(study, tmp_path, "einthoven check STUDY")["tokens"]["report"]
    assert report == found | {"with_text": HIDDEN, "notes": {"clinical": 1.0, "echo": 0.0}}


def test_paths_of_the_machine_and_free_texts_are_not_on_the_card(study: Path, tmp_path: Path) -> None:
    machine = {"entities": {"lexicon": "/home/roe/wards.tsv"}, "text": {"pretrained": "/srv/roe/models/BioBERT/"}}
    pair_manifest(study, machine)
    events, pairs = rows_of(schema.EVENTS, study), rows_of(schema.PAIRS, study)
    for rows in (events, pairs):  # a free text that has become a code
        for row in rows:
            if row["subject_id"] == 1:
                row |= {"code": "GENDER//Jane Roe"} if row.get("code") == "GENDER//X" else {}
                row |= {"codes": ["GENDER//Jane Roe", *row["codes"][1:]]} if "codes" in row else {}
    write_rows(schema.EVENTS, study, events)
    write_rows(schema.PAIRS, study, pairs)
    settle(study)
    found = pipeline.check(study, tmp_path, "einthoven check STUDY")
    assert set(found["rules"]) == {"held"}
    told = "".join((tmp_path / name).read_text() for name in ("data_card.html", "data_card.json"))
    assert found["pairing"]["text"] == {"pretrained": "BioBERT"} and "own lexicon" in told
    assert not re.search("roe|wards", told, re.IGNORECASE)


class Elements(HTMLParser):
    """What a browser would load or run, whether every tag is closed, and ids that come twice."""

    def __init__(self):
        super().__init__()
        self.tags, self.links, self.open, self.ids, self.images = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        found = dict(attributes)
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]
        self.ids += [found["id"]] if "id" in found else []
        self.images += [found] if tag == "svg" else []
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_self_contained_escaped_and_labelled(card) -> None:
    page = (card[1] / "data_card.html").read_text(encoding="utf-8")
    found = Elements()
    found.feed(page)
    assert found.open == [] and found.links == [] and "script" not in found.tags and "url(http" not in page
    assert len(found.ids) == len(set(found.ids))
    assert len(found.images) == 4 and all(len(image["aria-label"]) > 60 for image in found.images)
    assert "SIMULATED DATA" in page and len(re.findall("[Ss]imulated data", page)) >= 14
    assert "Research use only, not a medical device" in page
    assert "354" in page and "266" in page and "ecg 1.0" in page
    assert not re.search("#0a0[bc]0|#010203", page)
    assert json.loads((card[1] / "data_card.json").read_text()) == json.loads(json.dumps(card[0]))


def contrast(one: str, other: str) -> float:
    """WCAG 2: of two colours #rrggbb."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_letters_and_lines_have_the_contrast_of_wcag_aa(card) -> None:
    page = (card[1] / "data_card.html").read_text(encoding="utf-8")
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in re.findall(r":root \{(.*?)\}", page, re.DOTALL)]
    assert len(schemes) == 2
    for colours in schemes:
        assert min(contrast(colours[name], colours["paper"]) for name in ("ink", "soft")) >= 4.5
        assert min(contrast(colours[name], colours["paper"]) for name in ("c0", "c1", "c2", "c3", "c4", "c5")) >= 3


def run(*arguments: str) -> int:
    return cli.app(list(arguments), standalone_mode=False) or 0


def test_the_command_writes_beside_the_study_and_says_what_it_found(study: Path, capsys) -> None:
    assert run("check", str(study)) == 0
    said = capsys.readouterr().out
    assert "simulated data" in said and "17 held" in said and (study / "check" / "data_card.html").is_file()
    assert run("check", str(study)) == 0  # its own output is not in its way


def below(study: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in (study, *study.rglob("*"))}


def test_a_study_that_cannot_be_written_is_checked_and_left_as_it_is(study: Path, tmp_path: Path, capsys) -> None:
    folders = [study, *(path for path in study.rglob("*") if path.is_dir())]
    before = below(study)
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert run("check", str(study), "--out", str(tmp_path / "card")) == 0
        assert below(study) == before  # where the tests' user is root, nothing else would tell
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert (tmp_path / "card" / "data_card.json").is_file() and "17 held" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_is_told_with_another(study: Path) -> None:
    (study / "check").write_text("in the way")
    with pytest.raises(EinthovenError, match="--out"):
        run("check", str(study))


def test_an_error_gives_status_1_and_a_warning_0(study: Path, tmp_path: Path, capsys) -> None:
    stage_manifest(study, "pair").unlink()
    assert run("check", str(study), "--out", str(tmp_path / "out")) == 0
    assert "warning (stale): pairs.parquet" in capsys.readouterr().out
    rows = rows_of(schema.RECORDINGS, study)
    write_rows(schema.RECORDINGS, study, [*rows[:-1], rows[-1] | {"split": "dev"}])
    assert run("check", str(study), "--out", str(tmp_path / "out")) == 1
    said = capsys.readouterr().out
    assert "error (values): recordings.parquet, split: expected one of train, validation, test. 1 rows" in said
    assert "Expected one of train" in (tmp_path / "out" / "data_card.html").read_text()


def test_a_study_of_recordings_alone_has_a_card(study: Path, tmp_path: Path) -> None:
    for table in (schema.PAIRS, schema.ENTITIES):
        table.at(study).unlink()
    for stage in ("pair", "entities"):
        stage_manifest(study, stage).unlink()
    settings = read_manifest(stage_manifest(study, "ingest"))
    assert settings is not None
    write_json(stage_manifest(study, "ingest"), settings | {"config": {"name": "mimic"}})
    settle(study)
    found = pipeline.check(study, tmp_path, "einthoven check STUDY")
    assert found["not_made"] == ["entities", "pairs"] and found["tokens"] is None and len(found["histograms"]) == 2
    assert "shifts the dates" in (tmp_path / "data_card.html").read_text()


@pytest.mark.parametrize("days", [365.0, 0.0])
def test_what_the_stage_of_pairing_makes_breaks_no_rule(study: Path, tmp_path: Path, days: float) -> None:
    """0: nothing from the moment of the recording on may enter, and this is tried by other code than made the pairs."""
    window = Pairing(codes_after=days, notes_after=days, entities_after=days, static_codes=("GENDER//*",))
    pipeline.pair(Recipe(pairing=window), study)
    found = pipeline.check(study, tmp_path, "einthoven check STUDY")
    assert set(found["rules"]) == {"held"}
    assert found["tokens"]["report"]["mean"] > 0 and found["tokens"]["entity"]["notes"]


@pytest.mark.parametrize("table", [schema.RECORDINGS, schema.NOTES, schema.PAIRS])
def test_a_damaged_table_is_a_finding_and_the_card_shows_the_rest(study: Path, tmp_path: Path, table, capsys) -> None:
    table.at(study).write_bytes(b"PAR1 no more")
    assert run("check", str(study), "--out", str(tmp_path)) == 1
    found = json.loads((tmp_path / "data_card.json").read_text())
    assert {f["file"] for v in found["verdicts"] if v["rule"] == "columns" for f in v["findings"]} == {table.path}
    assert f"error (columns): {table.path}: expected a Parquet file" in capsys.readouterr().out
