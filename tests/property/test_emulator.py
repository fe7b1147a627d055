"""The fast emulator computes what the reference specifies, and the reference what the arithmetic on paper says."""

from __future__ import annotations

import dataclasses

import loops
import numpy as np
import pytest
import scalar
import torch
from bench import vgg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from networks import Case, cases, corners, driven
from property import mutants
from traces import differences, expected

from toolchain import emulate
from toolchain.emulate import Emulator, batched, compiled, reference, sparse, synapses
from toolchain.errors import BackendError, ConfigError
from toolchain.ir import THETA_MAX, Conv, Dense, Input, Network, Neuron, Readout
from toolchain.trace import Trace, joined

# The same networks on every machine; drawing one takes longer than Hypothesis likes.
LAW = settings(
    max_examples=300, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


KERNELS = pytest.mark.parametrize(
    "kernels",
    ["torch", pytest.param("compiled", marks=pytest.mark.skipif(not compiled.available(), reason="numba is optional"))],
)


@KERNELS
@LAW
@given(case=cases())
def test_the_emulator_is_the_reference(kernels, case: Case):
    emulator = Emulator(case.network, kernels=kernels)
    assert differences(expected(case), emulator.run(case.images, record=True)) == []


@KERNELS
@pytest.mark.parametrize("name", corners())
def test_the_emulator_is_the_reference_in_the_corners(name, kernels):
    case = corners()[name]
    emulator = Emulator(case.network, kernels=kernels)
    assert differences(expected(case), emulator.run(case.images, record=True)) == []


@KERNELS
@settings(LAW, max_examples=60)
@given(case=cases())
def test_the_emulator_is_the_reference_where_the_host_drives_the_first_layer(kernels, case: Case):
    coded = driven(case)
    emulator = Emulator(coded.network, kernels=kernels)
    assert differences(expected(coded), emulator.run(coded.images, record=True)) == []


@KERNELS
def test_the_loops_over_neurons_are_the_reference_on_drives_that_reach_every_limit(kernels):
    assert list(loops.faults(emulate, kernels)) == []


@pytest.mark.skipif(not compiled.available(), reason="numba is optional")
@settings(LAW, max_examples=60)
@given(case=cases())
def test_lanes_and_frames_follow_each_other_in_any_order(case: Case):
    emulator = Emulator(case.network, kernels="compiled")
    emulator._layers[1::2] = [dataclasses.replace(ready, sparse=None) for ready in emulator._layers[1::2]]
    assert differences(expected(case), emulator.run(case.images, record=True)) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@settings(LAW, max_examples=60)
@given(case=cases())
def test_the_emulator_is_the_reference_on_a_gpu(case: Case):
    assert differences(expected(case), emulate.run(case.network, case.images, record=True, device="cuda")) == []


@settings(LAW, max_examples=30)
@given(case=cases())
def test_without_counting_the_activity_spikes_and_logits_are_the_same(case: Case):
    counted, plain = (emulate.Emulator(case.network).run(case.images, activity=count) for count in (True, False))
    assert (plain.active, plain.wraps, plain.saturations, plain.step_spikes, plain.synops) == (None,) * 5
    assert (
        differences(
            dataclasses.replace(counted, spikes=counted.counts), dataclasses.replace(plain, spikes=plain.counts)
        )
        == []
    )


def test_a_layer_is_run_in_lanes_only_where_that_was_measured_to_be_faster(monkeypatch):
    network = vgg.build(16, sparsity=0.9, width=0.1, timesteps=2)
    for faster in (True, False):
        monkeypatch.setattr(sparse, "faster", lambda *_, faster=faster: faster)
        in_lanes = [ready.sparse is not None for ready in Emulator(network)._layers]
        assert in_lanes == [False, *[faster and compiled.available()] * 14, False]


def test_a_large_layer_is_exact_by_every_loop():
    # More neurons than a block, several images, several threads.
    network = vgg.build(16, sparsity=0.95, width=0.1, timesteps=3)
    shown = vgg.images(5)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        traces = [
            Emulator(network, kernels=kernels).run(shown, record=True, batch=3) for kernels in ("torch", "compiled")
        ]
    finally:
        torch.set_num_threads(threads)
    whole = expected(Case(network, shown))
    assert [differences(whole, trace) for trace in traces] == [[], []]


def test_silent_and_always_on_neurons_are_those_that_never_and_always_spiked():
    case = corners()["a dense layer without positive weights"]
    trace = emulate.run(case.network, case.images)
    spikes = reference.run(case.network, case.images, record=True).spikes
    assert trace.silent.tolist() == [int((~layer.any(axis=(0, 1))).sum()) for layer in spikes]
    assert trace.always_on(case.network.timesteps).tolist() == [int(layer.all(axis=(0, 1)).sum()) for layer in spikes]


@settings(LAW, max_examples=100)
@given(case=cases(), batch=st.integers(1, 2))
def test_the_size_of_a_batch_changes_nothing(case: Case, batch: int):
    emulator = Emulator(case.network)
    whole = emulator.run(case.images, record=True, batch=len(case.images))
    assert differences(whole, emulator.run(case.images, record=True, batch=batch)) == []


@settings(LAW, max_examples=30)
@given(case=cases())
def test_a_stream_gives_the_batches_of_the_whole(case: Case):
    emulator = Emulator(case.network)
    parts = list(emulator.stream(case.images, record=True, batch=2))
    assert [part.n_samples for part in parts] == [2, 1][: len(parts)]
    assert differences(expected(case), joined(parts)) == []


@pytest.mark.parametrize("kernels", ["torch", "compiled"])
def test_a_batch_is_what_the_widest_layer_allows_and_batches_are_alike(kernels, monkeypatch):
    """A spike of the widest layer takes a byte in lanes and four in frames."""
    if kernels == "compiled" and not compiled.available():
        pytest.skip("numba is optional")
    network = vgg.build(16, sparsity=0.95, width=0.1, timesteps=2)
    emulator = Emulator(network, kernels=kernels)
    an_image = 2 * max(int(np.prod(shape)) for shape in network.shapes) * {"compiled": 1, "torch": 4}[kernels]
    for n_bytes, sizes in [
        (3 * an_image, [2, 2]),
        (3 * an_image - 1, [2, 2]),
        (2 * an_image - 1, [1] * 4),
        (1, [1] * 4),
    ]:
        monkeypatch.setattr(batched, "_BATCH_BYTES", n_bytes)
        assert [part.n_samples for part in emulator.stream(vgg.images(4))] == sizes
    monkeypatch.setattr(batched, "_BATCH_BYTES", 3 * an_image)
    assert [part.n_samples for part in emulator.stream(vgg.images(3))] == [3]


@settings(LAW, max_examples=60)
@given(case=cases())
def test_an_image_does_not_notice_its_neighbours(case: Case):
    emulator = Emulator(case.network)
    forward, backward = emulator.run(case.images).logits, emulator.run(case.images[::-1].copy()).logits
    np.testing.assert_array_equal(forward, backward[::-1])


@settings(LAW, max_examples=40)
@given(case=cases())
def test_no_images_give_a_trace_of_no_samples(case: Case):
    none = case.images[:0]
    whole, actual = (run(case.network, none, record=True) for run in (reference.run, emulate.run))
    assert actual.n_samples == 0
    assert differences(whole, actual) == []


@settings(LAW, max_examples=120)
@given(case=cases(tiny=True))
def test_the_reference_is_what_loops_over_neurons_compute(case: Case):
    assert differences(in_loops(case), reference.run(case.network, case.images, record=True)) == []


@pytest.mark.parametrize("name", corners())
def test_the_reference_is_what_loops_over_neurons_compute_in_the_corners(name):
    case = corners()[name]
    assert differences(in_loops(case), reference.run(case.network, case.images, record=True)) == []


def in_loops(case: Case) -> Trace:
    """Return what Python's loops make of the case; they count no tallies."""
    network, readout = case.network, case.network.readout
    spikes = [[] for _ in network.layers]
    logits = []
    for messages in network.input.encode(case.images).tolist():
        frames = [messages] * network.timesteps
        for layer, shape, kept in zip(network.layers, network.shapes, spikes, strict=False):
            frames = scalar.run_layer(layer, shape, frames)
            kept.append(frames)
        logits.append(
            [
                sum(scalar.synaptic_sum(readout, frame, label, 0, 0) + int(bias) for frame in frames)
                for label, bias in enumerate(readout.bias)
            ]
        )
    recorded = tuple(np.array(layer, dtype=bool) for layer in spikes)
    return Trace(
        backend="loops",
        layers=tuple(layer.name for layer in network.layers),
        logits=np.array(logits, dtype=np.int64),
        counts=tuple(layer.sum(axis=1, dtype=np.int32) for layer in recorded),
        spikes=recorded,
    )


def test_the_random_networks_spike_wrap_saturate_and_use_every_feature():
    rates, wraps, saturations, features = [], [], [], set()

    @LAW
    @given(case=cases())
    def look(case: Case):
        trace = reference.run(case.network, case.images, record=True)
        rates.extend(float(spikes.mean()) for spikes in trace.spikes)
        wraps.append(trace.wraps.any())
        saturations.append(trace.saturations.any())
        for layer in case.network.layers:
            features.update(features_of(layer))
        features.update({f"T {case.network.timesteps}", f"bits {case.network.readout.weight_bits}"})
        features.update(f"offset {offset}" for offset in case.network.input.offset if offset in {0, 255})

    look()
    assert len(wraps) >= 300
    assert np.mean([0.05 <= rate <= 0.95 for rate in rates]) > 0.5
    assert np.mean([rate == 0 for rate in rates]) < 0.4
    assert np.mean(wraps) > 0.05
    assert np.mean(saturations) > 0.05
    assert features == {
        *("conv", "dense", "groups", "pool", "wide pool", "padding", "not square", "leaky current", "leaky voltage"),
        *("theta per channel", "theta per layer", "greatest theta", "bias map", "one neuron"),
        *("no weight", "empty row", "only positive", "only negative", "offset 0", "offset 255"),
        *(
            f"{name} {n}"
            for name, last in (("kernel", 6), ("stride", 3), ("dilation", 3), ("T", 6))
            for n in range(1, last + 1)
        ),
        *(f"bits {bits}" for bits in range(1, 9)),
    }


def features_of(layer):
    weight, neuron = layer.weight, layer.neuron
    rows = weight.reshape(len(weight), -1)
    facts = {
        "theta per channel": neuron.theta.ndim == 1,
        "theta per layer": neuron.theta.ndim == 0,
        "greatest theta": neuron.theta.max() == THETA_MAX,
        "bias map": neuron.bias.ndim == 3,
        "leaky current": neuron.i_decay < 4096,
        "leaky voltage": neuron.v_decay > 0,
        "pool": layer.pool > 1,
        "no weight": not weight.any(),
        "empty row": weight.any() and not rows.any(axis=1).all(),
        "only positive": weight.any() and weight.min() >= 0,
        "only negative": weight.any() and weight.max() <= 0,
        "one neuron": len(weight) == 1,
        f"bits {layer.weight_bits}": True,
        "dense": isinstance(layer, Dense),
        "conv": isinstance(layer, Conv),
    }
    if isinstance(layer, Conv):
        facts |= {
            "groups": layer.groups > 1,
            "padding": max(layer.padding) > 0,
            "not square": weight.shape[2] != weight.shape[3],
            "wide pool": layer.pool > 2,
            **{f"kernel {k}": True for k in weight.shape[2:]},
            **{f"stride {s}": True for s in layer.stride},
            **{f"dilation {d}": True for d in layer.dilation},
        }
    return {name for name, holds in facts.items() if holds}


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros((2, 1, 3, 3), dtype=np.uint8), "uint8 (2, 1, 3, 3)"),
        (np.zeros((2, 1, 3, 2), dtype=np.float32), "float32 (2, 1, 3, 2)"),
        (np.zeros((1, 3, 2), dtype=np.uint8), "uint8 (1, 3, 2)"),
        (np.zeros((2, 2, 3, 2), dtype=np.uint8), "uint8 (2, 2, 3, 2)"),
    ],
)
@pytest.mark.parametrize("run", [emulate.run, reference.run])
def test_images_of_another_shape_or_type_are_refused(run, images, got):
    with pytest.raises(ConfigError) as refusal:
        run(one_layer(np.ones((2, 1, 1, 1), dtype=int), shape=(1, 3, 2)), images)
    assert str(refusal.value) == f"images: expected uint8 (samples, 1, 3, 2), got {got}"


