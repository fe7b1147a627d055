"""The first step with one's own data: a recipe file that fits them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolchain import recipe as recipes
from toolchain import store
from toolchain.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CHANNELS = (32, 64, 128)
LEAST_SIDE = 4
"""Of the last map: pools stop there."""


def write(file: Path, source: str | None) -> dict[str, Any]:
    """`file` holds a commented recipe, whose pools fit the images of `source` where one is given.

    Returns: the file, and what was found in the data, JSON-able.
    Raises: ConfigError where `file` exists; as `data.load`.
    """
    if file.exists():
        fault = "it exists already; name another FILE, or delete it"
        raise ConfigError(where=str(file), faults=(fault,))
    chosen: dict[str, Any] = {"name": file.stem, "data.source": source or "images.npz"}
    found: dict[str, Any] | None = None
    if source:
        from toolchain import data

        loaded = data.load(source)
        chosen["model.layers"] = _layers(loaded.shape)
        found = {
            "source": source,
            "shape": loaded.shape,
            "n_classes": loaded.n_classes,
            "n_train": len(loaded.train),
            "n_validation": len(loaded.validation),
        }
    store.write_text(file, recipes.template(chosen))
    return {"recipe": str(file), "data": found}


def render(result: Mapping[str, Any]) -> None:
    """What `write` returned stands on stdout."""
    import click

    if found := result["data"]:
        shape = "x".join(map(str, found["shape"]))
        counts = f"{found['n_train']:,} images to train on, {found['n_validation']:,} to validate"
        click.echo(f"{found['source']}: {counts}, {shape}, {found['n_classes']} classes")
    click.echo(f"wrote {result['recipe']}; next: rsnn-deploy run {result['recipe']} --out DIR --set budget=minutes")


def _layers(shape: tuple[int, int, int]) -> tuple[int | str, ...]:
    """Three convolutions, each before a pool as long as a pool divides the map and leaves enough of it."""
    _, *sides = shape
    layers: list[int | str] = []
    for channels in CHANNELS:
        layers.append(channels)
        if all(side % 2 == 0 and side // 2 >= LEAST_SIDE for side in sides):
            layers.append("A")
            sides = [side // 2 for side in sides]
    return tuple(layers)
