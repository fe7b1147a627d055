"""A network run and reported: on clean images, and on images that an attack made against the model it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolchain import report
from toolchain.energy import Run

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from toolchain.ir import Network
    from toolchain.store import Model

    Images = npt.NDArray[np.uint8]
    Labels = npt.NDArray[np.int64]


def run(network: Network, images: Images) -> Run:
    """What the network does on the images, the messages counted that they send: none where the host sets biases instead."""
    from toolchain import emulate

    trace = emulate.run(network, images)
    if network.input.bias:
        return Run(trace=trace, messages=np.zeros(network.input.shape))
    sent = np.count_nonzero(network.input.encode(images), axis=0) * network.timesteps / len(images)
    return Run(trace=trace, messages=sent)


def reported(
    subject: report.Subject,
    images: Images,
    labels: Labels | None,
    *,
    done: Run | None = None,
    attacked: report.Attacked | None = None,
    stored_bytes: int | None = None,
    metrics: Mapping[str, Any] | None = None,
    t_step_ns: float | None = None,
) -> dict[str, Any]:
    """Return the report of a network on images, with every spike of the first of them. done: the run, where it was run already."""
    from toolchain import emulate

    return report.build(
        subject,
        done or run(subject.network, images),
        labels=labels,
        stored_bytes=stored_bytes,
        metrics=metrics,
        recorded=emulate.run(subject.network, images[:1], record=True),
        attacked=attacked,
        t_step_ns=t_step_ns,
    )


def attacked(model: Model, network: Network, images: Images, labels: Labels) -> report.Attacked:
    """The network on images clean and as PGD changed them, by the radius and steps of the model's recipe.

    The attack is made against the float model, with the surrogate that breaks most, and rounded to 8 bit images: what it
    shows is activity and energy under attack. How robust the model is takes every surrogate; see `evaluate`.
    """
    import torch

    from toolchain import attacks, nets
    from toolchain.train import pixels, stream

    net, settings = nets.restore(model), model.recipe.attack
    member = attacks.MEMBERS[0]
    generator = stream(model.recipe.seed, "report attack")
    batch, right = pixels(images), torch.tensor(labels)
    with member.installed(net):
        adversarial = attacks.pgd(net, batch, right, eps=settings.eps, steps=settings.steps, generator=generator)
    changed = np.round(adversarial.numpy() * 255).astype(np.uint8)
    radius = f"{settings.eps * 255:g}/255"
    statement = (
        f"PGD against the float model: eps {radius}, {settings.steps} steps, surrogate {member.name}, rounded to 8 bit images. "
        "It shows activity and energy under attack; it reaches the integers by transfer and with one surrogate, so the images "
        "still classified right are no measure of robustness."
    )
    return report.Attacked(
        attack={
            "name": f"PGD, eps {radius}",
            "statement": statement,
            "against": "float model",
            "surrogate": member.name,
            "eps": settings.eps,
            "steps": settings.steps,
            "samples": len(images),
        },
        clean=run(network, images),
        adversarial=run(network, changed),
        labels=labels,
    )
