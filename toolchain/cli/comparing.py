"""Commands that set deployments side by side: compare, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from toolchain.cli.common import (
    json_option,
    numbers_of,
    profile_option,
    quantization_options,
    say,
    show_result,
    theta_option,
    whole_numbers_of,
)

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


def widths_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Return weight widths, each 1 to 8."""
    found = whole_numbers_of(ctx, param, value)
    for bits in found:
        click.IntRange(1, 8).convert(bits, param, ctx)
    return found


def shares_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    """Return shares, each below 1."""
    found = numbers_of(ctx, param, value) or ()
    for share in found:
        if not 0 <= share < 1:  # true of nan too, which a FloatRange lets pass
            raise click.BadParameter(f"expected shares from 0 to below 1 such as 0,0.95, got {share:g}", ctx, param)
    return found


@click.command()
@click.argument("model", metavar="MODEL")
@profile_option
@click.option(
    "--bits",
    metavar="NUMBERS",
    callback=widths_of,
    show_default="as recorded in the model, else 8",
    help="Widths of the weights, 1 to 8: 2..8, or 2,4,8.",
)
@click.option(
    "--timesteps",
    metavar="NUMBERS",
    callback=whole_numbers_of,
    show_default="the model's",
    help="Steps an image: 2..8, or 2,4,8.",
)
@click.option(
    "--sparsity",
    metavar="NUMBERS",
    callback=shares_of,
    show_default="the model's",
    help="Shares of the weights to be pruned: 0,0.95,0.99. One that the model has already means the model as it is.",
)
@click.option("--samples", type=click.IntRange(min=1), show_default="all", help="Validation images to run, at most.")
@click.option(
    "--attacked",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Validation images to attack with PGD, at most.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Passes of the model's own robust finetune for each other number of steps and sparsity.",
)
@click.option(
    "--early-exit", is_flag=True, help="Also say what it saves and costs to stop an image once its class is settled."
)
@theta_option
@click.option("--max-chips", type=click.IntRange(min=1), default=1, show_default=True, help="Chips to fill.")
@click.option(
    "--device", default="cpu", show_default=True, metavar="DEVICE", help="Where attacks are computed: cpu or cuda."
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    show_default="runs/sweep-MODEL-PROFILE",
    help="Folder of the sweep; goes on with what is there.",
)
@json_option
def sweep(
    model: str,
    profile: str,
    bits: tuple[int, ...],
    timesteps: tuple[int, ...],
    sparsity: tuple[float, ...],
    samples: int | None,
    attacked: int,
    epochs: int,
    early_exit: bool,
    theta: Theta | None,
    max_chips: int,
    device: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Measure MODEL in every combination of widths, steps and sparsities.

    Each is a row: clean and robust accuracy of its integers on validation images, cores, energy, latency, and whether another
    beats it. DIR also gets sweep.json and a plot, sweep.svg. The same weights run with other steps, and further pruned: nothing is
    finetuned unless --epochs says so. A combination that does not fit is a row that says why. Goes on after a kill.
    """
    from toolchain import deployment, resources
    from toolchain import sweep as sweeping

    path = resources.model_path(model)
    target = out or Path("runs") / f"sweep-{path.stem}-{Path(profile).stem}"
    settings = deployment.Settings(profile=profile, theta=theta, max_chips=max_chips)
    effort = sweeping.Effort(samples=samples, attacked=attacked, early_exit=early_exit, device=device)
    result = sweeping.sweep(
        path,
        target,
        settings,
        bits=bits,
        timesteps=timesteps,
        sparsity=sparsity,
        effort=effort,
        epochs=epochs,
        log=say,
    )
    show_result(result, as_json, lambda: sweeping.render(result))
    say(f"wrote {target / sweeping.RESULT} and {target / sweeping.DRAWING}")
