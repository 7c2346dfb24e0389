"""Render the reference from the sources: python docs/reference.py writes docs/reference.md, a test holds it up to date.

Nothing of the package is run but its command line: docstrings, signatures, defaults and comments are read as they are
written, so the page is the same under every version of Python and its libraries.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import typer

import einthoven
from einthoven import cli

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "src" / "einthoven"
PAGE = HERE / "reference.md"
INTRODUCTION = """# Reference

Made from the sources by `docs/reference.py`; `make docs` makes it anew.
"""

LIBRARY = {
    "The library": [
        ("model_directory", "load"),
        ("model", "Model", "encode_ecg", "encode_text", "encode_codes", "save", "push"),
        ("classifier", "load_classifier"),
        ("classifier", "Classifier", "predict", "save"),
        ("embedder", "EcgEmbedder", "fit", "transform", "get_feature_names_out"),
        ("errors", "EinthovenError"),
        ("hub", "directory_of"),
        ("hub", "push"),
        ("onnx_export", "export_onnx"),
    ],
    "ECGs": [
        ("waveforms/formats", "read_ecg"),
        ("waveforms/formats", "Ecg"),
        ("waveforms/standardise", "standardise"),
        ("waveforms/draw", "draw_svg"),
    ],
    "Stages": [
        *(("pipeline", name) for name in ("ingest", "entities", "pair", "check", "pretrain", "align", "calibrate")),
        *(("pipeline", name) for name in ("embed", "embed_to_file", "evaluate", "outliers", "export_meds")),
        ("finetuning", "finetune"),
        ("finetuning", "finetune_table"),
    ],
    "Search": [
        ("indexing", "index"),
        ("indexing", "open_archive"),
        ("indexing", "forget"),
        ("search/archive", "Query"),
        ("search/archive", "Hit"),
        ("search/archive", "Archive", "search", "near"),
        ("search/filters", "parse"),
        ("search/index", "VectorIndex", "add", "query", "rows", "delete_patients", "clear"),
    ],
}
"""Module, name, and of a class the methods: what a user of the library may rest on."""

TOP = ("model_directory", "model", "classifier", "embedder", "errors")
"""Modules whose names in `einthoven.__all__` are imported from `einthoven` itself."""

ATTRIBUTES = ("Ecg", "Query", "Hit")
"""Classes whose fields are what they are for."""


def page() -> str:
    parts = [INTRODUCTION]
    for title, entries in LIBRARY.items():
        parts.append(f"## {title}\n")
        parts += [entry(module, name, methods) for module, name, *methods in entries]
    return "\n".join([*parts, commands(), settings(), tables()])


def entry(module: str, name: str, methods: list[str]) -> str:
    """A function or a class, with some of its methods."""
    text, body = source(module)
    node = named(body, name)
    top = name in einthoven.__all__ and module in TOP
    full = f"einthoven.{name}" if top else f"einthoven.{module.replace('/', '.')}.{name}"
    if isinstance(node, ast.FunctionDef):
        return told(node, full, "###")
    lines = [f"### `{full}`\n", described(node)]
    initial = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    if initial and name == "EcgEmbedder":
        lines.insert(1, signature(initial[0], name))
    if name in ATTRIBUTES:
        lines.append(fields(text, node))
    lines += [told(named(node.body, method), f"{name}.{method}", "####") for method in methods]
    return "\n".join(lines)


def source(module: str) -> tuple[str, list[ast.stmt]]:
    """A module, or all files of a package as one."""
    files = sorted((PACKAGE / module).glob("*.py")) or [PACKAGE / f"{module}.py"]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return text, ast.parse(text).body


def named(body: list[ast.stmt], name: str) -> ast.FunctionDef | ast.ClassDef:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    raise SystemExit(f"docs/reference.py names {name}, which is not there any more")


def told(node: ast.FunctionDef | ast.ClassDef, title: str, level: str) -> str:
    assert isinstance(node, ast.FunctionDef)
    return f"{level} `{title}`\n\n{signature(node, node.name)}\n{described(node)}"


def signature(node: ast.FunctionDef, name: str) -> str:
    """As a Python block, one line or one per argument."""
    arguments = ast.unparse(node.args).removeprefix("self, ").removeprefix("self")
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    line = f"{name}({arguments}){result}"
    if len(line) > 100:
        line = f"{name}(\n    " + ",\n    ".join(ast.unparse(part) for part in separate(node.args)) + f",\n){result}"
    return f"```text\n{line}\n```\n"


def separate(arguments: ast.arguments) -> Iterator[ast.arguments | ast.Name]:
    """The arguments one by one, without `self`."""
    defaults = [None] * (len(arguments.args) - len(arguments.defaults)) + list(arguments.defaults)
    nothing = {"posonlyargs": [], "kwonlyargs": [], "kw_defaults": []}
    for argument, default in zip(arguments.args, defaults, strict=True):
        if argument.arg != "self":
            yield ast.arguments(args=[argument], defaults=[default] if default else [], **nothing)
    if arguments.kwonlyargs:
        yield ast.Name("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield ast.arguments(args=[argument], defaults=[default] if default else [], **nothing)


def described(node: ast.FunctionDef | ast.ClassDef) -> str:
    """A docstring as Markdown: its sections become lists."""
    text = ast.get_docstring(node) or ""
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        if re.fullmatch(r"(Args|Returns|Raises):", line):
            section = line
            lines.append(f"**{line[:-1]}**\n")
        elif section and line.startswith("    "):
            argument = re.fullmatch(r"    (\w+): (.*)", line)
            if argument and section != "Returns:":
                lines.append(f"- `{argument[1]}`: {argument[2]}")
            elif argument is None and not line.startswith("     ") and section == "Returns:":
                lines.append(line.strip())
            else:
                lines.append("  " + line.strip())
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def comments(text: str, line: int) -> str:
    """The comment at the end of a line of the source."""
    found = re.search(r"[ ,)\]]  # (.*)$|  # (.*)$", text.splitlines()[line - 1])
    return "" if found is None else cell(found[1] or found[2])


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def fields(text: str, node: ast.ClassDef) -> str:
    """The fields of a dataclass as a table: name, type and default, comment."""
    rows = ["| | default | |", "| --- | --- | --- |"]
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            value = "" if part.value is None else ast.unparse(part.value)
            value = re.sub(r"field\(default_factory=(?:lambda: )?(.*)\)$", r"\1", value)
            value = {"dict": "{}", "dict(CODE_KINDS)": "see config/data.py"}.get(value, value)
            shown = f"`{cell(value)}`" if value else ""
            rows.append(f"| `{part.target.id}` | {shown} | {comments(text, part.end_lineno or part.lineno)} |")
    return "\n".join(rows) + "\n"


def commands() -> str:
    """What `einthoven --help` says, command by command."""
    lines = ["## Commands\n"]
    group = typer.main.get_command(cli.app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        given = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join([f"einthoven {name}", *((p.metavar or p.name).upper() for p in given)])
        lines += [f"### `{usage}`\n", f"{command.help}\n"]
        rows = [f"| `{(p.metavar or p.name).upper()}` | {cell(p.help or '')} |" for p in given]
        rows += [f"| `{p.opts[0]}` | {cell(p.help or '')}{default(p.default)} |" for p in options]
        lines.append("\n".join(["| | |", "| --- | --- |", *rows]) + "\n")
    return "\n".join(lines)


def default(value: object) -> str:
    return f" (default `{value}`)" if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def settings() -> str:
    """Every section of a recipe."""
    text, body = source("config")
    recipe = named(body, "Recipe")
    lines = [
        "## Settings\n",
        "A recipe is TOML; every setting has a default. `--set section.key=value` overrules one.\n",
    ]
    for part in recipe.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            node = named(body, ast.unparse(part.annotation))
            assert isinstance(node, ast.ClassDef)
            lines += [f"### `[{part.target.id}]`\n", described(node), fields(text, node)]
    return "\n".join(lines)


def tables() -> str:
    """The tables of a study: path, columns, units."""
    text, body = source("schema")
    lines = ["## Tables of a study\n"]
    for node, after in zip(body, [*body[1:], None], strict=True):
        call = node.value if isinstance(node, ast.Assign) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Table":
            path = ast.literal_eval(call.args[0])
            said = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
            lines += [f"### `{path}`\n", f"{' '.join(said.split())}\n", "| column | type | |", "| --- | --- | --- |"]
            lines += [column(text, part) for part in columns(call, body)]
            lines[-1] += "\n"
    return "\n".join(lines)


def columns(table: ast.Call, body: list[ast.stmt]) -> Iterator[ast.Call]:
    """The `pa.field(…)` of a table, those of a list that it shares among them."""
    shared = {ast.unparse(node.target): node.value for node in body if isinstance(node, ast.AnnAssign)}
    listed = table.args[1].args[0]  # type: ignore[attr-defined]
    for part in listed.elts:
        if isinstance(part, ast.Starred):
            yield from shared[ast.unparse(part.value)].elts  # type: ignore[union-attr]
        else:
            yield part


def column(text: str, part: ast.Call) -> str:
    kind = ast.unparse(part.args[1]).replace("TIME", "timestamp[us]").replace("large_", "large ")
    kind = re.sub(r"pa\.|\(\)|_", "", kind)
    return f"| `{ast.literal_eval(part.args[0])}` | {kind} | {comments(text, part.end_lineno or part.lineno)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
