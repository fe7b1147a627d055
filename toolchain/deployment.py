"""The second half of the main path: a trained model becomes a folder that runs on Lava, proven to be what was trained.

`export` fills the folder, `open_folder` reads it back and trusts nothing in it; `proof` runs it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolchain import __version__, assess, check, ir, mapping, report, store
from toolchain import export as netx
from toolchain import profile as profiles
from toolchain.errors import FormatError, UnsupportedError
from toolchain.profile import HardwareProfile, LayerProfile

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from toolchain.data import Data
    from toolchain.ir import Network
    from toolchain.placement import Pools
    from toolchain.profile import AnyProfile
    from toolchain.quantize import Limits, Quantized
    from toolchain.store import Model
    from toolchain.trace import Trace

    Images = npt.NDArray[np.uint8]
    Progress = Callable[[int], None]

SCHEMA = 1
CALIBRATION_IMAGES = 256
"""Training images the scales are chosen on."""
REPORT_IMAGES = 1000
"""Test images, at most, that accuracy and activity in a report are measured on."""
COMPARED_AT_ONCE = 32
"""Images whose every spike is held at a time."""
_FILES = ("network.net", "samples.npz", "run_lava.py", "mapping.json", "report.json", "report.html")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to deploy a model. profile: shipped name or file; samples: test images put beside the network.

    weight_bits: of every layer, or of those named; the others have those recorded in the model, or 8; attacked: test images
    attacked, for the report; t_step_ns: the time of a step, where it is known; pools, of `check`: `expanded` for the literal cost
    of netx's notation.
    """

    profile: str
    weight_bits: int | dict[str, int] | None = None
    theta: Literal["layer", "channel"] = "layer"
    max_chips: int = 1
    samples: int = 32
    attacked: int = 32
    t_step_ns: float | None = None
    pools: Pools = "merged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """An exported folder, read back. Shapes: images uint8 (S, C, H, W), labels (S,), logits int64 (S, classes)."""

    path: Path
    deployment: netx.Deployment
    images: Images
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.int64]


def quantized(
    model: Model, data: Data, settings: Settings, profile: AnyProfile, *, graded: bool | None = None
) -> Quantized:
    """Return the integer network of a spiking model, its scales chosen on training images.

    A profile that networks are not placed on limits nothing but the width of weights, to what netx stores.
    graded: whether it takes messages rather than biases; by default as the profile says. Raises UnsupportedError.
    """
    from toolchain import emulate, nets, quantize

    net = nets.restore(model)
    if net.mode != "snn":
        raise UnsupportedError(
            where=model.path, reason=f"stage {model.stage} has no spikes yet", remedy="Run the recipe until convert"
        )
    return quantize.quantize(
        net,
        timesteps=model.timesteps,
        masks={name.removesuffix(".weight"): mask.numpy() for name, mask in model.mask.items()},
        images=data.train.images[:CALIBRATION_IMAGES],
        run=emulate.run,
        limits=_limits(profile, graded=graded),
        weight_bits=_weight_bits(model, settings),
        theta=settings.theta,
    )


def _limits(profile: AnyProfile, *, graded: bool | None) -> Limits:
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


def _in_words(weight_bits: int | dict[str, int]) -> str:
    if isinstance(weight_bits, int):
        return f"{weight_bits} bits"
    return ", ".join(f"{bits} bits in {name}" for name, bits in weight_bits.items()) + ", 8 elsewhere"


def export(model_path: Path, settings: Settings, out: Path, *, log: Callable[[str], None]) -> dict[str, Any]:
    """The folder `out` holds the deployed model; returns its report.

    Whatever fails, the files that were there stay. Raises CapacityError, RangeError, UnsupportedError, FormatError.
    """
    from toolchain import data as datasets

    profile = profiles.load(settings.profile)
    model = store.load(model_path)
    data = training_data(model)
    log(
        f"quantize to {_in_words(_weight_bits(model, settings))} on {min(CALIBRATION_IMAGES, len(data.train.images))} training images"
    )
    made = quantized(model, data, settings, profile)
    placed = mapping.place(made.network, profile, max_chips=settings.max_chips)
    for error in check.check(made.network, placed, profile).errors():
        raise error
    test = datasets.load_test(model.data_source, model.recipe.data).first(max(REPORT_IMAGES, settings.samples))
    images, labels = test.images, test.labels
    log(f"emulate {len(images)} test images")
    done = assess.run(made.network, images)
    facts: dict[str, Any] = {
        "model": _model_facts(model, made, store.sha256(model_path)),
        "profile": {"name": profile.name, "sha256": profile.sha256},
        "quantization": {name: dataclasses.asdict(fact) for name, fact in made.facts.items()},
        "version": __version__,
    }
    if made.network.input.bias:
        log(f"compare with the network that would take messages on {len(images)} test images")
        other = quantized(model, data, settings, profile, graded=True)
        facts["against_messages"] = disagreement(made.network, other.network, images)
    deployment = netx.Deployment(network=made.network, mapping=placed, masks=made.masks, facts=facts)
    content = {
        "network.net": netx.pack(deployment),
        "samples.npz": _samples(deployment, images, labels, done.trace, settings.samples),
        "run_lava.py": Path(__file__).with_name("run_lava.py").read_bytes(),
        "mapping.json": _json(dataclasses.asdict(placed)),
    }
    n_attacked = min(settings.attacked, len(images))
    if n_attacked:
        log(f"attack {n_attacked} test images")
    made_report = assess.reported(
        report.Subject(network=made.network, masks=made.masks, profile=profile, mapping=placed, facts=facts),
        images,
        labels,
        done=done,
        attacked=assess.attacked(model, made.network, images[:n_attacked], labels[:n_attacked]) if n_attacked else None,
        stored_bytes=len(content["network.net"]),
        metrics=model.metrics,
        t_step_ns=settings.t_step_ns,
    )
    content["report.json"] = _json(made_report)
    content["report.html"] = report.page.render(made_report).encode()
    manifest = {
        "schema": SCHEMA,
        "version": __version__,
        "settings": dataclasses.asdict(settings),
        "model_sha256": facts["model"]["sha256"],
        "profile_sha256": profile.sha256,
        "files": {name: hashlib.sha256(content[name]).hexdigest() for name in _FILES},
    }
    # The manifest goes last: a folder half replaced does not match it.
    store.write_files(out, {**content, "manifest.json": _json(manifest)})
    return made_report


def training_data(model: Model) -> Data:
    """Return the training images of a model's own data set. Raises FormatError where the data set has changed."""
    from toolchain import data as datasets

    data = datasets.load(model.data_source, model.recipe.data)
    if data.sha256 != model.data_sha256:
        reason = "its data set is not the one the model was trained on, so its test images may be training images"
        raise FormatError(path=model.data_source, reason=reason)
    return data


