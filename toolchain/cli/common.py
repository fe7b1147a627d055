"""What commands share: options, and how they print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.errors import MismatchError

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130
"""Exit code, as of a shell, of what Ctrl-C ended"""

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
    help="Lava's own process models, or ours in their place: the same integers, sooner.",
)
folder_argument = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


def weight_bits_of(ctx: click.Context, param: click.Parameter, value: str | None) -> int | dict[str, int] | None:
    """Return a number of bits, or the pairs of LAYER=BITS that commas part."""
    if value is None:
        return None
    width = click.IntRange(1, 8)
    if "=" not in value:
        return int(width(value, param, ctx))
    pairs = [pair.partition("=") for pair in value.split(",")]
    if any(not name.strip() or not equals for name, equals, _ in pairs):
        raise click.BadParameter(f"expected a number or pairs such as conv1=4,conv2=6, got {value!r}", ctx, param)
    return {name.strip(): int(width(bits.strip(), param, ctx)) for name, _, bits in pairs}


def fraction(text: str) -> float:
    """Return 8/255 or 0.03 as a number."""
    try:
        numerator, _, denominator = text.partition("/")
        value = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"expected a number such as 8/255 or 0.03, got {text!r}", param_hint="--eps") from None
    if not 0 <= value <= 1:
        raise click.BadParameter(f"expected 0 to 1, got {value:g}", param_hint="--eps")
    return value


weight_bits_option = click.option(
    "--weight-bits",
    metavar="BITS",
    callback=weight_bits_of,
    show_default="as recorded in the model, else 8",
    help="Width of the weights, 1 to 8; or of some layers: conv1=4,conv2=6.",
)
bits_budget_option = click.option(
    "--bits-budget",
    metavar="BITS",
    type=click.FloatRange(min=2, max=8),
    help="In place of --weight-bits: so many bits a kept weight in the mean, 2 to 8; layers are narrowed where it does least damage.",
)
theta_option = click.option(
    "--theta",
    type=click.Choice(["layer", "channel"]),
    show_default="as recorded in the model, else layer",
    help="One threshold and weight scale a layer, or one an output channel.",
)


def quantization_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of quantizing and mapping a model."""
    chips = click.option("--max-chips", type=click.IntRange(min=1), default=1, show_default=True, help="Chips to fill.")
    return weight_bits_option(bits_budget_option(theta_option(chips(command))))


def numbers_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    """Return numbers that commas part."""
    if value is None:
        return None
    return tuple(float(click.FLOAT(number.strip(), param, ctx)) for number in value.split(","))


def whole_numbers_of(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Return the whole numbers of 2..8, of 2,4,8, or of a mixture of both, each once, the least first."""
    if value is None:
        return ()
    found: set[int] = set()
    for part in value.split(","):
        first, dots, last = part.partition("..")
        try:
            low, high = int(first), int(last if dots else first)
        except ValueError:
            low, high = 1, 0
        if not 1 <= low <= high <= _LARGEST:
            raise click.BadParameter(f"expected whole numbers such as 2..8 or 2,4,8, got {part.strip()!r}", ctx, param)
        found.update(range(low, high + 1))
    return tuple(sorted(found))


_LARGEST = 1024
"""A slip of the finger is no range."""


def foreign_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a network made elsewhere."""
    for option in (
        click.option(
            "--std",
            metavar="NUMBERS",
            callback=numbers_of,
            show_default="1",
            help="Likewise, what they are then divided by.",
        ),
        click.option(
            "--mean",
            metavar="NUMBERS",
            callback=numbers_of,
            show_default="0",
            help="What a NIR graph expects subtracted from pixels of [0, 1], a number a channel: 0.49,0.48,0.45.",
        ),
        click.option(
            "--dt",
            type=click.FloatRange(min=0, min_open=True),
            help="Seconds a step takes, of a NIR graph whose neurons depend on it; most libraries write for 1e-4.",
        ),
        click.option(
            "--timesteps",
            type=click.IntRange(min=1),
            show_default="as its file says",
            help="Steps an image, of a network made elsewhere.",
        ),
        click.option(
            "--data",
            metavar="DATA",
            help="Data set of a network made elsewhere: a name, a folder or an .npz, as in a recipe's data.source.",
        ),
    ):
        command = option(command)
    return command


def require_foreign(path: Path, **given: object) -> None:
    """Options of networks made elsewhere are refused for a model, which knows its data and steps."""
    names = [f"--{name}" for name, value in given.items() if value is not None]
    if not names:
        return
    from toolchain.deployment import own

    if not own.is_foreign(path):
        message = f"{' and '.join(names)} cannot be given for {path.name}: a model knows its data and its steps"
        raise click.UsageError(message)


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
    """Return a context whose value is called with the samples done, and the total where it is news; a terminal's stderr shows it."""
    from toolchain.progress import samples_done

    return samples_done(label, total)


def require(verdict: dict[str, Any]) -> None:
    """The exit code is 1 where a verdict, which stdout has already, is no."""
    if not verdict["passed"]:
        say_no(str(MismatchError(where="verify", reason=verdict["reason"])))
        click.get_current_context().exit(MismatchError.exit_code)


def require_same(result: dict[str, Any]) -> None:
    """The exit code is 1 where images, which stdout has already, are classified otherwise than when they were made."""
    if result.get("differing"):
        reason = (
            f"{result['differing']} of {result['samples']} images are classified otherwise than when they were made"
        )
        say_no(str(MismatchError(where="simulate", reason=reason)))
        click.get_current_context().exit(MismatchError.exit_code)


def require_all(result: dict[str, Any]) -> None:
    """The exit code is that of an interrupt where fewer samples are done, which stdout has already, than were asked for."""
    if result["samples"] < result["asked"]:
        say_no(f"interrupted after {result['samples']} of {result['asked']} samples")
        click.get_current_context().exit(INTERRUPTED)
