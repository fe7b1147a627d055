"""Makes a model fit a chip: prunes its layers further and narrows their weights, where that does the least damage.

Each layer's options, a sparsity and a width, are judged alone: by the mean KL divergence of the integer network's answers on
validation images, clean and attacked, and by the cores they fill. `search` walks along these until the budget holds. Then the
masked float network is finetuned, and what was given up is measured. Test images are never looked at.
"""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import check, deployment, emulate, mapping, pipeline, store
from toolchain import profile as profiles
from toolchain.errors import CapacityError, ConfigError, MismatchError, UnsupportedError
from toolchain.fit import reduce, search

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt

    from toolchain.data import Data, Split
    from toolchain.fit.search import Option, Places
    from toolchain.ir import AnyLayer, Network, Shape
    from toolchain.placement import Mapping
    from toolchain.profile import HardwareProfile
    from toolchain.quantize import Quantized
    from toolchain.store import Model

    Bools = npt.NDArray[np.bool_]
    Images = npt.NDArray[np.uint8]

SCHEMA = "rsnn-deploy/fit/1"
NARROWEST = 2
"""Bits: of one, only signs are left, which nothing here tells the damage of."""
_NOWHERE = 1 << 40
"""Cores of a network that cannot be placed: more than any budget"""
_KEPT = tuple(2 ** (-step / 2) for step in range(19))
"""Shares of a layer's present weights that may remain: down to a 512th"""
IMAGES = 256
"""Validation images, at most, that damage is judged on."""


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

    The test set is not looked at. Raises CapacityError, with nothing written, where nothing fits the budget; UnsupportedError for
    a model that does not spike or a profile without cores; ConfigError, FormatError.
    """
    from toolchain import nets

    chip = profiles.load(profile)
    budget = _budget(chip, n_cores, n_chips)
    model = store.load(path)
    data = deployment.training_data(model)
    settings = deployment.Settings(profile=profile)
    log("quantize the model as it is")
    made = deployment.quantized(model, data, settings, chip)
    before = _placed(made.network, chip)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "model": str(path),
        "out": None,
        "profile": chip.name,
        "budget": {"cores": budget, "chips": max(1, -(-budget // chip.chip.cores.value))},
        "cores": {"before": before and before.n_cores, "after": before and before.n_cores},
        "damage": None,
        "validation": None,
    }
    if before and before.n_cores <= budget:
        return result | {"layers": _layers((made, made), (before, before))}
    if made.network.relays:
        reason = "fit cannot prune a residual network, whose kernels stand in several layers"
        raise UnsupportedError(where=str(path), reason=reason, remedy="Prune it further in training")
    job = _Job(model, data, made, chip, log)
    places = job.walk(budget)
    fitted = job.finetuned(places, epochs)
    log("measure on validation images")
    metrics = [pipeline.measure(nets.restore(one), one, data.validation) for one in (model, fitted)]
    fitted = dataclasses.replace(fitted, metrics={**model.metrics, fitted.stage: metrics[1]})
    after_made = deployment.quantized(fitted, data, settings, chip)
    after = _placed(after_made.network, chip)
    if after is None or after.n_cores > budget or check.check(after_made.network, after, chip).violations:
        reason = "the network found does not keep to the budget once it is quantized"
        raise MismatchError(where=str(path), reason=reason)
    store.save(fitted, out)
    unit = after_made.facts[job.names[-1]].scale[0] / job.answers.unit
    return result | {
        "out": str(out),
        "cores": {"before": before and before.n_cores, "after": after.n_cores},
        "damage": {
            "foreseen": search.damage(job.frontiers, places),
            "measured": job.answers.damage(after_made.network, unit),
        },
        "layers": _layers((made, after_made), (before, after)),
        "validation": _validation(metrics, (made.network, after_made.network), data.validation),
    }


def _budget(chip: HardwareProfile, n_cores: int | None, n_chips: int | None) -> int:
    if (n_cores is None) == (n_chips is None):
        raise ConfigError(where="fit", faults=("expected either --cores or --chips",))
    return n_cores or (n_chips or 1) * chip.chip.cores.value


class _Job:
    """A model, its integer network, and what each of its layers could become."""

    def __init__(
        self, model: Model, data: Data, made: Quantized, profile: HardwareProfile, log: Callable[[str], None]
    ) -> None:
        from toolchain import nets

        self.model, self.data, self.network, self.profile = model, data, made.network, profile
        self.log = log
        self.names = [layer.name for layer in made.network.chain]
        self.masks = made.masks
        calibration = data.train.images[: deployment.CALIBRATION_IMAGES]
        self.values = reduce.importances(nets.restore(model), made, calibration)
        unit = made.facts[self.names[-1]].scale[0]
        self.answers = reduce.Answers.of(made.network, _judged(model, data), unit)
        self.frontiers = {
            layer.name: self._frontier(index, layer, source)
            for index, (layer, source, _) in enumerate(made.network.wired())
        }

    def mask(self, name: str, sparsity: float) -> Bools:
        """The layer's mask at a sparsity, within its mask of before."""
        mask = self.masks[name]
        return reduce.grown(mask, self.values[name], round((1 - sparsity) * mask.size))

    def walk(self, budget: int) -> Places:
        """How far each layer goes. Raises CapacityError where the budget cannot be met."""
        self.log(f"search for {budget} cores")

        refused: list[CapacityError] = []

        @cache
        def needed(places: tuple[int, ...]) -> int:
            options = [self.frontiers[name][place] for name, place in zip(self.names, places, strict=True)]
            chain = [
                layer
                if self.network.is_driven(layer)
                else reduce.pattern(layer, self.mask(layer.name, option.sparsity), option.weight_bits)
                for layer, option in zip(self.network.chain, options, strict=True)
            ]
            network = self.network
            for index, layer in enumerate(chain):
                if layer is not self.network.chain[index]:
                    network = reduce.with_layer(network, index, layer)
            try:
                return mapping.place(network, self.profile, max_chips=reduce.ANY_CHIPS).n_cores
            except CapacityError as error:  # a layer's output axons depend on the next one's cores
                refused.append(error)
                return _NOWHERE

        places, reached = search.walk(
            self.frontiers, lambda places: needed(tuple(places[name] for name in self.names)), budget
        )
        if reached == _NOWHERE:
            raise refused[-1]
        if reached > budget:
            raise _cannot(self.profile, reached, budget)
        return places

    def _frontier(self, index: int, layer: AnyLayer, source: Shape) -> tuple[Option, ...]:
        """What a layer could become; a layer without synapses on the chip only what it is. Raises CapacityError."""
        mask = self.masks[layer.name]
        now = search.Option(sparsity=1 - mask.mean(), weight_bits=layer.weight_bits, damage=0.0, cost=0.0)
        if self.network.is_driven(layer):
            return (now,)
        self.log(f"judge {layer.name}")
        keeps = sorted({max(1, round(share * mask.sum())) for share in _KEPT}, reverse=True)
        sparsities = [now.sparsity if keep == mask.sum() else 1 - keep / mask.size for keep in keeps]
        widths = [bits for bits in range(layer.weight_bits, NARROWEST - 1, -1) if self._storable(bits)]
        fewer = _rising([self._damage(index, self.mask(layer.name, s), layer.weight_bits) for s in sparsities])
        narrower = _rising([self._damage(index, mask, bits) for bits in widths])
        found = []
        for bits, by_width in zip(widths, narrower, strict=True):
            costs = _monotone(
                lambda at, bits=bits: reduce.cost(  # type: ignore[misc]
                    reduce.pattern(layer, self.mask(layer.name, sparsities[at]), bits), source, self.profile
                ),
                len(sparsities),
            )
            found += [
                search.Option(sparsity=s, weight_bits=bits, damage=by_count + by_width, cost=cost)
                for s, by_count, cost in zip(sparsities, fewer, costs, strict=True)
            ]
        options = search.frontier(found)
        if not options:  # not even the least of them fits a core: say why as the mapping does
            last = reduce.pattern(layer, self.mask(layer.name, sparsities[-1]), widths[-1])
            mapping.place(reduce.with_layer(self.network, index, last), self.profile, max_chips=reduce.ANY_CHIPS)
        return options

    def _storable(self, bits: int) -> bool:
        """Whether a width is one of the profile's: one between two of them saves nothing."""
        widths = self.profile.precision.weight_widths
        return bits <= self.profile.precision.weight_bits.value and (widths is None or bits in widths.value)

    def _damage(self, index: int, mask: Bools, bits: int) -> float:
        layer = self.network.chain[index]
        layer = dataclasses.replace(layer, weight=layer.weight * mask)
        changed, unit = reduce.narrowed(layer, bits)
        is_readout = index == len(self.names) - 1
        return self.answers.damage(reduce.with_layer(self.network, index, changed), unit if is_readout else 1.0)

    def finetuned(self, places: Places, epochs: int) -> Model:
        """The model under its new masks and with its new widths, after so many epochs."""
        import torch

        from toolchain import finetune, nets

        options = {
            layer.name: self.frontiers[layer.name][places[layer.name]]
            for layer in self.network.chain
            if not self.network.is_driven(layer)
        }
        mask = dict(self.model.mask)
        mask |= {
            f"{name}.weight": torch.from_numpy(self.mask(name, option.sparsity)) for name, option in options.items()
        }
        net = nets.restore(self.model)
        nets.apply_mask(net, mask)
        recipe = self.model.recipe
        if epochs:
            self.log(f"finetune {epochs} epochs under the new mask")
            shorter = dataclasses.replace(recipe, finetune=dataclasses.replace(recipe.finetune, epochs=epochs))
            finetune.finetune_snn(
                net,
                mask,
                self.data.train,
                shorter,
                after=lambda epoch: self.log(f"epoch {epoch.number}, loss {epoch.loss:.3f}"),
            )
        return dataclasses.replace(
            self.model,
            stage="finetune" if epochs else self.model.stage,
            state={name: tensor.detach().clone() for name, tensor in net.body.state_dict().items()},
            mask=mask,
            scales={},  # of weights that are no longer these
            weight_bits={**self.model.weight_bits, **{name: option.weight_bits for name, option in options.items()}},
        )


