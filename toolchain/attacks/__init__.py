"""Attacks on any callable model: images of [0, 1] in, logits out, in pixel space.

`gradient` holds the attacks themselves, `ensemble` the members a spiking network is attacked with, one after the other.
"""

from toolchain.attacks.ensemble import MEMBERS, Broken, Member, strongest
from toolchain.attacks.gradient import evaluating, fgsm, kl_pgd, kl_rfgsm, pgd

__all__ = ["MEMBERS", "Broken", "Member", "evaluating", "fgsm", "kl_pgd", "kl_rfgsm", "pgd", "strongest"]
