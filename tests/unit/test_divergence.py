"""The table of steps from floats to integers, and one image explained: faults are planted, and show where they belong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import residual
import tiny
import torch
from networks import replace_layers
from whole import SCALES, THETAS, UNITS, floats, images, integers

from toolchain import attacks, deployment, emulate, evaluate, nets, quantize, store
from toolchain.deployed import divergence, explain, terminal
from toolchain.deployed.steps import NAMES, between
from toolchain.errors import ConfigError
from toolchain.ir import BiasCoding, Network
from toolchain.train import pixels

SETTINGS = deployment.Settings(profile="loihi2")
FLOAT, FOLDED, WEIGHTS, NUMBERS, INTEGERS = NAMES


def folded(net, shape=(1, 8, 8)):
    return quantize.fold(net, shape, {})[1]


def whole(*, network=None, layers=None):
    """The steps of a network in which nothing is rounded, its integers or its folded layers replaced."""
    net = floats(integers())
    return between(net, layers or folded(net), network or integers(), SCALES)


def first_differing(steps, labels=None):
    """The step at which spikes or classes first differ from the step before, with the layers whose spikes do."""
    rows = divergence.compared(steps, images(), np.zeros(6, dtype=np.int64) if labels is None else labels)
    for row in rows:
        layers = [layer["name"] for layer in row["layers"] if layer["differing_here"]]
        if layers or row["classes_differing_here"]:
            return row["step"], layers
    return None


def changed(index, **neuron):
    """The integers with a layer's neurons changed."""
    network = integers()
    layers = list(network.layers)
    layers[index] = replace(layers[index], neuron=replace(layers[index].neuron, **neuron))
    return replace_layers(network, tuple(layers))


# ------------------------------------------------------------------ faults, each in its row


def test_where_nothing_is_rounded_no_step_changes_anything():
    rows = divergence.compared(whole(), images(), np.zeros(6, dtype=np.int64))
    assert [row["step"] for row in rows] == list(NAMES)
    assert [row["classes_differing"] for row in rows] == [0] * 5
    assert all(layer["agreement"] == 1 and layer["spikes"] > 20 for row in rows for layer in row["layers"])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_theta_off_by_one_shows_where_thresholds_are_quantized(index):
    theta = integers().layers[index].neuron.theta
    faults = [first_differing(whole(network=changed(index, theta=theta + step))) for step in (-1, 1)]
    name = integers().layers[index].name
    found = [fault for fault in faults if fault]
    assert found
    assert all(step == NUMBERS and layers[0] == name for step, layers in found)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_bias_of_the_wrong_sign_shows_where_biases_are_quantized(index):
    step, layers = first_differing(whole(network=changed(index, bias=-integers().layers[index].neuron.bias)))
    assert (step, layers[0]) == (NUMBERS, integers().layers[index].name)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_wrong_weight_shows_where_weights_are_quantized(index):
    network = integers()
    layers = list(network.layers)
    layers[index] = replace(layers[index], weight=-layers[index].weight)
    step, names = first_differing(whole(network=replace_layers(network, tuple(layers))))
    assert (step, names[0]) == (WEIGHTS, layers[index].name)


def test_a_wrong_readout_shows_in_the_classes_alone():
    network = integers()
    readout = replace(network.readout, weight=-network.readout.weight)
    wrong = Network(input=network.input, layers=network.layers, readout=readout, timesteps=network.timesteps)
    assert first_differing(whole(network=wrong)) == (WEIGHTS, [])


def test_a_wrong_fold_at_the_border_shows_where_batch_norm_is_folded():
    """The remainder of the rounded offset, spread over a map as if there were no border: a third of a pixel of 77."""
    net = floats(integers())
    net.mean = torch.tensor([77.33 / 255], dtype=torch.float64)
    right = folded(net)
    flat = right[0].bias[:, 3:4, 3:4] * np.ones((1, 8, 8))
    wrong = [replace(right[0], bias=30 * (flat - right[0].bias) + right[0].bias), *right[1:]]
    healthy, faulty = (
        divergence.compared(between(net, layers, integers(), SCALES), images(), np.zeros(6, dtype=np.int64))[1]
        for layers in (right, wrong)
    )
    assert healthy["step"] == FOLDED
    assert [layer["differing_here"] for layer in healthy["layers"]] == [0, 0, 0]
    assert faulty["layers"][0]["differing_here"] > 0