def open_folder(path: Path) -> Folder:
    """Return an exported folder whose files are those of its manifest. Raises FormatError."""
    _check_manifest(path)
    deployment = netx.read(path / "network.net")
    return Folder(path=path, deployment=deployment, **_read_samples(path / "samples.npz", deployment.network))


def _read_samples(path: Path, network: Network) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("images", "labels", "logits")}
    except Exception as error:  # noqa: BLE001  a hostile file can make numpy and zipfile raise anything
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise FormatError(path=str(path), reason=f"not the samples of an export ({what})") from None
    n_samples = len(arrays["images"]) if arrays["images"].ndim else 0
    expected = {
        "images": ("uint8", (n_samples, *network.input.shape)),
        "labels": ("int64", (n_samples,)),
        "logits": ("int64", (n_samples, len(network.readout.weight))),
    }
    for name, array in arrays.items():
        if not n_samples or (array.dtype.name, array.shape) != expected[name]:
            reason = f"not the samples of this network: {name} has type {array.dtype} and shape {array.shape}"
            raise FormatError(path=str(path), reason=reason)
    return arrays


def read_report(path: Path, *, energy: str = "all", proxy: bool = False) -> dict[str, Any]:
    """Return the report of an exported folder, with `all` energy models or one, and with another chip's coefficients or not.

    Raises FormatError.
    """
    _check_manifest(path)
    file = path / "report.json"
    try:
        made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        schema, _ = made["schema"], made["energy"]
    except (ValueError, KeyError, TypeError):
        raise FormatError(path=str(file), reason="not a report; export again") from None
    if schema != report.SCHEMA:
        reason = f"schema {schema} is not the {report.SCHEMA} this version reads; export again"
        raise FormatError(path=str(file), reason=reason)
    if proxy:
        made = report.with_proxies(made, _same_profile(path, made))
    return made if energy == "all" else report.only(made, energy)


def exported_for(path: Path) -> str:
    """Return the name or file of the profile an export was made for."""
    return str(json.loads((path / "manifest.json").read_text(encoding="utf-8"))["settings"]["profile"])


