"""The second half of the main path: a trained model becomes a folder that runs on Lava, proven to be what was trained.

`export` fills the folder, `open_folder` reads it back and trusts nothing in it; `proof` runs it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolchain import assess, check, ir, mapping, store
from toolchain import profile as profiles
from toolchain.deployment import widths
from toolchain.deployment.filling import COMPARED_AT_ONCE, UNKNOWN, Graph, Origin, disagreement, fed, fill
from toolchain.deployment.folder import SCHEMA, Folder, exported_for, open_folder, read_report, write_page
from toolchain.errors import ConfigError, FormatError, UnsupportedError
from toolchain.profile import HardwareProfile, LayerProfile

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolchain.data import Data
    from toolchain.placement import Pools
    from toolchain.profile import AnyProfile
    from toolchain.quantize import Limits, Quantized
    from toolchain.store import Model

__all__ = [
    "COMPARED_AT_ONCE",
    "SCHEMA",
    "UNKNOWN",
    "Folder",
    "Settings",
    "check_limits",
    "disagreement",
    "export",
    "exported_for",
    "fed",
    "limits_of",
    "open_folder",
    "quantized",
    "read_report",
    "training_data",
    "write_page",
]

CALIBRATION_IMAGES = 256
"""Training images the scales are chosen on."""
REPORT_IMAGES = 1000
"""Test images, at most, that accuracy and activity in a report are measured on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to deploy a model. profile: shipped name or file; samples: test images put beside the network.

    weight_bits: of every layer, or of those named; the others have those recorded in the model, or 8; bits_budget: in their place, the
    mean width of a kept weight, layers narrowed where it does the least damage; theta:
    one threshold and scale a layer or an output channel, by default those recorded, or a layer's; attacked: test images
    attacked, for the report; t_step_ns: the time of a step, where it is known; pools, of `check`: `expanded` for the literal cost
    of netx's notation. Of a network made elsewhere: data, where its images are; timesteps, its steps an image; dt, mean, std, as of
    `nirfile.read`.
    """

    profile: str
    weight_bits: int | dict[str, int] | None = None
    bits_budget: float | None = None
    theta: Literal["layer", "channel"] | None = None
    max_chips: int = 1
    samples: int = 32
    attacked: int = 32
    t_step_ns: float | None = None
    pools: Pools = "merged"
    data: str | None = None
    timesteps: int | None = None
    dt: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def quantized(
    model: Model, data: Data, settings: Settings, profile: AnyProfile, *, graded: bool | None = None
) -> Quantized:
    """Return the integer network of a spiking model, its scales chosen on training images.

    A profile that networks are not placed on limits nothing but the width of weights, to what netx stores.
    graded: whether it takes messages rather than biases; by default as the profile says. Raises UnsupportedError.
    """
    from toolchain import emulate, nets, quantize

    if (budget := settings.bits_budget) is not None:
        if settings.weight_bits is not None:
            raise ConfigError(where="bits budget", faults=("expected either a width or a budget of bits, not both",))
        settings = replace(settings, weight_bits=ir.WEIGHT_BITS_MAX, bits_budget=None)
        whole = quantized(model, data, settings, profile, graded=graded)
        images = data.train.images[:CALIBRATION_IMAGES]
        settings = replace(settings, weight_bits=widths.within(budget, whole, images, profile))
    net = nets.restore(model)
    if net.mode != "snn":
        raise UnsupportedError(
            where=model.path, reason=f"stage {model.stage} has no spikes yet", remedy="Run the recipe until convert"
        )
    return quantize.quantize(
        net,
        timesteps=model.timesteps,
        masks=masks_of(model),
        images=data.train.images[:CALIBRATION_IMAGES],
        run=emulate.run,
        limits=limits_of(profile, graded=graded),
        weight_bits=_weight_bits(model, settings),
        theta=settings.theta or "layer",
        scales=_scales(model, settings),
    )


def limits_of(profile: AnyProfile, *, graded: bool | None = None) -> Limits:
    """Return what a profile allows the integers of a network to be; graded as in `quantized`."""
    from toolchain import quantize

    if not isinstance(profile, HardwareProfile):
        return quantize.Limits(weight_bits=ir.WEIGHT_BITS_MAX, bias_max=ir.BIAS_MAX, theta_max=ir.THETA_MAX)
    precision = profile.precision
    return quantize.Limits(
        weight_bits=precision.weight_bits.value,
        bias_max=precision.bias_max.value,
        theta_max=precision.theta_max.value,
        graded=profile.input == "graded" if graded is None else graded,
    )


def _weight_bits(model: Model, settings: Settings) -> int | dict[str, int]:
    if isinstance(settings.weight_bits, int):
        return settings.weight_bits
    return {**model.weight_bits, **(settings.weight_bits or {})} or 8


def _scales(model: Model, settings: Settings) -> dict[str, tuple[float, ...]]:
    """Return the scales recorded in a model, of layers that are to be as wide as they were then."""
    if settings.theta is not None:
        return {}
    now = _weight_bits(model, settings)
    wide = dict.fromkeys(model.scales, now) if isinstance(now, int) else now
    return {name: each for name, each in model.scales.items() if wide.get(name, 8) == model.weight_bits.get(name, 8)}


def _in_words(model: Model, settings: Settings) -> str:
    if settings.bits_budget is not None:
        return f"{settings.bits_budget:g} bits in the mean"
    weight_bits = _weight_bits(model, settings)
    if isinstance(weight_bits, int):
        return f"{weight_bits} bits"
    return ", ".join(f"{bits} bits in {name}" for name, bits in weight_bits.items()) + ", 8 elsewhere"


def export(
    model_path: Path, settings: Settings, out: Path, *, log: Callable[[str], None], nir: Path | None = None
) -> dict[str, Any]:
    """The folder `out` holds the deployed model, and the file `nir` its NIR graph if asked for; returns the report.

    model_path: a model of ours, a NIR graph (.nir) or a file of lava-dl (.net). Whatever fails, the files that were there stay.
    Raises CapacityError, RangeError, UnsupportedError, FormatError.
    """
    from toolchain import data as datasets
    from toolchain import nets
    from toolchain.deployment import own

    if own.is_foreign(model_path):
        return own.export(model_path, settings, out, log=log, nir=nir)
    profile = profiles.load(settings.profile)
    model = store.load(model_path)
    graph = Graph.of(nets.restore(model), masks_of(model), nir, out) if nir else None
    data = training_data(model)
    log(
        f"quantize to {_in_words(model, settings)} on {min(CALIBRATION_IMAGES, len(data.train.images))} training images"
    )
    made = quantized(model, data, settings, profile)
    wide = {layer.name: layer.weight_bits for layer in made.network.chain}
    chosen = settings if settings.bits_budget is None else replace(settings, weight_bits=wide, bits_budget=None)
    test = datasets.load_test(model.data_source, model.recipe.data).first(max(REPORT_IMAGES, settings.samples))
    origin = Origin(
        name=model.recipe.name,
        sha256=store.sha256(model_path),
        made=made,
        n_weights=model.n_weights,
        n_nonzero_weights=model.n_nonzero_weights,
        images=test.images,
        labels=test.labels,
        with_messages=lambda: quantized(model, data, chosen, profile, graded=True).network,
        attacked=functools.partial(assess.attacked, model, made.network),
        metrics=model.metrics,
    )
    return fill(out, origin, settings, profile, log=log, graph=graph)


def masks_of(model: Model) -> dict[str, Any]:
    """Return the masks of a model's layers by name, True for a synapse."""
    return {name.removesuffix(".weight"): mask.numpy() for name, mask in model.mask.items()}


