import functools

import pytest
import torch
import torch.nn.functional as F
from toy import SHAPE, net

from toolchain import attacks, spiking
from toolchain.attacks import ensemble
from toolchain.spiking import PiecewiseLinear

EPS = 0.1


def batch(n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, *SHAPE, generator=generator), torch.randint(3, (n,), generator=generator)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(images):
    """A model whose strongest attack is known: the sign of each weight."""
    weight = torch.linspace(-1, 1, 64).reshape(1, 64)
    return torch.cat([images.flatten(1) @ weight.T, torch.zeros(len(images), 1)], dim=1)


VERBS = {
    "fgsm": lambda m, x, y: attacks.fgsm(m, x, y, eps=EPS),
    "pgd": lambda m, x, y: attacks.pgd(m, x, y, eps=EPS, steps=4, generator=generator()),
    "kl_pgd": lambda m, x, _: attacks.kl_pgd(m, x, eps=EPS, steps=4, generator=generator()),
    "kl_rfgsm": lambda m, x, _: attacks.kl_rfgsm(m, x, m(x), eps=EPS, generator=generator()),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("mode", ["ann", "snn"])
def test_an_attack_stays_in_its_ball_and_among_the_pixels(verb, mode):
    images, labels = batch()
    adversarial = VERBS[verb](net(mode=mode), images, labels)
    assert (adversarial - images).abs().max() <= EPS + 1e-6
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert not torch.equal(adversarial, images)


@pytest.mark.parametrize("verb", VERBS)
def test_an_attack_leaves_the_model_as_it_was(verb):
    model = net(mode="snn")
    model.train()
    model.body.bn2.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    images, labels = batch()
    kept = images.clone()
    with attacks.evaluating(model):
        VERBS[verb](model, images, labels)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert (model.training, model.body.bn1.training, model.body.bn2.training) == (True, True, False)
    assert torch.equal(images, kept)


def test_fgsm_finds_the_optimum_of_a_linear_model():
    images = torch.full((1, *SHAPE), 0.5)
    adversarial = attacks.fgsm(linear, images, torch.tensor([0]), eps=EPS)
    expected = 0.5 - EPS * torch.linspace(-1, 1, 64).sign().reshape(1, *SHAPE)
    torch.testing.assert_close(adversarial, expected)
    torch.testing.assert_close(
        attacks.pgd(linear, images, torch.tensor([0]), eps=EPS, steps=10, generator=generator()), expected
    )


def test_an_attack_differentiates_in_evaluation_mode():
    model = net()
    images, labels = batch()
    expected = attacks.fgsm(model, images, labels, eps=EPS)
    assert torch.equal(attacks.fgsm(model.train(), images, labels, eps=EPS), expected)


def test_the_attacks_raise_the_loss_they_climb():
    model = net()
    images, _ = batch(64)
    labels = model(images).argmax(dim=1)
    clean = F.cross_entropy(model(images), labels)
    one = F.cross_entropy(model(attacks.fgsm(model, images, labels, eps=EPS)), labels)
    many = F.cross_entropy(model(attacks.pgd(model, images, labels, eps=EPS, steps=10, generator=generator())), labels)
    assert clean < one < many + 0.05
    target = model(images).softmax(dim=1)

    def divergence(adversarial):
        return F.kl_div(model(adversarial).log_softmax(dim=1), target, reduction="batchmean")

    rfgsm = attacks.kl_rfgsm(model, images, model(images), eps=EPS, generator=generator())
    pgd = attacks.kl_pgd(model, images, eps=EPS, steps=10, generator=generator())
    noise = (images + EPS * torch.randn(images.shape, generator=generator()).sign()).clamp(0, 1)
    assert divergence(noise) < divergence(rfgsm) < divergence(pgd)


def test_there_are_at_least_six_members_in_the_order_of_their_strength():
    assert [member.name for member in ensemble.MEMBERS] == [
        *["exponential(0.3, 2)", "exponential(1, 2)", "piecewise-linear(1)", "piecewise-linear(0.5)"],
        *["bptr", "rectangular(1)"],
    ]


def attacked(model, images, labels, **settings):
    verb = functools.partial(attacks.pgd, eps=EPS, steps=3, generator=generator())
    return attacks.strongest(model, images, labels, verb, members=ensemble.MEMBERS, **settings)


def test_right_means_right_clean_and_under_every_member():
    model = net(mode="snn")
    images, _ = batch(64)
    labels = model(images).argmax(dim=1)
    labels[:9] = (labels[:9] + 1) % 3
    broken = attacked(model, images, labels, survivors_only=False)
    everything = torch.stack(list(broken.members.values()))
    assert torch.equal(broken.right, everything.all(dim=0))
    assert not broken.right[:9].any()
    assert 0 < broken.right.sum() < 55
    assert broken.right.sum() <= everything.sum(dim=1).min()
    assert len({tuple(row.tolist()) for row in everything}) > 1


def test_members_attack_survivors_only():
    model = net(mode="snn")
    images, _ = batch(64)
    seen = []

    def verb(_model, x, _labels):
        seen.append(len(x))
        return (x + EPS * torch.randn(x.shape, generator=generator(len(seen)))).clamp(0, 1)

    labels = model(images).argmax(dim=1)
    broken = attacks.strongest(model, images, labels, verb, members=ensemble.MEMBERS)
    rows = list(broken.members.values())
    assert seen == [64, *[int(row.sum()) for row in rows[:-1]]]
    assert torch.equal(rows[-1], broken.right)


def test_an_ensemble_uses_each_surrogate_and_leaves_the_models_own():
    model = net(mode="snn")
    images, _ = batch(8)
    used = []

    def verb(attacked_model, x, _labels):
        used.append(spiking.neurons(attacked_model)[0].surrogate)
        return x

    attacks.strongest(model, images, model(images).argmax(dim=1), verb, members=ensemble.MEMBERS)
    assert used == [member.surrogate for member in ensemble.MEMBERS]
    assert all(layer.surrogate == PiecewiseLinear(1.0) for layer in spiking.neurons(model))


def test_the_surrogate_is_restored_when_an_attack_fails():
    model = net(mode="snn").train()

    def fails(_model, _images, _labels):
        raise RuntimeError

    images, _ = batch(4)
    with pytest.raises(RuntimeError):
        attacks.strongest(model, images, model.eval()(images).argmax(1), fails, members=ensemble.MEMBERS)
    assert all(layer.surrogate == PiecewiseLinear(1.0) for layer in spiking.neurons(model))
