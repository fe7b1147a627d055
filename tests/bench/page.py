"""Writes docs/performance.md: each bench's section stands between two comments, and what stands outside them is left alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DOCS = Path(__file__).resolve().parents[2] / "docs"
COLUMNS = ("case", "program", "median", "range", "peak memory", "against", "target", "note")


def write(states: Sequence[Mapping[str, Any]], docs: Path = DOCS) -> None:
    """The page has the section of each state, in its place or else at the end."""
    path = docs / "performance.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else "# Performance\n"
    for state in states:
        text = placed(text, state["name"], section(state))
    path.write_text(text, encoding="utf-8")


def placed(text: str, name: str, body: str) -> str:
    """Return the page with the section between its two comments replaced, or appended where it has none."""
    start, end = f"<!-- bench {name} -->\n", f"<!-- end of bench {name} -->\n"
    if start not in text:
        text = f"{text.rstrip()}\n\n{start}{end}"
    head, _, rest = text.partition(start)
    _, _, tail = rest.partition(end)
    return f"{head}{start}{body}{end}{tail}"


def section(state: Mapping[str, Any]) -> str:
    """Return a bench's section: what it measures, on what, its table and its plots."""
    about = state["about"].split("\n\n")
    title, rest = about[0].rstrip("."), [" ".join(part.split()) for part in about[1:]]
    parts = [f"## {title}", *rest, f"Measured on: {state['machine']}."]
    if not state["finished"]:
        parts.append("This run was cut short.")
    shown = [cells(row) for row in state["rows"]]
    used = [k for k in range(len(COLUMNS)) if any(row[k] for row in shown)]
    table = [[COLUMNS[k] for k in used], ["---"] * len(used), *([row[k] for k in used] for row in shown)]
    parts.append("\n".join(f"| {' | '.join(row)} |" for row in table))
    parts += [f"![{name}](performance/{file})" for name, file in state["plots"]]
    return "\n\n".join(parts) + "\n"


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row's texts, in the order of COLUMNS."""
    memory = row["memory_bytes"]
    spread = row["low"] is not None and row["high"] is not None
    return [
        row["case"],
        row["subject"],
        f"{_number(row['value'])} {row['unit']}",
        f"{_number(row['low'])} to {_number(row['high'])}" if spread else "",
        "" if memory is None else f"{memory / 2**20:,.0f} MiB",
        _against(row["ratio"], row["against"]),
        row["target"],
        row["note"],
    ]


def line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of a terminal."""
    return "  ".join(cell for cell in cells(row) if cell)


def draw(bench: str, plots: Iterable[tuple[str, Any]], docs: Path = DOCS) -> list[tuple[str, str]]:
    """The figures are files of docs/performance/; returns (name, file) of each."""
    import matplotlib as mpl

    # Text stays text and names do not depend on the run: small files that differ only where the figures do.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench"})
    folder = docs / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, figure in plots:
        file = f"{bench}-{name.replace(' ', '-')}.svg"
        figure.savefig(folder / file, metadata={"Date": None}, bbox_inches="tight")
        drawn.append((name, file))
    return drawn


def _number(value: float) -> str:
    magnitude = abs(value)
    return f"{value:,.0f}" if magnitude >= 100 else f"{value:.3g}"


def _against(ratio: float | None, against: str) -> str:
    if ratio is None:
        return ""
    return f"{_number(ratio)} times {against}" if ratio >= 1 else f"{_number(1 / ratio)} times less than {against}"
