"""Our process models send and hold what the stock ones do, on Lava's own runtime, at every step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.lava

ROOT = Path(__file__).parents[2]
LIMIT_S = 900
"""Lava waits for ever where a model raises."""
PROGRAM = """
import runpy, sys
from toolchain.simulate.newer_python import hashable_defaults
with hashable_defaults():
    import lava.magma.compiler.compiler
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def compared(first, last):
    """The lines of the comparison program, one a seed."""
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).with_name("stock_and_fast.py")), str(first), str(last)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            out, errors = process.communicate(timeout=LIMIT_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    lines = out.splitlines()
    assert len(lines) == last - first, errors
    return lines


def assert_the_same(lines):
    assert [line for line in lines if not line.endswith("; the same")] == []
    quiet = [line for line in lines if "rates 0.00 0.00" in line or "rates 1.00 1.00" in line]
    assert len(quiet) < len(lines) / 2, "most prove nothing"


def test_every_sum_spike_and_state_is_the_stock_models():
    assert_the_same(compared(0, 8))


@pytest.mark.slow
@pytest.mark.scale
def test_every_sum_spike_and_state_is_the_stock_models_in_further_chains():
    assert_the_same(compared(8, 120))
