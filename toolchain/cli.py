"""The command line: parses, calls one verb, prints. stdout is the result, stderr is progress and log."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from toolchain import __version__
from toolchain.errors import MismatchError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    Theta = Literal["layer", "channel"]

INTERRUPTED = 130


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_profile = click.option(
    "--profile", required=True, metavar="PROFILE", help="Name of a shipped profile, or a .toml file."
)
_samples = click.option(
    "--samples", type=click.IntRange(min=1), show_default="all in the folder", help="Samples to run, from the first."
)
_kernels = click.option(
    "--kernels",
    type=click.Choice(["stock", "fast"]),
    default="stock",
    show_default=True,
    help="Lava's own convolution, or ours in its place.",
)
_folder = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))


def _quantization(command: Callable[..., Any]) -> Callable[..., Any]:
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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="rsnn-deploy")
def commands() -> None:
    """Train robust sparse spiking networks, deploy them as integers, prove the deployed network on Lava.

    Exit codes: 0 ok; 1 the answer is no (a limit exceeded, a mismatch); 2 usage, or input that cannot be read.
    """


@commands.command()
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("build/demo"),
    show_default=True,
    help="Folder to write.",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=20, show_default=True, help="Test images to run on Lava."
)
@_json
def demo(out: Path, samples: int, as_json: bool) -> None:
    """Export a shipped model, prove it on Lava, report.

    Exports digits-cnn for loihi2, runs it on Lava, compares every spike with the emulator, and prints the report. Offline;
    needs Lava, so Python 3.10.
    """
    from toolchain import deployment, report, resources, simulate

    model = resources.model_path("digits-cnn.pt")
    # Lava takes ten seconds to import: it does so while the model is being quantized.
    with simulate.Session() as lava:
        _say(f"1/3 export {model.name} for loihi2 into {out}")
        made = deployment.export(model, deployment.Settings(profile="loihi2", samples=samples), out, log=_say)
        _say(f"2/3 run {samples} test images on Lava (stock kernels) and compare every spike with the emulator")
        with _progress("Lava", samples) as advance:
            verdict = deployment.verify(out, kernels="stock", progress=advance, session=lava)
    _say("3/3 report")
    _result({"verify": verdict, "report": made}, as_json, lambda: _show_demo(verdict, made, out, report.render))
    _require(verdict)


@commands.command()
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
@_json
def run(recipe: str, out: Path, until: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train RECIPE from nothing to DIR/model.pt.

    RECIPE is a shipped name or a .toml file. A run that was interrupted goes on where it was.
    """
    from toolchain import pipeline, show
    from toolchain import recipe as recipes

    result = pipeline.run(recipes.load(recipe, overrides=overrides), out, until=until)
    _result(result, as_json, lambda: show.trained(result))


@commands.command()
@click.argument("model", metavar="MODEL")
@_profile
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path),
    show_default="build/MODEL-PROFILE",
    help="Folder to write.",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=32, show_default=True, help="Test images to put beside it."
)
@_quantization
@_json
def export(
    model: str,
    profile: str,
    out: Path | None,
    samples: int,
    weight_bits: int,
    theta: Theta,
    max_chips: int,
    as_json: bool,
) -> None:
    """Deploy MODEL for PROFILE into a folder.

    MODEL is a shipped name or a .pt file. Quantizes it to integers, maps it onto cores, and writes network.net (netx), samples.npz, run_lava.py, mapping.json,
    report.json, report.html and manifest.json. If anything fails, what was in the folder stays.
    """
    from toolchain import deployment, report, resources

    path = resources.model_path(model)
    settings = deployment.Settings(
        profile=profile, weight_bits=weight_bits, theta=theta, max_chips=max_chips, samples=samples
    )
    target = out or Path("build") / f"{path.stem}-{Path(profile).stem}"
    made = deployment.export(path, settings, target, log=_say)
    _result(made, as_json, lambda: report.render(made))
    _say(f"wrote {target}/; next: rsnn-deploy verify {target}")


