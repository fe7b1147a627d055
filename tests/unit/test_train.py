import math

import pytest
import torch
import torch.nn.functional as F
from toy import net, split, toy

from toolchain import attacks, finetune, nets, prune, spiking, train
from toolchain.train import pixels, stream


def batch():
    images = split(12)
    return pixels(images.images), torch.tensor(images.labels)


def states_equal(one, other):
    left, right = one.state_dict(), other.state_dict()
    return all(torch.equal(left[name], right[name]) for name in left)


def test_streams_are_equal_for_equal_names_only():
    draws = {names: torch.rand(1, generator=stream(*names)).item() for names in [(0, "a", 1), (0, "a", 2), (1, "a", 1)]}
    assert len(set(draws.values())) == 3
    assert torch.rand(1, generator=stream(0, "a", 1)).item() == draws[0, "a", 1]


@pytest.mark.parametrize("kl", ["clean", "adversarial"])
def test_trades_is_its_formula(kl):
    settings = toy(loss={"kl": kl, "weight": 3.0}).loss
    images, labels = batch()
    model = net().train()
    found = train.ann_loss(settings)(model, images, labels, stream(1))
    other = net().train()
    clean = other(images)
    crafted = attacks.kl_pgd(other, images, eps=settings.eps, steps=settings.steps, generator=stream(1))
    p, q = clean.softmax(dim=1), other(crafted).softmax(dim=1)
    p, q = (p, q) if kl == "clean" else (q, p)
    expected = F.cross_entropy(clean, labels) + 3 * (p * (p / q).log()).sum(dim=1).mean()
    torch.testing.assert_close(found, expected)


def test_snn_trades_is_its_formula():
    settings = toy().loss
    images, labels = batch()
    found = train.snn_loss(settings)(net(mode="snn").train(), images, labels, stream(1))
    other = net(mode="snn").train()
    clean = other(images)
    adversarial = other(attacks.kl_rfgsm(other, images, clean, eps=settings.eps, generator=stream(1)))
    p, q = clean.softmax(dim=1), adversarial.softmax(dim=1)
    expected = F.cross_entropy(clean, labels) + 2 * (p * (p / q).log()).sum(dim=1).mean()
    torch.testing.assert_close(found, expected)


def test_both_arguments_of_the_kl_are_differentiated():
    """The clean term is not detached in the outer loss: without cross entropy, it still moves the weights."""
    settings = toy(loss={"eps": 0.3}).loss
    images, labels = batch()
    gradients = []
    for weight in (1.0, 2.0):
        model = net().train()
        loss = train.ann_loss(toy(loss={"eps": 0.3, "weight": weight}).loss)(model, images, labels, stream(1))
        gradients.append(torch.autograd.grad(loss, model.body.readout.bias)[0])
    model = net().train()
    clean = model(images)
    crafted = attacks.kl_pgd(model, images, eps=settings.eps, steps=settings.steps, generator=stream(1))
    divergence = F.kl_div(model(crafted).log_softmax(1), clean.log_softmax(1), log_target=True, reduction="batchmean")
    expected = torch.autograd.grad(divergence, model.body.readout.bias)[0]
    torch.testing.assert_close(gradients[1] - gradients[0], expected, rtol=1e-4, atol=1e-6)


def attacked_as(model, images, labels, settings):
    """What the objective's own attack makes of the images: PGD against an ANN, RFGSM against a spiking network."""
    if model.mode == "ann":
        return attacks.pgd(model, images, labels, eps=settings.eps, steps=settings.steps, generator=stream(1))
    return attacks.rfgsm(model, images, labels, eps=settings.eps, generator=stream(1))


def losses(settings, mode):
    return train.ann_loss(settings) if mode == "ann" else train.snn_loss(settings)


@pytest.mark.parametrize("mode", ["ann", "snn"])
def test_adversarial_training_is_cross_entropy_on_the_attacked_images(mode):
    settings = toy(loss={"objective": "adversarial"}).loss
    images, labels = batch()
    found = losses(settings, mode)(net(mode=mode).train(), images, labels, stream(1))
    other = net(mode=mode).train()
    expected = F.cross_entropy(other(attacked_as(other, images, labels, settings)), labels)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("mode", ["ann", "snn"])
def test_mart_is_its_equation(mode):
    """Sample by sample in plain numbers, as Wang 2020 writes it: boosted cross entropy, and a KL weighted by the doubt."""
    settings = toy(loss={"objective": "mart", "weight": 5.0}).loss
    images, labels = batch()
    found = losses(settings, mode)(net(mode=mode).train(), images, labels, stream(1))
    other = net(mode=mode).train()
    clean = other(images).softmax(dim=1)
    adversarial = other(attacked_as(other, images, labels, settings)).softmax(dim=1)
    total = 0.0
    for p, q, y in zip(clean.tolist(), adversarial.tolist(), labels.tolist(), strict=True):
        others = [share for k, share in enumerate(q) if k != y]
        boosted = -math.log(q[y]) - math.log(1 - max(others))
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        total += boosted + 5 * divergence * (1 - p[y])
    assert found.item() == pytest.approx(total / len(labels), rel=1e-4)


