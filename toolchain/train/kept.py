"""The last finished epoch of a training that stands beside a run's stages, kept on the disk, so that a killed one goes on."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from toolchain import store
from toolchain.errors import FormatError
from toolchain.train.loop import Epoch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Kept:
    """It is beside what is being made, `out`, with the task that it is an epoch of."""

    def __init__(self, out: Path, task: dict[str, Any], log: Callable[[str], None]) -> None:
        self.path = out.with_name(f"{out.stem}.resume.pt")
        self._task, self._log = json.dumps(task, sort_keys=True), log

    def keep(self, epoch: Epoch) -> None:
        """It is this one."""
        table = {field.name: getattr(epoch, field.name) for field in dataclasses.fields(epoch)}
        store.write_bytes(self.path, store.dump({"task": self._task, "epoch": table}))
        self._log(f"epoch {epoch.number} of {epoch.total}, loss {epoch.loss:.3f}")

    def last(self) -> Epoch | None:
        """It, or None where there is none or it is another task's. Raises FormatError."""
        if not self.path.exists():
            return None
        table = store.read(self.path)
        try:
            return Epoch(**table["epoch"]) if table["task"] == self._task else None
        except (KeyError, TypeError):
            raise FormatError(path=str(self.path), reason="not a run to resume; delete it to begin again") from None
