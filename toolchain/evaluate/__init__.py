"""How often a network is right: on clean images and under attack, with intervals, and one network against another."""

from toolchain.evaluate.checks import sanity
from toolchain.evaluate.outcome import ATTACKS, DEFAULT, STEPS, Outcome, attacked, canonical
from toolchain.evaluate.plot import plot
from toolchain.evaluate.statistics import accuracy, bootstrap, compare, wilson
from toolchain.evaluate.stored import evaluate, measure
from toolchain.evaluate.terminal import render

__all__ = [
    "ATTACKS",
    "DEFAULT",
    "STEPS",
    "Outcome",
    "accuracy",
    "attacked",
    "bootstrap",
    "canonical",
    "compare",
    "evaluate",
    "measure",
    "plot",
    "render",
    "sanity",
    "wilson",
]