def one_layer(weight, *, shape, theta=1, bias=None, timesteps=1, **decays):
    """One layer on raw pixels (offset 0) and a readout that adds its spikes."""
    bias = np.zeros(len(weight), dtype=int) if bias is None else bias
    neuron = Neuron(theta=np.asarray(theta), bias=bias, **decays)
    kind = Conv if weight.ndim == 4 else Dense
    layer = kind(name="hidden", weight=weight, neuron=neuron)
    columns = int(np.prod(layer.output_shape(shape)))
    readout = Readout(name="logits", weight=np.ones((1, columns), dtype=int), bias=np.array([0]))
    offset = np.zeros(shape[0], dtype=int)
    return Network(input=Input(shape=shape, offset=offset), layers=(layer,), readout=readout, timesteps=timesteps)


def white(network):
    return np.full((1, *network.input.shape), 255, dtype=np.uint8)


def test_odd_sums_beyond_two_to_the_24_are_exact():
    # 576 products: 575 of 127 * 255 and one of 126 * 255; float32 holds no odd number of this size.
    weight = np.full((1, 16, 6, 6), 127)
    weight[0, 0, 0, 0] = 126
    total = 575 * 127 * 255 + 126 * 255
    assert total == 18_653_505
    assert np.float32(total) != total
    network = one_layer(weight, shape=(16, 6, 6))
    signal = network.input.encode(white(network))
    wrapped = [[[[total - (1 << 24)]]]]
    assert reference.synapses(network.layers[0], signal).tolist() == wrapped
    assert Emulator(network)._layers[0].synapses.drive(torch.from_numpy(signal)).tolist() == wrapped


