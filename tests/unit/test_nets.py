import pytest
import torch
from torch import nn
from toy import N_CLASSES, SHAPE, net, toy

from toolchain import nets, spiking
from toolchain.errors import ConfigError
from toolchain.spiking import IF


def test_the_body_is_a_chain_of_named_layers():
    model = nets.build(toy(model={"hidden": [5]}).model, SHAPE, N_CLASSES)
    kinds = [(name, type(layer)) for name, layer in model.body.named_children()]
    assert kinds == [
        *[("conv1", nn.Conv2d), ("bn1", nn.BatchNorm2d), ("act1", IF), ("pool1", nn.AvgPool2d)],
        *[("conv2", nn.Conv2d), ("bn2", nn.BatchNorm2d), ("act2", IF), ("pool2", nn.AvgPool2d)],
        *[("flatten", nn.Flatten), ("linear1", nn.Linear), ("act3", IF), ("readout", nn.Linear)],
    ]
    assert list(nets.prunable(model)) == ["conv1.weight", "conv2.weight", "linear1.weight", "readout.weight"]
    assert model(torch.rand(2, *SHAPE)).shape == (2, N_CLASSES)


def test_a_pool_must_divide_its_map():
    expected = "model.layers: a 2x2 pool does not divide the 7x7 map after conv1; crop or pad the images"
    with pytest.raises(ConfigError) as caught:
        nets.build(toy().model, (1, 14, 14), 3) and nets.build(toy().model, (1, 7, 7), 3)
    assert str(caught.value) in {expected, expected.replace("conv1", "conv2")}


def test_the_same_generator_gives_the_same_weights_and_the_global_one_is_untouched():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, other, third = net(seed=1), net(seed=1), net(seed=2)
    assert torch.equal(one.body.conv1.weight, other.body.conv1.weight)
    assert not torch.equal(one.body.conv1.weight, third.body.conv1.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_kaiming_normal_by_fan_out():
    model = nets.build(toy(model={"layers": [64, 128]}).model, SHAPE, 10, generator=torch.Generator().manual_seed(0))
    assert model.body.conv2.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_logits_are_the_mean_over_steps_of_a_net_shown_the_image_at_each():
    model = net(mode="snn", timesteps=4)
    images = torch.rand(3, *SHAPE)
    x = ((images - model.mean) / model.std).repeat(4, 1, 1, 1)
    expected = model.body(x).reshape(4, 3, -1).mean(dim=0)
    torch.testing.assert_close(model(images), expected)


def test_one_module_is_both_networks():
    model = net()
    images = torch.rand(3, *SHAPE)
    relu = model(images)
    with spiking.configured(model, mode="snn"):
        assert model.mode == "snn"
        assert not torch.equal(model(images), relu)
    assert torch.equal(model(images), relu)


def test_a_mask_zeroes_what_it_does_not_keep():
    model = net()
    mask = {"conv2.weight": torch.rand_like(model.body.conv2.weight) < 0.5}
    before = model.body.conv2.weight.detach().clone()
    nets.apply_mask(model, mask)
    assert torch.equal(model.body.conv2.weight.detach(), before * mask["conv2.weight"])
