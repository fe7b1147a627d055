"""A first layer that the host drives by biases: how it is quantized, placed, checked, priced and reported."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import tiny
from hardware import LOIHI1, LOIHI2, conv_case, trace
from networks import replace_layers
from rich.console import Console

from toolchain import data, deployment, emulate, energy, mapping, report, store
from toolchain.check import check
from toolchain.deployment import Settings
from toolchain.ir import BiasCoding


def driven_case(limit=4095, **options):
    net = conv_case(**options)
    coded = replace(net.input, bias=BiasCoding(divisor=np.array(3), limit=limit))
    return replace_layers(net, net.layers, coded)


def test_a_driven_layer_stores_no_synapse_and_listens_to_nothing():
    placed = mapping.place(driven_case(), LOIHI1)
    cores = [core for core in placed.cores if core.layer == "first"]
    assert placed.formats["first"] == "bias"
    assert {(core.synapse_words, core.axons_in) for core in cores} == {(0, 0)}
    assert sum(core.n_neurons for core in cores) == 2 * 4 * 4


@pytest.mark.parametrize("chip", [LOIHI1, LOIHI2])
def test_the_placement_of_a_driven_layer_breaks_no_rule(chip):
    net = driven_case()
    assert check(net, mapping.place(net, chip), chip).violations == ()


@pytest.mark.parametrize(("net", "form"), [(driven_case(), "shared"), (conv_case(), "bias")])
def test_only_a_driven_layer_is_stored_as_bias(net, form):
    placed = mapping.place(net, LOIHI2)
    wrong = replace(placed, formats={**placed.formats, "first": form})
    assert [(found.rule, found.layer) for found in check(net, wrong, LOIHI2).violations] == [("R16", "first")]


def test_biases_beyond_the_chips_are_found():
    net = driven_case(limit=4096)
    (found,) = check(net, mapping.place(net, LOIHI1), LOIHI1).violations
    assert (found.rule, found.layer, found.used, found.limit) == ("R12", "first", 4096, 4095)


def test_nothing_is_sent_to_a_driven_layer():
    net = driven_case()
    counts = energy.hardware(net, mapping.place(net, LOIHI1), LOIHI1, energy.Run(trace=trace(net, (3, 2))))["counts"]
    inside = 3 * 4 * (3 * 4 - 2) ** 2 * 2  # the synapses of `second`, 3x3 with padding on 4x4 cells, times 3 spikes
    into_readout = 2 * 64 * 10
    assert counts["synops_nonzero"]["value"] == inside + into_readout


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.model(tmp_path_factory.mktemp("driven"))


def made(model, **settings):
    loaded = store.load(model)
    return deployment.quantized(loaded, data.load(loaded.data_source), Settings(profile="loihi1", **settings), LOIHI1)


@pytest.mark.parametrize("theta", ["layer", "channel"])
def test_a_chip_without_messages_gets_thresholds_within_its_biases(model, theta):
    network = made(model, theta=theta).network
    first = network.layers[0]
    assert network.input.bias.limit == 4095
    assert 4095 // 2 < first.neuron.theta.max() <= 4095
    assert network.input.bias.divisor.shape == first.neuron.theta.shape == (() if theta == "layer" else (6,))


def test_the_host_keeps_its_weights_whatever_the_chip_stores(model):
    layers = made(model, weight_bits=2).network.chain
    assert [layer.weight_bits for layer in layers] == [8, 2, 2]
    assert np.array_equal(layers[0].weight, made(model).network.layers[0].weight)


def test_the_disagreement_stated_is_that_of_the_float_network(model):
    loaded = store.load(model)
    images = data.load(loaded.data_source).train.images
    found = made(model)
    from toolchain import nets, quantize

    expected = quantize.float_spikes(nets.restore(loaded), images)[0]
    spikes = emulate.run(found.network, images, record=True).spikes[0]
    assert found.facts["conv1"].spikes_differing == pytest.approx(np.mean(spikes != expected))
    assert found.facts["conv1"].spikes_differing < 0.01


def test_every_bias_lies_within_the_bounds_stated(model):
    found = made(model)
    images = np.random.default_rng(0).integers(0, 2, (50, *found.network.input.shape), dtype=np.uint8) * 255
    low, high = found.facts["conv1"].bounds.synaptic
    biases = emulate.Emulator(found.network).biases(images)
    assert low <= biases.min() < biases.max() <= high <= 4095
    assert low >= -4095


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported")
    said = []
    return out, deployment.export(model, Settings(profile="loihi1", samples=5), out, log=said.append), said


def test_an_export_says_what_differs_from_the_network_with_messages(exported, model):
    out, table, said = exported
    assert said[-2] == f"compare with the network that would take messages on {tiny.N_TEST} test images"
    coding = table["input"]
    assert (coding["coding"], coding["limit"]) == ("biases", 4095)
    loaded = store.load(model)
    graded = deployment.quantized(
        loaded, data.load(loaded.data_source), Settings(profile="loihi1"), LOIHI1, graded=True
    ).network
    images = data.load_test(loaded.data_source).images
    network = deployment.open_folder(out).deployment.network
    ours, theirs = (emulate.run(each, images, record=True) for each in (network, graded))
    for index, layer in enumerate(coding["against_messages"]["layers"]):
        assert layer["differing"] == np.count_nonzero(ours.spikes[index] != theirs.spikes[index])
        assert layer["differing_share"] == np.mean(ours.spikes[index] != theirs.spikes[index])
        assert (layer["spikes"], layer["spikes_messages"]) == (ours.counts[index].sum(), theirs.counts[index].sum())
    differing = np.count_nonzero(ours.classes() != theirs.classes())
    assert coding["against_messages"]["classes_differing"] == differing


def test_a_network_agrees_with_itself_in_every_spike():
    net = driven_case()
    images = np.random.default_rng(0).integers(0, 256, (70, *net.input.shape), dtype=np.uint8)
    same = deployment.disagreement(net, net, images)
    assert same["samples"] == 70
    assert same["classes_differing"] == 0
    assert [layer["differing"] for layer in same["layers"]] == [0, 0]
    assert [layer["spikes"] for layer in same["layers"]] == emulate.run(net, images).step_spikes.sum(axis=1).tolist()


def test_the_samples_hold_the_biases_of_the_specification(exported):
    out, *_ = exported
    folder = deployment.open_folder(out)
    with np.load(out / "samples.npz") as held:
        assert "messages" not in held
        assert np.array_equal(held["biases"], emulate.Emulator(folder.deployment.network).biases(folder.images))
        assert held["biases"].shape == (5, *folder.deployment.network.shapes[0])


def test_a_terminal_says_how_images_reach_the_chip(exported):
    _, table, _ = exported
    console = Console(file=io.StringIO(), width=1000)
    report.render(table, console)
    assert (
        "The host sets what drives the first layer as its biases, within 4,095. Against the network that would take "
        f"messages, on {tiny.N_TEST} images: neuron-steps that differ: conv1 "
    ) in console.file.getvalue()
