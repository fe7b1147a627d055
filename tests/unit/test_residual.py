"""Residual networks as chains: relayed spikes, composed kernels, and what cannot be carried on."""

from __future__ import annotations

import numpy as np
import pytest
import residual

from toolchain import emulate, nets, quantize, recipe
from toolchain.errors import UnsupportedError

PLANS = [residual.PLAN, ((6, 1), (6, 1), (6, 1), (6, 1)), ((6, 2), (8, 2), (8, 1)), ((6, 1), (9, 1), (9, 1))]


@pytest.mark.parametrize("plan", PLANS)
def test_the_chain_spikes_where_the_float_network_does_in_every_neuron_and_step(plan):
    for seed in range(2):
        net = residual.net(seed, plan).double()
        images = residual.images(seed=seed)
        source, layers = quantize.fold(net, images.shape[1:], {})
        found = residual.chain_spikes(layers, source.encode(images), net.timesteps)
        for layer, ours, theirs in zip(layers, found, quantize.float_spikes(net, images), strict=False):
            own = ours[:, :, : len(layer.weight)]
            assert np.array_equal(own, theirs), (seed, layer.name)
            assert 0.02 < own.mean() < 0.9, (seed, layer.name)


def test_wrn_28_4_becomes_25_layers_with_nearly_two_relays_for_each_neuron():
    net = nets.build(
        recipe.from_dict({"model": {"architecture": "wrn", "depth": 28, "width": 64}}).model, (3, 32, 32), 10
    )
    _, layers = quantize.fold(net, (3, 32, 32), {})
    side, n_neurons, n_relays = 32, 0, 0
    for layer in layers[:-1]:
        side //= layer.module.stride[0]
        n_neurons += len(layer.weight) * side**2
        n_relays += (layer.relays[1] - layer.relays[0]) * side**2
    assert len(layers) == 25 + 1
    assert n_neurons == 933_888
    assert n_relays == 1_662_976


def test_a_block_of_unchanged_shape_behind_the_first_convolution_is_refused_by_name():
    net = residual.net(plan=((4, 1), (6, 1)))
    with pytest.raises(UnsupportedError) as caught:
        quantize.fold(net, residual.SHAPE, {})
    assert str(caught.value) == (
        "block1: its shortcut carries the analog image beyond the first layer, where there are only spikes; "
        "give its group another width than the first convolution's"
    )


LIMITS = quantize.Limits(weight_bits=8, bias_max=4095, theta_max=131_071)


def quantized(net, shown, **settings):
    return quantize.quantize(
        net, timesteps=net.timesteps, masks={}, images=shown, run=emulate.run, limits=LIMITS, **settings
    )


def test_where_composed_weights_are_whole_the_deployed_network_is_the_float_network_spike_for_spike():
    net = residual.representable()
    made = quantized(net, residual.images(4))
    shown = residual.images(8, seed=7)
    trace = emulate.run(made.network, shown, record=True)
    for layer, found, expected in zip(
        made.network.layers, trace.spikes, quantize.float_spikes(net, shown), strict=True
    ):
        assert np.array_equal(found[:, :, : len(layer.weight)], expected), layer.name
        assert 0.02 < expected.mean() < 0.9, layer.name
    assert made.facts["block2"].errors == {"block2.conv2": 0.0, "block1.conv2": 0.0, "block1.shortcut": 0.0}


def test_what_rounding_changed_is_told_of_each_source_of_a_composed_weight():
    made = quantized(residual.net(), residual.images(4))
    errors = made.facts["block2"].errors
    assert list(errors) == ["block2.conv2", "block1.conv2", "block1.shortcut"]
    _, folded = quantize.fold(residual.net(), residual.SHAPE, {})
    exact = next(layer for layer in folded if layer.name == "block2").weight[:, 6:12]
    weight, (scale,) = made.network.layers[4].weight[:, 6:12], made.facts["block2"].scale
    assert errors["block1.conv2"] == pytest.approx(np.linalg.norm(weight * scale - exact) / np.linalg.norm(exact))
    assert all(0 < error < 0.1 for error in errors.values())
