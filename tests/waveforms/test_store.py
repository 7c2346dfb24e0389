"""The waveform store: what was written is read, whole or not at all."""

import itertools
import json
import pickle
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven.errors import EinthovenError
from einthoven.waveforms.store import Store, StoreWriter

RATE, SAMPLES = 100, 20


def blocks(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32768, 32768, (rows, 12, SAMPLES)).astype(np.int16)


def write(study: Path, block: np.ndarray, shard_rows: int = 4) -> None:
    with StoreWriter(study, RATE, SAMPLES, len(block), shard_rows) as writer:
        writer.write(0, block)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trip_in_any_order_of_writing_and_reading(data: st.DataObject) -> None:
    rows = data.draw(st.integers(0, 30))
    spare = data.draw(st.integers(0, 10))
    shard_rows = data.draw(st.integers(1, 12))
    cuts = sorted(data.draw(st.sets(st.integers(0, rows), max_size=4)) | {0, rows})
    pieces = data.draw(st.permutations(list(itertools.pairwise(cuts))))
    wanted = data.draw(st.lists(st.integers(0, rows - 1), max_size=40)) if rows else []
    block = blocks(rows)
    with tempfile.TemporaryDirectory() as folder:
        with StoreWriter(Path(folder), RATE, SAMPLES, rows + spare, shard_rows) as writer:
            for start, stop in pieces:
                writer.write(start, block[start:stop])
            writer.truncate(rows)
        store = Store.open(Path(folder))
        assert (store.rows, store.samples, store.sampling_rate) == (rows, SAMPLES, RATE)
        assert len(list((Path(folder) / "waveforms").glob("*.npy"))) == -(-rows // shard_rows)
        found = store.read(wanted)
        assert found.dtype == np.int16 and found.shape == (len(wanted), 12, SAMPLES)
        assert np.array_equal(found, block[wanted] if wanted else block[:0])


def test_shards_are_plain_npy(tmp_path: Path) -> None:
    write(tmp_path, blocks(6))
    parts = [np.load(tmp_path / "waveforms" / f"0000{n}.npy", allow_pickle=False) for n in (0, 1)]
    assert np.array_equal(np.concatenate(parts), blocks(6))


def test_shard_boundary_of_the_default_size(tmp_path: Path) -> None:
    block = np.arange(4100, dtype=np.int16)[:, None, None].repeat(12, 1)
    with StoreWriter(tmp_path, RATE, 1, 4100) as writer:
        writer.write(4000, block[4000:])
        writer.write(0, block[:4000])
    assert Store.open(tmp_path).read([4095, 4096, 0, 4096])[:, 0, 0].tolist() == [4095, 4096, 0, 4096]


def test_nothing_remains_of_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), StoreWriter(tmp_path, RATE, SAMPLES, 3) as writer:
        writer.write(0, blocks(3))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="never written"), StoreWriter(tmp_path, RATE, SAMPLES, 3) as writer:
        writer.write(1, blocks(2))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_store_before_it(tmp_path: Path) -> None:
    write(tmp_path, blocks(3))
    with pytest.raises(RuntimeError), StoreWriter(tmp_path, RATE, SAMPLES, 1):
        raise RuntimeError
    assert np.array_equal(Store.open(tmp_path).read([0, 1, 2]), blocks(3))
    write(tmp_path, blocks(2, seed=1))
    assert np.array_equal(Store.open(tmp_path).read([1, 0]), blocks(2, seed=1)[::-1])


