"""The FGSM ensemble of 19 gradients against every gradient on every sample.

All ways give the same verdict on every image, which is checked first. `every member, plain loop` is what the literature's codes do: each member
attacks and judges all images, by T steps one after the other through the whole network of torch's layers, differentiated by autograd; of the two gradients that are
not coupled over time it takes ours. `every member` does so with the package's own network: what is saved against it is saved by sharing forward passes
and sparing broken images, and depends on how many images the first members leave standing. Those must meet all 19 gradients and judgements.
The VGG's weights are random and its labels its own answers: an example of the shape, not of robustness.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from bench import vgg
from bench.harness import Row, race
from plain import Loop
from torch import Tensor, nn

from toolchain import attacks, data, nets, recipe, resources, spiking, store
from toolchain.attacks import MEMBERS
from toolchain.train import pixels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolchain.nets import Net

TARGET = 4
ROUNDS = 3
WIDTH = 32


class PerStep(Loop):
    """The plain loop, but for gradients that have no loop over steps: those of the ReLU network and of the rate."""

    def forward(self, images: Tensor) -> Tensor:
        net = self.net
        looped = net.mode == "snn" and not isinstance(spiking.neurons(net)[0].surrogate, spiking.Bptr)
        return super().forward(images) if looped else net(images)


def every_member(net: nn.Module, images: Tensor, labels: Tensor, eps: float, batch: int) -> Tensor:
    """Return which images are right clean and under each member, all of which attack all images."""
    right = torch.ones_like(labels, dtype=torch.bool)
    for first in range(0, len(images), batch):
        x, y = images[first : first + batch], labels[first : first + batch]
        with torch.no_grad():
            right[first : first + batch] &= net(x).argmax(dim=1) == y
        for member in MEMBERS:
            with member.installed(net):
                moved = attacks.fgsm(net, x, y, eps=eps)
            with torch.no_grad():
                right[first : first + batch] &= net(moved).argmax(dim=1) == y
    return right


def rows() -> Iterator[Row]:
    """Yield the three ways on the shipped models, on the robust one also at twice its eps, and on a VGG-16."""
    for name, eps in (("digits-cnn", 32 / 255), ("digits-cnn-plain", 32 / 255), ("digits-cnn", 64 / 255)):
        model = store.load(resources.model_path(f"{name}.pt"))
        split = data.load_test(model.data_source, model.recipe.data)
        labels = torch.tensor(split.labels)
        yield from compared(name, nets.restore(model), pixels(split.images), labels, eps=eps, batch=64)
    net, images, labels = random_vgg(n=8)
    yield from compared(f"VGG-16 of width {WIDTH}", net, images, labels, eps=8 / 255, batch=8, rounds=1)


def random_vgg(*, n: int) -> tuple[Net, Tensor, Tensor]:
    """Return a spiking VGG-16 with random weights, whose statistics are those of its own spikes, images, and its answers."""
    generator = torch.Generator().manual_seed(0)
    settings = recipe.from_dict({"model": {"architecture": "vgg16", "width": WIDTH}}).model
    net = nets.build(settings, (3, 32, 32), 10, mean=(0.5,) * 3, std=(0.25,) * 3, generator=generator)
    spiking.configure(net, mode="snn", timesteps=8)
    images = pixels(vgg.images(n + 16))
    for layer in spiking.neurons(net):
        layer.v_th.data.fill_(0.5)
    for norm in nets.norms(net):
        norm.momentum = None
    with torch.no_grad():
        net.train()(images[n:])
        labels = net.eval()(images[:n]).argmax(dim=1)
    return net, images[:n], labels


def compared(
    name: str, net: Net, images: Tensor, labels: Tensor, *, eps: float, batch: int, rounds: int = ROUNDS
) -> Iterator[Row]:
    """Yield a row for each way to the same verdicts."""

    def ensemble() -> Tensor:
        return attacks.strongest_fgsm(net, images, labels, eps=eps, members=MEMBERS, batch=batch).right

    def every() -> Tensor:
        return every_member(net, images, labels, eps, batch)

    def literal() -> Tensor:
        return every_member(PerStep(net), images, labels, eps, batch)

    right = ensemble()
    if not torch.equal(every(), right):
        raise RuntimeError(f"{name}: the ensemble is not every member on every sample")
    rounding = int((literal() != right).sum())
    timings = race(
        {"ensemble": ensemble, "every member": every, "every member, plain loop": literal}, rounds=rounds, warm_up=0
    )
    case = f"{name}, eps {eps * 255:.3g}/255, {right.float().mean():.0%} of {len(right)} robust"
    quick = timings.pop("ensemble")
    yield quick.row(case=case, subject="ensemble", unit="ms/image", per=len(right))
    for subject, timing in timings.items():
        ratio = timing.ratio(quick)
        note = f"rounds otherwise, which decides {rounding} images" if rounding and "loop" in subject else ""
        target = f"at least {TARGET}" if "loop" in subject else ""
        more = {"ratio": ratio, "against": "ensemble", "target": target, "note": note}
        yield timing.row(case=case, subject=subject, unit="ms/image", per=len(right), **more)
