"""A first layer driven by biases: what the host computes, and what that changes against messages."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
import scalar
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from networks import Case, cases, deployed, driven, refusal, replace_layers, seeded
from traces import differences

from toolchain import emulate
from toolchain.emulate import reference
from toolchain.errors import ConfigError
from toolchain.export import pack, read
from toolchain.ir import BIAS_MAX, BiasCoding, Neuron

if TYPE_CHECKING:
    from pathlib import Path

LAW = settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
DIVISORS = st.integers(1, 40)


def recoded(case: Case, **changes):
    """Return the network with another bias coding."""
    source = replace(case.network.input, bias=replace(case.network.input.bias, **changes))
    return replace_layers(case.network, case.network.layers, source)


@LAW
@given(case=cases(), divisor=DIVISORS)
def test_the_emulator_is_the_reference(case: Case, divisor: int):
    case = driven(case, divisor)
    expected = reference.run(case.network, case.images, record=True)
    assert differences(expected, emulate.run(case.network, case.images, record=True)) == []


@settings(LAW, max_examples=30)
@given(case=cases(tiny=True), divisor=DIVISORS, limit=st.sampled_from([4095, 40]))
def test_the_first_layer_is_the_arithmetic_on_paper(case: Case, divisor: int, limit: int):
    network, images = driven(case, divisor, limit).network, case.images
    layer, (channels, height, width), coding = network.layers[0], network.shapes[0], network.input.bias
    own = np.broadcast_to(layer.neuron.bias_map, (channels, height, width)).tolist()
    thetas = np.broadcast_to(layer.neuron.theta, channels).tolist()
    divisors = np.broadcast_to(coding.divisor, channels).tolist()
    sent, spikes = emulate.Emulator(network).biases(images), reference.run(network, images, record=True).spikes[0]
    for sample, message in enumerate(network.input.encode(images).tolist()):
        for c, y, x in np.ndindex(channels, height, width):
            total = scalar.synaptic_sum(layer, message, c, y, x) + own[c][y][x]
            bias = min(max(floor(Fraction(total, divisors[c]) + Fraction(1, 2)), -limit), limit)
            state, expected = (0, 0), []
            for _ in range(network.timesteps):
                state, spike = scalar.neuron_step(state, 0, thetas[c], bias, layer.neuron)
                expected.append(spike)
            assert sent[sample, c, y, x] == bias
            assert spikes[sample, :, c, y, x].tolist() == expected


@LAW
@given(case=cases(), divisor=DIVISORS)
def test_clipping_a_bias_at_the_greatest_threshold_changes_no_spike(case: Case, divisor: int):
    case = driven(case, divisor, limit=500)
    expected = reference.run(recoded(case, limit=BIAS_MAX), case.images, record=True)
    tight = recoded(case, limit=int(case.network.layers[0].neuron.theta.max()))
    found = reference.run(tight, case.images, record=True)
    assert all(np.array_equal(one, other) for one, other in zip(expected.spikes, found.spikes, strict=True))


@LAW
@given(case=cases())
def test_without_a_division_biases_do_what_messages_do(case: Case):
    first, *others = case.network.layers
    assume(not first.neuron.leaks)
    theta = np.minimum(first.neuron.theta, 4095)
    layers = (replace(first, neuron=replace(first.neuron, theta=theta)), *others)
    graded = replace_layers(case.network, layers)
    expected = reference.run(graded, case.images, record=True)
    assume(not expected.wraps[0].any())
    biased = replace_layers(graded, layers, replace(graded.input, bias=BiasCoding(divisor=np.array(1), limit=4095)))
    found = reference.run(biased, case.images, record=True)
    assert all(np.array_equal(one, other) for one, other in zip(expected.spikes, found.spikes, strict=True))


@LAW
@given(case=cases(), divisor=DIVISORS)
def test_reading_gives_back_what_was_packed(tmp_path_factory, case: Case, divisor: int):
    assume(refusal(replace_layers(case.network, case.network.layers)) is None)
    case = driven(case, divisor)
    packed = pack(deployed(case.network))
    path = tmp_path_factory.mktemp("packed") / "network.net"
    path.write_bytes(packed)
    again = read(path)
    assert pack(again) == packed
    expected = reference.run(case.network, case.images, record=True)
    assert differences(expected, reference.run(again.network, case.images, record=True)) == []


def kinds(path: Path):
    with h5py.File(path) as file:
        return [file[f"layer/{index}/type"][0].decode() for index in range(len(file["layer"]))]


def test_netx_gets_neurons_without_synapses_for_the_first_layer(tmp_path):
    case = seeded(6)
    for name, network in (("messages", case.network), ("biases", driven(case).network)):
        (tmp_path / name).write_bytes(pack(deployed(network)))
    graded, biased = kinds(tmp_path / "messages"), kinds(tmp_path / "biases")
    assert graded[:2] == ["input", "conv"]
    assert biased == ["input", *graded[2:]]
    with h5py.File(tmp_path / "biases") as file:
        assert set(file["layer/0"]) == {"type", "shape", "neuron"}
        assert file["layer/0/shape"][()].tolist() == list(case.network.shapes[0])
        assert file["host/type"][0] == b"conv"


@pytest.mark.parametrize(
    ("changes", "neuron", "fault"),
    [
        ({"divisor": np.array([1, 2])}, {}, r"divisor: expected shape \(\) or \(\d+,\), got \(2,\)"),
        ({"divisor": np.array(0)}, {}, r"expected 1 to 16777216, got 0 to 0"),
        ({"limit": 0}, {}, r"limit: expected a positive integer, got 0"),
        ({"limit": BIAS_MAX + 1}, {}, r"limit: expected 1 to 32767, got 32768"),
        (
            {"limit": 7},
            {"theta": np.array(8)},
            "theta: expected at most 7, the limit of the biases that drive it, got 8",
        ),
        ({}, {"i_decay": 100}, "i_decay: expected 4096 where biases drive the neurons, got 100"),
    ],
)
def test_a_coding_that_means_nothing_is_refused(changes, neuron, fault):
    network = driven(seeded(6)).network
    first, *others = network.layers
    channels = len(first.weight)
    plain = {"theta": np.array(5), "bias": np.zeros(channels, dtype=int)} | neuron
    layers = (replace(first, neuron=Neuron(**plain)), *others)

    def made():
        coding = BiasCoding(**({"divisor": np.array(1), "limit": 4095} | changes))
        return replace_layers(network, layers, replace(network.input, bias=coding))

    with pytest.raises(ConfigError, match=fault):
        made()
