"""The 19 members against a naive ensemble, and each member's gradient against an independent computation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import SHAPE, net

from toolchain import attacks, spiking
from toolchain.attacks import MEMBERS, Member, ensemble
from toolchain.spiking import Bptr, Exponential, PiecewiseLinear, RateGradient, Rectangular, StraightThrough

EPS = 0.06


def images_and_labels(model, n=96, *, wrong=9):
    """Images of which the model gets all but the first few right."""
    images = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    labels[:wrong] = (labels[:wrong] + 1) % 3
    return images, labels


def streams(member, chosen):
    return [torch.Generator().manual_seed(1000 * MEMBERS.index(member) + index) for index in chosen.tolist()]


def fgsm(model, x, y, _generators):
    return attacks.fgsm(model, x, y, eps=EPS)


def pgd(model, x, y, generators):
    return attacks.pgd(model, x, y, eps=EPS, steps=3, generator=generators)


# ------------------------------------------------------------------ a naive ensemble, from the definition alone


class Loop(nn.Module):
    """A neuron as a loop over time that autograd differentiates, with a surrogate given as a function of u - v_th."""

    def __init__(self, layer, derivative) -> None:
        super().__init__()
        self.v_th, self.steps, self.derivative = layer.v_th, layer.timesteps, derivative

    def forward(self, x):
        derivative = self.derivative

        class Spike(torch.autograd.Function):
            @staticmethod
            def forward(ctx, d) -> torch.Tensor:
                ctx.save_for_backward(d)
                return (d >= 0).to(d.dtype)

            @staticmethod
            def backward(ctx, g) -> torch.Tensor:
                return g * derivative(ctx.saved_tensors[0])

        inputs = x.reshape(self.steps, -1, *x.shape[1:])
        v, spikes = torch.zeros_like(inputs[0]), []
        for one in inputs:
            u = v + one
            spikes.append(Spike.apply(u - self.v_th))
            v = (1 - spikes[-1]) * u
        return torch.cat(spikes)


class Rate(nn.Module):
    """A neuron that spikes as the loop does and passes a gradient where it spiked at all, or by its mean input."""

    def __init__(self, layer, passes) -> None:
        super().__init__()
        self.loop, self.passes, self.steps = Loop(layer, torch.zeros_like), passes, layer.timesteps

    def forward(self, x):
        spikes = self.loop(x).detach()
        shaped = (self.steps, -1, *x.shape[1:])
        slope = self.passes(x.detach().reshape(shaped), spikes.reshape(shaped), self.loop.v_th.detach())
        slope = slope.repeat(self.steps, *[1] * (x.ndim - 1))
        return spikes + slope * (x - x.detach())


DERIVATIVES = {
    **{f"piecewise-linear({g:g})": lambda d, g=g: torch.clamp(g - d.abs(), min=0) / g**2 for g in (1, 2, 3, 0.5, 0.25)},
    **{
        f"exponential({a:g}, {b:g})": lambda d, a=a, b=b: a * torch.exp(-b * d.abs())
        for a, b in ((0.3, 0.5), (0.3, 1), (0.3, 2), (1, 0.5), (1, 1), (1, 2))
    },
    **{f"rectangular({g:g})": lambda d, g=g: (d.abs() < g / 2).to(d.dtype) / g for g in (0.25, 0.5, 1, 2, 4)},
    "straight-through": torch.ones_like,
}
"""The method's section 5, written again."""

NAMES = {*DERIVATIVES, "bptr", "conversion"}


def explicit(model, name):
    """The network of one member, layer by layer, in float64, with no code of the package's neurons in its backward pass."""
    layers = []
    for layer in model.body:
        if not isinstance(layer, spiking.IF):
            layers.append(layer)
        elif name == "conversion":
            layers.append(nn.ReLU())
        elif name == "bptr":
            layers.append(Rate(layer, lambda _x, spikes, _v_th: (spikes.mean(dim=0) > 0).to(spikes.dtype)))
        elif name == "rate-gradient":
            layers.append(Rate(layer, lambda x, _s, v: ((x.mean(0) >= 0) & (x.mean(0) <= 2 * v)).to(x.dtype) / (2 * v)))
        else:
            layers.append(Loop(layer, DERIVATIVES[name]))
    steps = 1 if name == "conversion" else model.timesteps

    def run(images):
        x = (images - model.mean[:, None, None]) / model.std[:, None, None]
        x = nn.Sequential(*layers)(x.repeat(steps, 1, 1, 1))
        return x.reshape(steps, len(images), -1).mean(dim=0)

    return run