def training_data(model: Model) -> Data:
    """Return the training images of a model's own data set. Raises FormatError where the data set has changed."""
    from toolchain import data as datasets

    data = datasets.load(model.data_source, model.recipe.data)
    if data.sha256 != model.data_sha256:
        reason = "its data set is not the one the model was trained on, so its test images may be training images"
        raise FormatError(path=model.data_source, reason=reason)
    return data


def check_limits(target: str, settings: Settings) -> dict[str, Any]:
    """Return what a model file, or the network of an exported folder, uses of a profile's limits.

    Raises CapacityError where the network cannot even be placed.
    """
    from toolchain import resources
    from toolchain.deployment import own

    profile = profiles.read(settings.profile)
    if not isinstance(profile, LayerProfile):
        profile = profiles.load(settings.profile)
    notes: tuple[str, ...] = ()
    if Path(target).is_dir():
        network = open_folder(Path(target)).deployment.network
    elif own.is_foreign(target):
        found = own.read(resources.model_path(target), settings, profile)
        network, notes = found.made.network, found.notes
    else:
        model = store.load(resources.model_path(target))
        network = quantized(model, training_data(model), settings, profile).network
    if isinstance(profile, LayerProfile):
        verdict, used = check.check_layers(network, profile), (len(network.chain), 1)
    else:
        placed = mapping.place(network, profile, max_chips=settings.max_chips, pools=settings.pools)
        verdict, used = check.check(network, placed, profile), (placed.n_cores, placed.n_chips)
    return {
        **verdict.to_dict(),
        "fits": not verdict.violations,
        "sentences": [str(error) for error in verdict.errors()],
        "n_cores": used[0],
        "n_chips": used[1],
        "notes": list(notes),
    }