@pytest.mark.parametrize("objective", ["adversarial", "mart", "trades"])
def test_every_objective_trains_both_kinds_of_network(objective):
    for mode, verb, stage in (("ann", train.train, "train"), ("snn", finetune.finetune_snn, "finetune")):
        model, reported = net(mode=mode), []
        recipe = toy(loss={"objective": objective}, **{stage: {"epochs": 3, "lr": 0.05}})
        arguments = (model, split(), recipe) if mode == "ann" else (model, {}, split(), recipe)
        verb(*arguments, after=lambda epoch, reported=reported: reported.append(epoch.loss))
        assert reported[-1] < reported[0]


@pytest.mark.parametrize("eps", [0.02, 0.3])
def test_rfgsm_stays_in_its_ball_and_steps_half_at_random_and_half_along_the_gradient(eps):
    images, labels = batch()
    images = images.clamp(0.4, 0.6) if eps < 0.1 else images
    model = net(mode="snn")
    found = attacks.rfgsm(model, images, labels, eps=eps, generator=stream(1))
    assert (found - images).abs().max() <= eps + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    start = (images + eps / 2 * torch.randn(images.shape, generator=stream(1)).sign()).clamp(0, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(start), labels, reduction="sum"), start)
    expected = (start + eps / 2 * gradient.sign()).clamp(0, 1)
    torch.testing.assert_close(found, expected.detach().clamp(images - eps, images + eps))


def test_images_are_varied_anew_in_each_epoch_and_alike_when_resumed():
    recipe = toy(data={"augmentation": "crop-flip"}, train={"epochs": 3}, loss={"objective": "natural"})
    epochs, plain = [], net()
    varied = net()
    train.train(varied, split(), recipe, after=epochs.append)
    train.train(plain, split(), toy(train={"epochs": 3}, loss={"objective": "natural"}))
    assert not states_equal(varied, plain)
    resumed = net(seed=5)
    train.train(resumed, split(), recipe, start=epochs[1])
    assert states_equal(varied, resumed)


def test_natural_is_cross_entropy():
    images, labels = batch()
    model = net()
    settings = toy(loss={"objective": "natural"}).loss
    for loss in (train.ann_loss(settings), train.snn_loss(settings)):
        torch.testing.assert_close(loss(model, images, labels, stream(0)), F.cross_entropy(model(images), labels))


def test_training_learns():
    model = net()
    losses = []
    recipe = toy(train={"epochs": 6}, loss={"objective": "natural"})
    train.train(model, split(), recipe, after=lambda epoch: losses.append(epoch.loss))
    assert losses[-1] < losses[0] / 2
    assert not model.training


@pytest.mark.parametrize("stop", [1, 2])
def test_a_stage_resumed_after_any_epoch_ends_as_one_that_never_stopped(stop):
    recipe = toy(train={"epochs": 3})
    whole, epochs = net(), []
    train.train(whole, split(), recipe, after=epochs.append)
    resumed = net(seed=5)
    train.train(resumed, split(), recipe, start=epochs[stop - 1])
    assert states_equal(whole, resumed)


def test_resuming_hydra_ends_with_the_same_mask():
    recipe = toy(prune={"epochs": 3, "lr": 0.5})
    epochs = []
    mask = prune.prune(net(), split(), recipe, after=epochs.append)
    resumed = prune.prune(net(), split(), recipe, start=epochs[1])
    assert all(torch.equal(mask[name], resumed[name]) for name in mask)


@pytest.mark.parametrize("objective", ["trades", "mart", "adversarial", "natural"])
@pytest.mark.parametrize("stage", ["sparse", "finetune"])
def test_finetuning_leaves_every_pruned_weight_at_zero_exactly(stage, objective):
    """Momentum and weight decay included."""
    model = net(mode="snn" if stage == "finetune" else "ann")
    mask = prune.magnitude(model, 0.75)
    nets.apply_mask(model, mask)
    before = {name: weight.detach().clone() for name, weight in nets.prunable(model).items()}
    epochs = []
    recipe = toy(loss={"objective": objective}, **{stage: {"weight_decay": 0.1, "lr": 0.1, "epochs": 2}})
    verb = finetune.finetune_snn if stage == "finetune" else finetune.finetune_ann
    verb(model, mask, split(), recipe, after=epochs.append)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, weight in nets.prunable(model).items():
        assert not weight.detach()[~mask[name]].any()
        assert not torch.equal(weight.detach(), before[name])
        momentum = epochs[-1].optimizer["state"][names.index(f"body.{name}")]["momentum_buffer"]
        assert not momentum[~mask[name]].any()
        assert momentum[mask[name]].any()


def test_finetuning_the_spiking_network_trains_thresholds_within_their_bound():
    model = net(mode="snn", v_th=0.031)
    finetune.finetune_snn(model, {}, split(), toy(finetune={"lr": 0.3, "epochs": 2}))
    thresholds = [layer.v_th.item() for layer in spiking.neurons(model)]
    assert all(value >= 0.03 - 1e-9 for value in thresholds)
    assert any(abs(value - 0.031) > 1e-4 for value in thresholds)


def test_a_last_batch_of_one_image_is_left_out():
    """Batch statistics of a single value do not exist."""
    model = net(layers=[4, "A", 6, "A"])
    train.train(model, split(33), toy(train={"epochs": 1}, loss={"objective": "natural"}))
    assert model.body.conv1.weight.isfinite().all()


def test_pixels_are_exact_shares_of_255():
    images = split(4).images
    assert torch.equal(pixels(images) * 255, torch.tensor(images, dtype=torch.float32))