def gradient(run, images, labels):
    x = images.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(run(x), labels, reduction="sum"), x)[0]


def naive_fgsm(model, images, labels):
    """Every member on every sample, one after the other, with its own passes."""
    judge = explicit(model, "straight-through")
    rows = {}
    with torch.no_grad():
        clean = judge(images).argmax(dim=1) == labels
    for name in sorted(NAMES):
        moved = (images + EPS * gradient(explicit(model, name), images, labels).sign()).clamp(0, 1)
        with torch.no_grad():
            rows[name] = clean & (judge(moved).argmax(dim=1) == labels)
    return clean, rows


# ------------------------------------------------------------------ the laws


def test_there_are_the_19_members_of_the_method_strongest_first():
    assert {member.name for member in MEMBERS} == NAMES
    assert len(MEMBERS) == len(NAMES) == 19
    first = ["exponential(0.3, 2)", "exponential(1, 2)", "piecewise-linear(1)", "piecewise-linear(0.5)"]
    assert [member.name for member in MEMBERS[:6]] == [*first, "bptr", "rectangular(1)"]


@pytest.mark.parametrize("name", [*sorted(NAMES), "rate-gradient"])
def test_a_members_gradient_is_that_of_an_explicit_network(name):
    model = net(mode="snn").double()
    images, labels = images_and_labels(model.float())
    model, images = model.double(), images.double()
    member = next(one for one in (*MEMBERS, *attacks.RATE_GRADIENT) if one.name == name)
    with member.installed(model):
        found = gradient(model, images, labels)
    expected = gradient(explicit(model, name), images, labels)
    assert expected.abs().sum() > 0
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("batch", [96, 13])
def test_the_fgsm_ensemble_is_a_naive_one_sample_for_sample(batch):
    model = net(mode="snn").double()
    images, labels = images_and_labels(model.float())
    model, images = model.double(), images.double()
    clean, rows = naive_fgsm(model, images, labels)
    right = torch.stack(list(rows.values())).all(dim=0)
    fast = attacks.strongest_fgsm(model, images, labels, eps=EPS, members=MEMBERS, batch=batch)
    assert torch.equal(fast.clean, clean)
    assert torch.equal(fast.right, right)
    every = attacks.strongest_fgsm(model, images, labels, eps=EPS, members=MEMBERS, survivors_only=False, batch=batch)
    assert all(torch.equal(every.members[name], row) for name, row in rows.items())
    assert 0 < right.sum() < min(int(row.sum()) for row in rows.values())


@pytest.mark.parametrize("verb", [fgsm, pgd])
def test_attacking_survivors_only_changes_no_result(verb):
    model = net(mode="snn")
    images, labels = images_and_labels(model)
    settings = {"members": MEMBERS, "streams": streams}
    every = attacks.strongest(model, images, labels, verb, survivors_only=False, batch=96, **settings)
    spared = attacks.strongest(model, images, labels, verb, batch=7, **settings)
    assert torch.equal(spared.right, every.right)
    assert torch.equal(every.right, torch.stack(list(every.members.values())).all(dim=0))
    assert not every.right[:9].any()
    backwards = attacks.strongest(model, images, labels, verb, members=MEMBERS[::-1], streams=streams)
    assert torch.equal(backwards.right, every.right)


def test_members_attack_survivors_only():
    model = net(mode="snn")
    images, labels = images_and_labels(model, wrong=0)
    seen = []

    def verb(_model, x, _labels, generators):
        seen.append(len(x))
        return attacks.noise(_model, x, _labels, eps=0.3, generator=generators)

    broken = attacks.strongest(model, images, labels, verb, members=MEMBERS, streams=streams)
    rows = list(broken.members.values())
    assert seen == [96, *[int(row.sum()) for row in rows[:-1]]]
    assert seen[-1] < 96
    assert torch.equal(rows[-1], broken.right)


