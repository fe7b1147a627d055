"""Fits a trained model into a budget of cores: prunes it further and narrows its weights where that costs least.

A layer's state is the share of its weights that is kept and their width. From where the model is, each round takes one step of one
layer, the one that saves most for the damage it does, until the network is placed on the cores there are. Masks only shrink,
by importance; a short robust finetune under the new mask follows.

Equations: importance of a weight = |w| x how active its source is; damage = mean KL(p || p'), in nats, of the float SNN's
outputs on training images, p' those of pruned weights rounded to their width. Both are choices of this project.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from toolchain import check, deployment, emulate, evaluate, finetune, mapping, nets, pipeline, store
from toolchain import profile as profiles
from toolchain.errors import CapacityError, ConfigError, MismatchError
from toolchain.ir import WEIGHT_BITS_MAX
from toolchain.prune import top
from toolchain.train import pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from toolchain.data import Split
    from toolchain.ir import AnyLayer, Network
    from toolchain.nets import Net
    from toolchain.placement import Mapping as Placement
    from toolchain.profile import HardwareProfile
    from toolchain.store import Model

SCHEMA = "rsnn-deploy/fit/1"
IMAGES = 128
"""Training images that damage and activity are measured on."""
KEEP = 0.8
"""Share of a layer's kept weights that a step keeps."""
LEAST_KEPT = 0.002
"""Share of a layer's weights below which it is not pruned."""
BITS_MIN = 2
_NO_DAMAGE = 1e-9
"""What counts as none, in nats."""
CONSIDERED = 4
"""Layers a round looks at: those on the most cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What the network has to fit into."""

    profile: HardwareProfile
    n_cores: int

    @property
    def max_chips(self) -> int:
        """Chips that have that many cores."""
        return max(1, -(-self.n_cores // self.profile.chip.cores.value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """How a layer is deployed: its mask, of its weight's shape, and the width of its weights."""

    mask: Tensor
    bits: int

    @property
    def sparsity(self) -> float:
        """Share of the weights that is pruned."""
        return 1 - int(self.mask.sum()) / self.mask.numel()


Plan = dict[str, Layer]
"""By the layer's name"""


def fit(
    path: Path,
    out: Path,
    *,
    profile: str,
    n_cores: int | None = None,
    n_chips: int | None = None,
    epochs: int = 3,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """`out` holds the model made to fit, unless it fits as it is; returns what was given up, JSON-able.

    The test set is not looked at. Raises CapacityError, with nothing written, where no mask and no width fit; UnsupportedError for
    a model that does not spike or a profile without cores; ConfigError, FormatError.
    """
    about = {"schema": SCHEMA, "model": str(path)}
    budget = _budget(profile, n_cores, n_chips)
    model = store.load(path)
    data = deployment.training_data(model)
    settings = deployment.Settings(profile=profile)
    network = deployment.quantized(model, data, settings, budget.profile).network
    before, plan = _place(network, budget), _plan(model, network)
    if before and before.n_cores <= budget.n_cores:
        return {**about, "out": None, **_result(budget, (plan, plan), (before, before), None)}
    net = nets.restore(model)
    images = pixels(data.train.images[:IMAGES])
    task = Task(network=network, importance=importance(net, images), budget=budget)
    log(f"{before.n_cores if before else 'more than any number of'} cores, {budget.n_cores} allowed")
    found = _search(net, plan, task, images, log)
    made = _applied(model, net, found)
    if epochs:
        log(f"finetune {epochs} epochs under the new mask")
        recipe = dataclasses.replace(model.recipe, finetune=dataclasses.replace(model.recipe.finetune, epochs=epochs))
        finetune.finetune_snn(
            net,
            dict(made.mask),
            data.train,
            recipe,
            after=lambda epoch: log(f"epoch {epoch.number}, loss {epoch.loss:.3f}"),
        )
        made = dataclasses.replace(_applied(model, net, found), stage="finetune")
    log("measure on validation images")
    metrics = [pipeline.measure(nets.restore(one), one, data.validation) for one in (model, made)]
    made = dataclasses.replace(made, metrics={**model.metrics, made.stage: metrics[1]})
    narrow = deployment.quantized(made, data, settings, budget.profile).network
    after = _place(narrow, budget)
    if after is None or after.n_cores > budget.n_cores or check.check(narrow, after, budget.profile).violations:
        raise MismatchError(
            where=str(path), reason="the network found does not keep to the budget once it is quantized"
        )
    store.save(made, out)
    return {
        **about,
        "out": str(out),
        **_result(budget, (plan, found), (before, after), _validation(metrics, (network, narrow), data.validation)),
    }


def _budget(profile: str, n_cores: int | None, n_chips: int | None) -> Budget:
    loaded = profiles.load(profile)
    if (n_cores is None) == (n_chips is None):
        raise ConfigError(where="fit", faults=("expected either --cores or --chips",))
    return Budget(profile=loaded, n_cores=n_cores or (n_chips or 1) * loaded.chip.cores.value)


def _place(network: Network, budget: Budget) -> Placement | None:
    """Where the network sits, on as many chips as it takes, or None where a layer fits no core."""
    try:
        return mapping.place(network, budget.profile, max_chips=1_000_000)
    except CapacityError as error:
        if error.layer == "network":
            raise
        return None


def _plan(model: Model, network: Network) -> Plan:
    """How the model is deployed as it is. A layer that the host drives has no weights on the chip."""
    weights = {
        layer.name: model.state[f"{layer.name}.weight"] for layer in network.chain if not network.is_driven(layer)
    }
    return {
        name: Layer(
            mask=model.mask.get(f"{name}.weight", weight != 0), bits=model.weight_bits.get(name, WEIGHT_BITS_MAX)
        )
        for name, weight in weights.items()
    }


def importance(net: Net, images: Tensor) -> dict[str, Tensor]:
    """|w| times the mean |activity| of the source, over images and steps. Shapes: those of the weights."""
    found: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            activity = inputs[0].abs().mean(dim=[axis for axis in range(inputs[0].ndim) if axis != 1])
            per_source = activity if isinstance(layer, nn.Linear) else activity[:, None, None]
            groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
            if groups > 1:
                shares = per_source.reshape(groups, 1, -1, 1, 1)
                weights = layer.weight.reshape(groups, -1, *layer.weight.shape[1:])
                found[name] = (weights.abs() * shares).reshape(layer.weight.shape)
            else:
                found[name] = layer.weight.abs() * per_source

        return hook

    handles = [
        layer.register_forward_pre_hook(watch(name))
        for name, layer in net.body.named_children()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.no_grad():
            net(images)
    finally:
        for handle in handles:
            handle.remove()
    return {name: scores.detach() for name, scores in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a search looks at: the integer network as it is, the importance of each layer's weights, and the budget."""

    network: Network
    importance: Mapping[str, Tensor]
    budget: Budget


def _search(net: Net, plan: Plan, task: Task, images: Tensor, log: Callable[[str], None]) -> Plan:
    """A plan that is placed within the budget. Raises CapacityError where even the least one is not."""
    _require_possible(plan, task)
    trial, weights = copy.deepcopy(net), {name: nets.prunable(net)[f"{name}.weight"].detach() for name in plan}
    with torch.no_grad():
        expected = net(images).log_softmax(dim=1)

    def damage(one: Plan) -> float:
        parameters = nets.prunable(trial)
        with torch.no_grad():
            for name, layer in one.items():
                parameters[f"{name}.weight"].copy_(_rounded(weights[name] * layer.mask, layer.bits))
            outputs = trial(images).log_softmax(dim=1)
        return float(nn.functional.kl_div(outputs, expected, log_target=True, reduction="batchmean"))

    now, cost, harm = plan, _cost(plan, task), damage(plan)
    while cost[0] > task.budget.n_cores:
        tried = []
        for name in _considered(now, task):
            for step in _steps(now[name], task.importance[name]):
                one = {**now, name: step}
                there, hurt = _cost(one, task), damage(one)
                tried.append((_gain(cost, there, hurt - harm), one, there, hurt))
        _, now, cost, harm = max(tried, key=lambda found: found[0])
        log(f"{cost[0]:.0f} cores, damage {harm:.4f}" if cost[0] < math.inf else f"no placement yet, damage {harm:.4f}")
    return now


def _gain(before: tuple[float, float], after: tuple[float, float], damage: float) -> tuple[float, float]:
    """Cores, then words, saved for each unit of damage."""
    cores = 0.0 if before[0] == after[0] else before[0] - after[0]
    return cores / max(damage, _NO_DAMAGE), (before[1] - after[1]) / max(damage, _NO_DAMAGE)


def _steps(layer: Layer, importance: Tensor) -> list[Layer]:
    """What a layer can give next."""
    steps = []
    if layer.bits > BITS_MIN:
        steps.append(dataclasses.replace(layer, bits=layer.bits - 1))
    n_kept = int(layer.mask.sum())
    fewer = max(math.floor(KEEP * n_kept), _least(layer))
    if fewer < n_kept:
        steps.append(dataclasses.replace(layer, mask=_kept(layer, importance, fewer)))
    return steps


def _least(layer: Layer) -> int:
    return max(1, math.ceil(LEAST_KEPT * layer.mask.numel()))


def _kept(layer: Layer, importance: Tensor, n: int) -> Tensor:
    """The n most important of the weights that a layer keeps."""
    among = importance.masked_fill(~layer.mask, -1.0)
    return top(among, 1 - n / among.numel())


def _rounded(weight: Tensor, bits: int) -> Tensor:
    scale = weight.abs().max() / ((1 << (bits - 1)) - 1)
    return weight if scale == 0 else (weight / scale).round() * scale


def _considered(plan: Plan, task: Task) -> list[str]:
    """The layers that take most and can still give something."""
    placed = _place(_thinned(task.network, plan), task.budget)
    taken = dict.fromkeys(plan, 0)
    for core in placed.cores if placed else ():
        if core.layer in taken:
            taken[core.layer] += 1_000_000 + core.synapse_words
    able = [name for name, layer in plan.items() if _steps(layer, task.importance[name])]
    return sorted(able, key=lambda name: -taken[name])[:CONSIDERED]


def _cost(plan: Plan, task: Task) -> tuple[float, float]:
    """Cores and words of a plan; where a layer fits no core, more than any number of cores, and the bits of its weights."""
    placed = _place(_thinned(task.network, plan), task.budget)
    if placed is None:
        return math.inf, float(sum(int(layer.mask.sum()) * layer.bits for layer in plan.values()))
    return float(placed.n_cores), float(sum(core.synapse_words for core in placed.cores))


def _thinned(network: Network, plan: Plan) -> Network:
    """The integer network with a plan's masks and widths: a weight for each kept one, as many as can be after finetuning."""

    def layer_of(layer: AnyLayer) -> Any:
        if layer.name not in plan:
            return layer
        state = plan[layer.name]
        kept = state.mask.numpy().reshape(layer.weight.shape)
        return dataclasses.replace(layer, weight=np.where(kept, -1, 0), weight_bits=state.bits)

    layers = tuple(layer_of(layer) for layer in network.layers)
    return dataclasses.replace(network, layers=layers, readout=layer_of(network.readout))


def _require_possible(plan: Plan, task: Task) -> None:
    importance, budget = task.importance, task.budget
    least = {
        name: Layer(mask=_kept(layer, importance[name], min(_least(layer), int(layer.mask.sum()))), bits=BITS_MIN)
        for name, layer in plan.items()
    }
    placed = mapping.place(_thinned(task.network, least), budget.profile, max_chips=1_000_000)
    if placed.n_cores > budget.n_cores:
        chips = -(-placed.n_cores // budget.profile.chip.cores.value)
        raise CapacityError(
            layer="network",
            core=None,
            profile=budget.profile.name,
            resource="cores",
            unit="cores",
            used=placed.n_cores,
            limit=budget.n_cores,
            remedy=(
                f"That is what its neurons take with {BITS_MIN} bit weights, {LEAST_KEPT:.1%} of them kept: allow --cores "
                f"{placed.n_cores} or --chips {chips}, or train a network with fewer channels or on smaller images"
            ),
        )


def _applied(model: Model, net: Net, plan: Plan) -> Model:
    """The model with a plan's masks and widths; the weights of `net` are those, and stay masked."""
    mask = {**model.mask, **{f"{name}.weight": layer.mask for name, layer in plan.items()}}
    nets.apply_mask(net, mask)
    return dataclasses.replace(
        model,
        state={name: tensor.detach().clone() for name, tensor in net.body.state_dict().items()},
        mask=mask,
        weight_bits={**model.weight_bits, **{name: layer.bits for name, layer in plan.items()}},
    )


def _result(
    budget: Budget,
    plans: tuple[Plan, Plan],
    placed: tuple[Placement | None, Placement],
    validation: dict[str, Any] | None,
) -> dict[str, Any]:
    """What was given up, before and after."""
    cores = [_cores_of(one) for one in placed]
    return {
        "profile": budget.profile.name,
        "budget": {"cores": budget.n_cores, "chips": budget.max_chips},
        "cores": {"before": placed[0].n_cores if placed[0] else None, "after": placed[1].n_cores},
        "layers": [
            {
                "name": name,
                "sparsity": {"before": plans[0][name].sparsity, "after": plans[1][name].sparsity},
                "bits": {"before": plans[0][name].bits, "after": plans[1][name].bits},
                "cores": {"before": cores[0].get(name), "after": cores[1].get(name)},
                "format": placed[1].formats[name],
            }
            for name in plans[1]
        ],
        "validation": validation,
    }


def _validation(metrics: list[dict[str, Any]], networks: tuple[Network, Network], split: Split) -> dict[str, Any]:
    """Accuracy on validation images before and after: of the float network, clean and attacked, and of the integers, clean."""
    right = [emulate.run(network, split.images).logits.argmax(axis=1) == split.labels for network in networks]
    return {
        when: {**one["validation"], "integers": evaluate.accuracy(found)}
        for when, one, found in zip(("before", "after"), metrics, right, strict=True)
    }


def _cores_of(placed: Placement | None) -> dict[str, int]:
    """On how many cores each layer is."""
    found: dict[str, set[int]] = {}
    for core in placed.cores if placed else ():
        found.setdefault(core.layer, set()).add(core.index)
    return {name: len(indices) for name, indices in found.items()}
