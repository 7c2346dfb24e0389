import os
from pathlib import Path

import pyarrow as pa
import pytest

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.study import atomic, fingerprint, lock, read_table, run_stage, write_table


def stage(folder: Path, config: dict[str, object] | None = None, fail: bool = False):
    source, target = folder / "in.txt", folder / "out.txt"

    def work() -> dict[str, int]:
        with atomic(target) as temporary:
            temporary.write_text(source.read_text().upper())
        if fail:
            raise RuntimeError("killed here")
        return {"letters": len(target.read_text())}

    return run_stage(
        folder / "stage.json", config=config or {}, inputs={"in": source}, outputs={"out": target}, work=work
    )


def test_an_unchanged_stage_does_nothing_and_a_changed_one_runs(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("abc")
    assert stage(tmp_path).fresh
    assert not stage(tmp_path).fresh
    assert stage(tmp_path, config={"x": 1}).fresh
    (tmp_path / "in.txt").write_text("abcd")
    assert stage(tmp_path, config={"x": 1}).counts == {"letters": 4}
    (tmp_path / "out.txt").unlink()
    assert stage(tmp_path, config={"x": 1}).fresh
    (tmp_path / "out.txt").write_text("tampered")
    assert stage(tmp_path, config={"x": 1}).fresh


def test_a_stage_that_dies_after_its_output_runs_again(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("abc")
    stage(tmp_path)
    (tmp_path / "in.txt").write_text("abcd")
    with pytest.raises(RuntimeError):
        stage(tmp_path, fail=True)
    assert not (tmp_path / "stage.json").exists()
    assert stage(tmp_path).fresh


def test_what_a_killed_stage_left_is_cleared(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("abc")
    for name in (".out.txt.1.tmp", ".stage.json.1.tmp"):
        (tmp_path / name).write_text("half")
    assert stage(tmp_path).fresh
    assert {path.name for path in tmp_path.iterdir()} == {"in.txt", "out.txt", "stage.json"}


def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "old"


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with lock(tmp_path), pytest.raises(EinthovenError, match="another process"), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


def test_a_table_that_is_not_the_schemas_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="missing"):
        read_table(schema.NOTES, tmp_path)
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"note_id": [1]}), schema.NOTES.at(tmp_path))
    with pytest.raises(EinthovenError, match="note_id"):
        read_table(schema.NOTES, tmp_path)
    schema.NOTES.at(tmp_path).write_bytes(b"not parquet")
    with pytest.raises(EinthovenError, match="readable Parquet"):
        read_table(schema.NOTES, tmp_path)


def test_empty_tables_round_trip(tmp_path: Path) -> None:
    for table in schema.TABLES.values():
        write_table(table, tmp_path, table.columns.empty_table())
        assert read_table(table, tmp_path).schema.equals(table.columns)


def test_fingerprint_of_a_directory_sees_a_changed_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = fingerprint(tmp_path)
    (tmp_path / "a").write_text("12")
    assert fingerprint(tmp_path) != before


def test_a_large_file_is_read_again_only_if_its_size_or_time_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("einthoven.study.SMALL", 2)
    monkeypatch.setattr("einthoven.study._KNOWN", {})  # as a new process begins
    source = tmp_path / "in.txt"
    source.write_text("abc")
    assert stage(tmp_path).fresh
    monkeypatch.setattr("einthoven.study._KNOWN", {})
    before = source.stat()
    source.write_text("xyz")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))  # what only the hash could tell
    assert not stage(tmp_path).fresh
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert stage(tmp_path).fresh
    monkeypatch.setattr("einthoven.study._KNOWN", {})
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns + 2))  # another time, the same content
    assert not stage(tmp_path).fresh
