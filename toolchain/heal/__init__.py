"""Makes a model good as the integers it becomes: a few epochs of its own robust objective, with their forward pass.

The mask stays frozen. It begins as the integers that `quantize` finds, whose scales stay and are recorded in the model, so that every verb that
quantizes it finds the integers it was trained as. Validation images say whether it helped; test images are never looked at.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from toolchain import attacks, deployment, evaluate, nets, spiking, store, train
from toolchain import profile as profiles
from toolchain.deployed.measure import made_ready
from toolchain.errors import ConfigError, RangeError, UnsupportedError
from toolchain.heal.rounded import Rounded
from toolchain.quantize.scale import Widths
from toolchain.recipe import HEAL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from toolchain.attacks.gradient import Model
    from toolchain.data import Split
    from toolchain.evaluate.delivery import Target
    from toolchain.ir import Network
    from toolchain.recipe import Recipe

__all__ = ["SCHEMA", "Rounded", "heal"]

SCHEMA = "rsnn-deploy/heal/1"
_STATES = 5
"""What an epoch kept, weights and momenta, takes while the next is written, and the model, in states of the network."""
EPOCHS = 10
LR_SHARE = 0.3
"""Of the finetune's learning rate: what is there is to be mended, not trained anew."""
ROBUST = 2.5
"""Times the recipe's `loss.weight`: rounding costs robustness before it costs accuracy. On the 216 validation images of digits-cnn at
4 bits, four runs ended 3 to 7 points above the float network under PGD, and -3 to +0.5 with the recipe's own weight; clean alike."""


def heal(
    path: Path,
    out: Path,
    settings: deployment.Settings,
    *,
    epochs: int = EPOCHS,
    lr: float | None = None,
    robust: float = ROBUST,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """`out` holds the model trained as the integers it becomes by `settings`; returns how good they were and are, JSON-able.

    Where they were better before on validation images, clean and under PGD, nothing is written. lr: at the start, by default LR_SHARE
    times that of the recipe's finetune, whose schedule it is. robust: weight of the objective's robust term, times the recipe's
    `loss.weight`, where there is one (trades, mart). A run that is killed goes on from its last epoch, kept beside `out`.
    Raises: UnsupportedError for a network that is no spiking chain, or whose first layer a host computes; RangeError;
    FormatError; ConfigError where training diverges.
    """
    model = store.load(path)
    store.require_space(out.parent, _STATES * sum(tensor.nbytes for tensor in model.state.values()))
    recipe, data = model.recipe, deployment.training_data(model)
    before = made_ready(model, settings, log=log)
    network = before.made.network
    if network.input.bias is not None:
        raise UnsupportedError(
            where=network.layers[0].name,
            reason=f"on {settings.profile} a host computes it, which is not trained",
            remedy="Heal for a profile whose input is graded, such as loihi2",
        )
    net = nets.restore(model)
    figures = {
        "float": _accuracies(net, data.validation, recipe),
        "before": _accuracies(before.chain, data.validation, recipe, before.target),
    }
    scales = {name: facts.scale for name, facts in before.made.facts.items()}
    rounded = Rounded(net, network, scales, _widths(network, settings))
    log(f"integers before: {_said(figures['before'])}")
    schedule = dataclasses.replace(
        recipe.finetune, epochs=epochs, lr=LR_SHARE * recipe.finetune.lr if lr is None else lr
    )
    spiking.configure(net, surrogate=spiking.surrogate(schedule.surrogate))
    loss = dataclasses.replace(recipe.loss, weight=robust * recipe.loss.weight)
    bits = {layer.name: layer.weight_bits for layer in network.chain}
    task = {"model": store.sha256(path), "epochs": epochs, "lr": schedule.lr, "weight": loss.weight, "bits": bits}
    progress = train.Kept(out, task, log)
    weights = nets.prunable(net)
    train.fit(
        rounded,
        data.train,
        schedule,
        train.snn_loss(loss),
        seed=(recipe.seed, HEAL),
        masks={weights[name]: kept for name, kept in model.mask.items()},
        augmentation=recipe.data.augmentation,
        start=progress.last(),
        after=progress.keep,
    )
    healed = dataclasses.replace(
        model,
        stage=HEAL,
        state={name: tensor.detach().clone() for name, tensor in net.body.state_dict().items()},
        weight_bits=bits,
        scales=rounded.scales,
    )
    try:
        after = made_ready(healed, dataclasses.replace(settings, weight_bits=None, bits_budget=None, theta=None))
    except (RangeError, UnsupportedError):  # the integers were in range before
        progress.path.unlink(missing_ok=True)
        raise ConfigError(
            where="heal", faults=(f"training diverged at lr = {schedule.lr:g}; use a smaller --lr",)
        ) from None
    figures["after"] = _accuracies(after.chain, data.validation, recipe, after.target)
    log(f"integers after: {_said(figures['after'])}")
    helped = _mean(figures["after"]) >= _mean(figures["before"])
    if helped:
        store.save(dataclasses.replace(healed, metrics={**model.metrics, HEAL: {"validation": figures}}), out)
    progress.path.unlink(missing_ok=True)
    return {
        "schema": SCHEMA,
        "model": str(path),
        "out": str(out) if helped else None,
        "profile": profiles.read(settings.profile).name,
        "weight_bits": bits,
        "epochs": epochs,
        "lr": schedule.lr,
        "robust": robust,
        "validation": figures,
    }


def _widths(network: Network, settings: deployment.Settings) -> dict[str, Widths]:
    limits = deployment.limits_of(profiles.read(settings.profile))
    return {
        layer.name: Widths(weight_bits=layer.weight_bits, bias_max=limits.bias_max, theta_max=limits.theta_max)
        for layer in network.chain
    }


def _accuracies(net: Model, split: Split, recipe: Recipe, target: Target | None = None) -> dict[str, Any]:
    """Accuracy clean and under PGD by the strongest gradient, as a run measures its stages."""
    some = split.first(recipe.attack.validation or len(split))
    common: dict[str, Any] = {"steps": recipe.attack.steps, "seed": recipe.seed, "target": target}
    return {
        "none": evaluate.attacked(net, split, "none", eps=0.0, **common).to_dict(),
        "pgd-ens": evaluate.attacked(
            net, some, "pgd-ens", members=attacks.STRONGEST, eps=recipe.attack.eps, **common
        ).to_dict(),
    }


def _mean(found: dict[str, Any]) -> float:
    return float(found["none"]["accuracy"] + found["pgd-ens"]["accuracy"]) / 2


def _said(found: dict[str, Any]) -> str:
    clean, attacked = (found[name]["accuracy"] for name in ("none", "pgd-ens"))
    return f"validation accuracy {clean:.1%} clean, {attacked:.1%} under PGD"
