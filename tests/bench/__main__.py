"""Runs benches and writes docs/performance.md: `make bench`, or `make bench ONLY=emulator,lava`."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
import traceback
from pathlib import Path

import click
import torch
from bench import harness, page

from toolchain import heap

FOLDER = Path(__file__).parent
STATE = FOLDER.parents[1] / "build" / "bench"


def names() -> list[str]:
    """Return the benches of this folder: its modules with `rows`, the emulator's first."""
    found = [path.stem for path in FOLDER.glob("*.py") if "\ndef rows(" in path.read_text(encoding="utf-8")]
    return sorted(found, key=lambda name: (name != "emulator", name))


def run(name: str) -> bool:
    """The state of a bench holds every row measured, and is written after each; returns whether all went well."""
    module = importlib.import_module(f"bench.{name}")
    state = {
        "name": name,
        "about": inspect.getdoc(module),
        "machine": harness.machine(),
        "finished": False,
        "rows": [],
        "plots": [],
    }
    try:
        for row in module.rows():
            click.echo(page.line(dataclasses.asdict(row)))
            state["rows"].append(dataclasses.asdict(row))
            _keep(state)
        state["finished"] = True
        if plots := getattr(module, "plots", None):
            state["plots"] = page.draw(name, plots([harness.Row(**row) for row in state["rows"]]))
    except Exception:  # noqa: BLE001  one bench that fails leaves the others their turn
        traceback.print_exc()
    _keep(state)
    return state["finished"]


def _keep(state) -> None:
    STATE.mkdir(parents=True, exist_ok=True)
    (STATE / f"{state['name']}.json").write_text(json.dumps(state, indent=1), encoding="utf-8")


@click.command()
@click.option("--only", default="", help="Names of benches, with commas between; all by default.")
@click.option("--threads", type=int, default=None, help="Threads of torch; one a core by default.")
@click.option("--no-page", is_flag=True, help="Leave docs/performance.md as it is.")
def main(only: str, threads: int | None, *, no_page: bool) -> None:
    """Run the benches, one after the other, and write their tables into docs/performance.md."""
    heap.keep_freed()  # as every command does
    known = names()
    chosen = [name for name in only.split(",") if name] or known
    if unknown := set(chosen) - set(known):
        raise click.UsageError(f"no bench named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if threads:
        torch.set_num_threads(threads)
    failed = []
    for name in chosen:
        click.echo(f"\n{name}")
        if not run(name):
            failed.append(name)
        if not no_page:
            page.write([json.loads((STATE / f"{name}.json").read_text(encoding="utf-8"))])
    if failed:
        click.echo(f"failed: {', '.join(failed)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
