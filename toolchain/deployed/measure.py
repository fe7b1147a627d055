"""`evaluate` for the integer network: the attacks of the method on what the chip computes, beside the float network.

Attacks follow the gradients of `Chain`. Whether an image is broken is decided by the emulator, on pixels a sensor delivers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolchain import attacks, deployment, emulate, nets, ranks, spiking, store
from toolchain import profile as profiles
from toolchain.deployed import images as adversarial
from toolchain.deployed.chain import Chain
from toolchain.deployed.fingerprint import fingerprint
from toolchain.errors import ConfigError, MismatchError
from toolchain.evaluate import DEFAULT, Outcome, accuracy, attacked, bootstrap, compare, sanity, stored
from toolchain.evaluate.checks import IMAGES
from toolchain.evaluate.delivery import Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from toolchain.attacks import Member
    from toolchain.data import Split
    from toolchain.evaluate.state import State
    from toolchain.nets import Net
    from toolchain.quantize import Quantized
    from toolchain.store import Model

TRANSFERS = ("transfer-snn", "transfer-ann")
"""PGD's images against the float network, by all its gradients, and against a network without spikes, tried on the integers."""

ATTACKS = (*DEFAULT, *TRANSFERS)
"""What is tried where nothing else is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """A model's integers in the three forms an evaluation needs: the network, its module, and what its emulator says."""

    made: Quantized
    chain: Chain
    target: Target

    @property
    def fingerprint(self) -> str:
        """What tells the network from others."""
        return fingerprint(self.made.network)


def evaluate(
    path: Path | str,
    settings: deployment.Settings,
    *,
    attack: Sequence[str] = ATTACKS,
    eps: Sequence[float] = (),
    steps: int | None = None,
    samples: int | None = None,
    data: str | None = None,
    exhaustive: bool = False,
    checks: bool = True,
    out: Path | None = None,
    beside: Path | None = None,
    ann: Path | None = None,
    save_images: Path | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = lambda _line: None,
    advance: Callable[[int, int], None] = lambda _n, _of: None,
) -> dict[str, Any]:
    """What `evaluate.evaluate` returns, of the integers a model becomes by `settings`, and how they differ from the float network.

    Every attack is made against the integers and against the float network, each by its own gradients, and their right
    images are paired. An outcome tells accuracy on pixels rounded as a sensor does and before. beside: the model whose float network
    that is, such as the one a healed model was made from; by default the model itself. ann: a model without spikes for
    `transfer-ann`; by default the float network's weights with ReLUs. save_images: a file for the images that the integers
    got. Raises: FormatError; ConfigError and UnsupportedError, before anything is attacked; MismatchError where gradients
    are not those of what the emulator computes.
    """
    model = store.load(path)
    where = stored.usable(device)
    floating = model if beside is None else _fitting(beside, model, spikes=True)
    net = nets.restore(floating).to(where)
    whole = stored.test_images(model, data)
    split = whole if samples is None else whole.first(samples)
    deployed = made_ready(model, settings, device=device, log=log)
    names = _names(deployed.chain, attack, model.n_classes)
    recipe = model.recipe
    steps = recipe.attack.steps if steps is None else steps
    radii = tuple(dict.fromkeys(eps)) or (recipe.attack.eps,)
    indices = np.arange(len(split))
    keys: dict[str, Any] = {"steps": steps, "seed": recipe.seed, "exhaustive": exhaustive}
    states: tuple[State | None, State | None] = (None, None)
    if out is not None:
        others = {"float": beside, "ann": ann}
        more: dict[str, Any] = {name: "own" if each is None else store.sha256(each) for name, each in others.items()}
        states = (
            stored.claimed(out, path, split, indices, network=deployed.fingerprint, **keys, **more),
            stored.claimed(out / "float", beside or path, split, indices, **keys),
        )
    other = floating if ann is None else _fitting(ann, model)
    sources = _sources(net, nets.restore(other).to(where))
    n_own = sum(name not in TRANSFERS for name in names)
    total = len(split) * (2 + (len(names) + n_own) * len(radii)) // ranks.size()
    common = {**keys, "indices": indices, "advance": _counted(advance, total)}
    with ranks.joined():
        _agree(deployed, split, where)
        found: list[Outcome] = []
        floats: list[Outcome | None] = []
        for name in ("none", *names):
            for radius in (0.0,) if name == "none" else radii:
                log(f"{name}{'' if name == 'none' else f' at {radius * 255:g}/255'}: {len(split)} test images")
                against, members = sources.get(name, (deployed.chain, None))
                asked = "pgd-ens" if name in TRANSFERS else name
                given: dict[str, Any] = {"eps": radius, "target": deployed.target, "state": states[0], **common}
                found.append(attacked(against, split, asked, members=members, called=name, **given))
                plain = None if name in TRANSFERS else attacked(net, split, name, eps=radius, state=states[1], **common)
                floats.append(plain)
        verdict = None
        own = [outcome for outcome in found if outcome.attack not in TRANSFERS]
        if checks and len(own) > 1:
            log(f"checks: the first {min(len(split), IMAGES)} test images")
            verdict = sanity(deployed.chain, split, own, eps=max(radii), steps=steps, seed=recipe.seed)
    result = {
        **_facts(path, model, deployed, settings),
        "float": {"path": str(beside or path), "sha256": store.sha256(beside or path)},
        "data": {
            "source": data or model.data_source,
            "split": "test",
            "n": len(split),
            "of": len(whole),
            "subset": stored.subset_of(split, whole),
        },
        "outcomes": [_entry(outcome, plain) for outcome, plain in zip(found, floats, strict=True)],
        "together": [{"eps": radius, **accuracy(_all_of(found, radius))} for radius in radii if len(names) > 1],
    }
    if verdict is not None:
        result["checks"] = verdict
    if ranks.rank() == 0 and save_images is not None:
        classify = deployed.target.classify
        made = adversarial.collected(found, split, network=deployed.fingerprint, classify=classify)
        adversarial.write(save_images, made)
    if ranks.rank() == 0 and out is not None:
        store.write_text(out / stored.RESULT, json.dumps(result, indent=2) + "\n")
    return result