def _layers(made: tuple[Quantized, Quantized], placed: tuple[Mapping | None, Mapping]) -> list[dict[str, Any]]:
    """What each layer gave up, before and after; one that the host drives has nothing to give."""
    when = ("before", "after")
    return [
        {
            "name": layer.name,
            "sparsity": dict(zip(when, (_sparsity(one, layer.name) for one in made), strict=True)),
            "bits": {name: one.network.chain[index].weight_bits for name, one in zip(when, made, strict=True)},
            "cores": {name: one and _cores(one, layer.name) for name, one in zip(when, placed, strict=True)},
            "format": placed[1].formats[layer.name],
        }
        for index, layer in enumerate(made[1].network.chain)
        if not made[1].network.is_driven(layer)
    ]


def _validation(metrics: list[dict[str, Any]], networks: tuple[Network, Network], split: Split) -> dict[str, Any]:
    """Accuracy on validation images before and after: of the float network, clean and attacked, and of the integers, clean."""
    from toolchain import evaluate

    right = [emulate.run(network, split.images).classes() == split.labels for network in networks]
    return {
        when: {**one["validation"], "integers": evaluate.accuracy(found)}
        for when, one, found in zip(("before", "after"), metrics, right, strict=True)
    }


def _sparsity(made: Quantized, name: str) -> float:
    return float(1 - made.masks[name].mean())


