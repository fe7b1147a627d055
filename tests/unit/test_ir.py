"""A network that exists is one that Lava can run: every check of every constructor, with what it says."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from toolchain.errors import ConfigError
from toolchain.ir import Conv, Dense, Input, Network, Neuron, Readout


def said(make) -> str:
    """Return the sentence with which a constructor refuses."""
    with pytest.raises(ConfigError) as error:
        make()
    return str(error.value)


def ones(*shape: int):
    return np.ones(shape, dtype=np.int64)


def neuron(channels=2, **changes) -> Neuron:
    return Neuron(**{"theta": np.array(3), "bias": 0 * ones(channels), **changes})


def conv(**changes) -> Conv:
    return Conv(**{"name": "conv1", "weight": ones(2, 3, 2, 2), "neuron": neuron(), **changes})


def dense(**changes) -> Dense:
    return Dense(**{"name": "fc1", "weight": ones(2, 12), "neuron": neuron(), **changes})


def readout(**changes) -> Readout:
    return Readout(**{"name": "fc2", "weight": ones(10, 2), "bias": 0 * ones(10), **changes})


def image(**changes) -> Input:
    return Input(**{"shape": (3, 2, 2), "offset": 0 * ones(3), **changes})


def network(**changes) -> Network:
    return Network(**{"input": image(), "layers": (dense(),), "readout": readout(), "timesteps": 4, **changes})


# Arrays


def test_arrays_become_read_only_integers_of_32_bits():
    weight = conv(weight=ones(2, 3, 2, 2).astype(np.int8)).weight
    assert weight.dtype == np.int32
    with pytest.raises(ValueError, match="assignment destination is read-only"):
        weight[0] = 2


def test_a_layer_does_not_change_when_the_array_it_was_made_from_does():
    weight = ones(2, 12)
    layer = dense(weight=weight)
    weight[:] = 5
    assert layer.weight.max() == 1


def test_nouns_are_frozen():
    with pytest.raises(FrozenInstanceError):
        network().timesteps = 5


@pytest.mark.parametrize("kind", ["float64", "float32", "bool", "complex64", "object"])
def test_numbers_that_are_not_integers_are_refused(kind):
    assert said(lambda: dense(weight=ones(2, 12).astype(kind))) == f"fc1.weight: expected integers, got {kind}"


# Input


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"shape": (0, 2, 2)}, "input: channels: expected a positive integer, got 0"),
        ({"shape": (3, -1, 2)}, "input: height: expected a positive integer, got -1"),
        ({"shape": (3, 2, 2.5)}, "input: width: expected a positive integer, got 2.5"),
        ({"bits": 0}, "input: bits: expected a positive integer, got 0"),
        ({"bits": True}, "input: bits: expected a positive integer, got True"),
        ({"bits": "9"}, "input: bits: expected a positive integer, got '9'"),
        ({"offset": ones(2)}, "input.offset: expected shape (3,), got (2,)"),
        ({"offset": ones(3, 1)}, "input.offset: expected shape (3,), got (3, 1)"),
        ({"offset": ones(3) * 0.5}, "input.offset: expected integers, got float64"),
        ({"offset": np.array([0, -1, 5])}, "input.offset: expected 0 to 255, got -1 to 5"),
        ({"offset": np.array([0, 256, 5])}, "input.offset: expected 0 to 255, got 0 to 256"),
        (
            {"shape": (0, 0, 2)},
            "input: 2 faults\n  channels: expected a positive integer, got 0\n  height: expected a positive integer, got 0",
        ),
    ],
)
def test_an_input_names_what_is_wrong_with_it(changes, sentence):
    assert said(lambda: image(**changes)) == sentence


def test_a_message_is_the_pixel_minus_the_offset_of_its_channel():
    coding = image(offset=np.array([0, 128, 255]))
    images = np.full((1, 3, 2, 2), 200, dtype=np.uint8)
    assert coding.encode(images)[0, :, 1, 0].tolist() == [200, 72, -55]


def test_the_range_of_messages_follows_from_the_offset():
    low, high = image(offset=np.array([0, 128, 255])).message_range
    assert low.tolist() == [0, -128, -255]
    assert high.tolist() == [255, 127, 0]


# Neuron


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"theta": np.array(0)}, "neuron.theta: expected 1 to 131072, got 0 to 0"),
        ({"theta": np.array([5, 131_073])}, "neuron.theta: expected 1 to 131072, got 5 to 131073"),
        ({"theta": np.array(1.5)}, "neuron.theta: expected integers, got float64"),
        ({"bias": np.array([0, 32_768])}, "neuron.bias: expected -32767 to 32767, got 0 to 32768"),
        ({"bias": np.array([-32_768, 0])}, "neuron.bias: expected -32767 to 32767, got -32768 to 0"),
        ({"bias": np.array([0.0])}, "neuron.bias: expected integers, got float64"),
        ({"i_decay": 0}, "neuron: i_decay: expected 1 to 4096, got 0"),
        ({"i_decay": 4_097}, "neuron: i_decay: expected 1 to 4096, got 4097"),
        ({"v_decay": -1}, "neuron: v_decay: expected 0 to 4095, got -1"),
        ({"v_decay": 4_096}, "neuron: v_decay: expected 0 to 4095, got 4096"),
        (
            {"i_decay": 0, "v_decay": 4_096},
            "neuron: 2 faults\n  i_decay: expected 1 to 4096, got 0\n  v_decay: expected 0 to 4095, got 4096",
        ),
    ],
)
def test_a_neuron_names_what_is_wrong_with_it(changes, sentence):
    assert said(lambda: neuron(**changes)) == sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"theta": np.array(1)},
        {"theta": np.array([131_072, 1])},
        {"bias": np.array([-32_767, 32_767])},
        {"i_decay": 1, "v_decay": 4_095},
    ],
)
def test_the_ends_of_every_range_of_a_neuron_are_allowed(changes):
    made = neuron(**changes)
    assert all(np.array_equal(getattr(made, name), value) for name, value in changes.items())


@pytest.mark.parametrize(
    ("i_decay", "v_decay", "leaks"), [(4_096, 0, False), (4_095, 0, True), (4_096, 1, True), (1, 4_095, True)]
)
def test_only_a_neuron_that_forgets_all_current_and_no_voltage_does_not_leak(i_decay, v_decay, leaks):
    assert neuron(i_decay=i_decay, v_decay=v_decay).leaks is leaks


def test_theta_per_channel_repeats_what_a_layer_shares():
    assert neuron().per_channel(3).tolist() == [3, 3, 3]
    assert neuron(theta=np.array([4, 5])).per_channel(2).tolist() == [4, 5]


# Layers


@pytest.mark.parametrize(("make", "name"), [(conv, "conv1"), (dense, "fc1"), (readout, "fc2")])
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"pool": 0}, "{}: pool: expected a positive integer, got 0"),
        ({"pool": 2.0}, "{}: pool: expected a positive integer, got 2.0"),
        ({"weight_bits": 0}, "{}: weight_bits: expected 1 to 8, got 0"),
        ({"weight_bits": 9}, "{}: weight_bits: expected 1 to 8, got 9"),
        ({"name": ""}, "layer: name: expected characters other than '/', got ''"),
        ({"name": "a/b"}, "layer: name: expected characters other than '/', got 'a/b'"),
        ({"name": 3}, "layer: name: expected characters other than '/', got 3"),
        ({"weight": ones(2, 3, 2)}, "{}: weight: expected D dimensions, none of them 0, got shape (2, 3, 2)"),
        ({"weight": ones(0, 0)}, "{}: weight: expected D dimensions, none of them 0, got shape (0, 0)"),
    ],
)
def test_a_layer_of_any_kind_names_what_is_wrong_with_it(make, name, changes, sentence):
    dimensions = "4" if make is conv else "2"
    assert said(lambda: make(**changes)) == sentence.format(name).replace("D dim", f"{dimensions} dim")


@pytest.mark.parametrize(
    ("bits", "low", "high"), [(1, -1, 1), (2, -2, 1), (3, -4, 3), (4, -8, 7), (7, -64, 63), (8, -128, 127)]
)
def test_weights_keep_to_their_bits(bits, low, high):
    weight = np.resize(np.array([low, high]), (2, 12))
    assert dense(weight=weight, weight_bits=bits).weight.max() == high
    assert said(lambda: dense(weight=weight + 1, weight_bits=bits)) == (
        f"fc1.weight: expected {low} to {high}, got {low + 1} to {high + 1}"
    )
    assert said(lambda: dense(weight=weight - 1, weight_bits=bits)) == (
        f"fc1.weight: expected {low} to {high}, got {low - 1} to {high - 1}"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"groups": 0}, "conv1: groups: expected a positive integer, got 0"),
        ({"groups": 3}, "conv1: 2 channels do not divide into 3 groups"),
        ({"stride": (1, 0)}, "conv1: stride: expected a positive integer, got 0"),
        ({"dilation": (0, 1)}, "conv1: dilation: expected a positive integer, got 0"),
        ({"padding": (0, -1)}, "conv1: padding: expected 0 or more, got (0, -1)"),
        ({"neuron": neuron(theta=ones(3))}, "conv1: theta: expected shape () or (2,), got (3,)"),
        ({"neuron": neuron(theta=ones(2, 1))}, "conv1: theta: expected shape () or (2,), got (2, 1)"),
        (
            {"neuron": neuron(bias=ones(3))},
            "conv1: bias: expected shape (2,), or for a convolution also a map, got (3,)",
        ),
        (
            {"neuron": neuron(bias=ones(3, 1, 1))},
            "conv1: bias: expected shape (2,), or for a convolution also a map, got (3, 1, 1)",
        ),
        (
            {"neuron": neuron(theta=ones(1), bias=ones(1))},
            "conv1: 2 faults\n  theta: expected shape () or (2,), got (1,)\n  bias: expected shape (2,), or for a convolution also a map, got (1,)",
        ),
    ],
)
def test_a_convolution_names_what_is_wrong_with_it(changes, sentence):
    assert said(lambda: conv(**changes)) == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"neuron": neuron(theta=ones(3))}, "fc1: theta: expected shape () or (2,), got (3,)"),
        (
            {"neuron": neuron(bias=ones(2, 1, 1))},
            "fc1: bias: expected shape (2,), or for a convolution also a map, got (2, 1, 1)",
        ),
    ],
)
def test_a_dense_layer_names_what_is_wrong_with_it(changes, sentence):
    assert said(lambda: dense(**changes)) == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"bias": ones(9)}, "fc2.bias: expected shape (10,), got (9,)"),
        ({"bias": ones(10) * 32_768}, "fc2.bias: expected -32767 to 32767, got 32768 to 32768"),
        ({"bias": ones(10) * 0.5}, "fc2.bias: expected integers, got float64"),
    ],
)
def test_a_readout_names_what_is_wrong_with_it(changes, sentence):
    assert said(lambda: readout(**changes)) == sentence


@pytest.mark.parametrize(
    ("changes", "source", "shape"),
    [
        ({}, (3, 4, 7), (2, 3, 6)),
        ({"padding": (1, 0)}, (3, 4, 7), (2, 5, 6)),
        ({"stride": (2, 3)}, (3, 4, 7), (2, 2, 2)),
        ({"dilation": (3, 1)}, (3, 4, 7), (2, 1, 6)),
        ({"pool": 2}, (3, 4, 8), (2, 1, 3)),
        ({"weight": ones(2, 1, 2, 2), "groups": 2}, (2, 2, 2), (2, 1, 1)),
        ({"weight": ones(2, 3, 2, 1)}, (3, 4, 7), (2, 3, 7)),
        ({"neuron": neuron(bias=ones(2, 3, 6))}, (3, 4, 7), (2, 3, 6)),
    ],
)
def test_a_convolution_knows_its_output_shape(changes, source, shape):
    assert conv(**changes).output_shape(source) == shape


@pytest.mark.parametrize(
    ("changes", "source", "sentence"),
    [
        ({}, (2, 4, 4), "conv1: expected 3 source channels, got 2"),
        ({"groups": 2}, (3, 4, 4), "conv1: expected 6 source channels, got 3"),
        ({}, (3, 1, 4), "conv1: the kernel is larger than its (3, 1, 4) input"),
        ({"dilation": (1, 4)}, (3, 4, 4), "conv1: the kernel is larger than its (3, 4, 4) input"),
        ({"pool": 4}, (3, 4, 8), "conv1: the kernel is larger than its (3, 4, 8) input"),
        ({"pool": 2}, (3, 5, 4), "conv1: a 2x2 pool does not divide a 5x4 map; crop or resize the image"),
        ({"pool": 3}, (3, 6, 4), "conv1: a 3x3 pool does not divide a 6x4 map; crop or resize the image"),
        ({"neuron": neuron(bias=ones(2, 6, 3))}, (3, 4, 7), "conv1: bias: expected shape (2, 3, 6), got (2, 6, 3)"),
    ],
)
def test_a_convolution_refuses_a_source_that_does_not_fit(changes, source, sentence):
    assert said(lambda: conv(**changes).output_shape(source)) == sentence


@pytest.mark.parametrize(("make", "name", "columns"), [(dense, "fc1", 12), (readout, "fc2", 2)])
def test_a_dense_layer_refuses_a_source_that_does_not_fit(make, name, columns):
    assert said(lambda: make().output_shape((5, 2, 3))) == (
        f"{name}: weight: expected 30 columns for its (5, 2, 3) input, got {columns}"
    )
    assert said(lambda: make(pool=2).output_shape((5, 2, 3))) == (
        f"{name}: a 2x2 pool does not divide a 2x3 map; crop or resize the image"
    )


def test_a_dense_layer_counts_its_columns_after_the_pool():
    assert dense(pool=2).output_shape((3, 4, 4)) == (2, 1, 1)


# Network


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"timesteps": 0}, "network: timesteps: expected a positive integer, got 0"),
        ({"timesteps": 2.0}, "network: timesteps: expected a positive integer, got 2.0"),
        ({"layers": ()}, "network: expected at least one layer of spiking neurons"),
        ({"readout": readout(name="fc1")}, "network: layer names repeat: fc1, fc1"),
        (
            {"layers": (dense(pool=2),), "input": image(shape=(3, 4, 4))},
            "fc1: the first layer cannot pool its messages; pool the images",
        ),
        ({"input": image(shape=(3, 2, 3))}, "fc1: weight: expected 18 columns for its (3, 2, 3) input, got 12"),
        ({"readout": readout(weight=ones(10, 3))}, "fc2: weight: expected 2 columns for its (2, 1, 1) input, got 3"),
    ],
)
def test_a_network_names_what_is_wrong_with_it(changes, sentence):
    assert said(lambda: network(**changes)) == sentence


def test_a_network_knows_the_shape_of_every_layer():
    first = conv(weight=ones(2, 3, 1, 1))
    made = network(layers=(first, replace(dense(), weight=ones(2, 8))))
    assert made.shapes == ((2, 2, 2), (2, 1, 1), (10, 1, 1))
    assert [(layer.name, source, shape) for layer, source, shape in made.wired()] == [
        ("conv1", (3, 2, 2), (2, 2, 2)),
        ("fc1", (2, 2, 2), (2, 1, 1)),
        ("fc2", (2, 1, 1), (10, 1, 1)),
    ]
