"""One combination measured: what its integers cost on the profile, and how often they are right, clean, attacked and stopped early."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain import assess, attacks, compare, deployment, emulate, evaluate, mapping, report
from toolchain.deployed.chain import Chain
from toolchain.errors import CapacityError, RangeError, UnsupportedError
from toolchain.evaluate.delivery import Target
from toolchain.profile import HardwareProfile
from toolchain.sweep import early

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from toolchain.data import Data, Split
    from toolchain.evaluate import Outcome
    from toolchain.profile import AnyProfile
    from toolchain.quantize import Quantized
    from toolchain.store import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much is measured: validation images clean and attacked, 0 for no attack, and whether stopping early is."""

    samples: int | None = None
    attacked: int = 100
    early_exit: bool = False
    device: str = "cpu"


def measured(
    model: Model, data: Data, profile: AnyProfile, settings: deployment.Settings, effort: Effort
) -> dict[str, Any]:
    """What a comparison has of a model, of its integers on validation images, and `early_exit`.

    Where they cannot be made or placed, all is unknown, and `reason` says why.
    """
    try:
        return _measured(model, data, profile, settings, effort)
    except (CapacityError, RangeError, UnsupportedError) as error:
        return {**compare.unfit("", profile.name, str(error)), "early_exit": None}


def _measured(
    model: Model, data: Data, profile: AnyProfile, settings: deployment.Settings, effort: Effort
) -> dict[str, Any]:
    made = deployment.quantized(model, data, settings, profile)
    placed = None
    if isinstance(profile, HardwareProfile):
        placed = mapping.place(made.network, profile, max_chips=settings.max_chips)
    subject = report.Subject(network=made.network, masks=made.masks, profile=profile, mapping=placed)
    split = data.validation if effort.samples is None else data.validation.first(effort.samples)
    run = assess.run(made.network, split.images)
    row = compare.row("", assess.reported(subject, split.images, split.labels, done=run))
    row["accuracy"] = evaluate.accuracy(run.trace.classes() == split.labels)
    changed = None
    if effort.attacked:
        some = split.first(effort.attacked)
        outcome = _attacked(model, made, some, effort.device)
        row["robust"] = {"measured": "validation", **outcome.to_dict()}
        changed = outcome.delivered
    exits = early.measured(made.network, split, changed, device=effort.device) if effort.early_exit else None
    return {**row, "early_exit": exits}


def _attacked(model: Model, made: Quantized, split: Split, device: str) -> Outcome:
    """PGD by the strongest gradients of the integers, in the radius and steps of the model's recipe, on pixels a sensor delivers."""
    chain = Chain(made.network, {name: facts.scale for name, facts in made.facts.items()}, device=device)
    emulator = emulate.Emulator(made.network, device=device)

    def classify(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        return emulator.run(images, activity=False).classes()

    recipe = model.recipe
    return evaluate.attacked(
        chain,
        split,
        "pgd-ens",
        members=attacks.STRONGEST,
        eps=recipe.attack.eps,
        steps=recipe.attack.steps,
        seed=recipe.seed,
        target=Target(classify=classify, unrounded=chain.unrounded),
    )
