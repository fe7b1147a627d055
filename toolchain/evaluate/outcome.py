"""Which images a network gets right under one attack."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from toolchain import attacks, ranks, spiking
from toolchain.attacks import ensemble
from toolchain.errors import ConfigError
from toolchain.evaluate.delivery import Delivery
from toolchain.evaluate.statistics import accuracy
from toolchain.train import pixels, stream

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from toolchain.attacks import Broken, Member
    from toolchain.attacks.gradient import Model
    from toolchain.data import Split
    from toolchain.evaluate.delivery import Target
    from toolchain.evaluate.state import State

STEPS = 10
"""Of PGD, APGD and search."""

UNIT = 256
"""Images that are attacked together, and whose result is kept when the evaluation is killed."""

ATTACKS = (
    *("none", "noise", "fgsm-ens", "pgd-ens", "apgd-ce-ens", "apgd-dlr-ens", "search-ens", "rga"),
    *("square-500", "square-1000", "square-5000", "autoattack"),
)
"""Names of attacks. The ensembles are those of 19 gradients for a spiking network, of one for an ANN; other numbers may
stand behind `square`."""

DEFAULT = ("fgsm-ens", "pgd-ens", "search-ens")
"""What a network meets where nothing is asked for: the method's two, and what shows how far they flatter."""

SHORT = {
    "fgsm": "fgsm-ens",
    "pgd": "pgd-ens",
    "apgd-ce": "apgd-ce-ens",
    "apgd-dlr": "apgd-dlr-ens",
    "search": "search-ens",
    "square": "square-5000",
}

_BATCH = {"cpu": 64, "cuda": UNIT}  # on a CPU, more would leave its cache

_MEMORY_BYTES = {"cpu": 2**30, "cuda": 2**33}
_BYTES_PER_ACTIVATION = 32  # its membrane, spike, and what convolution and batch norm keep of it, in float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Which images a network gets right under one attack.

    Shapes: clean (N,), right without an attack; right (N,), clean and under all members; members[name] (N,), under one,
    where `exhaustive` images that earlier members broke included, else only those still standing. Of a deployed network
    also: delivered uint8 (N, C, H, W), the adversarial images as rounded; unrounded (N,), right had they not been.
    """

    attack: str
    eps: float
    steps: int
    clean: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    members: Mapping[str, npt.NDArray[np.bool_]]
    exhaustive: bool
    delivered: npt.NDArray[np.uint8] | None = None
    unrounded: npt.NDArray[np.bool_] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Accuracy, interval and members in plain types."""
        result: dict[str, Any] = {"attack": self.attack, **accuracy(self.right)}
        if self.attack == "none":
            return result
        result["eps"] = self.eps
        if self.attack.startswith(("pgd", "apgd", "search", "rga", "transfer")):
            result["steps"] = self.steps
        if self.unrounded is not None:
            result["before_rounding"] = accuracy(self.unrounded)
        result["members"] = {}
        standing = self.clean
        for name, right in self.members.items():
            n_before, standing = int(standing.sum()), standing & right
            entry = {"n_broken": n_before - int(standing.sum()), "accuracy_so_far": float(standing.mean())}
            alone = {"accuracy_alone": float(right.mean())} if self.exhaustive else {}
            result["members"][name] = {**entry, **alone}
        return result


def attacked(
    model: Model,
    split: Split,
    attack: str,
    *,
    eps: float,
    steps: int = STEPS,
    seed: int = 0,
    members: Sequence[Member] | None = None,
    exhaustive: bool = False,
    indices: npt.NDArray[np.int64] | None = None,
    state: State | None = None,
    target: Target | None = None,
    called: str | None = None,
    advance: Callable[[int], None] = lambda _n: None,
) -> Outcome:
    """Which images of a split `model` gets right, clean and under every member of an attack.

    model: any callable from images to logits; a module with spiking neurons meets all 19 members, or those given.
    indices: of the split's images in their data set, by which their random numbers are drawn: with them an image's fate
    depends neither on the others nor on how many there are. state: where finished units are kept and taken from. target: a
    deployed network that decides in place of the model, on rounded pixels; called: the attack's name, where the model is not
    that network's own. Processes that torchrun started share the units.
    Raises: ConfigError for an attack that does not exist or does not suit the model.
    """
    name = canonical(attack)
    chosen = suited(model, name) if members is None else tuple(members)
    indices = np.arange(len(split)) if indices is None else indices
    device = device_of(model)
    images, labels = pixels(split.images).to(device), torch.tensor(split.labels, device=device)
    batch = min(_BATCH.get(device.type, UNIT), _batch(model, images[:1]))
    title = called or name
    found = {}
    firsts = range(0, len(split), UNIT)
    for first in ranks.mine(firsts):
        unit = slice(first, first + UNIT)
        shape = None if target is None or name == "none" else tuple(images[unit].shape)
        done = None if state is None else state.read(title, eps, first, len(labels[unit]), chosen, delivered=shape)
        if done is None:
            done = _broken(
                model,
                images[unit],
                labels[unit],
                name,
                eps=eps,
                steps=steps,
                members=chosen,
                seed=seed,
                indices=indices[unit],
                exhaustive=exhaustive,
                batch=batch,
                target=target,
            )
            if state is not None:
                state.write(title, eps, first, chosen, done)
        found[first] = done
        advance(len(done.right))
    everyone = ranks.gathered(found)
    parts = [everyone[first] for first in firsts]
    shown = chosen if name.endswith(("-ens", "rga")) else ()
    return Outcome(
        attack=title,
        eps=eps,
        steps=steps,
        clean=_joined([part.clean for part in parts]),
        right=_joined([part.right for part in parts]),
        members={member.name: _joined([part.members[member.name] for part in parts]) for member in shown},
        exhaustive=exhaustive,
        delivered=_joined_if([part.delivered for part in parts]),
        unrounded=_joined_if([part.unrounded for part in parts]),
    )