@pytest.mark.parametrize("block", [np.zeros((1, 12, SAMPLES)), np.zeros((1, 11, SAMPLES), np.int16)])
def test_writer_refuses_another_form(tmp_path: Path, block: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected int16"), StoreWriter(tmp_path, RATE, SAMPLES, 1) as writer:
        writer.write(0, block)
    with pytest.raises(ValueError, match="outside"), StoreWriter(tmp_path, RATE, SAMPLES, 1) as writer:
        writer.write(1, blocks(1))


def test_pickles_without_its_memory_maps(tmp_path: Path) -> None:
    write(tmp_path, blocks(9))
    store = Store.open(tmp_path)
    store.read(range(9))
    frozen = pickle.dumps(store)
    assert len(frozen) < 2000
    assert np.array_equal(pickle.loads(frozen).read([8, 2]), blocks(9)[[8, 2]])  # noqa: S301


@pytest.mark.parametrize("rows", [[5], [-1], [0, 99]])
def test_rows_outside_are_refused(tmp_path: Path, rows: list[int]) -> None:
    write(tmp_path, blocks(5))
    with pytest.raises(EinthovenError, match="has 5 rows"):
        Store.open(tmp_path).read(rows)


def test_damage_is_told(tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="has no waveforms"):
        Store.open(tmp_path)
    write(tmp_path, blocks(6))
    shard = tmp_path / "waveforms" / "00001.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(EinthovenError, match=r"00001\.npy has .* bytes instead of"):
        Store.open(tmp_path)
    shard.write_bytes(b"x" * len(whole))
    with pytest.raises(EinthovenError, match="not a readable shard"):
        Store.open(tmp_path).read([5])
    shard.unlink()
    with pytest.raises(EinthovenError, match=r"00001\.npy is missing"):
        Store.open(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rows": 1}', '{"sampling_rate":100,"samples":20,"shard_rows":0,"rows":1}', "\xff"]
)
def test_bad_settings_are_told(tmp_path: Path, text: str) -> None:
    write(tmp_path, blocks(1))
    (tmp_path / "waveforms" / "store.json").write_text(text, encoding="latin-1")
    with pytest.raises(EinthovenError, match=r"store\.json"):
        Store.open(tmp_path)


def test_settings_on_disk(tmp_path: Path) -> None:
    write(tmp_path, blocks(5))
    found = json.loads((tmp_path / "waveforms" / "store.json").read_text())
    checksum = found.pop("checksum")
    assert found == {"sampling_rate": RATE, "samples": SAMPLES, "shard_rows": 4, "rows": 5}
    rows = b"".join(zlib.crc32(row.tobytes()).to_bytes(4, "little") for row in blocks(5))
    assert (tmp_path / "waveforms" / "rows.crc32").read_bytes() == rows
    assert checksum == zlib.crc32(repr([RATE, SAMPLES, 4, 5]).encode() + rows)


def test_a_flipped_bit_anywhere_is_told_and_never_given_out(tmp_path: Path) -> None:
    write(tmp_path, blocks(6))
    random = np.random.default_rng(0)
    for name in ("00000.npy", "00001.npy", "rows.crc32", "store.json"):
        file = tmp_path / "waveforms" / name
        whole = file.read_bytes()
        for bit in random.integers(0, len(whole) * 8, 40):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(changed)
            try:  # a bit of a header's blanks changes nothing that is read
                assert np.array_equal(Store.open(tmp_path).read(range(6)), blocks(6))
                assert "npy" in name and bit < 128 * 8, (name, bit)
            except EinthovenError as error:
                assert str(tmp_path / "waveforms") in str(error) and "einthoven ingest" in str(error)
        file.write_bytes(whole)
    assert np.array_equal(Store.open(tmp_path).read([4]), blocks(6)[[4]])


def test_a_changed_row_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    write(tmp_path, blocks(6))
    with (tmp_path / "waveforms" / "00001.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    store = Store.open(tmp_path)
    assert np.array_equal(store.read(range(5)), blocks(6)[:5])
    with pytest.raises(EinthovenError, match="row 5 of the store is not as it was written"):
        store.read([5])


def test_a_store_of_before_checksums_is_read(tmp_path: Path) -> None:
    write(tmp_path, blocks(5))
    (tmp_path / "waveforms" / "rows.crc32").unlink()
    with pytest.raises(EinthovenError, match=r"rows\.crc32 is missing"):
        Store.open(tmp_path)
    settings = {"sampling_rate": RATE, "samples": SAMPLES, "shard_rows": 4, "rows": 5}
    (tmp_path / "waveforms" / "store.json").write_text(json.dumps(settings))
    assert np.array_equal(Store.open(tmp_path).read(range(5)), blocks(5))
