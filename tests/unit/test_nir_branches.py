"""NIR graphs with skip connections: chains of relays that spike as the graph does, or the node that no chain can have."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import residual
import torch
from traces import differences

from toolchain import emulate, export, mapping, nirfile, profile, quantize
from toolchain.errors import UnsupportedError

nir = pytest.importorskip("nir")

SHAPE, T = residual.SHAPE, 5
LIMITS = quantize.Limits(weight_bits=8, bias_max=4095, theta_max=131_072)
RNG = np.random.default_rng(0)


def conv(channels, source, side=3, stride=1, *, padding=None, bias=0.05, groups=1):
    weight = RNG.normal(0, 0.4, (channels, source // groups, side, side))
    return nir.Conv2d(
        input_shape=(8, 8),
        weight=weight,
        stride=(stride, stride),
        padding=(side // 2,) * 2 if padding is None else padding,
        dilation=(1, 1),
        groups=groups,
        bias=np.full(channels, bias),
    )


def integrator(v_threshold=0.5):
    thresholds = np.atleast_1d(v_threshold)
    return nir.IF(r=np.ones_like(thresholds), v_threshold=thresholds, v_reset=np.zeros_like(thresholds))


def leaky():
    return nir.LIF(*(np.array([value]) for value in (5e-4, 5.0, 0.0, 0.5, 0.0)))


def nodes(**changed):
    """Neurons a to f and what leads to them; nodes may be replaced or added."""
    made = {
        "input": nir.Input(input_type=np.array(SHAPE)),
        "stem": conv(4, 2),
        "a": integrator(),
        "to_b": conv(4, 4),
        "b": integrator(),
        "to_c": conv(4, 4),
        "c": leaky(),
        "to_d": conv(6, 4, stride=2),
        "d": integrator(),
        "to_e": conv(6, 6),
        "short": conv(6, 4, 1, 2, bias=0.1),
        "e": leaky(),
        "to_f": conv(5, 6, groups=1),
        "f": integrator(0.7),
        "pool": nir.AvgPool2d(np.array((4, 4)), np.array((4, 4)), np.array((0, 0))),
        "flatten": nir.Flatten(input_type={"input": np.array((5, 1, 1))}, start_dim=0),
        "last": nir.Affine(weight=RNG.normal(0, 1, (3, 5)), bias=np.zeros(3)),
        "output": nir.Output(output_type=np.array((3,))),
    }
    return {**made, **changed}


EDGES = (
    *("input-stem", "stem-a", "a-to_b", "to_b-b", "b-to_c", "to_c-c", "a-c"),  # a spike straight into a membrane
    *("c-to_d", "to_d-d", "d-to_e", "to_e-e", "c-short", "short-e"),  # through a stride
    *("e-to_f", "d-to_f", "to_f-f"),  # the sum of two layers' spikes
    *("f-pool", "pool-flatten", "flatten-last", "last-output"),
)


def read(folder, made=None, *, without=(), more=(), shuffled=None):
    """What a graph of these nodes is read as; edges may be left out, added or come in another order."""
    edges = [tuple(edge.split("-")) for edge in (*EDGES, *more) if edge not in without]
    if shuffled:
        random.Random(shuffled).shuffle(edges)
    path = Path(folder) / "a.nir"
    nir.write(path, nir.NIRGraph(nodes=made or nodes(), edges=edges, type_check=False))
    return nirfile.read(path, SHAPE, timesteps=T, dt=1e-4).adopted.net


def test_the_chain_spikes_where_the_graph_does_in_every_neuron_and_step(tmp_path):
    net = read(tmp_path).double()
    images = residual.images()
    source, layers = quantize.fold(net, SHAPE, {})
    assert [layer.name for layer in layers] == ["stem", "to_b", "to_c", "to_d", "to_e", "to_f", "last"]
    assert [layer.relays for layer in layers] == [(0, 0), (0, 4), (0, 0), (0, 4), (0, 6), (0, 0), (0, 0)]
    found = residual.chain_spikes(layers, source.encode(images), T)
    for layer, ours, theirs in zip(layers, found, quantize.float_spikes(net, images), strict=False):
        own = ours[:, :, : len(layer.weight)]
        assert np.array_equal(own, theirs), layer.name
        assert 0.02 < own.mean() < 0.9, layer.name


def test_what_the_composed_kernels_hear_is_told_apart(tmp_path):
    _, layers = quantize.fold(read(tmp_path), SHAPE, {})
    assert {layer.name: layer.parts for layer in layers if layer.parts} == {
        "to_c": (("to_c", 0), ("spikes", 4)),
        "to_e": (("to_e", 0), ("short", 6)),
        "to_f": (("to_f of e", 0), ("to_f of d", 6)),
    }


def test_the_order_of_edges_in_a_file_changes_nothing(tmp_path):
    made = nodes()
    one, other = (quantize.fold(read(tmp_path, made, shuffled=seed), SHAPE, {})[1] for seed in (1, 2))
    for mine, theirs in zip(one, other, strict=True):
        assert np.array_equal(mine.weight, theirs.weight)


def test_a_block_that_is_a_graph_of_its_own_is_one_with_its_nodes_in_place(tmp_path):
    whole = integrator(np.full((4, 8, 8), 0.5))  # nir checks the shapes of inner graphs
    made = nodes(b=whole, c=whole)
    inside = ("to_b", "b", "to_c", "c")
    ends = {"in": nir.Input(input_type=np.array((4, 8, 8))), "out": nir.Output(output_type=np.array((4, 8, 8)))}
    edges = [("in", "to_b"), ("to_b", "b"), ("b", "to_c"), ("to_c", "c"), ("in", "c"), ("c", "out")]
    block = nir.NIRGraph(nodes={**ends, **{name: made[name] for name in inside}}, edges=edges, type_check=False)
    outer = {**{name: node for name, node in made.items() if name not in inside}, "block": block}
    gone = [edge for edge in EDGES if set(edge.split("-")) & set(inside)]
    nested = read(tmp_path, outer, without=gone, more=("a-block", "block-to_d", "block-short"))
    images = residual.images()
    for one, other in zip(
        quantize.float_spikes(nested, images), quantize.float_spikes(read(tmp_path, made), images), strict=True
    ):
        assert np.array_equal(one, other)
    names = [layer.name for layer in quantize.fold(nested, SHAPE, {})[1]]
    assert names == ["stem", "block.to_b", "block.to_c", "to_d", "to_e", "to_f", "last"]


def test_thresholds_of_channels_behind_a_sum_scale_all_that_is_heard(tmp_path):
    thresholds = np.array([0.5, 1.0, 0.25, 0.75])
    made = nodes(c=integrator(thresholds))
    scaled = nodes(c=integrator(1.0), to_c=made["to_c"], scale=conv(4, 4, 1))
    scaled |= {name: node for name, node in made.items() if name != "c"}
    scaled["scale"].weight, scaled["scale"].bias = np.diag(1 / thresholds)[:, :, None, None], np.zeros(4)
    by_node = read(tmp_path, scaled, without=("to_c-c", "a-c"), more=("to_c-scale", "a-scale", "scale-c"))
    images = residual.images()
    for one, other in zip(
        quantize.float_spikes(read(tmp_path, made), images), quantize.float_spikes(by_node, images), strict=True
    ):
        assert np.array_equal(one, other)
        assert one.any()


def test_a_convolution_in_groups_is_one_with_zeros(tmp_path):
    net = read(tmp_path, nodes(to_b=conv(4, 4, groups=2))).double()
    source, layers = quantize.fold(net, SHAPE, {})
    assert not layers[1].weight[:2, 2:].any()
    found = residual.chain_spikes(layers, source.encode(residual.images()), T)
    assert np.array_equal(found[1][:, :, :4], quantize.float_spikes(net, residual.images())[1])


def quantized(net):
    images = residual.images(8)
    return quantize.quantize(net, timesteps=T, masks={}, images=images, run=emulate.run, limits=LIMITS).network


def test_the_integers_hardly_spike_otherwise(tmp_path):
    net = read(tmp_path)
    trace = emulate.run(quantized(net), residual.images(), record=True)
    for layer, ours, theirs in zip(
        trace.layers, trace.spikes, quantize.float_spikes(net, residual.images()), strict=True
    ):
        assert np.mean(ours[:, :, : theirs.shape[2]] != theirs) < 0.15, layer


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["stock", "fast"])
def test_leaky_layers_that_relay_spike_on_lava_as_on_the_emulator(tmp_path, run_on_lava, kernels):
    network = quantized(read(tmp_path, nodes(b=leaky())))
    assert network.layers[1].neuron.v_decay
    assert network.layers[1].n_relays
    images = residual.images(3)
    assert differences(emulate.run(network, images, record=True), run_on_lava(network, images, kernels)) == []


@pytest.mark.parametrize(
    "made",
    [
        residual.representable,
        residual.net,
        lambda: residual.net(1, ((6, 1), (6, 1), (6, 1), (6, 1))),
        lambda: residual.net(2, ((6, 2), (8, 2), (8, 1))),
    ],
)
def test_a_residual_network_of_ours_comes_back_as_it_was(made, tmp_path):
    net = made().float()
    path = tmp_path / "a.nir"
    path.write_bytes(nirfile.write(net, {}, b""))
    nir.read(path)  # with its type check
    found = nirfile.read(path, SHAPE).adopted.net
    for mine, theirs in zip(*(quantize.float_spikes(each, residual.images()) for each in (net, found)), strict=True):
        assert np.array_equal(mine, theirs)
    for mine, theirs in zip(*(quantize.fold(each, SHAPE, {})[1] for each in (net, found)), strict=True):
        assert mine.relays == theirs.relays
        np.testing.assert_allclose(mine.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_a_graph_with_branches_is_written_as_it_was_read_with_its_integers(tmp_path):
    net = read(tmp_path)
    network = quantized(net)
    masks = {layer.name: layer.weight != 0 for layer in network.chain}
    placed = mapping.place(network, profile.load("loihi2"))
    path = tmp_path / "again.nir"
    path.write_bytes(
        nirfile.write(net, {}, export.pack(export.Deployment(network=network, mapping=placed, masks=masks, facts={})))
    )
    found = nirfile.read(path, SHAPE)
    for mine, theirs in zip(
        *(quantize.float_spikes(each, residual.images()) for each in (net, found.adopted.net)), strict=True
    ):
        assert np.array_equal(mine, theirs)
    again = export.unpack(found.integers, "a.nir").network
    one, other = (emulate.run(integers, residual.images(), record=True) for integers in (network, again))
    assert differences(one, other) == []


LAST = nir.Affine(weight=RNG.normal(0, 1, (3, 6)), bias=RNG.normal(0, 1, 3))
SUMMED = {
    "without": ("e-to_f", "d-to_f", "to_f-f", "f-pool"),
    "more": ("e-pool", "d-pool"),
}
"""Edges of a network whose readout hears the sum of the spikes of d and e."""


def summed(folder):
    """What such a network is read as."""
    made = {name: node for name, node in nodes(last=LAST).items() if name not in {"to_f", "f"}}
    return read(folder, made, **SUMMED)


def test_a_readout_may_hear_a_sum_of_spikes(tmp_path):
    net = summed(tmp_path).double()
    images = residual.images()
    source, layers = quantize.fold(net, SHAPE, {})
    assert [layer.relays for layer in layers] == [(0, 0), (0, 4), (0, 0), (0, 4), (0, 6), (0, 0)]
    spikes = residual.chain_spikes(layers, source.encode(images), T)[-1]
    last = layers[-1]
    pooled = spikes.sum(axis=(1, 3, 4))  # the pool's mean is in the weights
    with torch.no_grad():
        expected = T * net(torch.from_numpy(images).double() / 255)
    np.testing.assert_allclose(pooled @ last.weight.T + T * last.bias, expected.numpy(), rtol=1e-9)
    assert len(np.unique(pooled, axis=0)) > 2


def test_a_sum_of_spikes_is_written_as_it_was_read(tmp_path):
    net = summed(tmp_path)
    path = tmp_path / "again.nir"
    path.write_bytes(nirfile.write(net, {}, b""))
    shown = torch.from_numpy(residual.images()) / 255
    with torch.no_grad():
        assert torch.equal(nirfile.read(path, SHAPE).adopted.net(shown), net(shown))


@pytest.mark.slow
def test_a_readout_that_hears_a_sum_of_spikes_has_the_same_logits_on_lava(tmp_path, run_on_lava):
    network = quantized(summed(tmp_path))
    images = residual.images(3)
    assert differences(emulate.run(network, images, record=True), run_on_lava(network, images)) == []


REFUSED = {
    "image": (
        {"more": ("stem-c",)},
        "stem: it leads to a and c, and sends no spikes, which alone can skip layers",
    ),
    "a sum of more than spikes": (
        {
            "nodes": {"to_f": conv(6, 6), "last": LAST},
            "without": ("to_f-f", "f-pool", "d-to_f"),
            "more": ("to_f-pool", "e-pool"),
            "drop": ("f",),
        },
        "e.sum: only spikes can be summed where no neurons hear the sum; a convolution leads to it",
    ),
    "pool": (
        {"nodes": {"short": nir.AvgPool2d(np.array((2, 2)), np.array((2, 2)), np.array((0, 0)))}},
        "short: AvgPool2d cannot be deployed between the ends of a skip connection; only Conv2d, IF and LIF can",
    ),
    "shapes": (
        {"nodes": {"short": conv(6, 4, 1, 1)}},
        "e: it hears a sum of different shapes, (6, 8, 8) and (6, 4, 4)",
    ),
    "channels": (
        {"nodes": {"short": conv(5, 4, 1, 2)}},
        "e: it hears a sum of different shapes, (5, 4, 4) and (6, 4, 4)",
    ),
    "past a stride": (
        {"nodes": {"short": conv(6, 4, 3, 2)}},
        (
            "e: it hears short (3x3 at stride (2, 2), padded by (1, 1)) beside layers that have gone on at stride (2, 2); "
            "only a convolution of 1x1 at that stride can skip them"
        ),
    ),
    "two windows": (
        {"nodes": {"between": conv(4, 4)}, "without": ("to_c-c",), "more": ("to_c-between", "between-c")},
        "to_c: has no spiking neurons before between",
    ),
    "a padded bias": (
        {
            "nodes": {"between": conv(4, 4, 1), "to_c": conv(4, 4)},
            "without": ("b-to_c",),
            "more": ("b-between", "between-to_c"),
        },
        "to_c: it pads a sum that has a bias, which no layer of a chain does",
    ),
    "windows apart": (
        {"nodes": {"skip": conv(4, 4, 2, padding=(0, 0))}, "without": ("a-c",), "more": ("a-skip", "skip-c")},
        "c: it hears a sum of different shapes, (4, 7, 7) and (4, 8, 8)",
    ),
    "an even window": (
        {"nodes": {"to_b": conv(4, 4, 2, padding=(0, 0)), "to_c": conv(4, 4, 2, padding=(1, 1))}},
        "to_b: a skip connection passes it, and its window is not odd and padded by half of its reach",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_skip_connection_that_no_chain_has_is_refused_by_its_node(tmp_path, name):
    changed, sentence = REFUSED[name]
    made = {key: node for key, node in nodes(**changed.get("nodes", {})).items() if key not in changed.get("drop", ())}
    with pytest.raises(UnsupportedError) as error:
        quantize.fold(read(tmp_path, made, without=changed.get("without", ()), more=changed.get("more", ())), SHAPE, {})
    assert str(error.value) == sentence