def canonical(attack: str) -> str:
    """The full name of an attack. Raises ConfigError."""
    name = SHORT.get(attack, attack)
    if name in ATTACKS or re.fullmatch(r"square-[1-9]\d{0,6}", name):
        return name
    raise ConfigError(where="attack", faults=(f"expected one of {', '.join(ATTACKS)}, got {attack!r}",))


def suited(model: Model, attack: str) -> tuple[Member, ...]:
    """The members an attack has for a model. Raises ConfigError where there are none."""
    spikes = _spikes(model)
    if attack == "autoattack" and spikes:
        fault = "autoattack takes a network with a true gradient, and this one spikes; use apgd-ce-ens or apgd-dlr-ens"
        raise ConfigError(where="attack", faults=(fault,))
    if attack == "rga":
        if not spikes:
            raise ConfigError(where="attack", faults=("rga takes a spiking network, and this one does not spike",))
        return attacks.RATE_GRADIENT
    if attack == "none":
        return ()
    return attacks.MEMBERS if spikes and attack.endswith("-ens") else attacks.TRUE_GRADIENT


def every(model: Model) -> tuple[str, ...]:
    """The attacks of `all`: those that suit the model and need no extra."""
    apart = {"noise", "autoattack"} if _spikes(model) else {"noise", "autoattack", "rga"}
    return tuple(name for name in ATTACKS if name not in apart)


def _broken(
    model: Model,
    images: Tensor,
    labels: Tensor,
    name: str,
    *,
    eps: float,
    steps: int,
    members: Sequence[Member],
    seed: int,
    indices: npt.NDArray[np.int64],
    exhaustive: bool,
    batch: int,
    target: Target | None,
) -> Broken:
    delivery = None if target is None else Delivery(target, images, labels, eps)
    if name == "none":
        clean = ensemble.judged(model, images, labels, batch=batch) if delivery is None else delivery.clean()
        return attacks.Broken(clean=clean, right=clean, members={})
    settings: dict[str, Any] = {"members": members, "survivors_only": not exhaustive, "batch": batch}
    if delivery is not None:
        settings["judge"] = delivery.judge
    if name == "fgsm-ens":
        broken = attacks.strongest_fgsm(model, images, labels, eps=eps, **settings)
    else:
        settings["clean"] = None if delivery is None else delivery.clean()
        verb, streams = _verb(name, eps, steps, seed), _streams(seed, name, indices)
        broken = attacks.strongest(model, images, labels, verb, streams=streams, **settings)
    if delivery is None:
        return broken
    return replace(broken, delivered=delivery.images, unrounded=broken.clean & delivery.unrounded)


def _verb(name: str, eps: float, steps: int, seed: int) -> ensemble.Attack:
    from toolchain.attacks import auto

    def crafted(verb: Callable[..., Tensor], **settings: Any) -> ensemble.Attack:
        return lambda model, x, y, generators: verb(model, x, y, eps=eps, generator=generators, **settings)

    match name:
        case "noise":
            return crafted(attacks.noise)
        case "pgd-ens" | "rga":
            return crafted(attacks.pgd, steps=steps)
        case "apgd-ce-ens" | "apgd-dlr-ens":
            return crafted(attacks.apgd, steps=steps, loss=name.removeprefix("apgd-").removesuffix("-ens"))
        case "search-ens":
            return crafted(attacks.search, steps=steps)
        case "autoattack":
            return lambda model, x, y, _generators: auto.autoattack(model, x, y, eps=eps, seed=seed)
        case _:
            return crafted(attacks.square, queries=int(name.removeprefix("square-")))


def _streams(seed: int, attack: str, indices: npt.NDArray[np.int64]) -> ensemble.Streams:
    """A generator for each image and member, whatever the batch."""

    def streams(member: Member, chosen: Tensor) -> list[torch.Generator]:
        return [stream(seed, attack, member.name, int(indices[index])) for index in chosen.tolist()]

    return streams


def _spikes(model: Model) -> bool:
    layers = spiking.neurons(model) if isinstance(model, nn.Module) else []
    return bool(layers) and layers[0].mode == "snn"


def device_of(model: Model) -> torch.device:
    """Where a model's parameters are."""
    tensors = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def _batch(model: Model, image: Tensor) -> int:
    """How many images a gradient of the model may be taken for at once, by the activations of one."""
    if not isinstance(model, nn.Module) or not len(image):
        return UNIT
    count = 0

    def hook(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal count
        count += output.numel()

    handles = [layer.register_forward_hook(hook) for layer in spiking.neurons(model)]
    try:
        with attacks.evaluating(model), torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    return max(1, _MEMORY_BYTES.get(image.device.type, 2**30) // (_BYTES_PER_ACTIVATION * max(1, count)))


def _joined(parts: list[Tensor]) -> npt.NDArray[np.bool_]:
    return np.asarray(torch.cat([part.cpu() for part in parts]).numpy(), dtype=np.bool_)


def _joined_if(parts: list[Tensor | None]) -> npt.NDArray[Any] | None:
    there = [part.cpu() for part in parts if part is not None]
    return torch.cat(there).numpy() if there else None
