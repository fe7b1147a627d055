"""A network that was not trained here becomes an exported folder: `deploy` takes a module of torch, `export` a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolchain import deployment, store
from toolchain import export as netx
from toolchain import profile as profiles
from toolchain.deployment.filling import Graph, Origin, fill
from toolchain.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch import nn

    from toolchain.adopt import Adopted
    from toolchain.data import Split
    from toolchain.deployment import Settings
    from toolchain.ir import Network
    from toolchain.profile import AnyProfile
    from toolchain.quantize import Quantized

    Images = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]

_SUFFIXES = {".net", ".nir"}


def deploy(
    module: nn.Module,
    example: Images,
    *,
    profile: str,
    out: Path | str | None = None,
    test: tuple[Images, Labels] | None = None,
    timesteps: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    weight_bits: int | dict[str, int] | None = None,
    theta: Literal["layer", "channel"] = "layer",
    max_chips: int = 1,
    samples: int = 32,
    t_step_ns: float | None = None,
    nir: Path | str | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """The folder `out`, by default build/CLASS-PROFILE, holds a module of torch, deployed for a profile; returns its report, as `export` does of a model.

    The module is a chain of Conv2d, BatchNorm2d, spiking neurons (our IF, SpikingJelly's IFNode, snnTorch's Leaky), AvgPool2d,
    Linear, Dropout and Flatten, in a Sequential or run one after the other by its forward, or has skip connections from spikes; see `adopt`.

    example: images that the scales are chosen on, and where there is no `test` those of the report; test: images and labels that
    accuracy, activity and samples are of; timesteps: steps an image, by default those of the module's IF layers; mean, std: of
    each channel, where the module expects (image - mean) / std of images in [0, 1]; nir: a file for its NIR graph; the rest as in
    `Settings`.

    Shapes: images uint8 (N, C, H, W); labels (N,).
    Raises: UnsupportedError, which names a submodule by its dotted path; ConfigError; RangeError and CapacityError where it fits no
    integers or no cores. Whatever fails, the files that were there stay.
    """
    from toolchain import adopt

    _check_images("example", example)
    channels, height, width = example.shape[1:]
    adopted = adopt.adopt(module, (channels, height, width), timesteps=timesteps, mean=mean, std=std)
    images, labels = test or (example, None)
    if labels is not None:
        _check_images("test", images, example.shape[1:])
        labels = np.asarray(labels, dtype=np.int64)
        if labels.shape != (len(images),):
            fault = f"expected a label of each of {len(images)} images, got shape {labels.shape}"
            raise ConfigError(where="test", faults=(fault,))
    settings = deployment.Settings(
        profile=profile,
        weight_bits=weight_bits,
        theta=theta,
        max_chips=max_chips,
        samples=min(samples, len(images)),
        attacked=0,
        t_step_ns=t_step_ns,
        timesteps=adopted.net.timesteps,
    )
    chip = profiles.load(profile)
    log(f"quantize on {min(deployment.CALIBRATION_IMAGES, len(example))} images")
    made = quantized(adopted, example, settings, chip)
    origin = Origin(
        name=type(module).__name__,
        sha256=_digest(adopted),
        made=made,
        n_weights=sum(mask.size for mask in made.masks.values()),
        n_nonzero_weights=sum(int(mask.sum()) for mask in made.masks.values()),
        images=images[: max(deployment.REPORT_IMAGES, settings.samples)],
        labels=None if labels is None else labels[: max(deployment.REPORT_IMAGES, settings.samples)],
        with_messages=lambda: quantized(adopted, example, settings, chip, graded=True).network,
    )
    folder = Path(out or Path("build") / f"{origin.name}-{Path(profile).stem}")
    graph = Graph.of(adopted.net, adopted.masks, Path(nir), folder) if nir else None
    return fill(folder, origin, settings, chip, log=log, graph=graph)


def is_foreign(target: str | Path) -> bool:
    """Whether a file holds, by its name, a network made elsewhere."""
    return Path(target).suffix in _SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """The integer network of a file, the test images it is shown on, and what was taken for what the file does not say.

    adopted: its float SNN, where it has one; with_messages: as of `Origin`.
    """

    made: Quantized
    test: Split | None
    notes: tuple[str, ...]
    adopted: Adopted | None = None
    with_messages: Callable[[], Network] | None = None


def read(path: Path, settings: Settings, profile: AnyProfile) -> Foreign:
    """Return the integer network of a file, for a profile. Raises UnsupportedError, FormatError, ConfigError, RangeError."""
    if settings.bits_budget is not None:
        fault = "a budget of bits is for models of ours; use --weight-bits, which takes single layers too"
        raise ConfigError(where=str(path), faults=(fault,))
    return (_lavadl if path.suffix == ".net" else _nir)(path, settings, profile)


def _lavadl(path: Path, settings: Settings, _profile: AnyProfile) -> Foreign:
    from toolchain import data, lavadl, quantize

    given = (settings.weight_bits, settings.dt, settings.mean, settings.std)
    if settings.theta is not None or any(value is not None for value in given):
        fault = "its integers are taken as they are; leave out --weight-bits, --theta, --dt, --mean and --std"
        raise ConfigError(where=str(path), faults=(fault,))
    test = data.load_test(settings.data) if settings.data else None
    found = lavadl.read(path, timesteps=settings.timesteps)
    masks = {layer.name: layer.weight != 0 for layer in found.network.chain}
    notes = found.notes
    if test and test.images.shape[1:] != found.network.input.shape:
        test = _flat(path, test, found.network.input.shape)
        notes = (*notes, "Images are taken to be flattened channel by channel, each row by row.")
    return Foreign(made=quantize.Quantized(network=found.network, masks=masks, facts={}), test=test, notes=notes)


def _flat(path: Path, test: Split, shape: tuple[int, int, int]) -> Split:
    """Return images as a flat input takes them. Raises ConfigError where they are not of its shape."""
    n, *map_ = shape
    given = test.images.shape[1:]
    if map_ != [1, 1] or n != np.prod(given):
        taken = f"images of {shape}" if map_ != [1, 1] else f"{n:,} values an image"
        fault = f"its input takes {taken}, the data have {given}"
        raise ConfigError(where=str(path), faults=(fault,))
    return replace(test, images=test.images.reshape(-1, *shape))


def _nir(path: Path, settings: Settings, profile: AnyProfile) -> Foreign:
    from toolchain import data, nirfile, quantize

    if settings.data is None:
        fault = "say with --data where its images are, for the scales of its integers are chosen on those"
        raise ConfigError(where=str(path), faults=(fault,))
    loaded = data.load(settings.data)
    found = nirfile.read(
        path, loaded.shape, timesteps=settings.timesteps, dt=settings.dt, mean=settings.mean, std=settings.std
    )
    test, images = data.load_test(settings.data), loaded.train.images
    if found.integers and _wanted_as_they_are(settings):
        held = netx.unpack(found.integers, str(path))
        if _same_input(held.network, profile):
            made = quantize.Quantized(network=held.network, masks=dict(held.masks), facts={})
            return Foreign(made=made, test=test, notes=("The integers beside the graph are deployed as they are.",))
    return Foreign(
        made=quantized(found.adopted, images, settings, profile),
        test=test,
        notes=found.notes,
        adopted=found.adopted,
        with_messages=lambda: quantized(found.adopted, images, settings, profile, graded=True).network,
    )


def _wanted_as_they_are(settings: Settings) -> bool:
    """Whether nothing is asked for that integers would be made anew for."""
    asked = (settings.weight_bits, settings.timesteps, settings.dt, settings.mean, settings.std)
    return settings.theta in {None, "layer"} and all(value is None for value in asked)


def _same_input(network: Network, profile: AnyProfile) -> bool:
    """Whether a profile takes its input as the network does: messages, or biases."""
    return deployment.limits_of(profile).graded == (network.input.bias is None)


def export(
    path: Path, settings: Settings, out: Path, *, log: Callable[[str], None], nir: Path | None = None
) -> dict[str, Any]:
    """The folder `out` holds the network of a file, on test images of `settings.data`; returns its report.

    nir: a file for its NIR graph. Raises as `read` and `fill`.
    """
    if settings.data is None:
        fault = "say with --data where its test images are, for accuracy and activity are of those"
        raise ConfigError(where=str(path), faults=(fault,))
    chip = profiles.load(settings.profile)
    found = read(path, settings, chip)
    assert found.test
    if nir and not found.adopted:
        raise UnsupportedError(
            where=str(path), reason="its integers are deployed as they are, and a NIR graph is of floats"
        )
    graph = Graph.of(found.adopted.net, found.adopted.masks, nir, out) if nir and found.adopted else None
    for note in found.notes:
        log(f"assumed: {note}")
    test = found.test.first(max(deployment.REPORT_IMAGES, settings.samples))
    origin = Origin(
        name=path.stem,
        sha256=store.sha256(path),
        made=found.made,
        n_weights=sum(mask.size for mask in found.made.masks.values()),
        n_nonzero_weights=sum(int(mask.sum()) for mask in found.made.masks.values()),
        images=test.images,
        labels=test.labels,
        notes=found.notes,
        with_messages=found.with_messages,
    )
    return fill(out, origin, settings, chip, log=log, graph=graph)


def quantized(
    adopted: Adopted, images: Images, settings: Settings, profile: AnyProfile, *, graded: bool | None = None
) -> Quantized:
    """Return the integer network of an adopted one, its scales chosen on the first of the images."""
    from toolchain import emulate, quantize

    return quantize.quantize(
        adopted.net,
        timesteps=adopted.net.timesteps,
        masks=adopted.masks,
        images=images[: deployment.CALIBRATION_IMAGES],
        run=emulate.run,
        limits=deployment.limits_of(profile, graded=graded),
        weight_bits=settings.weight_bits or 8,
        theta=settings.theta or "layer",
    )


def _check_images(name: str, images: Any, shape: tuple[int, ...] | None = None) -> None:
    """Raise ConfigError unless they are uint8 images, of the given shape."""
    array = np.asarray(images)
    if array.dtype != np.uint8 or array.ndim != 4 or not array.size or (shape and array.shape[1:] != shape):
        wanted = ", ".join(map(str, shape)) if shape else "C, H, W"
        fault = f"expected uint8 images (N, {wanted}), values 0 to 255, got {array.dtype} {array.shape}"
        raise ConfigError(where=name, faults=(fault,))


def _digest(adopted: Adopted) -> str:
    """Return the hash of a network's parameters and statistics, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(adopted.net.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()
