"""The command line as a process of its own, and what its folders hold."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-c", "from toolchain.cli import main; main()")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, temporary ones too."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
