"""Equation 12's psi is a gradient: that of the sum of what the masked layer makes of its input's average pool."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from toolchain import energy
from toolchain.ir import Conv, Dense, Neuron


def neuron(channels):
    return Neuron(i_decay=4096, v_decay=0, theta=1, bias=np.zeros(channels, dtype=int))


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(
    ("padding", "dilation", "groups", "kernel"), [(0, 1, 1, 3), (1, 1, 2, 3), (2, 2, 1, 3), (0, 1, 1, 1)]
)
def test_psi_of_a_convolution_is_autograds(pool, stride, padding, dilation, groups, kernel):
    rng = np.random.default_rng([pool, stride, padding, dilation, groups])
    mask = rng.random((6, 4 // groups, kernel, kernel)) < 0.4
    layer = Conv(
        name="conv",
        weight=np.where(mask, 7, 0),
        neuron=neuron(6),
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(dilation, dilation),
        groups=groups,
        pool=pool,
    )
    spikes = torch.zeros(1, 4, 12, 16, dtype=torch.float64, requires_grad=True)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    made = F.conv2d(F.avg_pool2d(spikes, pool), torch.tensor(mask, dtype=torch.float64), **settings).sum()
    (expected,) = torch.autograd.grad(made, spikes)
    found = energy.psi(layer, (4, 12, 16), mask)
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=1e-12)
    assert found.max() > 0


@pytest.mark.parametrize("pool", [1, 2])
def test_psi_of_a_dense_layer_is_autograds(pool):
    mask = np.random.default_rng(pool).random((5, 3 * (4 // pool) ** 2)) < 0.5
    layer = Dense(name="dense", weight=np.where(mask, -2, 0), neuron=neuron(5), pool=pool)
    spikes = torch.zeros(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    made = (F.avg_pool2d(spikes, pool).flatten(1) @ torch.tensor(mask, dtype=torch.float64).T).sum()
    (expected,) = torch.autograd.grad(made, spikes)
    np.testing.assert_allclose(energy.psi(layer, (3, 4, 4), mask), expected[0].numpy(), rtol=1e-12)