def made_ready(
    model: Model,
    settings: deployment.Settings,
    *,
    device: str = "cpu",
    log: Callable[[str], None] = lambda _line: None,
) -> Deployed:
    """The integers a model becomes by `settings`, ready to be attacked. Raises UnsupportedError, RangeError, FormatError."""
    log(f"quantize for {settings.profile}")
    made = deployment.quantized(model, deployment.training_data(model), settings, profiles.read(settings.profile))
    chain = Chain(made.network, {name: facts.scale for name, facts in made.facts.items()}, device=device)
    emulator = emulate.Emulator(made.network, device=device)

    def classify(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        return emulator.run(images, activity=False).classes()

    return Deployed(made=made, chain=chain, target=Target(classify=classify, unrounded=chain.unrounded))


def _counted(advance: Callable[[int, int], None], total: int) -> Callable[[int], None]:
    """What adds up the images that it is told of."""
    done = 0

    def more(n: int) -> None:
        nonlocal done
        done += n
        advance(done, total)

    return more


def _names(chain: Chain, attack: Sequence[str], n_classes: int) -> tuple[str, ...]:
    """The attacks asked for, each once; transfers last. Raises ConfigError."""
    plain = [name for name in attack if name not in TRANSFERS]
    wanted = [name for name in TRANSFERS if name in attack or "all" in attack]
    try:
        return (*stored.fitting_names(chain, plain, n_classes), *wanted)
    except ConfigError as error:
        faults = tuple(
            fault.replace("expected one of ", f"expected one of {', '.join(TRANSFERS)}, ") for fault in error.faults
        )
        raise ConfigError(where=error.where, faults=faults) from None


def _fitting(path: Path, model: Model, *, spikes: bool = False) -> Model:
    """Another model, of the same images and classes. Raises FormatError, ConfigError."""
    other = store.load(path)
    if spikes and other.mode != "snn":
        raise ConfigError(where=str(path), faults=("is no spiking network",))
    if other.input_shape != model.input_shape or other.n_classes != model.n_classes:
        fault = (
            f"takes {other.input_shape}, {other.n_classes} classes, the model {model.input_shape}, {model.n_classes}"
        )
        raise ConfigError(where=str(path), faults=(fault,))
    return other


def _sources(net: Net, other: Net) -> dict[str, tuple[torch.nn.Module, tuple[Member, ...]]]:
    """The networks whose adversarial images are tried on the integers, and their gradients."""
    spiking.configure(other, mode="ann")
    return {"transfer-snn": (net, attacks.MEMBERS), "transfer-ann": (other, attacks.TRUE_GRADIENT)}


def _agree(deployed: Deployed, split: Split, where: torch.device) -> None:
    """Gradients are of what the emulator computes. Raises MismatchError."""
    few = split.first(IMAGES)
    with torch.no_grad():
        logits = deployed.chain(torch.tensor(few.images, device=where) / 255)
    differing = int((logits.argmax(dim=1).cpu().numpy() != deployed.target.classify(few.images)).sum())
    if differing:
        reason = f"the differentiable integers and the emulator differ on {differing} of {len(few)} images"
        raise MismatchError(where="evaluate", reason=reason)


def _facts(path: Path | str, model: Model, deployed: Deployed, settings: deployment.Settings) -> dict[str, Any]:
    return {
        "schema": "rsnn-deploy/evaluation/2",
        "model": {
            "path": str(path),
            "sha256": store.sha256(path),
            "stage": model.stage,
            "mode": model.mode,
            "sparsity": model.sparsity,
        },
        "backend": "integers",
        "deployed": {
            "profile": profiles.read(settings.profile).name,
            "theta": "channel" if any(len(facts.scale) > 1 for facts in deployed.made.facts.values()) else "layer",
            "weight_bits": {layer.name: layer.weight_bits for layer in deployed.made.network.chain},
            "network_sha256": deployed.fingerprint,
        },
    }


def _entry(outcome: Outcome, plain: Outcome | None) -> dict[str, Any]:
    """An outcome, and how it differs from the float network's under the same attack."""
    entry = outcome.to_dict()
    if plain is None:
        return entry
    paired = compare(outcome.right, plain.right)
    paired["bootstrap95"] = list(bootstrap(outcome.right, plain.right))
    return {**entry, "float": accuracy(plain.right), "against_float": paired}


def _all_of(found: Sequence[Outcome], eps: float) -> npt.NDArray[np.bool_]:
    """Which images every attack at eps leaves right."""
    rights = [outcome.right for outcome in found if outcome.eps == eps or outcome.attack == "none"]
    return np.asarray(np.logical_and.reduce(rights), dtype=np.bool_)