def test_fgsm_shares_its_forward_passes():
    model = net(mode="snn")
    images, labels = images_and_labels(model)
    passes = []
    handle = model.register_forward_hook(lambda _model, inputs, _output: passes.append((model.mode, len(inputs[0]))))
    attacks.strongest_fgsm(model, images, labels, eps=0.0, members=MEMBERS)
    handle.remove()
    # the clean images, the images of each of 19 members, and the gradient of the conversion; eps 0 breaks nothing
    spiking_passes = [n for mode, n in passes if mode == "snn"]
    assert spiking_passes == [96, *[87] * 19]
    assert [n for mode, n in passes if mode == "ann"] == [87]


def test_an_ensemble_uses_each_member_and_leaves_the_models_own():
    model = net(mode="snn")
    images, labels = images_and_labels(model)
    used = []

    def verb(attacked_model, x, _labels, _generators):
        layer = spiking.neurons(attacked_model)[0]
        used.append(Member(mode="ann") if layer.mode == "ann" else Member(surrogate=layer.surrogate))
        return x

    attacks.strongest(model, images, labels, verb, members=MEMBERS, streams=streams)
    assert used == list(MEMBERS)
    assert all((layer.surrogate, layer.mode) == (PiecewiseLinear(1.0), "snn") for layer in spiking.neurons(model))


class FaultError(Exception):
    pass


@pytest.mark.parametrize("how", ["strongest", "strongest_fgsm"])
def test_model_and_settings_are_restored_when_an_attack_fails(how):
    model = net(mode="snn").train()
    model.body.bn2.eval()
    images, labels = images_and_labels(model.eval())
    model.train()
    model.body.bn2.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = []

    def fails(_model, inputs):
        calls.append(model.mode)
        if model.mode == "ann":
            raise FaultError

    handle = model.register_forward_pre_hook(fails)
    verbs = {
        "strongest": lambda: attacks.strongest(model, images, labels, fgsm, members=MEMBERS, streams=streams),
        "strongest_fgsm": lambda: attacks.strongest_fgsm(model, images, labels, eps=EPS, members=MEMBERS),
    }
    with pytest.raises(FaultError):
        verbs[how]()
    handle.remove()
    assert calls[-1] == "ann"
    assert all(
        (one.surrogate, one.mode, one.timesteps) == (PiecewiseLinear(1), "snn", 4) for one in spiking.neurons(model)
    )
    assert (model.training, model.body.bn1.training, model.body.bn2.training) == (True, True, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_ensemble_attacks_any_callable():
    def model(images):
        return torch.cat([images.flatten(1).sum(dim=1, keepdim=True), torch.full((len(images), 1), 31.0)], dim=1)

    images, labels = torch.full((4, *SHAPE), 0.5), torch.tensor([0, 0, 1, 0])
    broken = attacks.strongest_fgsm(model, images, labels, eps=0.01, members=attacks.TRUE_GRADIENT)
    assert broken.clean.tolist() == [True, True, False, True]
    assert broken.right.tolist() == broken.clean.tolist()
    assert not attacks.strongest_fgsm(model, images, labels, eps=0.02, members=attacks.TRUE_GRADIENT).right.any()


def test_nothing_is_asked_about_no_images():
    model = net(mode="snn")
    images, labels = images_and_labels(model, n=4, wrong=4)
    for broken in (
        attacks.strongest(model, images, labels, fgsm, members=MEMBERS, streams=streams),
        attacks.strongest_fgsm(model, images, labels, eps=EPS, members=MEMBERS),
    ):
        assert not broken.clean.any()
        assert not broken.right.any()


def test_a_gradient_that_is_zero_everywhere_is_found():
    model = net(mode="snn")
    images, labels = images_and_labels(model, n=8, wrong=0)

    def saturated(x):
        return 1e6 * model(x)

    assert not ensemble.without_gradient(model, images, labels, members=MEMBERS).any()
    assert ensemble.without_gradient(saturated, images, labels, members=(Member(),)).all()


@pytest.mark.parametrize(
    "surrogate",
    [PiecewiseLinear(1), Exponential(0.3, 2), Rectangular(1), StraightThrough(), Bptr(), RateGradient()],
    ids=str,
)
def test_the_surrogate_is_the_one_at_the_time_of_the_backward_pass(surrogate):
    model = net(mode="snn").double()
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    loss = model(images).square().sum()
    with spiking.configured(model, surrogate=surrogate):
        late = torch.autograd.grad(loss, images, retain_graph=True)[0]
        own = torch.autograd.grad(model(images).square().sum(), images)[0]
    assert torch.equal(late, own)