@commands.command()
@click.argument("model", metavar="MODEL|DIR")
@_profile
@_quantization
@_json
def check(model: str, profile: str, weight_bits: int, theta: Theta, max_chips: int, as_json: bool) -> None:
    """Check MODEL or DIR against a profile's limits.

    MODEL is a shipped name or a .pt file, which is quantized first; DIR an exported folder, whose network is taken as it
    is. Exit code 1 where it does not fit.
    """
    from toolchain import deployment, show

    settings = deployment.Settings(profile=profile, weight_bits=weight_bits, theta=theta, max_chips=max_chips)
    result = deployment.check_limits(model, settings)
    _result(result, as_json, lambda: show.limits(result))
    click.get_current_context().exit(0 if result["fits"] else 1)


@commands.command()
@_folder
@click.option(
    "--backend",
    type=click.Choice(["lava", "emulator"]),
    default="lava",
    show_default=True,
    help="Intel's simulator, or our emulator, which computes the same integers.",
)
@_samples
@_kernels
@_json
def simulate(folder: Path, backend: str, samples: int | None, kernels: str, as_json: bool) -> None:
    """Run the samples of an exported DIR.

    Prints the class and the logits of each.
    """
    from toolchain import deployment, show

    with _progress(backend, samples) as advance:
        result = deployment.simulate_folder(folder, backend=backend, samples=samples, kernels=kernels, progress=advance)
    _result(result, as_json, lambda: show.simulation(result))


@commands.command()
@_folder
@_samples
@_kernels
@click.option("--allow-silent", is_flag=True, help="Accept layers that never or always spike.")
@_json
def verify(folder: Path, samples: int | None, kernels: str, allow_silent: bool, as_json: bool) -> None:
    """Prove an exported DIR on Lava, spike for spike.

    Compares the emulator with Lava in every layer, step and neuron; exit code 1 where they differ.
    """
    from toolchain import deployment, show

    with _progress("Lava", samples) as advance:
        verdict = deployment.verify(
            folder, samples=samples, kernels=kernels, allow_silent=allow_silent, progress=advance
        )
    _result(verdict, as_json, lambda: show.verdict(verdict))
    _require(verdict)


@commands.command()
@_folder
@click.option(
    "--energy", type=click.Choice(["all", "eq12", "hardware"]), default="all", show_default=True, help="Models."
)
@click.option(
    "--html", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write it as one HTML page too."
)
@_json
def report(folder: Path, energy: str, html: Path | None, as_json: bool) -> None:
    """Print what an exported DIR is and costs.

    Layers, cores, memory, activity, energy, accuracy; each figure with how it is known. The page needs no network and
    nothing but itself; export leaves one in DIR.
    """
    from toolchain import deployment
    from toolchain import report as reports

    made = deployment.read_report(folder, energy=energy)
    if html:
        deployment.write_page(folder, made, html)
        _say(f"wrote {html}")
    _result(made, as_json, lambda: reports.render(made))


@commands.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--attack",
    type=click.Choice(["none", "fgsm", "pgd-ens"]),
    default="pgd-ens",
    show_default=True,
    help="The strongest attack to try; an image counts as right if every surrogate's fails.",
)
@click.option("--eps", metavar="NUMBER", show_default="the recipe's", help="Radius in pixels of [0, 1], such as 8/255.")
@click.option(
    "--samples", type=click.IntRange(min=1), show_default="all", help="Test images to attack, from the first."
)
@click.option("--data", metavar="DATA", help="Another data set: digits, or an .npz file.")
@_json
def evaluate(model: str, attack: str, eps: str | None, samples: int | None, data: str | None, as_json: bool) -> None:
    """Measure clean and robust test accuracy.

    MODEL is a shipped name or a .pt file; what is measured is its float network, before quantization.
    """
    from toolchain import evaluate as evaluation
    from toolchain import resources

    result = evaluation.evaluate(
        resources.model_path(model), attack=attack, eps=_fraction(eps), samples=samples, data=data, log=_say
    )
    _result(result, as_json, lambda: evaluation.render(result))


@commands.group()
def profiles() -> None:
    """List, show and check hardware profiles."""


