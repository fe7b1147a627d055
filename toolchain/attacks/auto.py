"""AutoAttack, by its authors' own code, for a network with a true gradient. Needs the extra `autoattack`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from toolchain.attacks.gradient import evaluating
from toolchain.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from toolchain.attacks.gradient import Model

N_TARGETS = 9
"""Classes that the targeted attacks of the standard version aim at; all other classes where there are fewer."""


def autoattack(model: Model, images: Tensor, labels: Tensor, *, eps: float, seed: int = 0, batch: int = 250) -> Tensor:
    """Images after the standard version of AutoAttack: APGD on CE, targeted APGD and FAB, Square with 5,000 queries.

    Raises: BackendError where pyautoattack is not installed; ConfigError for fewer than four classes.
    Source: Croce and Hein 2020, as packaged by pyautoattack.
    """
    with torch.no_grad():
        n_classes = model(images[:1]).shape[1]
    AutoAttack = _required(n_classes)
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    with torch.random.fork_rng(devices=[]), evaluating(model):
        found: Any = AutoAttack(model, eps=eps, seed=seed, device=images.device, version="standard")
        for targeted in (found.apgd_targeted, found.fab):
            targeted.n_target_classes = min(N_TARGETS, n_classes - 1)
        adversarial, _labels = found.run_standard_evaluation(images, labels, batch_size=batch)
    result: Tensor = adversarial
    return result


def require(n_classes: int) -> None:
    """AutoAttack can be run on a network of so many classes. Raises as `autoattack`."""
    _required(n_classes)


def _required(n_classes: int) -> Any:
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        remedy = 'Install it: pip install "rsnn-deploy[autoattack]"'
        raise BackendError(backend="autoattack", reason="pyautoattack is not installed", remedy=remedy) from None
    if n_classes < 4:
        raise ConfigError(where="attack", faults=(f"autoattack takes four classes, got {n_classes}",))
    return AutoAttack
