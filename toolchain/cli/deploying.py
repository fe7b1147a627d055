"""Commands from a model to a proven export: demo, export, check, simulate, verify, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolchain.cli.common import (
    folder_argument,
    foreign_options,
    json_option,
    kernels_option,
    profile_option,
    progress,
    quantization_options,
    require,
    require_all,
    require_foreign,
    require_same,
    samples_option,
    say,
    show_result,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    Theta = Literal["layer", "channel"]


@click.command()
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
@json_option
def demo(out: Path, samples: int, as_json: bool) -> None:
    """Export a shipped model, prove it on Lava, report.

    Exports digits-cnn for loihi2, runs it on Lava, compares every spike with the emulator, and prints the report. Offline;
    needs Lava, so Python 3.10.
    """
    from toolchain import deployment, proof, report, resources, simulate

    model = resources.model_path("digits-cnn.pt")
    # Lava takes ten seconds to import: it does so while the model is being quantized.
    with simulate.Session() as lava:
        say(f"1/3 export {model.name} for loihi2 into {out}")
        made = deployment.export(model, deployment.Settings(profile="loihi2", samples=samples), out, log=say)
        say(f"2/3 run {samples} test images on Lava (stock kernels) and compare every spike with the emulator")
        with progress("Lava", samples) as advance:
            verdict = proof.verify(out, kernels="stock", progress=advance, session=lava)
    say("3/3 report")
    show_result({"verify": verdict, "report": made}, as_json, lambda: _show_demo(verdict, made, out, report.render))
    require(verdict)
    require_all(verdict)


@click.command()
@click.argument("model", metavar="MODEL")
@profile_option
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
@click.option(
    "--attacked",
    type=click.IntRange(min=0),
    default=32,
    show_default=True,
    help="Test images to attack, for the report's activity and energy under attack.",
)
@click.option(
    "--t-step-ns",
    type=click.FloatRange(min=0, min_open=True),
    show_default="a lower bound, where the profile has times",
    help="Time of a step, if you know it: it prices static power.",
)
@click.option(
    "--nir",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a NIR graph too: the float network, and the integers beside it.",
)
@foreign_options
@quantization_options
@json_option
def export(
    model: str,
    profile: str,
    out: Path | None,
    samples: int,
    attacked: int,
    t_step_ns: float | None,
    nir: Path | None,
    data: str | None,
    timesteps: int | None,
    dt: float | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    weight_bits: int | dict[str, int] | None,
    bits_budget: float | None,
    theta: Theta | None,
    max_chips: int,
    as_json: bool,
) -> None:
    """Deploy MODEL for PROFILE into a folder.

    MODEL is a shipped name or a .pt file; or a NIR graph (.nir) or a .net file of lava-dl's, which need --data. Quantizes it to integers, maps it onto cores, and
    writes network.net (netx), samples.npz, run_lava.py, mapping.json, report.json, report.html and manifest.json. If anything
    fails, what was in the folder stays.
    """
    from toolchain import deployment, report, resources

    path = resources.model_path(model)
    require_foreign(path, data=data, timesteps=timesteps, dt=dt, mean=mean, std=std)
    settings = deployment.Settings(
        profile=profile,
        weight_bits=weight_bits,
        bits_budget=bits_budget,
        theta=theta,
        max_chips=max_chips,
        samples=samples,
        attacked=attacked,
        t_step_ns=t_step_ns,
        data=data,
        timesteps=timesteps,
        dt=dt,
        mean=mean,
        std=std,
    )
    target = out or Path("build") / f"{path.stem}-{Path(profile).stem}"
    made = deployment.export(path, settings, target, log=say, nir=nir)
    show_result(made, as_json, lambda: report.render(made))
    if nir:
        say(f"wrote {nir}")
    say(f"wrote {target}/; next: rsnn-deploy verify {target}")


@click.command()
@click.argument("model", metavar="MODEL|DIR")
@profile_option
@click.option(
    "--pools",
    type=click.Choice(["merged", "expanded"]),
    default="merged",
    show_default=True,
    help="Expanded: the cost of pools spread into kernels, as the netx file has them.",
)
@foreign_options
@quantization_options
@json_option
def check(
    model: str,
    profile: str,
    pools: Literal["merged", "expanded"],
    data: str | None,
    timesteps: int | None,
    dt: float | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    weight_bits: int | dict[str, int] | None,
    bits_budget: float | None,
    theta: Theta | None,
    max_chips: int,
    as_json: bool,
) -> None:
    """Check MODEL or DIR against a profile's limits.

    MODEL is a shipped name, a .pt file or a NIR graph (.nir, with --data), which is quantized first; DIR an exported folder, or a .net
    file of lava-dl's, whose network is taken as it is. Exit code 1 where it does not fit.
    """
    from toolchain import deployment, show

    require_foreign(Path(model), data=data, timesteps=timesteps, dt=dt, mean=mean, std=std)
    settings = deployment.Settings(
        profile=profile,
        weight_bits=weight_bits,
        bits_budget=bits_budget,
        theta=theta,
        max_chips=max_chips,
        pools=pools,
        data=data,
        timesteps=timesteps,
        dt=dt,
        mean=mean,
        std=std,
    )
    result = deployment.check_limits(model, settings)
    show_result(result, as_json, lambda: show.limits(result))
    click.get_current_context().exit(0 if result["fits"] else 1)


@click.command()
@click.argument("model", metavar="MODEL")
@profile_option
@click.option("--cores", type=click.IntRange(min=1), help="Cores the network may take.")
@click.option("--chips", type=click.IntRange(min=1), help="Chips it may take, in place of --cores.")
@click.option(
    "--epochs",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Passes over the training images of the robust finetune under the new mask.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    show_default="build/MODEL-fit.pt",
    help="Model to write.",
)
@json_option
def fit(
    model: str, profile: str, cores: int | None, chips: int | None, epochs: int, out: Path | None, as_json: bool
) -> None:
    """Prune and narrow MODEL until it fits.

    Takes from each layer what costs least, finetunes, and says what was given up. Looks at training and validation images only.
    A model that fits as it is stays as it is. Where nothing helps, nothing is written and the exit code is 1.
    """
    from toolchain import fit as fitting
    from toolchain import resources, show

    path = resources.model_path(model)
    target = out or Path("build") / f"{path.stem}-fit.pt"
    result = fitting.fit(path, target, profile=profile, n_cores=cores, n_chips=chips, epochs=epochs, log=say)
    show_result(result, as_json, lambda: show.fitted(result))
    if result["out"]:
        say(f"wrote {target}; next: rsnn-deploy export {target} --profile {profile}")


@click.command()
@folder_argument
@click.option(
    "--backend",
    type=click.Choice(["lava", "emulator"]),
    default="lava",
    show_default=True,
    help="Intel's simulator, or our emulator, which computes the same integers.",
)
@samples_option
@click.option(
    "--images",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run the adversarial images of evaluate --save-images in their place; exit code 1 where a class differs.",
)
@kernels_option
@json_option
def simulate(folder: Path, backend: str, samples: int | None, images: Path | None, kernels: str, as_json: bool) -> None:
    """Run the samples of an exported DIR.

    Prints the class and the logits of each. An interrupt prints those that are done; exit code 130.
    """
    from toolchain import proof, show

    with progress(backend, samples) as advance:
        result = proof.simulate_folder(
            folder, backend=backend, samples=samples, kernels=kernels, images=images, progress=advance
        )
    show_result(result, as_json, lambda: show.simulation(result))
    require_same(result)
    require_all(result)


@click.command()
@folder_argument
@samples_option
@kernels_option
@click.option("--allow-silent", is_flag=True, help="Accept layers that never or always spike.")
@json_option
def verify(folder: Path, samples: int | None, kernels: str, allow_silent: bool, as_json: bool) -> None:
    """Prove an exported DIR on Lava, spike for spike.

    Compares the emulator with Lava in every layer, step and neuron; exit code 1 where they differ. An interrupt prints the
    verdict on the samples that are done; exit code 130 where it is good.
    """
    from toolchain import proof, show

    with progress("Lava", samples) as advance:
        verdict = proof.verify(folder, samples=samples, kernels=kernels, allow_silent=allow_silent, progress=advance)
    show_result(verdict, as_json, lambda: show.verdict(verdict))
    require(verdict)
    require_all(verdict)


@click.command()
@folder_argument
@click.option(
    "--energy",
    type=click.Choice(["all", "eq12", "hardware", "lemaire"]),
    default="all",
    show_default=True,
    help="Models.",
)
@click.option(
    "--proxy", is_flag=True, help="Price the events with another chip's coefficients too, where the profile names some."
)
@click.option(
    "--html", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False), help="Write it as one HTML page too."
)
@click.option(
    "--evaluation",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The evaluation.json of evaluate --deployed --out: tell of its robust accuracy too.",
)
@json_option
def report(folder: Path, energy: str, proxy: bool, html: Path | None, evaluation: Path | None, as_json: bool) -> None:
    """Print what an exported DIR is and costs.

    Layers, cores, memory, activity, energy, accuracy; each figure with how it is known. The page needs no network and
    nothing but itself; export leaves one in DIR.
    """
    from toolchain import deployment
    from toolchain import report as reports

    made = deployment.read_report(folder, energy=energy, proxy=proxy)
    if evaluation:
        from toolchain.deployed import carry

        made = carry.with_robustness(made, evaluation, deployment.open_folder(folder).deployment.network)
    if html:
        deployment.write_page(folder, made, html)
        say(f"wrote {html}")
    show_result(made, as_json, lambda: reports.render(made))


def _show_demo(
    verdict: dict[str, Any], made: dict[str, Any], out: Path, render: Callable[[dict[str, Any]], None]
) -> None:
    from toolchain import show

    render(made)
    show.verdict(verdict)
    click.echo(f"Everything is in {out}/: network.net runs on stock Lava with {out}/run_lava.py.")
