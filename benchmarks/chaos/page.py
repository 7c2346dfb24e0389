"""docs/faults.md: its tables are those of results/chaos.json."""

from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
START, END = "<!-- made by benchmarks/chaos from results/chaos.json -->", "<!-- end -->"

COUNTED = ("kills", "unfinished", "identical", "runs", "lost")
FAULT = ("tried", "refused", "unhurt", "ended", "hung", "lost")


def rendered(results: dict[str, Any]) -> str:
    stages = results["stages"]
    lines = [
        f"`{results['command']}`, seed {results['seed']}, {results['kills']} trials of each stage, "
        f"{results['seconds'] / 60:.0f} minutes of one core ({results['processor']}), **simulated** data.",
        "",
        "| stage | kills | of them at work | re-runs identical | lost |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in [*stages, total(stages)]:
        same = f"{row['identical']} of {row['runs']}"
        lines.append(f"| {row['stage']} | {row['kills']} | {row['unfinished']} | {same} | {row['lost']} |")
    lines += [
        "",
        "| other faults | tried | refused | done all the same | ended | hung | lost |",
        "| --- |" + " --- |" * 6,
    ]
    for name, fault in others(results).items():
        cells = (fault[key] for key in FAULT)
        lines.append(f"| {name} | " + (fault["skipped"] or " | ".join(map(str, cells))) + " |")
    return "\n".join(lines)


def total(stages: list[dict[str, Any]]) -> dict[str, Any]:
    return {"stage": "all", **{key: sum(row[key] for row in stages) for key in COUNTED}}


def others(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The faults of all stages together, by name, and those of the whole line."""
    found: dict[str, dict[str, Any]] = {}
    for row in results["stages"]:
        for name, fault in row["faults"].items():
            kept = found.setdefault(name, {**dict.fromkeys(FAULT, 0), "skipped": ""})
            found[name] = {key: kept[key] + fault[key] for key in FAULT} | {"skipped": fault["skipped"]}
    return found | results["whole"]


def write(results: dict[str, Any]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    PAGE.write_text(f"{before}{START}\n{rendered(results)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
