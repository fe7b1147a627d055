"""Files of lava-dl: read as stock netx builds them, or refused by the layer and what of it cannot be had."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from networks import deployed, replace_layers
from slayer import SHAPE, T, chain, changed, group, neuron, write
from traces import differences

from toolchain import emulate, export, lavadl
from toolchain.emulate import reference
from toolchain.errors import ConfigError, FormatError, UnsupportedError
from toolchain.ir import BiasCoding, Conv, Dense, Network

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.net"))


def images(shape=SHAPE, n=6):
    return np.random.default_rng(1).integers(0, 256, (n, *shape), dtype=np.uint8)


def stripped(path, source):
    """A copy of a file of ours that has lost all that is only ours."""
    with h5py.File(source) as ours, h5py.File(path, "w") as file:
        ours.copy("layer", file)
    return path


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.stem)
def test_a_file_of_ours_read_as_anybodys_and_written_again_has_the_same_layers(golden, tmp_path):
    network = export.read(golden).network
    found = lavadl.read(stripped(tmp_path / "foreign.net", golden), timesteps=network.timesteps).network
    (tmp_path / "again.net").write_bytes(export.pack(deployed(found)))
    assert group(tmp_path / "again.net") == group(golden)


@pytest.mark.parametrize("golden", [path for path in GOLDEN if path.stem != "biases"], ids=lambda path: path.stem)
def test_a_file_of_ours_read_as_anybodys_spikes_as_it_did(golden, tmp_path):
    network = export.read(golden).network
    found = lavadl.read(stripped(tmp_path / "foreign.net", golden), timesteps=network.timesteps).network
    found = replace_layers(found, found.layers, network.input)  # the messages are ours to say
    x = images(network.input.shape)
    names = {"layers": tuple(layer.name for layer in network.layers)}
    expected, got = reference.run(network, x, record=True), reference.run(found, x, record=True)
    assert differences(expected, replace(got, **names)) == []


def test_a_file_with_our_own_description_is_read_by_it():
    path = next(path for path in GOLDEN if path.stem == "pools")
    found = lavadl.read(path)
    assert found.notes == ()
    assert [layer.pool for layer in found.network.chain] == [layer.pool for layer in export.read(path).network.chain]


def test_the_layers_are_named_and_numbered_as_their_groups(tmp_path):
    found = lavadl.read(write(tmp_path / "a.net")).network
    assert [(layer.name, type(layer).__name__) for layer in found.chain] == [
        ("layer0", "Conv"),
        ("layer1", "Conv"),
        ("layer3", "Dense"),
        ("layer4", "Readout"),
    ]
    assert found.shapes == ((2, 6, 6), (4, 3, 3), (5, 1, 1), (3, 1, 1))
    assert [(layer.neuron.i_decay, layer.neuron.v_decay) for layer in found.layers] == [
        (4096, 128),
        (1024, 128),
        (2000, 700),
    ]
    assert [int(layer.neuron.theta) for layer in found.layers] == [81, 81, 81]
    assert found.timesteps == T


def test_an_input_block_is_driven_by_its_transform_of_the_pixel(tmp_path):
    found = lavadl.read(write(tmp_path / "a.net"))
    x = images()
    biases = emulate.Emulator(found.network).biases(x)
    assert np.array_equal(biases, np.floor(76 * (x / 255) - 12 + 0.5))
    assert found.notes == (
        "Neurons of the input block are taken to be driven by 76 * pixel / 255 + -12, rounded, at each step.",
    )


def test_an_input_block_without_a_transform_has_that_of_netx(tmp_path):
    path = write(tmp_path / "a.net", changed("0", without=("weight", "bias")))
    first = lavadl.read(path).network.layers[0]
    assert (set(first.weight.ravel().tolist()), set(first.neuron.bias.tolist())) == ({64}, {0})


@pytest.mark.parametrize("steps", [None, 3])
def test_steps_may_be_said_where_the_file_says_none_or_others(tmp_path, steps):
    path = write(tmp_path / "a.net", steps=steps and T)
    assert lavadl.read(path, timesteps=3).network.timesteps == 3


def test_steps_that_nobody_says_are_asked_for(tmp_path):
    with pytest.raises(ConfigError) as error:
        lavadl.read(write(tmp_path / "a.net", steps=None))
    assert str(error.value) == "timesteps: the file does not say how many steps a sample takes; say it with --timesteps"


def test_spikes_at_the_end_are_counted(tmp_path):
    layers = chain()
    del layers["4"]
    found = lavadl.read(write(tmp_path / "a.net", layers))
    trace = emulate.run(found.network, images())
    assert np.array_equal(trace.logits, trace.counts[-1][:, :, 0, 0])
    assert trace.logits.any()
    assert found.notes[-1] == "The last layer spikes: a readout spike_counts, which sums its spikes, was added."


@pytest.mark.parametrize("threshold", [131_071, (1 << 18) - 1])
def test_neurons_at_the_end_that_cannot_spike_are_a_readout(tmp_path, threshold):
    layers = changed("4", bias=np.float32([1, 2, 3]), neuron__vDecay=0, neuron__vThMant=threshold)
    layers["4"] = {**neuron(), **layers["4"]}
    if threshold > 131_071:
        with pytest.raises(
            UnsupportedError, match=r"^layer/4: neuron.theta: expected 1 to 131072, got 262144 to 262144$"
        ):
            lavadl.read(write(tmp_path / "a.net", layers))
        return
    readout = lavadl.read(write(tmp_path / "a.net", layers)).network.readout
    assert readout.bias.tolist() == [1, 2, 3]


def test_a_file_without_an_input_begins_with_its_first_dense_layer(tmp_path):
    layers = {str(index): fields for index, fields in enumerate(list(chain().values())[3:])}
    found = lavadl.read(write(tmp_path / "a.net", layers))
    assert found.network.input.shape == (36, 1, 1)
    assert isinstance(found.network.layers[0], Dense)
    assert found.notes == ("The first layer is taken to receive pixels, 0 to 255, at each step.",)


REFUSED = {
    "delay": (("3", {"delay": np.zeros(36)}), "layer/3: it has delay, which cannot be deployed"),
    "fractions": (
        ("1", {"weight": np.full((4, 2, 3, 3), 0.5)}),
        "layer/1: its weight is not of integers, and netx would cut off the fractions",
    ),
    "complex": (("3", {"without": ("weight",), "weight__imag": 1.0}), "layer/3: its weight is not a dataset of numbers"),
    "wide": (("3", {"weight": np.full((5, 36), 254.0)}), "layer/3: layer3.weight: expected -128 to 127, got 254 to 254"),
    "recurrent": (
        ("3", {"type": [b"dense_rec"]}),
        "layer/3: layers of type dense_rec cannot be deployed; use input, conv, flatten and dense",
    ),
    "pool": (("1", {"type": [b"pool"]}), "layer/1: layers of type pool cannot be deployed; use input, conv, flatten and dense"),
    "sigma-delta": (("1", {"neuron__type": b"SDNN"}), "layer/1: SDNN neurons cannot be deployed; use CUBA"),
    "refractory": (("1", {"neuron__refDelay": 2}), "layer/1: its neurons have a refDelay of 2, which netx ignores"),
    "graded": (("1", {"neuron__gradedSpike": True}), "layer/1: its neurons have a gradedSpike of 1, which netx ignores"),
    "exponent": (("1", {"neuron__wgtExp": 1}), "layer/1: its neurons have a wgtExp of 1, which netx ignores"),
    "message bits": (("1", {"neuron__messageBits": 4}), "layer/1: its neurons have messageBits, which cannot be deployed"),
    "own decays": (
        ("1", {"neuron__vDecay": np.arange(4), "neuron__iDecay": np.arange(4) + 1}),
        "layer/1: iDecay and vDecay differ among its channels; only one a layer can be deployed",
    ),
    "forgetful": (("1", {"neuron__vDecay": 4096}), "layer/1: neuron: v_decay: expected 0 to 4095, got 4096"),
    "for ever": (("1", {"neuron__iDecay": 0}), "layer/1: neuron: i_decay: expected 1 to 4096, got 0"),
    "leaky current at the input": (
        ("0", {"neuron__iDecay": 1024}),
        "layer0: i_decay: expected 4096 where biases drive the neurons, got 1024",
    ),
    "great input bias": (("0", {"bias": 200}), "layer/0: its bias is 200, where 128 can be deployed"),
    "no neurons inside": (("3", {"without": ("neuron",)}), "layer/3: it has no neurons, and netx gives it some that sum for ever"),
    "conv without neurons": (("1", {"without": ("neuron",)}), "layer/1: it has no neurons"),
    "bias without neurons": (
        ("4", {"bias": np.ones(3)}),
        "layer/4: it has a bias and no neurons; netx adds the bias once, not at each step",
    ),
    "another shape": (("1", {"shape": np.array((4, 2, 3))}), "layer/1: its shape is (4, 2, 3), where its kernel gives (4, 3, 3)"),
    "unknown": (("1", {"gate": 1}), "layer/1: it has gate, which cannot be deployed"),
    "flat input": (("0", {"shape": np.array((2, 36))}), "layer/0: its shape is (2, 36); use (channels, height, width), or one number"),
    "no positive weight": (
        ("4", {"weight": np.full((3, 5), -1.0)}),
        (
            "layer4: netx computes a dense matrix without positive entries wrongly when its least entry is -1. "
            "Use other weight bits, or train the layer so that it keeps a positive weight"
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_refused_by_name(tmp_path, name):
    (at, fields), sentence = REFUSED[name]
    with pytest.raises(UnsupportedError) as error:
        lavadl.read(write(tmp_path / "a.net", changed(at, **fields)))
    assert str(error.value) == sentence


def test_layers_in_an_order_that_netx_cannot_build_are_refused(tmp_path):
    def refused(*order: str):
        layers = {str(at): chain()[index] for at, index in enumerate(order)}
        with pytest.raises(UnsupportedError) as error:
            lavadl.read(write(tmp_path / f"{'-'.join(order)}.net", layers))
        return str(error.value)

    assert refused("0", "1", "3", "4") == "layer/2: a flatten is missing before it"
    assert (
        refused("1", "2", "3")
        == "layer/0: netx takes a convolution only of an input of known shape or of another convolution"
    )
    assert refused("0", "1", "2", "2", "3") == "layer/3: netx flattens only the map of an input or a convolution"
    assert refused("4") == "layer/0: it is the only layer; a network needs spiking neurons before its readout"
    assert refused("0", "0") == "layer/1: layers of type input cannot be deployed; use input, conv, flatten and dense"


@pytest.mark.parametrize("content", [b"", b"not HDF5", None])
def test_what_is_no_file_of_netx_is_a_format_error(tmp_path, content):
    path = tmp_path / "a.net"
    if content is None:
        h5py.File(path, "w").close()
    else:
        path.write_bytes(content)
    with pytest.raises(FormatError, match=r"not a netx file \("):
        lavadl.read(path)


def published(name):
    """A file of the tests that lava-dl's wheel brings along."""
    try:
        files = importlib.metadata.files("lava-dl") or ()
    except importlib.metadata.PackageNotFoundError:
        files = ()
    found = [file.locate() for file in files if str(file).endswith(f"dl/netx/{name}")]
    if not found:
        pytest.skip("lava-dl is not installed")
    return Path(found[0])


