"""Attacks on any callable model: images of [0, 1] in, logits out, in pixel space.

`gradient`, `apgd`, `search` and `square` hold the attacks themselves, `ensemble` the members a spiking network is attacked with, one
after the other, `auto` AutoAttack for networks with a true gradient.
"""

from toolchain.attacks.apgd import apgd
from toolchain.attacks.ensemble import (
    MEMBERS,
    RATE_GRADIENT,
    STRONGEST,
    TRUE_GRADIENT,
    Broken,
    Member,
    strongest,
    strongest_fgsm,
)
from toolchain.attacks.gradient import Randomness, Share, evaluating, fgsm, kl_pgd, kl_rfgsm, noise, pgd, rfgsm
from toolchain.attacks.search import search
from toolchain.attacks.square import square

__all__ = [
    "MEMBERS",
    "RATE_GRADIENT",
    "STRONGEST",
    "TRUE_GRADIENT",
    "Broken",
    "Member",
    "Randomness",
    "Share",
    "apgd",
    "evaluating",
    "fgsm",
    "kl_pgd",
    "kl_rfgsm",
    "noise",
    "pgd",
    "rfgsm",
    "search",
    "square",
    "strongest",
    "strongest_fgsm",
]
