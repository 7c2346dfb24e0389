import pyarrow as pa

from einthoven import schema
from einthoven.evaluation.labels import own_findings, super_classes
from einthoven.study import write_table


def rows(table, columns):
    length = len(next(iter(columns.values())))
    return pa.table({f.name: pa.array(columns.get(f.name, [None] * length), f.type) for f in table.columns})


def test_a_recordings_own_codes_give_its_classes_and_only_they(tmp_path):
    recordings = {"recording_id": ["r1", "r2", "r3", "r4"], "subject_id": [1, 1, 2, 3], "split": ["train"] * 4}
    write_table(schema.RECORDINGS, tmp_path, rows(schema.RECORDINGS, recordings))
    codes = {
        "code": ["SCP//IMI", "SCP//LVH", "SCP//NORM", "SCP//SR", "AGE", "SCP_SUBCLASS//IMI"],
        "parent_codes": [
            ["SCP_CLASS//MI", "ICD//I21"],
            ["SCP_CLASS//HYP"],
            ["SCP_CLASS//NORM"],
            [],
            None,
            ["SCP_CLASS//MI"],
        ],
    }
    write_table(schema.CODES, tmp_path, rows(schema.CODES, codes))
    events = {
        "subject_id": [1, 1, 1, 2, 3, 3],
        "code": ["SCP//IMI", "SCP//LVH", "SCP//NORM", "SCP//SR", "SCP//IMI", "UNKNOWN"],
        "numeric_value": [0.0, 100.0, 100.0, 0.0, 50.0, None],  # a likelihood of 0 counts, as published
        "recording_id": ["r1", "r1", "r2", "r3", None, "r4"],  # r4's patient has an event of no recording
    }
    write_table(schema.EVENTS, tmp_path, rows(schema.EVENTS, events))
    found = super_classes(tmp_path)
    assert found.classes == ("NORM", "MI", "HYP")
    assert found.recording_ids == ("r1", "r2")
    assert found.labels.tolist() == [[False, True, True], [True, False, False]]
    assert found.without_class == 2
    assert found.codes_of == {"NORM": ("SCP//NORM",), "MI": ("SCP//IMI",), "HYP": ("SCP//LVH",)}


def test_a_study_without_classes_has_no_rows(tmp_path):
    write_table(
        schema.RECORDINGS,
        tmp_path,
        rows(schema.RECORDINGS, {"recording_id": ["r1"], "subject_id": [1], "split": ["test"]}),
    )
    write_table(schema.CODES, tmp_path, rows(schema.CODES, {"code": []}))
    write_table(schema.EVENTS, tmp_path, rows(schema.EVENTS, {"code": []}))
    found = super_classes(tmp_path)
    assert found.labels.shape == (0, 0) and found.without_class == 1


def test_own_findings_are_the_recordings_and_no_measurements(tmp_path):
    codes = ["SCP//IMI", "ECG//QRS_DURATION", "SCP//LVH", "DIAGNOSIS//ICD//10//I21", "SCP//IMI"]
    events = {"subject_id": [1, 1, 1, 1, 2], "code": codes, "recording_id": ["r1", "r1", "r1", None, "r2"]}
    write_table(schema.EVENTS, tmp_path, rows(schema.EVENTS, events))
    assert own_findings(tmp_path, ["r2", "r0", "r1"]) == [{"SCP//IMI"}, set(), {"SCP//IMI", "SCP//LVH"}]
