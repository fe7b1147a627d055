"""An exported folder is run, on the emulator or on Lava, sample by sample, and the two are compared spike for spike."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import deployment, simulate
from toolchain.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from toolchain.deployed import Adversarial
    from toolchain.deployment import Folder
    from toolchain.trace import Trace

    Progress = Callable[[int], None]


def stream_samples(
    folder: Folder,
    *,
    backend: str,
    samples: int | None,
    kernels: str,
    record: bool = True,
    session: simulate.Session | None = None,
) -> Generator[Trace, None, None]:
    """Yield what the first `samples` of a folder do on the emulator or on Lava, some at a time; with `record`, every spike too.

    session: a running Lava; by default one is started and ended.
    """
    from toolchain import emulate

    images = folder.images[: _enough(folder, samples)]
    network = folder.deployment.network
    if backend == "emulator":
        emulator = emulate.Emulator(network)
        for start in range(0, len(images), deployment.COMPARED_AT_ONCE):
            yield emulator.run(images[start : start + deployment.COMPARED_AT_ONCE], record=record)
        return
    with nullcontext(session) if session else simulate.Session() as lava:
        parts = lava.stream(
            folder.path / "network.net",
            deployment.fed(network, images)[1],
            timesteps=network.timesteps,
            kernels="fast" if kernels == "fast" else "stock",
            record=record,
            layers=[layer.name for layer in network.layers],
        )
        with closing(parts):
            yield from parts


def _until_interrupted(parts: Generator[Trace, None, None], progress: Progress | None) -> Iterator[Trace]:
    """Yield what comes; an interrupt is the end of it once something has come."""
    done = 0
    try:
        with closing(parts):
            for part in parts:
                yield part
                done += part.n_samples
                if progress:
                    progress(done)
    except KeyboardInterrupt:
        if not done:
            raise


def simulate_folder(
    path: Path,
    *,
    backend: str,
    samples: int | None,
    kernels: str,
    images: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return classes and logits of the samples of an exported folder: of those that were done before an interrupt.

    images: adversarial images, made against the same network, to run in their place; then the result also tells what they
    were classified as when they were made, and how many are classified otherwise here. Raises FormatError.
    """
    folder = deployment.open_folder(path)
    made = None if images is None else _replayed(folder, images)
    if made is not None:
        folder = replace(folder, images=made.images, labels=made.labels)
    parts = stream_samples(folder, backend=backend, samples=samples, kernels=kernels, record=False)
    logits: list[Any] = []
    spikes = np.zeros(len(folder.deployment.network.layers), dtype=np.int64)
    name = backend
    for part in _until_interrupted(parts, progress):
        name = part.backend
        logits += part.logits.tolist()
        spikes += [counts.sum() for counts in part.counts]
    labels = folder.labels[: len(logits)]
    classes = np.argmax(logits, axis=1)
    replay: dict[str, Any] = {}
    if made is not None:
        expected = made.classes[: len(logits)]
        differing = int(np.count_nonzero(classes != expected))
        replay = {"images": str(images), "expected": expected.tolist(), "differing": differing}
    layers = zip(folder.deployment.network.layers, spikes.tolist(), strict=True)
    return {
        "backend": name,
        "samples": len(logits),
        "asked": _enough(folder, samples),
        "correct": None if (labels == deployment.UNKNOWN).all() else int((classes == labels).sum()),
        "labels": labels.tolist(),
        "classes": classes.tolist(),
        "logits": logits,
        "layers": [{"name": layer.name, "spikes": total} for layer, total in layers],
        **replay,
    }


def _replayed(folder: Folder, path: Path) -> Adversarial:
    """The adversarial images of a file, if they were made against the folder's network. Raises FormatError."""
    from toolchain.deployed import fingerprint, images

    made = images.read(path)
    network = folder.deployment.network
    if made.network != fingerprint(network) or made.images.shape[1:] != network.input.shape:
        reason = f"made against another network than that of {folder.path}; export the same model with the same options"
        raise FormatError(path=str(path), reason=reason)
    if not len(made.images):
        raise FormatError(path=str(path), reason="holds no images: nothing was classified right without an attack")
    return made


