"""Commands of the float side, and what trains and measures integers in its place: init, run, heal, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.cli.common import (
    bits_budget_option,
    fraction,
    json_option,
    profile_option,
    progress,
    say,
    say_no,
    show_result,
    theta_option,
    weight_bits_option,
)
from toolchain.cli.measuring import deployed_options, measure_deployed, refuse_without

if TYPE_CHECKING:
    from typing import Literal


@click.command()
@click.argument("file", metavar="[FILE]", default="recipe.toml", type=click.Path(path_type=Path))
@click.option("--data", metavar="DATA", help="The images: an .npz file, a folder, or the name of a published set.")
@json_option
def init(file: Path, data: str | None, as_json: bool) -> None:
    """Write a commented recipe for your own data to FILE.

    FILE is recipe.toml by default, and must not exist. With --data, the images are read, and the recipe fits them.
    """
    from toolchain import start

    result = start.write(file, data)
    show_result(result, as_json, lambda: start.render(result))


@click.command()
@click.argument("recipe", metavar="RECIPE")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the run; goes on with what is there.",
)
@click.option("--until", metavar="STAGE", help="Stop after train, prune, sparse, convert or finetune.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe. Repeatable."
)
@click.option(
    "--reuse",
    multiple=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another run's folder: stages whose recipe is the same up to there are taken from it. Repeatable.",
)
@json_option
def run(
    recipe: str, out: Path, until: str | None, overrides: tuple[str, ...], reuse: tuple[Path, ...], as_json: bool
) -> None:
    """Train RECIPE from nothing to DIR/model.pt.

    RECIPE is a shipped name or a .toml file. A run that was interrupted goes on where it was.
    """
    from toolchain import pipeline, show
    from toolchain import recipe as recipes

    result = pipeline.run(recipes.load(recipe, overrides=overrides), out, until=until, reuse=reuse)
    show_result(result, as_json, lambda: show.trained(result))


@click.command()
@click.argument("model", metavar="MODEL")
@profile_option
@weight_bits_option
@bits_budget_option
@theta_option
@click.option(
    "--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="Passes over the training images."
)
@click.option(
    "--lr",
    type=click.FloatRange(min=0, min_open=True),
    show_default="0.3 times that of the recipe's finetune",
    help="Learning rate at the start.",
)
@click.option(
    "--robust",
    type=click.FloatRange(min=0),
    default=2.5,
    show_default=True,
    help="Weight of the objective's robust term, times the recipe's loss.weight (trades, mart).",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="build/MODEL-healed.pt",
    help="Model to write.",
)
@json_option
def heal(
    model: str,
    profile: str,
    weight_bits: int | dict[str, int] | None,
    bits_budget: float | None,
    theta: Literal["layer", "channel"] | None,
    epochs: int,
    lr: float | None,
    robust: float,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train MODEL as the integers it becomes.

    A few epochs of its own robust objective with the integers' forward pass: weights are rounded, gradients pass straight through;
    thresholds and biases are trained, the mask stays. Goes on after a kill. Looks at training and validation images only; where
    the integers were better before, nothing is written and the exit code is 1.
    """
    from toolchain import deployment, resources, show
    from toolchain import heal as healing

    path = resources.model_path(model)
    target = out or Path("build") / f"{path.stem}-healed.pt"
    settings = deployment.Settings(profile=profile, weight_bits=weight_bits, bits_budget=bits_budget, theta=theta)
    result = healing.heal(path, target, settings, epochs=epochs, lr=lr, robust=robust, log=say)
    show_result(result, as_json, lambda: show.healed(result))
    if result["out"] is None:
        click.get_current_context().exit(1)
    say(f"wrote {target}; next: rsnn-deploy export {target} --profile {profile}")


def svg(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Return the path of an .svg file."""
    if value is not None and value.suffix != ".svg":
        raise click.BadParameter(f"expected a name that ends in .svg, got {value.name!r}", ctx, param)
    return value


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    metavar="ATTACK",
    help="none, fgsm-ens, pgd-ens, apgd-ce-ens, apgd-dlr-ens, search-ens, rga, square-QUERIES, autoattack (ANNs only), "
    "noise, or all that suit the model; with --deployed also transfer-snn, transfer-ann. Repeatable.  [default: fgsm-ens, "
    "pgd-ens and search-ens; with --deployed also the transfers]",
)
@click.option(
    "--eps",
    multiple=True,
    metavar="NUMBER",
    show_default="the recipe's",
    help="Radius in pixels of [0, 1], such as 8/255. Repeatable.",
)
@click.option("--steps", type=click.IntRange(min=1), show_default="the recipe's", help="Steps of PGD, APGD and search.")
@click.option(
    "--samples", type=click.IntRange(min=1), show_default="all", help="Test images to attack, from the first."
)
@click.option("--data", metavar="DATA", help="Another data set: digits, or an .npz file.")
@click.option("--exhaustive", is_flag=True, help="Let every gradient attack every image, to see each alone. Slower.")
@click.option("--checks/--no-checks", default=True, show_default=True, help="Look for signs of gradient masking.")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder for the result and what it takes to go on after an interruption.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=svg,
    help="An .svg file to draw robust accuracy against eps in.",
)
@click.option("--device", default="cpu", show_default=True, metavar="DEVICE", help="cpu or cuda.")
@deployed_options
@json_option
def evaluate(
    model: str,
    attacks: tuple[str, ...],
    eps: tuple[str, ...],
    steps: int | None,
    samples: int | None,
    data: str | None,
    exhaustive: bool,
    checks: bool,
    out: Path | None,
    plot: Path | None,
    device: str,
    deployed: bool,
    as_json: bool,
    **integers: Any,
) -> None:
    """Measure clean and robust test accuracy.

    MODEL is a shipped name or a .pt file; what is measured is its float network, before quantization, or with --deployed the
    integers a chip computes, beside it. An image counts as right if it is classified right clean and under every gradient of
    an attack: 19 for a spiking network. Exit code 1 where a check finds signs of gradient masking.
    """
    from toolchain import evaluate as evaluation
    from toolchain import resources, store

    refuse_without("--deployed", deployed, integers)
    with progress("attacked", None) as advance:
        settings: dict[str, Any] = {
            "eps": tuple(fraction(text) for text in eps),
            "steps": steps,
            "samples": samples,
            "data": data,
            "exhaustive": exhaustive,
            "checks": checks,
            "out": out,
            "device": device,
            "log": say,
            "advance": advance,
        }
        path = resources.model_path(model)
        if deployed:
            result, render = measure_deployed(path, attacks, settings, **integers)
        else:
            result = evaluation.evaluate(path, attack=attacks or evaluation.DEFAULT, **settings)
            render = evaluation.render
    show_result(result, as_json, lambda: render(result))
    if plot is not None:
        store.write_text(plot, evaluation.plot(result))
    if "checks" in result and not result["checks"]["passed"]:
        say_no(f"checks: {result['checks']['verdict']}")
        click.get_current_context().exit(1)