@pytest.mark.parametrize("run", [emulate.run, reference.run])
@pytest.mark.parametrize(
    ("drive", "theta", "spikes"),
    [
        (131_071, 131_071, 1),
        (131_071, 131_072, 0),
        (131_072, 131_072, 1),  # 64 * a is 2^23, which does not wrap; v saturates just below it, above 64 * (theta - 1)
        (131_073, 1, 0),  # wraps to just above -2^23
        (262_145, 1, 1),  # wraps to 64
        (-131_071, 1, 0),
        (-131_072, 131_072, 1),  # wraps to 2^23
        (-262_143, 1, 1),  # wraps to 64
        (-262_144, 1, 0),  # wraps to 0
    ],
)
def test_u_wraps_once_past_its_24_bits(run, drive, theta, spikes):
    # A dense layer adds a_max = 255 * 127 a column: enough columns, the last one for the rest.
    sign = 1 if drive > 0 else -1
    full, rest = divmod(abs(drive), 255 * 127)
    pixel_255, left = divmod(rest, 255)
    weight = sign * np.array([[127] * full + [pixel_255, left]])
    image = np.array([255] * (full + 1) + [1], dtype=np.uint8).reshape(1, 1, 1, -1)
    assert (weight * image[0, 0, 0].astype(int)).sum() == drive
    assert run(one_layer(weight, shape=(1, 1, full + 2), theta=theta), image).logits.tolist() == [[spikes]]


