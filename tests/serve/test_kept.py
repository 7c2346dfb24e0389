from typing import Any

from einthoven.serve.kept import Kept


def test_what_was_kept_is_found_by_a_name_that_says_nothing() -> None:
    kept: Kept[str] = Kept()
    names = {kept.put("a search") for _ in range(100)}
    assert len(names) == 100 and all(len(name) >= 22 for name in names)
    assert all(kept.get(name) == "a search" for name in names) and kept.get("other") is None


def test_the_longest_unused_makes_room() -> None:
    kept: Kept[int] = Kept(most=2)
    first, second = kept.put(1), kept.put(2)
    assert kept.get(first) == 1
    third = kept.put(3)
    assert kept.get(second) is None and (kept.get(first), kept.get(third)) == (1, 3) and len(kept) == 2


def test_what_nobody_asks_for_is_forgotten() -> None:
    now = 0.0
    kept: Kept[int] = Kept(seconds=10, clock=lambda: now)
    used, unused = kept.put(1), kept.put(2)
    now = 8.0
    assert kept.get(used) == 1
    now = 12.0
    assert kept.get(unused) is None and kept.get(used) == 1 and len(kept) == 1


def test_uploads_make_room_for_each_other_and_not_for_words(
    ask: Any, samples: dict[str, bytes], monkeypatch: Any
) -> None:
    desk = ask.app.state.desk
    monkeypatch.setattr(desk, "uploads", Kept(2))
    words = ask("POST", "/search", data={"q": "infarct"}).headers["location"]
    sent = [ask("POST", "/upload", files={"file": samples["CSV"]}).headers["location"] for _ in range(3)]
    assert [ask("GET", place).status_code for place in (words, *sent)] == [200, 410, 200, 200]
