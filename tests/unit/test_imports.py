"""Who may import whom. Lazy imports count: the rule is about knowledge, not about load time."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import toolchain

PACKAGE = Path(toolchain.__file__).parent

VOCABULARY = {"errors", "profile", "recipe", "ir", "trace", "placement", "store", "resources", "hdf5"}
FLOAT_SIDE = {
    "data",
    "adopt",
    "nirfile",
    "nets",
    "spiking",
    "attacks",
    "train",
    "prune",
    "percentiles",
    "ranks",
    "convert",
    "finetune",
    "quantize",
}
CORE_SIDE = {
    "mapping",
    "check",
    "counts",
    "export",
    "lavadl",
    "emulate",
    "simulate",
    "energy",
    "memory",
    "neurobench",
    "report",
}
ABOVE = {
    "deployed",
    "fit",
    "heal",
    "pipeline",
    "proof",
    "deployment",
    "assess",
    "compare",
    "evaluate",
    "start",
    "sweep",
}
TOP = {"__main__", "cli", "show", "progress", "heap"}
ALONE = {"run_lava"}
"""Copied into exported folders, where there is no toolchain."""

MAY_IMPORT = {
    **dict.fromkeys(VOCABULARY, VOCABULARY),
    **dict.fromkeys(FLOAT_SIDE, VOCABULARY | FLOAT_SIDE),
    **dict.fromkeys(CORE_SIDE, VOCABULARY | CORE_SIDE),
    **dict.fromkeys(ABOVE, VOCABULARY | FLOAT_SIDE | CORE_SIDE | ABOVE),
    **dict.fromkeys(TOP, VOCABULARY | FLOAT_SIDE | CORE_SIDE | ABOVE | TOP),
    **dict.fromkeys(ALONE, frozenset()),
}
STRANGERS = [("mapping", "check"), ("emulate", "simulate")]
"""Agreement between these must not come from shared code."""


def files():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Dotted names of everything a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide whom they import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(path: Path) -> set[str]:
    dotted = [name.split(".") for name in imported(path)]
    return {parts[1] for parts in dotted if parts[0] == "toolchain" and len(parts) > 1} - {"__version__"}


def test_every_module_has_a_place_in_the_rule():
    assert {room(path) for path in files()} <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(path):
    forbidden = rooms_imported(path) - MAY_IMPORT[room(path)] - {room(path)}
    assert not forbidden, f"{room(path)} may not import {', '.join(sorted(forbidden))}"


@pytest.mark.parametrize(("one", "other"), STRANGERS)
def test_strangers_never_import_each_other_even_through_a_third(one, other):
    def reached(start: str) -> set[str]:
        seen, queue = set(), [start]
        while queue:
            current = queue.pop()
            for path in files():
                if room(path) == current:
                    new = rooms_imported(path) - seen
                    seen |= new
                    queue += new
        return seen

    assert other not in reached(one)
    assert one not in reached(other)


def test_only_simulate_and_the_standalone_script_import_lava():
    importers = {room(path) for path in files() if any(name.split(".")[0] == "lava" for name in imported(path))}
    assert importers == {"simulate", "run_lava"}


def test_of_the_core_side_only_the_emulator_knows_torch():
    importers = {room(path) for path in files() if any(name.split(".")[0] == "torch" for name in imported(path))}
    assert importers & CORE_SIDE == {"emulate"}


@pytest.mark.parametrize(
    "module", ["toolchain", "toolchain.cli", "toolchain.profile", "toolchain.recipe", "toolchain.ir"]
)
def test_importing_loads_neither_torch_nor_lava(module):
    code = f"import sys, {module}; print(sorted({{'torch', 'lava'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
