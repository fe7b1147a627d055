import pytest
import torch
import torch.nn.functional as F
from toy import SHAPE, net

from toolchain import attacks

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


def one_each(n, seed=0):
    return [generator(seed * 1000 + index) for index in range(n)]


VERBS = {
    "fgsm": lambda m, x, y: attacks.fgsm(m, x, y, eps=EPS),
    "pgd": lambda m, x, y: attacks.pgd(m, x, y, eps=EPS, steps=4, generator=generator()),
    "noise": lambda m, x, y: attacks.noise(m, x, y, eps=EPS, generator=generator()),
    "apgd": lambda m, x, y: attacks.apgd(m, x, y, eps=EPS, steps=4, generator=generator()),
    "apgd dlr": lambda m, x, y: attacks.apgd(m, x, y, eps=EPS, steps=4, generator=generator(), loss="dlr"),
    "search": lambda m, x, y: attacks.search(m, x, y, eps=EPS, steps=2, generator=generator()),
    "square": lambda m, x, y: attacks.square(m, x, y, eps=EPS, queries=10, generator=generator()),
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


def test_while_an_attack_differentiates_no_parameter_takes_a_gradient():
    model = net()
    model.body.conv1.weight.requires_grad_(False)
    before = [parameter.requires_grad for parameter in model.parameters()]
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(any(one.requires_grad for one in model.parameters())))
    images, labels = batch()
    attacks.fgsm(model, images, labels, eps=EPS)
    assert seen == [False]
    assert [parameter.requires_grad for parameter in model.parameters()] == before


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


RANDOM = {
    "pgd": lambda m, x, y, g: attacks.pgd(m, x, y, eps=EPS, steps=2, generator=g),
    "noise": lambda m, x, y, g: attacks.noise(m, x, y, eps=EPS, generator=g),
    "apgd": lambda m, x, y, g: attacks.apgd(m, x, y, eps=EPS, steps=4, generator=g),
    "search": lambda m, x, y, g: attacks.search(m, x, y, eps=EPS, steps=4, generator=g),
    "square": lambda m, x, y, g: attacks.square(m, x, y, eps=EPS, queries=20, generator=g),
}


@pytest.mark.parametrize("verb", RANDOM)
def test_with_a_generator_each_no_images_fate_depends_on_its_batch(verb):
    model = net()
    images, labels = batch()
    together = RANDOM[verb](model, images, labels, one_each(12))
    some = [7, 2, 11]
    apart = RANDOM[verb](model, images[some], labels[some], [one_each(12)[index] for index in some])
    torch.testing.assert_close(apart, together[some])


@pytest.mark.parametrize("verb", RANDOM)
def test_an_attack_takes_any_callable(verb):
    images = torch.rand(5, *SHAPE, generator=generator())
    assert RANDOM[verb](linear, images, torch.zeros(5, dtype=torch.long), generator()).shape == images.shape


def test_noise_puts_every_pixel_at_an_end_of_its_ball():
    images = torch.full((2, *SHAPE), 0.5)
    moved = attacks.noise(linear, images, torch.zeros(2, dtype=torch.long), eps=EPS, generator=generator())
    torch.testing.assert_close((moved - images).abs(), torch.full_like(images, EPS))
    assert (moved > images).float().mean().item() == pytest.approx(0.5, abs=0.2)