def _same_profile(path: Path, made: dict[str, Any]) -> HardwareProfile:
    """Return the profile an export was made for. Raises FormatError where it has changed."""
    profile = profiles.load(exported_for(path))
    if profile.sha256 != made["profile"]["sha256"]:
        reason = f"profile {profile.name} is not the one it was exported for; export again"
        raise FormatError(path=str(path), reason=reason)
    return profile


def write_page(folder: Path, made: dict[str, Any], file: Path) -> None:
    """`file` is the HTML page of a report of an exported folder. Raises FormatError where it would replace part of the export."""
    if file.resolve().parent == folder.resolve() and file.name in {*_FILES, "manifest.json"}:
        raise FormatError(
            path=str(file), reason="part of the export, which its manifest vouches for; take another name"
        )
    store.write_bytes(file, report.page.render(made).encode())


def check_limits(target: str, settings: Settings) -> dict[str, Any]:
    """Return what a model file, or the network of an exported folder, uses of a profile's limits.

    Raises CapacityError where the network cannot even be placed.
    """
    from toolchain import resources

    profile = profiles.read(settings.profile)
    if not isinstance(profile, LayerProfile):
        profile = profiles.load(settings.profile)
    if Path(target).is_dir():
        network = open_folder(Path(target)).deployment.network
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
    }


def _check_manifest(path: Path) -> None:
    try:
        manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
        schema, hashes = manifest["schema"], manifest["files"]
        if schema != SCHEMA:
            reason = f"schema {schema} is not the {SCHEMA} this version reads; export again"
            raise FormatError(path=str(path), reason=reason)
        for name in _FILES:
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != hashes[name]:
                raise FormatError(path=str(path / name), reason="not the file that was exported; export again")
    except OSError as error:
        reason = f"not an exported folder: {Path(error.filename or path).name} is missing or unreadable"
        raise FormatError(path=str(path), reason=reason) from None
    except (ValueError, KeyError, TypeError):
        raise FormatError(path=str(path / "manifest.json"), reason="not a manifest; export again") from None


def _samples(deployment: netx.Deployment, images: Images, labels: Any, trace: Trace, count: int) -> bytes:
    if count > len(images):
        reason = f"{count} samples asked for, the test set gives {len(images)}; use --samples {len(images)} or fewer"
        raise FormatError(path="test set", reason=reason)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=images[:count],
        **dict([fed(deployment.network, images[:count])]),
        labels=labels[:count].astype(np.int64),
        logits=trace.logits[:count],
    )
    return buffer.getvalue()


def fed(network: Network, images: Images) -> tuple[str, npt.NDArray[np.int16]]:
    """Return what the chip is fed with and its name: messages, or the biases the host sets."""
    from toolchain import emulate

    if network.input.bias:
        return "biases", emulate.Emulator(network).biases(images)
    return "messages", network.input.encode(images).astype(np.int16)


def disagreement(network: Network, graded: Network, images: Images) -> dict[str, Any]:
    """Return in how many neuron-steps, and for how many images in their class, two networks of the same layers differ."""
    from toolchain import emulate

    one, other = emulate.Emulator(network), emulate.Emulator(graded)
    differing = np.zeros(len(network.layers), dtype=np.int64)
    spikes = np.zeros((2, len(network.layers)), dtype=np.int64)
    classes = 0
    for start in range(0, len(images), COMPARED_AT_ONCE):
        pair = [each.run(images[start : start + COMPARED_AT_ONCE], record=True) for each in (one, other)]
        recorded = [trace.spikes or () for trace in pair]
        differing += [np.count_nonzero(ours != theirs) for ours, theirs in zip(*recorded, strict=True)]
        spikes += [[np.count_nonzero(layer) for layer in layers] for layers in recorded]
        classes += int(np.count_nonzero(pair[0].classes() != pair[1].classes()))
    steps = len(images) * network.timesteps
    return {
        "samples": len(images),
        "classes_differing": classes,
        "layers": [
            {
                "name": layer.name,
                "spikes": int(spikes[0, index]),
                "spikes_messages": int(spikes[1, index]),
                "differing": int(differing[index]),
                "differing_share": int(differing[index]) / (steps * int(np.prod(network.shapes[index]))),
            }
            for index, layer in enumerate(network.layers)
        ],
    }


def _model_facts(model: Model, made: Quantized, sha256: str) -> dict[str, Any]:
    return {
        "name": model.recipe.name,
        "sha256": sha256,
        "sparsity": model.sparsity,
        "n_weights": model.n_weights,
        "n_nonzero_weights": model.n_nonzero_weights,
        "T": made.network.timesteps,
    }


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