def driven_by_pixels(network):
    """The network with pixels themselves as the biases of its input block."""
    first = network.layers[0]
    bias = np.zeros_like(first.neuron.bias)
    first = replace(first, weight=np.ones_like(first.weight), neuron=replace(first.neuron, bias=bias))
    source = replace(network.input, bias=BiasCoding(divisor=np.array(1), limit=255))
    return Network(
        input=source, layers=(first, *network.layers[1:]), readout=network.readout, timesteps=network.timesteps
    )


def test_the_network_that_lava_dl_tests_itself_with_spikes_as_its_ground_truth(tmp_path):
    """Source: lava-dl 0.6.0, tests/lava/lib/dl/netx/gts/tinynet; its arrays begin a step before the image."""
    network = driven_by_pixels(lavadl.read(published("tiny.net"), timesteps=15).network)
    x = np.load(published("gts/tinynet/input_bias.npy")).transpose(2, 1, 0)[None].astype(np.uint8)
    trace = emulate.run(network, x, record=True)
    for layer, name in zip(trace.spikes, ("input", "layer1", "output"), strict=True):
        truth = np.load(published(f"gts/tinynet/{name}.npy"))[0][..., 1:]
        assert np.array_equal(layer[0].transpose(1, 2, 3, 0), truth > 0), name
        assert layer.any()


