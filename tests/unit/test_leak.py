"""Leaks of the float SNN in 4096ths: taken where they are as faithful as weights, refused by their layer elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from toy import net

from toolchain import emulate, quantize
from toolchain.errors import UnsupportedError
from toolchain.quantize import Limits
from toolchain.spiking import neurons

T = 12


def quantized(*leaks: float, v_th=0.3, **settings):
    """The integers of a small network whose layers of neurons have these leaks; v_th is the last one's."""
    made = net(mode="snn", timesteps=T)
    for layer, leak in zip(neurons(made), leaks, strict=True):
        layer.leak = leak
    neurons(made)[-1].v_th.data.fill_(v_th)
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    limits = Limits(weight_bits=8, bias_max=4095, theta_max=131_072, graded=settings.pop("graded", True))
    return quantize.quantize(net=made, timesteps=T, masks={}, images=images, run=emulate.run, limits=limits, **settings)


@pytest.mark.parametrize("graded", [True, False])
def test_a_leak_becomes_the_nearest_4096th_and_costs_hardly_a_spike(graded):
    found = quantized(0.5, 0.4, graded=graded)
    assert [layer.neuron.v_decay for layer in found.network.layers] == [2048, 1638]
    assert found.facts["conv1"].spikes_differing < 0.015
    assert found.facts["conv2"].spikes_differing < 0.03


def test_a_network_that_forgot_its_leak_would_spike_otherwise():
    """The bound above can fail: without the leak, far more spikes differ."""
    leaky = quantized(0.5, 0.4).network
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)
    kept = [emulate.run(network, images, record=True).spikes[0] for network in (leaky, quantized(0.0, 0.0).network)]
    assert np.mean(kept[0] != kept[1]) > 0.03


def test_a_leak_too_far_from_a_4096th_for_its_theta_is_refused_with_both():
    between = 1000.5 / 4096
    with pytest.raises(UnsupportedError) as error:
        quantized(0.25, between, v_th=300.0)
    assert str(error.value).startswith(
        f"conv2: its leak of {between:.6g} a step becomes 1000/4096, which at a theta of "
    )
    assert str(error.value).endswith("rounding a weight costs 2. Take a leak nearer to a 4096th or fewer weight bits")


def test_a_membrane_that_keeps_nothing_is_refused():
    with pytest.raises(UnsupportedError) as error:
        quantized(1.0, 0.0)
    assert str(error.value) == "conv1: its membranes lose 1 of themselves each step, where 4095/4096 is the most"