def verify(
    path: Path,
    *,
    samples: int | None = None,
    kernels: str = "stock",
    allow_silent: bool = False,
    progress: Progress | None = None,
    session: simulate.Session | None = None,
) -> dict[str, Any]:
    """Return the comparison of the emulator with Lava in every layer, step and neuron of an exported folder.

    Samples are compared as they come, so that memory does not grow with them, and an interrupt leaves the verdict on those done.
    """
    from toolchain import emulate

    folder = deployment.open_folder(path)
    emulator = emulate.Emulator(folder.deployment.network)
    found: list[_Found] = []
    done = 0
    parts = stream_samples(folder, backend="lava", samples=samples, kernels=kernels, session=session)
    for lava in _until_interrupted(parts, progress):
        emulated = emulator.run(folder.images[done : done + lava.n_samples], record=True)
        found.append(_found(emulated, lava, folder.logits[done : done + lava.n_samples]))
        done += lava.n_samples
    return _verdict(found, kernels=kernels, allow_silent=allow_silent, asked=_enough(folder, samples))


def compare(
    emulated: Trace, lava: Trace, *, kernels: str, allow_silent: bool, expected: npt.NDArray[np.int64] | None = None
) -> dict[str, Any]:
    """Return where two recorded traces differ, and whether that, or a layer that never or always spikes, is a failure."""
    wanted = emulated.logits if expected is None else expected[: emulated.n_samples]
    found = [_found(emulated, lava, wanted)]
    return _verdict(found, kernels=kernels, allow_silent=allow_silent, asked=emulated.n_samples)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a comparison of some samples found. Shape: layers (L, 3), each one's neuron-steps, spikes and mismatches."""

    names: tuple[str, ...]
    backends: list[str]
    samples: int
    logits_identical: bool
    layers: npt.NDArray[np.int64]


def _found(emulated: Trace, lava: Trace, expected: npt.NDArray[np.int64]) -> _Found:
    layers = []
    for ours, theirs in zip(emulated.spikes or (), lava.spikes or (), strict=True):
        mismatches = np.count_nonzero(ours != theirs) if ours.shape == theirs.shape else ours.size
        layers.append([ours.size, np.count_nonzero(ours), mismatches])
    return _Found(
        names=emulated.layers,
        backends=[emulated.backend, lava.backend],
        samples=emulated.n_samples,
        logits_identical=np.array_equal(emulated.logits, lava.logits) and np.array_equal(emulated.logits, expected),
        layers=np.array(layers, dtype=np.int64),
    )


def _verdict(found: Sequence[_Found], *, kernels: str, allow_silent: bool, asked: int) -> dict[str, Any]:
    totals = np.sum([part.layers for part in found], axis=0)
    layers: list[dict[str, Any]] = [
        {"name": name, "spikes": int(spikes), "rate": float(spikes / size), "mismatches": int(mismatches)}
        for name, (size, spikes, mismatches) in zip(found[0].names, totals, strict=True)
    ]
    logits_identical = all(part.logits_identical for part in found)
    differing = [layer["name"] for layer in layers if layer["mismatches"]]
    extreme = [layer["name"] for layer in layers if layer["rate"] in {0.0, 1.0}]
    reason = ""
    if differing:
        reason = f"spikes differ, first in layer {differing[0]}"
    elif not logits_identical:
        reason = "logits differ"
    elif extreme and not allow_silent:
        reason = f"never or always spiking: {', '.join(extreme)}. Identical, but nothing to compare; --allow-silent accepts it"
    return {
        "identical": logits_identical and not differing,
        "passed": not reason,
        "reason": reason,
        "samples": sum(part.samples for part in found),
        "asked": asked,
        "kernels": kernels,
        "backends": found[0].backends,
        "logits_identical": logits_identical,
        "layers": layers,
    }


def _enough(folder: Folder, samples: int | None) -> int:
    held = len(folder.images)
    if samples is not None and samples > held:
        reason = f"it holds {held} samples, not {samples}; export again with --samples {samples}"
        raise FormatError(path=str(folder.path), reason=reason)
    return samples or held
