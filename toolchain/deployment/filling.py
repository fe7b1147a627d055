"""What an exported folder is filled with, wherever its network comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import __version__, assess, check, mapping, report, store
from toolchain import export as netx
from toolchain.deployment.folder import FILES, SCHEMA, check_apart
from toolchain.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from toolchain.deployment import Settings
    from toolchain.ir import Network
    from toolchain.nets import Net
    from toolchain.profile import HardwareProfile
    from toolchain.quantize import Quantized
    from toolchain.trace import Trace

    Images = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]

COMPARED_AT_ONCE = 32
"""Images whose every spike is held at a time."""
UNKNOWN = -1
"""Label, in `samples.npz`, of an image that came without one."""
_LAVA_SCRIPT = Path(__file__).parents[1] / "run_lava.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """An integer network, what it was made from, and the images to show it on.

    sha256: of the file it came from; n_weights, n_nonzero_weights: as trained, before kernels were composed; labels: None where
    nobody knows them; notes: what was taken for what nobody said; with_messages: the network that would take messages, where this
    one takes biases; attacked: what it does on images attacked through its float model.
    """

    name: str
    sha256: str
    made: Quantized
    n_weights: int
    n_nonzero_weights: int
    images: Images
    labels: Labels | None
    with_messages: Callable[[], Network] | None = None
    attacked: Callable[[Images, Labels], report.Attacked] | None = None
    metrics: Mapping[str, Any] | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A float SNN to write as a NIR graph, which can be written."""

    net: Net
    masks: Mapping[str, Any]
    path: Path

    @classmethod
    def of(cls, net: Net, masks: Mapping[str, Any], path: Path, out: Path) -> Graph:
        """Return the graph. Raises UnsupportedError where NIR cannot hold it, FormatError where it would replace part of `out`."""
        from toolchain import nirfile

        check_apart(out, path)
        nirfile.write(net, masks, b"")
        return cls(net=net, masks=masks, path=path)

    def write(self, integers: bytes) -> None:
        """The file is the graph, with its integers beside it."""
        from toolchain import nirfile

        store.write_bytes(self.path, nirfile.write(self.net, self.masks, integers))


def fill(
    out: Path,
    origin: Origin,
    settings: Settings,
    profile: HardwareProfile,
    *,
    log: Callable[[str], None],
    graph: Graph | None = None,
) -> dict[str, Any]:
    """The folder `out` holds the network, placed and reported, and a file its graph if given; returns the report.

    Whatever fails, the files that were there stay. Raises CapacityError, UnsupportedError, FormatError.
    """
    made, images, labels = origin.made, origin.images, origin.labels
    placed = mapping.place(made.network, profile, max_chips=settings.max_chips)
    for error in check.check(made.network, placed, profile).errors():
        raise error
    kind = "test images" if labels is not None else "images"
    log(f"emulate {len(images)} {kind}")
    done = assess.run(made.network, images)
    facts: dict[str, Any] = {
        "model": _model_facts(origin),
        "profile": {"name": profile.name, "sha256": profile.sha256},
        "quantization": {name: dataclasses.asdict(fact) for name, fact in made.facts.items()},
        "version": __version__,
        **({"notes": list(origin.notes)} if origin.notes else {}),
    }
    if made.network.input.bias and origin.with_messages:
        log(f"compare with the network that would take messages on {len(images)} {kind}")
        facts["against_messages"] = disagreement(made.network, origin.with_messages(), images)
    deployment = netx.Deployment(network=made.network, mapping=placed, masks=made.masks, facts=facts)
    content = {
        "network.net": netx.pack(deployment),
        "samples.npz": _samples(deployment, images, labels, done.trace, settings.samples),
        "run_lava.py": _LAVA_SCRIPT.read_bytes(),
        "mapping.json": _json(dataclasses.asdict(placed)),
    }
    n_attacked = min(settings.attacked, len(images))
    attacked = None
    if n_attacked and origin.attacked and labels is not None:
        log(f"attack {n_attacked} test images")
        attacked = origin.attacked(images[:n_attacked], labels[:n_attacked])
    made_report = assess.reported(
        report.Subject(network=made.network, masks=made.masks, profile=profile, mapping=placed, facts=facts),
        images,
        labels,
        done=done,
        attacked=attacked,
        stored_bytes=len(content["network.net"]),
        metrics=origin.metrics,
        t_step_ns=settings.t_step_ns,
    )
    content["report.json"] = _json(made_report)
    content["report.html"] = report.page.render(made_report).encode()
    manifest = {
        "schema": SCHEMA,
        "version": __version__,
        "settings": dataclasses.asdict(settings),
        "model_sha256": origin.sha256,
        "profile_sha256": profile.sha256,
        "files": {name: hashlib.sha256(content[name]).hexdigest() for name in FILES},
    }
    # The manifest goes last: a folder half replaced does not match it.
    store.write_files(out, {**content, "manifest.json": _json(manifest)})
    if graph:
        graph.write(content["network.net"])
    return made_report


def _model_facts(origin: Origin) -> dict[str, Any]:
    n_weights, kept = origin.n_weights, origin.n_nonzero_weights
    return {
        "name": origin.name,
        "sha256": origin.sha256,
        "sparsity": 1 - kept / n_weights,
        "n_weights": n_weights,
        "n_nonzero_weights": kept,
        "T": origin.made.network.timesteps,
    }


def _samples(deployment: netx.Deployment, images: Images, labels: Labels | None, trace: Trace, count: int) -> bytes:
    if count > len(images):
        reason = f"{count} samples asked for, the test set gives {len(images)}; use --samples {len(images)} or fewer"
        raise FormatError(path="test set", reason=reason)
    labels = np.full(len(images), UNKNOWN) if labels is None else labels
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


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
