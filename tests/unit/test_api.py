"""The public API: every name at the top of the package is there, documented, typed, and loaded when first used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import toolchain

SOURCE = ast.parse(Path(toolchain.__file__).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", toolchain.__all__)
def test_a_public_name_is_documented_and_typed(name):
    value = getattr(toolchain, name)
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        taken = inspect.signature(value)
        assert taken.return_annotation is not inspect.Signature.empty
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in taken.parameters.values())


def test_type_checkers_see_the_names_that_are_loaded_lazily():
    seen, modules = {}, set()
    for node in ast.walk(SOURCE):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("toolchain"):
            home = node.module.removeprefix("toolchain").removeprefix(".")
            for alias in node.names:
                if home:
                    seen[alias.asname] = f"{home}.{alias.name}"
                else:
                    modules.add(alias.asname)
    assert seen == toolchain._HOMES
    assert modules == set(toolchain.STEPS)
    assert sorted(seen) == sorted(toolchain.__all__)


@pytest.mark.parametrize("name", toolchain.STEPS)
def test_the_modules_of_the_steps_are_there_without_an_import_of_their_own(name):
    assert getattr(toolchain, name).__name__ == f"toolchain.{name}"


def test_what_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="module 'toolchain' has no attribute 'fly'"):
        toolchain.fly  # noqa: B018
    assert {"verify", "emulate"} <= set(dir(toolchain))


def test_looking_at_the_package_loads_neither_torch_nor_lava():
    code = "import sys, toolchain; dir(toolchain), toolchain.Settings, toolchain.load_profile('loihi2'); "
    code += "print(sorted({'torch', 'lava'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
