"""`python -m toolchain`: the command line, and what `torchrun -m toolchain` starts. Of several processes, one prints results."""

import os
import sys
from pathlib import Path

from toolchain import ranks
from toolchain.cli import main

if __name__ == "__main__":
    if ranks.rank():
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    main()
