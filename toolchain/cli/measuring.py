"""Commands and options that measure the integer network: evaluate --deployed, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.cli.common import (
    bits_budget_option,
    fraction,
    json_option,
    say,
    show_result,
    theta_option,
    weight_bits_of,
    weight_bits_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Literal

    Theta = Literal["layer", "channel"]

PROFILE = "loihi2"


def deployed_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of measuring the integers of a model."""
    for option in (
        click.option(
            "--save-images",
            metavar="FILE",
            type=click.Path(path_type=Path, dir_okay=False),
            help="With --deployed: write the adversarial images that the integers got, for simulate --images.",
        ),
        click.option(
            "--beside",
            metavar="MODEL",
            show_default="MODEL itself",
            help="With --deployed: a model whose float network to compare with, such as the one MODEL was healed from.",
        ),
        click.option(
            "--ann",
            metavar="MODEL",
            help="With --deployed: a model without spikes, for transfer-ann.  [default: MODEL's own weights with ReLUs]",
        ),
        click.option(
            "--theta",
            type=click.Choice(["layer", "channel"]),
            show_default="as recorded in the model, else layer",
            help="With --deployed: one threshold and weight scale a layer, or one an output channel.",
        ),
        click.option(
            "--weight-bits",
            metavar="BITS",
            callback=weight_bits_of,
            show_default="as recorded in the model, else 8",
            help="With --deployed: width of the weights, 1 to 8; or of some layers: conv1=4,conv2=6.",
        ),
        bits_budget_option,
        click.option(
            "--profile",
            metavar="PROFILE",
            show_default=PROFILE,
            help="With --deployed: name of a shipped profile, or a .toml file.",
        ),
        click.option(
            "--deployed",
            is_flag=True,
            help="Measure the integers of a profile, which a chip computes, and the float network.",
        ),
    ):
        command = option(command)
    return command


def refuse_without(flag: str, is_given: bool, options: Mapping[str, Any]) -> None:
    """Options that mean nothing without a flag are an error without it. Raises UsageError."""
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given and not is_given:
        raise click.UsageError(f"{', '.join(given)} only with {flag}")


def measure_deployed(
    path: Path,
    attacks: tuple[str, ...],
    settings: Mapping[str, Any],
    *,
    profile: str | None,
    weight_bits: int | dict[str, int] | None,
    bits_budget: float | None,
    theta: Theta | None,
    beside: str | None,
    ann: str | None,
    save_images: Path | None,
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], None]]:
    """Return what evaluate --deployed found, and what shows it."""
    from toolchain import deployment, resources
    from toolchain.deployed import measure, terminal

    chosen = deployment.Settings(
        profile=profile or PROFILE, weight_bits=weight_bits, bits_budget=bits_budget, theta=theta
    )
    result = measure.evaluate(
        path,
        chosen,
        attack=attacks or measure.ATTACKS,
        beside=None if beside is None else resources.model_path(beside),
        ann=None if ann is None else resources.model_path(ann),
        save_images=save_images,
        **settings,
    )
    return result, terminal.evaluation


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--profile",
    metavar="PROFILE",
    default=PROFILE,
    show_default=True,
    help="Name of a shipped profile, or a .toml file.",
)
@click.option("--image", type=click.IntRange(min=0), metavar="N", help="Explain test image N instead, counted from 0.")
@click.option(
    "--samples", type=click.IntRange(min=1), default=200, show_default=True, help="Test images to run, from the first."
)
@click.option(
    "--attacked",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Test images to attack at each step, from the first.",
)
@click.option("--eps", metavar="NUMBER", show_default="the recipe's", help="Radius in pixels of [0, 1], such as 8/255.")
@click.option("--steps", type=click.IntRange(min=1), show_default="the recipe's", help="Steps of PGD.")
@weight_bits_option
@bits_budget_option
@theta_option
@json_option
def inspect(
    model: str,
    profile: str,
    image: int | None,
    samples: int,
    attacked: int,
    eps: str | None,
    steps: int | None,
    weight_bits: int | dict[str, int] | None,
    bits_budget: float | None,
    theta: Theta | None,
    as_json: bool,
) -> None:
    """Show where MODEL's integers leave its float network.

    MODEL is a shipped name or a .pt file. From the float network over folded batch norm, quantized weights, quantized thresholds and
    biases to the integers: after each step how many spikes of each layer are the same, and accuracy, clean and under PGD.
    With --image, the first layer, step and neuron in which one image differs, and which rounding did it.
    """
    from toolchain import deployment, resources
    from toolchain.deployed import divergence, explain, terminal

    settings = deployment.Settings(profile=profile, weight_bits=weight_bits, bits_budget=bits_budget, theta=theta)
    path = resources.model_path(model)
    if image is not None:
        result = explain.explain(path, settings, image, log=say)
        show_result(result, as_json, lambda: terminal.explanation(result))
        return
    radius = None if eps is None else fraction(eps)
    result = divergence.inspect(path, settings, samples=samples, attacked=attacked, eps=radius, steps=steps, log=say)
    show_result(result, as_json, lambda: terminal.divergence(result))