def _cores(placed: Mapping, name: str) -> int:
    return len({core.index for core in placed.cores if core.layer == name})


def _placed(network: Network, profile: HardwareProfile) -> Mapping | None:
    """Where the network sits on as many chips as it needs, or None where a layer fits no core."""
    try:
        return mapping.place(network, profile, max_chips=reduce.ANY_CHIPS)
    except CapacityError:
        return None


def _judged(model: Model, data: Data) -> Images:
    """Validation images, and the same attacked by FGSM in the recipe's radius, in whole pixels."""
    import torch

    from toolchain import attacks, nets
    from toolchain.train import pixels

    some = data.validation.first(IMAGES)
    net = nets.restore(model)
    attacked = attacks.fgsm(net, pixels(some.images), torch.tensor(some.labels), eps=model.recipe.attack.eps)
    return np.concatenate([some.images, np.rint(attacked.numpy() * 255).astype(np.uint8)])


def _monotone(values: Callable[[int], float], n: int) -> list[float]:
    """Values that only fall, at 0 to n - 1: where both ends are equal, so is all between, and is not asked for."""
    found = {0: values(0), n - 1: values(n - 1)}

    def fill(low: int, high: int) -> None:
        if high - low < 2:
            return
        if found[low] == found[high]:
            found.update(dict.fromkeys(range(low, high), found[low]))
            return
        middle = (low + high) // 2
        found[middle] = values(middle)
        fill(low, middle)
        fill(middle, high)

    fill(0, n - 1)
    return [found[index] for index in range(n)]


def _rising(values: list[float]) -> list[float]:
    """Each value, or the greatest before it: to give up more is never counted as less damage; the first is what there is."""
    return list(itertools.accumulate([0.0, *values[1:]], max))


def _cannot(profile: HardwareProfile, reached: int, budget: int) -> CapacityError:
    chips = -(-reached // profile.chip.cores.value)
    return CapacityError(
        layer="network",
        core=None,
        profile=profile.name,
        resource="cores",
        unit="cores",
        used=reached,
        limit=budget,
        remedy=(
            f"That is what its neurons take with {NARROWEST} bit weights, {_KEPT[-1]:.1%} of them kept: allow --cores {reached} "
            f"or --chips {chips}, or train a network with fewer channels or on smaller images"
        ),
    )
