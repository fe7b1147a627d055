"""Modules of torch with skip connections: the chain of relays spikes as the module does, or the sum is refused by its place."""

from __future__ import annotations

import numpy as np
import pytest
import residual
import torch
from foreign import IFNode, reset
from torch import nn

from toolchain import quantize, spiking
from toolchain.adopt import adopt
from toolchain.errors import UnsupportedError
from toolchain.spiking import IF

SHAPE, T = (1, 8, 8), 5


class Block(nn.Module):
    """Two convolutions and a shortcut, summed before the neurons as in a ResNet, or their spikes after them."""

    def __init__(self, source, channels, make, *, stride=1, after=False) -> None:
        super().__init__()
        self.conv1, self.norm1, self.act1 = nn.Conv2d(source, channels, 3, stride, 1), nn.BatchNorm2d(channels), make()
        self.conv2, self.norm2, self.act2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.BatchNorm2d(channels), make()
        short = nn.Sequential(nn.Conv2d(source, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        self.short = nn.Identity() if source == channels else short
        self.after = after

    def forward(self, x):
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        if self.after:
            return self.act2(y) + x
        y += self.short(x)
        return self.act2(y)


class Network(nn.Module):
    def __init__(self, make=lambda: IF(v_th=0.4)) -> None:
        super().__init__()
        self.stem, self.norm, self.act = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), make()
        self.blocks = nn.Sequential(Block(4, 4, make), Block(4, 6, make, stride=2), Block(6, 6, make, after=True))
        self.pool, self.head = nn.AvgPool2d(4), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.pool(self.blocks(self.act(self.norm(self.stem(x))))).flatten(1))


def network(make=lambda: IF(v_th=0.4)):
    torch.manual_seed(0)
    made = Network(make)
    with torch.no_grad():
        for norm in made.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_(0, 0.2)
                norm.running_var.uniform_(0.2, 0.6)
                norm.bias.normal_(0.1, 0.2)
    spiking.configure(made, mode="snn", timesteps=T)
    return made.eval()


def shown(n=8):
    return residual.images(n, shape=SHAPE)


def test_a_residual_module_computes_what_it_did():
    module, x = network(), torch.from_numpy(shown()) / 255
    net = adopt(module, SHAPE).net
    with torch.no_grad():
        expected = module(x.repeat(T, 1, 1, 1)).unflatten(0, (T, -1)).mean(dim=0)
        torch.testing.assert_close(net(x), expected)
    assert len(expected.unique(dim=0)) > 4


def test_neurons_of_another_library_may_stand_at_both_ends_of_a_skip_connection():
    module, x = network(lambda: IFNode(0.4)), shown()
    net = adopt(module, SHAPE, timesteps=T).net
    reset(module)
    with torch.no_grad():
        expected = sum(module(torch.from_numpy(x) / 255) for _ in range(T)) / T
        torch.testing.assert_close(net(torch.from_numpy(x) / 255), expected)


def test_its_chain_spikes_where_it_does_its_batch_norms_folded():
    net, images = adopt(network().double(), SHAPE).net.double(), shown()
    source, layers = quantize.fold(net, SHAPE, {})
    names = [f"blocks.{block}.conv{number}" for block in range(3) for number in (1, 2)]
    assert [layer.name for layer in layers] == ["stem", *names, "head"]
    found = residual.chain_spikes(layers, source.encode(images), T)
    for layer, ours, theirs in zip(layers, found, quantize.float_spikes(net, images), strict=False):
        assert np.array_equal(ours[:, :, : len(layer.weight)], theirs), layer.name
        assert theirs.any()


class Twice(Network):
    def forward(self, x):
        x = self.act(self.stem(x))
        return self.head(self.pool(self.blocks(x + x)).flatten(1))


class Scaled(Network):
    def forward(self, x):
        x = self.act(self.stem(x))
        return self.head(self.pool(torch.add(self.blocks(x), x, alpha=2)).flatten(1))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Twice, "forward: it adds act twice"),
        (Scaled, "forward: it computes add, which is no layer. Pass a torch.nn.Sequential of its layers"),
    ],
)
def test_a_sum_that_no_layer_hears_is_refused_by_its_place(kind, sentence):
    with pytest.raises(UnsupportedError) as error:
        adopt(kind(), SHAPE, timesteps=T)
    assert str(error.value) == sentence