@pytest.mark.parametrize("run", [emulate.run, reference.run])
def test_a_leaky_current_is_added_in_32_bits(run):
    # a = 259 * 127 * 255 = 8,387,715 stays in 24 bits, and 64 * a = 536,813,760. With i_decay 1 nearly all of u remains, and
    # 2^24 is lost at each step above 2^23: u = 520,036,544; 1,039,946,126; 1,559,728,777; 2,079,384,529; the fifth sum,
    # 2,615,690,634, is past 2^31 and turns into -1,679,276,662, whose wrap adds 2^24.
    weight = np.zeros((1, 8, 6, 6), dtype=int)
    weight.reshape(-1)[:259] = 127
    network = one_layer(weight, shape=(8, 6, 6), theta=THETA_MAX, i_decay=1, timesteps=6)
    assert run(network, white(network), record=True).spikes[0].ravel().tolist() == [True] * 4 + [False] * 2


def test_an_odd_sum_between_2_23_and_2_24_wraps_without_rounding():
    # a = 255 * (299 * 127 + 126) = 9,715,245 wraps to a - 2^24; on the way 2^23 is added, which float32 would round.
    weight = np.full((1, 3, 10, 10), 127)
    weight[0, 2, 9, 9] = 126
    network = one_layer(weight, shape=(3, 10, 10))
    ready = synapses.prepare(network.layers[0], network.input.shape, network, torch.device("cpu"))
    assert ready.drive(torch.from_numpy(network.input.encode(white(network)))).item() == 9_715_245 - (1 << 24)


def test_where_one_algorithm_does_not_add_exactly_the_next_is_taken(monkeypatch):
    real = synapses._multiply
    monkeypatch.setattr(synapses, "_multiply", lambda *given: real(*given) + 1)
    network = one_layer(np.arange(-4, 5).reshape(1, 1, 3, 3), shape=(1, 4, 4))
    ready = synapses.prepare(network.layers[0], network.input.shape, network, torch.device("cpu"))
    assert ready.multiply is synapses._multiply_unfolded


def test_where_no_algorithm_adds_exactly_the_emulator_refuses_to_run(monkeypatch):
    real = synapses._multiply
    monkeypatch.setattr(synapses, "_multiply", lambda *given: real(*given) + 1)
    monkeypatch.setattr(synapses, "_multiply_unfolded", synapses._multiply)
    with pytest.raises(BackendError) as refusal:
        Emulator(one_layer(np.ones((1, 4), dtype=int), shape=(1, 2, 2)))
    assert str(refusal.value) == "emulator (cpu): no convolution of this device adds hidden exactly. Run on the CPU"


def test_every_mutant_of_the_emulator_is_killed():
    verdicts = mutants.verdicts()
    assert len(verdicts) >= 25
    assert [name for name, killed_by in verdicts.items() if killed_by is None] == []