def test_what_only_the_chip_does_shows_at_the_integers():
    """The host's division by 51, which a threshold of 10 in place of 510 does not undo."""
    network = integers(bias=BiasCoding(divisor=np.array(51), limit=4095))
    first = network.layers[0]
    neuron = replace(first.neuron, theta=np.array(THETAS["conv1"] // 51))
    step, layers = first_differing(
        whole(network=replace_layers(network, (replace(first, neuron=neuron), *network.layers[1:])))
    )
    assert (step, layers[0]) == (INTEGERS, "conv1")


# ------------------------------------------------------------------ residual networks


def test_a_residual_network_is_folded_without_a_change_of_spikes_or_of_any_gradient():
    """Relays pass gradients as the shortcuts do whose spikes they carry."""
    net = residual.net().double()
    _, layers = quantize.fold(net, residual.SHAPE, {})
    made = quantize.quantize(
        residual.net(),
        timesteps=4,
        masks={},
        images=residual.images(16),
        run=emulate.run,
        limits=quantize.Limits(weight_bits=8, bias_max=4095, theta_max=131_071),
    )
    assert any(layer.n_relays for layer in made.network.layers)
    steps = between(net, layers, made.network, {name: facts.scale for name, facts in made.facts.items()})
    rows = divergence.compared(steps, residual.images(), np.zeros(6, dtype=np.int64))
    assert all(layer["differing"] == 0 for layer in rows[1]["layers"])
    assert all(0.8 < layer["agreement"] < 1 for layer in rows[4]["layers"])
    assert all(layer["differing_here"] == 0 for layer in rows[4]["layers"])
    x, labels = pixels(residual.images()).double(), torch.arange(6) % 3
    for member in attacks.MEMBERS:
        found = []
        for module in (net, steps.folded):
            with member.installed(module):
                moving = x.clone().requires_grad_()
                loss = torch.nn.functional.cross_entropy(module(moving), labels, reduction="sum")
                found.append(torch.autograd.grad(loss, moving)[0])
        torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7 * float(found[0].abs().max()))


# ------------------------------------------------------------------ a stored model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.model(tmp_path_factory.mktemp("divergence"))


@pytest.fixture(scope="module")
def coarse(model):
    """Few bits, so that there is something to see."""
    return divergence.inspect(model, replace(SETTINGS, weight_bits=3), attacked=20)


def test_the_first_and_last_rows_are_the_accuracies_measured_elsewhere(coarse, model):
    (alone,) = evaluate.evaluate(model, attack=(), checks=False)["outcomes"]
    stored = store.load(model)
    from toolchain import profile as profiles

    made = deployment.quantized(
        stored, deployment.training_data(stored), replace(SETTINGS, weight_bits=3), profiles.load("loihi2")
    )
    split = evaluate.stored.test_images(stored, None)
    right = emulate.run(made.network, split.images).classes() == split.labels
    assert coarse["rows"][0]["n_right"] == alone["n_right"]
    assert coarse["rows"][-1]["n_right"] == right.sum()
    assert alone["n_right"] != right.sum()


def test_the_first_row_under_attack_is_pgd_by_one_gradient_on_rounded_pixels(coarse, model):
    stored = store.load(model)
    net, split = nets.restore(stored), evaluate.stored.test_images(stored, None).first(20)
    from toolchain.evaluate.delivery import delivered
    from toolchain.train import stream

    clean, settings = pixels(split.images), stored.recipe.attack
    with attacks.MEMBERS[0].installed(net):
        generators = [stream(stored.recipe.seed, "divergence", index) for index in range(20)]
        found = attacks.pgd(
            net, clean, torch.tensor(split.labels), eps=settings.eps, steps=settings.steps, generator=generators
        )
    with torch.no_grad():
        right = [
            net(x).argmax(dim=1).numpy() == split.labels for x in (clean, delivered(found, clean, settings.eps) / 255)
        ]
    outcome = coarse["rows"][0]["attacked"]
    assert outcome["same"] == outcome["own"]
    assert outcome["same"]["n_right"] == (right[0] & right[1]).sum()


def test_the_table_names_the_step_that_changes_most(coarse, capsys):
    terminal.divergence(coarse)
    shown = " ".join(capsys.readouterr().out.split())
    most = max(coarse["rows"][1:], key=lambda row: row["classes_differing_here"])
    assert f"Most change at: {most['step']}, {most['classes_differing_here']} classes" in shown


# ------------------------------------------------------------------ one image


def explained(network):
    """Of the first image in which a layer differs."""
    steps = whole(network=network)
    found = (explain.explained(steps, image) for image in images())
    return next(one for one in found if one["first"])


def test_an_image_without_a_differing_spike_says_so(capsys):
    found = explain.explained(whole(), images()[0])
    assert found["first"] is None
    assert found["logits"]["integers"] == pytest.approx(found["logits"]["float"], abs=1e-5)
    terminal.explanation({"image": 0, "model": "m", "label": 1, **found})
    assert "Every spike is the same" in capsys.readouterr().out


@pytest.mark.parametrize(("index", "cause"), [(0, "biases"), (1, "threshold"), (2, "weights")])
def test_the_first_neuron_that_differs_is_told_with_its_cause(index, cause, capsys):
    network, layer = integers(), integers().layers[index]
    match cause:
        case "biases":
            wrong = changed(index, bias=-layer.neuron.bias)
        case "threshold":
            wrong = changed(index, theta=layer.neuron.theta + 4)
        case _:
            layers = [*network.layers]
            layers[index] = replace(layer, weight=-layer.weight)
            wrong = replace_layers(network, tuple(layers))
    found = explained(wrong)
    first = found["first"]
    assert (first["layer"], first["cause"]) == (layer.name, cause)
    assert [one["differing"] > 0 for one in found["layers"][: index + 1]] == [False] * index + [True]
    moved = first["margin_moved_by"]
    others = [moved[name] for name in moved if name != cause]
    assert others == pytest.approx([0, 0, 0], abs=1e-5)
    unit = UNITS[layer.name]
    assert first["float"]["margin"] + sum(moved.values()) == pytest.approx(first["integers"]["margin"] * unit, abs=1e-5)
    assert first["float_spikes"] == (first["float"]["margin"] >= -1e-6) == (first["integers"]["margin"] < 0)
    terminal.explanation({"image": 0, "model": "m", "label": 1, **found})
    assert f"({cause})" in capsys.readouterr().out


def test_it_is_the_first_step_of_the_first_layer():
    found = explained(changed(1, theta=integers().layers[1].neuron.theta + 4))
    steps = whole(network=changed(1, theta=integers().layers[1].neuron.theta + 4))
    for image in images():
        one = explain.explained(steps, image)
        if not one["first"]:
            continue
        float_spikes = quantize.float_spikes(steps.net, image[None])[1][0]
        spikes = emulate.run(steps.integers.network, image[None], record=True).spikes[1][0]
        places = np.argwhere(float_spikes != spikes)
        first = one["first"]
        assert tuple(places[0]) == (first["step"], first["channel"], first["row"], first["column"])
        assert len(places) == one["layers"][1]["differing"]
    assert found["first"]


def test_a_stored_models_image_is_explained_and_one_that_there_is_not_is_refused(model):
    settings = replace(SETTINGS, weight_bits=3)
    found = explain.explain(model, settings, 4)
    assert found["first"]["layer"] == "conv1"
    with pytest.raises(ConfigError, match=r"^--image: expected a test image from 0 to 29, got 30$"):
        explain.explain(model, settings, 30)
