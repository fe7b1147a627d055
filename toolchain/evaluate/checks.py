"""Whether robust accuracy can be believed: signs that the gradients of an attack were masked, or the attack too weak.

Source: Carlini et al. 2019 (arXiv 1902.06705) and Athalye et al. 2018 (arXiv 1802.00420).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from toolchain.attacks import ensemble
from toolchain.evaluate.outcome import STEPS, Outcome, attacked, device_of, suited
from toolchain.evaluate.statistics import compare
from toolchain.train import pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from toolchain.attacks import Member
    from toolchain.attacks.gradient import Model
    from toolchain.data import Split

IMAGES = 100
"""The checks look at the first images only: they ask whether, not how much."""

NO_SIGN = "no sign of gradient masking"

LARGE_EPS = 0.5
"""With it every image can become the same grey: what is still right has not been attacked."""

MORE = 4
"""Times as many steps."""

QUERIES = 500

Check = dict[str, Any]


def sanity(
    model: Model,
    split: Split,
    outcomes: Sequence[Outcome],
    *,
    eps: float,
    steps: int = STEPS,
    seed: int = 0,
    members: Sequence[Member] | None = None,
    n: int = IMAGES,
    advance: Callable[[int], None] = lambda _n: None,
) -> dict[str, Any]:
    """The verdict on outcomes of the same split, with the figures of each check, JSON-able.

    Each check that fails is named: every gradient took part; the ensemble is no better than a member; gradients are not
    zero; more steps do not help the defender; a large eps leaves nothing right; random noise is not half as strong as the
    gradients; Square breaks no more images than the gradients, of all images too where its outcome is given. Steps are
    worse where the paired 95 % interval excludes zero; of Square one image more is a sign.
    """
    few = split.first(n)
    used = suited(model, "pgd-ens") if members is None else tuple(members)
    fgsm = attacked(model, few, "fgsm-ens", eps=eps, seed=seed, members=used)
    here = [outcome for outcome in outcomes if outcome.eps == eps]
    white = [outcome.right for outcome in here if outcome.members]
    squares = [outcome for outcome in here if outcome.attack.startswith("square")]
    case = _Case(
        model=model,
        few=few,
        clean=fgsm.clean,
        right=np.logical_and.reduce([fgsm.right, *(right[:n] for right in white)]),
        rivals=[(np.logical_and.reduce(white), square) for square in squares] if white else [],
        members=used,
        eps=eps,
        steps=steps,
        seed=seed,
    )
    checks = [_members(used, suited(model, "pgd-ens")), _ensemble([fgsm, *outcomes])]
    for check in (_gradients, _steps, _large_eps, _noise, _black_box):
        checks.append(check(case))
        advance(1)
    failed = [check["check"] for check in checks if not check["passed"]]
    verdict = NO_SIGN if not failed else f"not to be believed: {'; '.join(failed)}"
    return {"verdict": verdict, "passed": not failed, "eps": eps, "n": len(few), "checks": checks}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """A model on a few images, and which of them are right clean and under all gradients at eps.

    rivals: of all images, those right under all gradients, and what was found of Square, where both were asked for.
    """

    model: Model
    few: Split
    clean: npt.NDArray[np.bool_]
    right: npt.NDArray[np.bool_]
    rivals: Sequence[tuple[npt.NDArray[np.bool_], Outcome]]
    members: tuple[Member, ...]
    eps: float
    steps: int
    seed: int

    def attacked(self, attack: str, **changed: Any) -> Outcome:
        settings: dict[str, Any] = {"eps": self.eps, "steps": self.steps, "seed": self.seed, **changed}
        return attacked(self.model, self.few, attack, **settings)


def _said(passed: bool, good: str, bad: str, **figures: Any) -> Check:
    return {"check": good if passed else bad, "passed": bool(passed), **figures}


def _members(used: Sequence[Member], wanted: Sequence[Member]) -> Check:
    missing = [member.name for member in wanted if member not in used]
    good = f"all {len(wanted)} gradients took part"
    bad = f"{len(missing)} of {len(wanted)} gradients took no part, among them {', '.join(missing[:3])}"
    return _said(not missing, good, bad, missing=missing)


def _ensemble(outcomes: Sequence[Outcome]) -> Check:
    wrong = []
    for outcome in outcomes:
        alone = outcome.members.values() if outcome.exhaustive else ()
        if any((outcome.right & ~right).any() for right in (outcome.clean, *alone)):
            wrong.append(outcome.attack)
    return _said(not wrong, "the ensemble is no better than any member", f"{', '.join(wrong)} beat one of its members")


def _gradients(case: _Case) -> Check:
    device = device_of(case.model)
    images, labels = pixels(case.few.images).to(device), torch.tensor(case.few.labels, device=device)
    nothing = ensemble.without_gradient(case.model, images, labels, members=case.members).cpu().numpy()
    share = float((nothing & case.clean).sum() / max(1, case.clean.sum()))
    bad = f"every gradient is zero on {share:.0%} of the images"
    return _said(share <= 0.05, "gradients are not zero", bad, zero_share=share)


def _steps(case: _Case) -> Check:
    few, many = case.steps, MORE * case.steps
    first = case.members[:1]
    short, long = (case.attacked("pgd-ens", steps=n, members=first).right for n in (few, many))
    found = compare(long, short)
    good = f"{many} steps are no weaker than {few}"
    bad = f"{many} steps are weaker than {few}, by {found['difference']:.0%} of the images"
    return _said(found["interval95"][0] <= 0, good, bad, accuracy=[float(short.mean()), float(long.mean())])


def _large_eps(case: _Case) -> Check:
    left = float(case.attacked("pgd-ens", eps=LARGE_EPS, steps=2 * case.steps, members=case.members).right.mean())
    good = f"eps {LARGE_EPS:g} leaves {left:.0%} right"
    return _said(left <= 0.05, good, f"{good}, where nothing should be", accuracy=left)


def _noise(case: _Case) -> Check:
    noisy = case.attacked("noise").right
    broken, by_gradients = (int((case.clean & ~right).sum()) for right in (noisy, case.right))
    said = f"random noise breaks {broken} images, gradients {by_gradients}"
    harmless = broken <= max(by_gradients / 2, 0.05 * len(noisy))
    return _said(harmless, said, said, n_broken=broken, n_broken_by_gradients=by_gradients)


def _black_box(case: _Case) -> Check:
    rivals = [*case.rivals, (case.right, case.attacked(f"square-{QUERIES}"))]
    found = [(square.attack, compare(gradients, square.right)) for gradients, square in rivals]
    attack, paired = max(found, key=lambda one: one[1]["difference"])
    only_square, only_gradients = paired["only_one"], paired["only_other"]
    stronger = f"{attack} is stronger than the gradients, by {only_square - only_gradients} of {paired['n']} images"
    bad = stronger if paired["interval95"][0] > 0 else f"{stronger}, which may be chance"
    good = f"{attack} is not stronger than the gradients: it alone breaks {only_square} images, they alone {only_gradients}"
    figures = {"only_gradients_broke": only_gradients, "only_square_broke": only_square}
    return _said(only_square <= only_gradients, good, bad, **figures)
