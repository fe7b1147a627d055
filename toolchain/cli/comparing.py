"""Commands that set deployments side by side: compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolchain.cli.common import json_option, quantization_options, say, show_result

if TYPE_CHECKING:
    from typing import Literal

    Theta = Literal["layer", "channel"]


@click.command()
@click.argument("models", metavar="MODEL|DIR...", nargs=-1, required=True)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="PROFILE",
    show_default="a folder's own",
    help="Name of a shipped profile, or a .toml file. Repeatable.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Test images to run a model on, at most.",
)
@click.option(
    "--html", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write it as one HTML page too."
)
@quantization_options
@json_option
def compare(
    models: tuple[str, ...],
    profiles: tuple[str, ...],
    samples: int,
    html: Path | None,
    weight_bits: int | dict[str, int] | None,
    bits_budget: float | None,
    theta: Theta | None,
    max_chips: int,
    as_json: bool,
) -> None:
    """Set models and profiles side by side.

    MODEL is a shipped name or a .pt file; DIR an exported folder, whose network is taken as it is, run on the samples in it.
    Every model on every profile is a row: cores, accuracy, robustness, energy by each model, memory, and which rows no
    other beats. One that does not fit is a row that says why.
    """
    from toolchain import compare as comparing
    from toolchain import deployment, store

    settings = deployment.Settings(
        profile="", weight_bits=weight_bits, bits_budget=bits_budget, theta=theta, max_chips=max_chips
    )
    made = comparing.compare(models, profiles, settings, samples=samples, log=say)
    if html:
        store.write_bytes(html, comparing.page.render(made).encode())
        say(f"wrote {html}")
    show_result(made, as_json, lambda: comparing.render(made))
