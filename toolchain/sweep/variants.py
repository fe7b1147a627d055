"""The float models of a sweep: one with other steps an image, or with fewer weights, each made once for every width of its integers."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import TYPE_CHECKING

from toolchain import deployment, finetune, nets, store, train
from toolchain import profile as profiles
from toolchain.errors import UnsupportedError
from toolchain.fit import reduce

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from toolchain.data import Data
    from toolchain.store import Model

UNLIMITED = "generic45"
"""A profile that narrows nothing: which weights matter is judged by the model, not by a chip"""


class Variants:
    """What a model becomes. epochs: of the model's own robust objective, under the variant's mask; finished ones are kept in `folder`."""

    def __init__(
        self,
        model: Model,
        data: Data,
        folder: Path,
        *,
        epochs: int = 0,
        log: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._model, self._data, self._folder, self._epochs, self._log = model, data, folder, epochs, log

    def made(self, timesteps: int, sparsity: float | None) -> Model:
        """The model with so many steps an image and so sparse; None for as it is, which with its own steps is the model itself.

        Raises: UnsupportedError where it cannot be pruned further.
        """
        model = self._model
        if sparsity is None and timesteps == model.timesteps:
            return model
        path = self._folder / f"t{timesteps}-s{'own' if sparsity is None else sparsity}.pt"
        if path.exists():
            return store.load(path)
        variant = dataclasses.replace(model, timesteps=timesteps)
        if sparsity is not None:
            variant = self._pruned(variant, sparsity)
        return self._finetuned(variant, path) if self._epochs else variant

    def _pruned(self, model: Model, sparsity: float) -> Model:
        """The same share of every layer's present weights is left, the most important ones."""
        import torch

        masks, values = self._importances
        share = (1 - sparsity) / (1 - model.sparsity)
        mask = {
            f"{name}.weight": torch.from_numpy(reduce.grown(kept, values[name], max(1, round(share * int(kept.sum())))))
            for name, kept in masks.items()
        }
        net = nets.restore(model)
        nets.apply_mask(net, mask)
        return dataclasses.replace(model, state=_state(net), mask=mask, scales={})  # scales of other weights

    @cached_property
    def _importances(self) -> tuple[dict[str, npt.NDArray[np.bool_]], dict[str, npt.NDArray[np.float64]]]:
        """Of the model as it is: masks, and what each weight is worth."""
        settings = deployment.Settings(profile=UNLIMITED)
        made = deployment.quantized(self._model, self._data, settings, profiles.read(UNLIMITED))
        if made.network.relays:
            reason = "a residual network, whose kernels stand in several layers, cannot be pruned further"
            raise UnsupportedError(where=self._model.path, reason=reason, remedy="Prune it in training")
        images = self._data.train.images[: deployment.CALIBRATION_IMAGES]
        return made.masks, reduce.importances(nets.restore(self._model), made, images)

    def _finetuned(self, model: Model, path: Path) -> Model:
        """`path` holds it."""
        net, recipe = nets.restore(model), model.recipe
        called = f"T = {model.timesteps}, sparsity {model.sparsity:.1%}"
        progress = train.Kept(path, {"epochs": self._epochs}, lambda line: self._log(f"{called}: {line}"))
        shorter = dataclasses.replace(
            recipe,
            timesteps=model.timesteps,
            finetune=dataclasses.replace(recipe.finetune, epochs=self._epochs),
        )
        finetune.finetune_snn(
            net, dict(model.mask), self._data.train, shorter, start=progress.last(), after=progress.keep
        )
        made = dataclasses.replace(model, stage="finetune", state=_state(net), scales={})
        store.save(made, path)
        progress.path.unlink(missing_ok=True)
        return made


def _state(net: nets.Net) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in net.body.state_dict().items()}