@pytest.mark.slow
def test_pilotnet_as_lava_dl_publishes_it_spikes_as_its_ground_truth():
    """Source: lava-dl 0.6.0, tests/lava/lib/dl/netx/gts/pilotnet_lif; a layer's array lags by a step a layer."""
    network = driven_by_pixels(lavadl.read(published("gts/pilotnet_lif/network.net")).network)
    x = np.load(published("gts/pilotnet_lif/image.npy")).transpose(2, 1, 0)[None].astype(np.uint8)
    trace = emulate.run(network, x, record=True)
    names = ["input", *(f"conv-{index}" for index in range(5)), *(f"fc-{index}" for index in range(3))]
    for lag, (layer, name) in enumerate(zip(trace.spikes, names, strict=True)):
        truth = np.load(published(f"gts/pilotnet_lif/{name}.npy"))
        truth = truth.transpose(2, 1, 0, 3) if truth.ndim == 4 else truth[:, None, None]
        assert np.array_equal(layer[0].transpose(1, 2, 3, 0), truth[..., lag : lag + 16]), name
        assert layer.any()


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["stock", "fast"])
def test_leaky_neurons_of_a_foreign_file_spike_on_lava_as_on_the_emulator(lava, tmp_path, kernels):
    """The file itself runs, as netx builds it; the last layer of it has no neurons."""
    path = write(tmp_path / "a.net")
    network = lavadl.read(path).network
    assert all(layer.neuron.leaks for layer in network.layers)
    assert isinstance(network.layers[1], Conv)
    x = images(n=5)
    names = [layer.name for layer in network.layers]
    biases = emulate.Emulator(network).biases(x)
    trace = lava.run(path, biases, timesteps=T, kernels=kernels, record=True, layers=names)
    assert differences(emulate.run(network, x, record=True), trace) == []
    assert all(layer.any() and not layer.all() for layer in trace.spikes)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["stock", "fast"])
