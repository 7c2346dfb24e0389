"""Precision and recall of mentions and attributes on the hand-labelled set (tests/entities/GOLD.md).

python results/entities.py ../shared/data                         # results/entities.json, table of docs/entities.md
python results/entities.py ../shared/data --errors development    # the errors of one part instead, quoted
"""

import argparse
import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from einthoven.config import Entities
from einthoven.entities.context import ATTRIBUTES
from einthoven.entities.lexicon import load
from einthoven.entities.matcher import Matcher, Mention
from einthoven.study import write_json

HERE = Path(__file__).parent
GOLD = HERE.parent / "tests" / "entities" / "gold.jsonl"
PAGE = HERE.parent / "docs" / "entities.md"
START, END = "<!-- results: made by results/entities.py -->", "<!-- end of results -->"


def labelled(data: Path) -> list[dict[str, Any]]:
    """The labelled texts, each with its `text`; a text whose hash differs stops the program."""
    lines = [json.loads(line) for line in GOLD.read_text(encoding="utf-8").splitlines()]
    texts: dict[tuple[str, str, str], str] = {}
    for file, column in sorted({(line["file"], line["column"]) for line in lines}):
        with (data / file).open(encoding="utf-8", newline="") as handle:
            for row in csv.DictReader(handle):
                key = row.get("ID") or row.get("encounter_id") or row["ecg_id"]
                texts[file, column, key] = row[column]
    for line in lines:
        line["text"] = texts[line["file"], line["column"], line["row"]]
        if hashlib.sha256(line["text"].encode()).hexdigest() != line["sha256"]:
            sys.exit(f"{line['file']}: row {line['row']} is not the text that was labelled")
    return lines


def aligned(gold: list[dict[str, Any]], found: list[Mention]) -> list[tuple[dict[str, Any] | None, Mention | None]]:
    """One to one by overlap, the largest first; what has no partner stands with None."""
    overlaps = sorted(
        (max(g["start"], m.start) - min(g["end"], m.end), i, j) for i, g in enumerate(gold) for j, m in enumerate(found)
    )
    partner: dict[int, int] = {}
    for overlap, i, j in overlaps:
        if overlap < 0 and i not in partner and j not in partner.values():
            partner[i] = j
    pairs: list[tuple[dict[str, Any] | None, Mention | None]] = [
        (g, found[partner[i]] if i in partner else None) for i, g in enumerate(gold)
    ]
    return pairs + [(None, m) for j, m in enumerate(found) if j not in partner.values()]


def counted(pairs: Iterable[tuple[dict[str, Any] | None, Mention | None]]) -> Counter[str]:
    """True, false and missed, of mentions, exact spans, and each attribute of the mentions that were found."""
    counts: Counter[str] = Counter()
    for gold, found in pairs:
        outcome = "true" if gold and found else "missed" if gold else "false"
        counts[f"mention {outcome}"] += 1
        if not gold or not found:
            continue
        counts["same span"] += (gold["start"], gold["end"]) == (found.start, found.end)
        counts["same label"] += gold["label"] == found.term.label
        for attribute in ATTRIBUTES:
            expected, got = attribute in gold["attributes"], getattr(found.flags, attribute)
            if expected or got:
                counts[f"{attribute} {'true' if expected and got else 'missed' if expected else 'false'}"] += 1
    return counts


def scores(counts: Counter[str]) -> dict[str, Any]:
    """Precision and recall of each, null where nothing was found or labelled."""
    result: dict[str, Any] = {}
    for name in ("mention", *ATTRIBUTES):
        true, false, missed = (counts[f"{name} {outcome}"] for outcome in ("true", "false", "missed"))
        result[name] = {
            "labelled": true + missed,
            "found": true + false,
            "precision": round(true / (true + false), 3) if true + false else None,
            "recall": round(true / (true + missed), 3) if true + missed else None,
        }
    both = counts["mention true"]
    result["same_span"] = round(counts["same span"] / both, 3)
    result["same_label"] = round(counts["same label"] / both, 3)
    return result


def measured(data: Path, half: str, matcher: Matcher) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    texts = 0
    for line in (one for one in labelled(data) if one["half"] == half):
        counts += counted(aligned(line["mentions"], matcher.find(line["text"])))
        texts += 1
    return {"texts": texts, **scores(counts)}


def show_errors(data: Path, half: str, matcher: Matcher) -> None:
    for line in (one for one in labelled(data) if one["half"] == half):
        for gold, found in aligned(line["mentions"], matcher.find(line["text"])):
            expected = set(gold["attributes"]) if gold else set()
            got = {a for a in ATTRIBUTES if found and getattr(found.flags, a)}
            if gold is None or found is None or expected != got:
                one = gold or {"start": found.start, "end": found.end}  # type: ignore[union-attr]
                around = line["text"][max(0, one["start"] - 60) : one["end"] + 30].replace("\n", "⏎")
                kind = "FALSE" if gold is None else "MISSED" if found is None else "FLAGS"
                print(kind, repr(line["text"][one["start"] : one["end"]]), sorted(expected), sorted(got), "|", around)


def rendered(results: dict[str, Any]) -> str:
    """The table of the page, between its marks."""
    lines = [
        START,
        *_table(results["blind"]),
        "",
        "With the rules as they are now:",
        "",
        *_table(results["halves"]),
        END,
    ]
    return "\n".join(lines)


def _table(parts: dict[str, Any]) -> list[str]:
    halves = sorted(parts)
    lines = ["| | " + " | ".join(f"{h}: labelled | precision | recall" for h in halves) + " |"]
    lines.append("| --- |" + " ---: | ---: | ---: |" * len(halves))
    for name in ("mention", *ATTRIBUTES):
        cells = []
        for half in halves:
            one = parts[half][name]
            cells += [
                str(one["labelled"]),
                *("–" if one[k] is None else f"{one[k]:.3f}" for k in ("precision", "recall")),
            ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the shared public data")
    parser.add_argument("--errors", help="print the errors of this half; nothing is written")
    parser.add_argument("--half", action="append", help="only these")
    arguments = parser.parse_args()
    matcher = Matcher(load(Entities()))
    if arguments.errors:
        show_errors(arguments.data, arguments.errors, matcher)
        return
    halves = list(dict.fromkeys(line["half"] for line in labelled(arguments.data)))
    wanted = arguments.half or sorted(halves)
    results = {"halves": {half: measured(arguments.data, half, matcher) for half in wanted}}
    if arguments.half:
        print(json.dumps(results, indent=1))
        return
    committed = HERE / "entities.json"
    if committed.exists():  # measured once, at the commit that labelled the unseen part; see the page
        results["blind"] = json.loads(committed.read_text(encoding="utf-8")).get("blind", results["halves"])
    else:
        results["blind"] = results["halves"]
    results["command"] = "make results-entities DATA=path/to/data"  # type: ignore[assignment]
    write_json(HERE / "entities.json", results)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.split(START)[0] + rendered(results) + page.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