@profiles.command("list")
@_json
def list_profiles(as_json: bool) -> None:
    """List the shipped profiles."""
    from toolchain import profile, resources

    loaded = [profile.load(name) for name in resources.profiles()]
    lines = [f"{item.name:10} {item.description}" for item in loaded]
    result = {"profiles": [{"name": item.name, "description": item.description} for item in loaded]}
    _result(result, as_json, lambda: click.echo("\n".join(lines)))


@profiles.command("show")
@click.argument("name", metavar="PROFILE")
@_json
def show_profile(name: str, as_json: bool) -> None:
    """Print every number of PROFILE with its unit, how it is known and its source."""
    from toolchain import profile

    loaded = profile.load(name)
    _result(profile.to_dict(loaded), as_json, lambda: profile.render(loaded))


@profiles.command("check")
@click.argument("file", metavar="FILE")
@_json
def check_profile(file: str, as_json: bool) -> None:
    """Check a profile of your own; every fault is listed."""
    from toolchain import profile

    loaded = profile.load(file)
    result = {"name": loaded.name, "valid": True}
    _result(result, as_json, lambda: click.echo(f"{file}: profile {loaded.name} is valid"))


def _fraction(text: str | None) -> float | None:
    """Return 8/255 or 0.03 as a number."""
    if text is None:
        return None
    try:
        numerator, _, denominator = text.partition("/")
        value = float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"expected a number such as 8/255 or 0.03, got {text!r}", param_hint="--eps") from None
    if not 0 <= value <= 1:
        raise click.BadParameter(f"expected 0 to 1, got {value:g}", param_hint="--eps")
    return value


def _say_no(sentence: str) -> None:
    click.secho(f"rsnn-deploy: {sentence}", err=True, fg="red")


def _say(message: str) -> None:
    click.echo(message, err=True)


def _result(result: dict[str, Any], as_json: bool, render: Callable[[], object]) -> None:
    if as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        render()


def _progress(label: str, total: int | None) -> Any:
    """Return a context whose value is called with the samples done; it draws on a terminal's stderr only."""
    from toolchain.progress import samples_done

    return samples_done(label, total)


def _show_demo(
    verdict: dict[str, Any], made: dict[str, Any], out: Path, render: Callable[[dict[str, Any]], None]
) -> None:
    from toolchain import show

    render(made)
    show.verdict(verdict)
    click.echo(f"Everything is in {out}/: network.net runs on stock Lava with {out}/run_lava.py.")


def _require(verdict: dict[str, Any]) -> None:
    """The exit code is 1 where a verdict, which stdout has already, is no."""
    if not verdict["passed"]:
        _say_no(str(MismatchError(where="verify", reason=verdict["reason"])))
        click.get_current_context().exit(MismatchError.exit_code)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits; each error is one sentence, and with --json one object, and no traceback reaches a user."""
    given = sys.argv[1:] if args is None else args
    try:
        code = commands.main(given, prog_name="rsnn-deploy", standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = _failed(given, error.format_message(), click.UsageError, error.exit_code)
    except click.Abort:
        _say_no("interrupted")
        code = _failed(given, "interrupted", KeyboardInterrupt, INTERRUPTED)
    except Exception as error:
        if os.environ.get("RSNN_DEPLOY_DEBUG"):
            raise
        sentence = _sentence(error)
        _say_no(sentence)
        code = _failed(given, sentence, type(error), error.exit_code if isinstance(error, ToolchainError) else 2)
    sys.exit(code)


def _sentence(error: Exception) -> str:
    match error:
        case ToolchainError():
            return str(error)
        case OSError():
            return f"{error.filename or 'the system'}: {error.strerror or error}"
    return f"internal error, {type(error).__name__}: {error}; RSNN_DEPLOY_DEBUG=1 shows where. Please report it"


def _failed(given: Sequence[str], sentence: str, kind: type[BaseException], code: int) -> int:
    """An error is on stdout too where JSON was asked for; returns the exit code."""
    if "--json" in given:
        with contextlib.suppress(OSError):  # a full or closed stdout may be the very error
            click.echo(json.dumps({"error": {"kind": kind.__name__, "message": sentence}, "exit_code": code}))
    return code