@pytest.mark.parametrize(("name", "steps"), [("mnist.net", 12), ("gts/pilotnet_lif/network.net", None)])
def test_leaky_networks_that_lava_dl_publishes_run_on_lava_as_on_the_emulator(lava, name, steps, kernels):
    """The published file itself, as netx builds it."""
    path = published(name)
    network = lavadl.read(path, timesteps=steps).network
    assert all(layer.neuron.v_decay for layer in network.layers)
    x = images(network.input.shape, n=1)
    names = [layer.name for layer in network.layers]
    biases = emulate.Emulator(network).biases(x)
    trace = lava.run(path, biases, timesteps=network.timesteps, kernels=kernels, record=True, layers=names)
    assert differences(emulate.run(network, x, record=True), trace) == []
    assert all(layer.any() for layer in trace.spikes)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gts/pilotnet_sdnn/network.net", "layer/0: SDNN neurons cannot be deployed; use CUBA"),
        ("gts/ntidigits/ntidigits.net", "layer/2: it has delay, which cannot be deployed"),
    ],
)
def test_networks_that_lava_dl_publishes_and_no_chip_here_computes_are_refused_by_their_layer(name, sentence):
    with pytest.raises(UnsupportedError) as error:
        lavadl.read(published(name), timesteps=16)
    assert str(error.value) == sentence
