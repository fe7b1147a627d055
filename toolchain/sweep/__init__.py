"""A model with other weight widths, steps and sparsities, each combination measured: what is paid and what is got.

Validation images judge, so that choosing by a sweep leaves the test set untouched. Each point is kept as it is finished.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import TYPE_CHECKING, Any

from toolchain import __version__, compare, deployment, store
from toolchain import profile as profiles
from toolchain.compare.pareto import plots
from toolchain.errors import FormatError, UnsupportedError
from toolchain.evaluate.state import same_task
from toolchain.evaluate.stored import usable
from toolchain.sweep import early
from toolchain.sweep.plot import plot
from toolchain.sweep.point import Effort, measured
from toolchain.sweep.terminal import render
from toolchain.sweep.variants import Variants

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from toolchain.data import Data
    from toolchain.store import Model

SCHEMA = "rsnn-deploy/sweep/1"
RESULT, DRAWING = "sweep.json", "sweep.svg"

__all__ = ["DRAWING", "RESULT", "SCHEMA", "Effort", "Variants", "early", "plot", "render", "sweep"]


def sweep(
    path: Path,
    out: Path,
    settings: deployment.Settings,
    *,
    bits: Sequence[int] = (),
    timesteps: Sequence[int] = (),
    sparsity: Sequence[float] = (),
    effort: Effort | None = None,
    epochs: int = 0,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """`out` holds every combination of a model's weight bits, steps and sparsities, a table and a plot of them; returns the table.

    What is not given is as the model has it. Other steps run the same weights and thresholds; a further sparsity leaves the
    same share of every layer's weights. epochs: of the model's own objective for each such variant, by default none. A point that cannot
    be made or placed is a row with the reason. A sweep that was killed goes on, and one in the same folder may widen it.
    Raises: UnsupportedError for a model without spikes; ConfigError where `out` holds another sweep, or for a device that
    torch cannot use here; FormatError.
    """
    effort = effort or Effort()
    usable(effort.device)
    profile = profiles.read(settings.profile)
    model = store.load(path)
    if model.mode != "snn":
        reason = f"stage {model.stage} has no spikes yet"
        raise UnsupportedError(where=str(path), reason=reason, remedy="Run the recipe until convert")
    data = deployment.training_data(model)
    facts = {
        "version": __version__,
        "model": store.sha256(path),
        "data": data.sha256,
        "profile": profile.sha256,
        "theta": settings.theta,
        "max_chips": settings.max_chips,
        "epochs": epochs,
        **dataclasses.asdict(effort),
    }
    same_task(out / "state.json", {"schema": SCHEMA, **facts}, "sweep")
    further, notes = _further(model, sparsity)
    for note in notes:
        log(note)
    variants = Variants(model, data, out / "variants", epochs=epochs, log=log)
    axes: dict[str, list[Any]] = {
        "sparsity": further,
        "timesteps": sorted(set(timesteps)) or [model.timesteps],
        "bits": sorted(set(bits)) or [None],
    }
    points = _Points(out / "points")
    rows = []
    total = len(list(itertools.product(*axes.values())))
    for number, (share, steps, width) in enumerate(itertools.product(*axes.values()), start=1):
        key = {"bits": width, "timesteps": steps, "sparsity_asked": share}
        row = points.there(key)
        if row is None:
            log(f"point {number} of {total}: {_said(key)}")
            row = {**key, **_row(variants, data, settings, key, effort)}
            points.keep(key, row)
        rows.append(row)
    result = {
        "schema": SCHEMA,
        "model": {
            "path": str(path),
            "sha256": facts["model"],
            "timesteps": model.timesteps,
            "sparsity": model.sparsity,
        },
        "profile": profile.name,
        "data": {"source": data.source, "split": "validation", "of": len(data.validation)},
        "epochs": epochs,
        "notes": notes,
        "rows": rows,
        "plots": plots(rows),
    }
    store.write_text(out / RESULT, json.dumps(result, indent=2) + "\n")
    store.write_text(out / DRAWING, plot(result))
    return result


def _row(
    variants: Variants, data: Data, settings: deployment.Settings, key: dict[str, Any], effort: Effort
) -> dict[str, Any]:
    profile = profiles.read(settings.profile)
    try:
        variant = variants.made(key["timesteps"], key["sparsity_asked"])
    except UnsupportedError as error:
        return {**compare.unfit("", profile.name, str(error)), "sparsity": key["sparsity_asked"], "early_exit": None}
    found = measured(variant, data, profile, dataclasses.replace(settings, weight_bits=key["bits"]), effort)
    return {**found, "sparsity": variant.sparsity}


def _further(model: Model, sparsity: Sequence[float]) -> tuple[list[float | None], list[str]]:
    """The sparsities to prune to, None for the model's own; and what is to be said of those asked for that it has already."""
    further = sorted({share for share in sparsity if share > model.sparsity})
    had = sorted(set(sparsity) - set(further))
    if not had and further:
        return [*further], []
    said = f"sparsity {', '.join(f'{share:g}' for share in had)}: the model as it is, {model.sparsity:.2%} sparse"
    return [None, *further], [said] if had else []


def _said(key: dict[str, Any]) -> str:
    width = "bits as recorded" if key["bits"] is None else f"{key['bits']} bits"
    share = "as sparse as it is" if key["sparsity_asked"] is None else f"sparsity {key['sparsity_asked']:g}"
    return f"{width}, T = {key['timesteps']}, {share}"


_FOUND = {*compare.unfit("", "", ""), "early_exit"}
"""What a point has beside what was asked for"""


class _Points:
    """The finished points of a sweep, a file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def there(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The point, or None where it is not finished. Raises FormatError."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            row: dict[str, Any] = json.loads(store.read_bytes(path))
            whole = row.keys() == key.keys() | _FOUND and {name: row[name] for name in key} == key
        except (ValueError, AttributeError):
            whole = False
        if not whole:
            raise FormatError(path=str(path), reason="not a point of a sweep; delete it to repeat it")
        return row

    def keep(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """It is on the disk."""
        store.write_text(self._path(key), json.dumps(row) + "\n")

    def _path(self, key: dict[str, Any]) -> Path:
        width, steps, share = ("own" if value is None else str(value) for value in key.values())
        return self._folder / f"b{width}-t{steps}-s{share}.json"
