"""The paper's claims, each as a number whose sign decides, and the verdicts of the study's figures on them.

A seed gives one number an effect. Their mean has a 95 % interval by Student's t over seeds; one seed alone decides nothing.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from study import plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "not decidable at this scale"

ROBUST = f"robust-{plan.EPS[-1] * 255:g}"
"""Right under both of ATTACKS, on the same images: what robustness means here"""
ATTACKS = (f"pgd-{plan.EPS[-1] * 255:g}", f"search-{plan.EPS[-1] * 255:g}")
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t, two-sided, by the number of seeds."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the paper says, the number that tests it, and what that number must be.

    effect: of one seed's figures, in `unit`; the claim holds where it is above `above`, or, with `within`, where it is that
    close to zero.
    """

    says: str
    paper: str
    effect: Callable[[Any], float]
    unit: str
    above: float = 0.0
    within: float | None = None

    def test(self) -> str:
        """Return what the effect must be, in words."""
        return f"within ±{self.within:g}" if self.within is not None else f"above {self.above:g}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim with its verdict and the effect that led to it: mean over seeds, interval, numbers of each seed."""

    claim: Claim
    verdict: str
    values: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None


def judge(claim: Claim, seeds: Sequence[Any]) -> Verdict:
    """Return the verdict of the seeds whose arms are all there."""
    values = [value for figures in seeds if (value := _value(claim, figures)) is not None]
    if len(values) < 2:
        mean = values[0] if values else None
        return Verdict(claim=claim, verdict=UNDECIDED, values=tuple(values), mean=mean, low=None, high=None)
    mean = statistics.fmean(values)
    half = T95[len(values)] * statistics.stdev(values) / math.sqrt(len(values))
    low, high = mean - half, mean + half
    if claim.within is None:
        holds, fails = low > claim.above, high < claim.above
    else:
        holds = -claim.within < low and high < claim.within
        fails = low > claim.within or high < -claim.within
    verdict = REPRODUCED if holds else NOT_REPRODUCED if fails else UNDECIDED
    return Verdict(claim=claim, verdict=verdict, values=tuple(values), mean=mean, low=low, high=high)


def _value(claim: Claim, figures: Any) -> float | None:
    """Return the effect of one seed, or None where an arm of it is not measured yet."""
    try:
        return claim.effect(figures)
    except KeyError:
        return None


def points(measure: str, one: str, other: str) -> Callable[[Any], float]:
    """Return the effect: accuracy of one arm less that of another, in percentage points."""

    def effect(figures: Any) -> float:
        return 100 * (figures[one][measure]["accuracy"] - figures[other][measure]["accuracy"])

    return effect


def ratio(key: str, one: str, other: str) -> Callable[[Any], float]:
    """Return the effect: how many times as many spikes or additions one arm takes as another."""

    def effect(figures: Any) -> float:
        return figures[one]["activity"][key] / figures[other]["activity"][key]

    return effect


def turns(key: str, *arms: str) -> Callable[[Any], float]:
    """Return the effect: 1 where the arms' counts rise and fall, -1 where they only rise or only fall."""

    def effect(figures: Any) -> float:
        counts = [figures[arm]["activity"][key] for arm in arms]
        return -1.0 if counts in (sorted(counts), sorted(counts, reverse=True)) else 1.0

    return effect


def claims() -> tuple[Claim, ...]:
    """Return the claims in the order of the paper's tables."""
    return (
        Claim(
            says="A learned uniform mask of 90 % costs little clean accuracy: at most twice the paper's own loss",
            paper="92.0 to 89.5 (B1)",
            effect=points("clean", "hydra-90", "dense"),
            unit="points",
            above=-5.0,
        ),
        Claim(
            says="It costs little robustness: at most twice the paper's own loss",
            paper="27.9 to 26.1 (B1)",
            effect=points(ROBUST, "hydra-90", "dense"),
            unit="points",
            above=-3.6,
        ),
        Claim(
            says="At 90 % a learned mask and one by magnitude are equally robust",
            paper="26.1 and 26.1 (B1)",
            effect=points(ROBUST, "hydra-90", "lwm-90"),
            unit="points",
            within=3.0,
        ),
        Claim(
            says="At 99 % the learned mask is more accurate than the one by magnitude",
            paper="69.1 against 44.9 (B1)",
            effect=points("clean", "hydra-99", "lwm-99"),
            unit="points",
        ),
        Claim(
            says="and more robust",
            paper="15.3 against 9.2 (B1)",
            effect=points(ROBUST, "hydra-99", "lwm-99"),
            unit="points",
        ),
        Claim(
            says="At 99 % learned shares (HARP) are more accurate than uniform ones",
            paper="85.2 against 69.1 (B1)",
            effect=points("clean", "harp-99", "hydra-99"),
            unit="points",
        ),
        Claim(
            says="and more robust",
            paper="22.9 against 15.3 (B1)",
            effect=points(ROBUST, "harp-99", "hydra-99"),
            unit="points",
        ),
        Claim(
            says="HARP costs more energy than uniform shares at 90 %",
            paper="2.8 times (3)",
            effect=ratio("additions", "harp-90", "hydra-90"),
            unit="times",
            above=1.0,
        ),
        Claim(
            says="A uniform mask of 90 % saves energy: at least half the paper's factor",
            paper="6.12 times (3)",
            effect=ratio("additions", "dense", "hydra-90"),
            unit="times",
            above=3.06,
        ),
        Claim(
            says="HARP at 99 % saves energy: at least half the paper's factor",
            paper="8.61 times (3)",
            effect=ratio("additions", "dense", "harp-99"),
            unit="times",
            above=4.3,
        ),
        Claim(
            says="A sparser network does not spike less: counts from dense over 90 % to 99 % are not monotone (1: not, -1: monotone)",
            paper="2.76, 3.17, 3.14 times 10^5 (3)",
            effect=turns("spikes", "dense", "harp-90", "harp-99"),
            unit="",
        ),
        *_against_end_to_end(),
        Claim(
            says="End to end, the ANN's mask is less robust than a random one",
            paper="9.7 against 11.9 (1)",
            effect=points(ROBUST, "e2e-random-90", "e2e-ann-90"),
            unit="points",
        ),
        Claim(
            says="and more accurate",
            paper="88.2 against 87.4 (1)",
            effect=points("clean", "e2e-ann-90", "e2e-random-90"),
            unit="points",
        ),
    )


def _against_end_to_end() -> list[Claim]:
    made = []
    for suffix, cost in (("", "as many SNN epochs"), ("-work", "as much total work")):
        for mask, words, paper in (("random", "a random mask", "11.9"), ("ann", "the ANN's mask", "9.7")):
            made.append(
                Claim(
                    says=f"Conversion and finetuning is more robust than training end to end with {words}, at {cost}",
                    paper=f"26.1 against {paper}, with at most 350 epochs (1)",
                    effect=points(ROBUST, "hydra-90", f"e2e-{mask}-90{suffix}"),
                    unit="points",
                )
            )
    return made
