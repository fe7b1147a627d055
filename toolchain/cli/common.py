"""What commands share: options, and how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
profile_option = click.option(
    "--profile", required=True, metavar="PROFILE", help="Name of a shipped profile, or a .toml file."
)
samples_option = click.option(
    "--samples", type=click.IntRange(min=1), show_default="all in the folder", help="Samples to run, from the first."
)
kernels_option = click.option(
    "--kernels",
    type=click.Choice(["stock", "fast"]),
    default="stock",
    show_default=True,
    help="Lava's own convolution, or ours in its place.",
)
folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


def quantization_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of quantizing and mapping a model."""
    for option in (
        click.option("--max-chips", type=click.IntRange(min=1), default=1, show_default=True, help="Chips to fill."),
        click.option(
            "--theta",
            type=click.Choice(["layer", "channel"]),
            default="layer",
            show_default=True,
            help="One threshold and weight scale a layer, or one an output channel.",
        ),
        click.option(
            "--weight-bits", type=click.IntRange(2, 8), default=8, show_default=True, help="Width of the weights."
        ),
    ):
        command = option(command)
    return command


def say_no(sentence: str) -> None:
    """An error stands on stderr, in red."""
    click.secho(f"rsnn-deploy: {sentence}", err=True, fg="red")


def say(message: str) -> None:
    """A line of log stands on stderr."""
    click.echo(message, err=True)


def show_result(result: dict[str, Any], as_json: bool, render: Callable[[], object]) -> None:
    """The result is on stdout, as one JSON object or rendered."""
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        render()


def progress(label: str, total: int | None) -> Any:
    """Return a context whose value is called with the samples done; it draws on a terminal's stderr only."""
    from toolchain.progress import samples_done

    return samples_done(label, total)


def counted(advance: Callable[[int], None]) -> Callable[[int], None]:
    """What takes the samples done since it was last called, for a bar that takes all done."""
    done = 0

    def more(n: int) -> None:
        nonlocal done
        done += n
        advance(done)

    return more


def require(verdict: dict[str, Any]) -> None:
    """The exit code is 1 where a verdict, which stdout has already, is no."""
    if not verdict["passed"]:
        say_no(str(MismatchError(where="verify", reason=verdict["reason"])))
        click.get_current_context().exit(MismatchError.exit_code)
