"""Narrow weights: what the search of scales, thresholds and small weights promises, single bits, and widths under a budget."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from networks import deployed

from toolchain import check, deployment, emulate, mapping, profile, quantize, store
from toolchain.deployment import Settings
from toolchain.errors import ConfigError
from toolchain.nets import restore
from toolchain.quantize import scale

LOIHI2 = profile.load("loihi2")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return store.load(tiny.model(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module")
def data(model):
    return deployment.training_data(model)


def quantized(model, data, **settings):
    return deployment.quantized(model, data, Settings(profile="loihi2", **settings), LOIHI2)


def differing(made, model, data):
    """The share of each channel's spikes unlike the float network's, layer by layer."""
    images = data.train.images
    spikes = emulate.run(made.network, images, record=True).spikes
    expected = quantize.float_spikes(restore(model), images)
    return [np.mean(ours != theirs, axis=(0, 1, 3, 4)) for ours, theirs in zip(spikes, expected, strict=True)]


@pytest.mark.parametrize("theta", ["layer", "channel"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_search_never_does_worse_in_the_first_layer_than_scales_alone(model, data, monkeypatch, bits, theta):
    found = differing(quantized(model, data, weight_bits=bits, theta=theta), model, data)[0].mean()
    monkeypatch.setattr(scale, "NARROW_BITS", 0)
    alone = differing(quantized(model, data, weight_bits=bits, theta=theta), model, data)[0].mean()
    assert found <= alone
    if bits == 2:
        assert found < alone


def test_each_channel_gets_what_suits_it_alone(model, data, monkeypatch):
    """With two thresholds to choose from, no channel of the first layer is better at the other one."""
    monkeypatch.setattr(scale, "FINER", ())
    monkeypatch.setattr(scale, "CUTS", (0.5,))
    monkeypatch.setattr(scale, "ROUNDS", 1)
    monkeypatch.setattr(scale, "FINE", ())
    found = {}
    for name, thetas in {"chosen": (1.3,), "as it is": (), "higher": (1.3, 1.3)}.items():
        monkeypatch.setattr(scale, "THETAS", thetas)
        made = quantized(model, data, weight_bits=3, theta="channel")
        found[name] = differing(made, model, data)[0], made.network.layers[0]
    chosen, layer = found["chosen"]
    as_it_is, plain = found["as it is"]
    raised = layer.neuron.theta != plain.neuron.theta
    assert np.array_equal(layer.weight, plain.weight)
    assert np.all(chosen[raised] < as_it_is[raised])
    assert np.array_equal(chosen[~raised], as_it_is[~raised])


def test_kept_small_weights_are_what_the_facts_say(model, data):
    made = quantized(model, data, weight_bits=2)
    for layer in made.network.chain:
        assert made.facts[layer.name].rounded_away == np.count_nonzero(made.masks[layer.name] & (layer.weight == 0))


def test_a_cut_keeps_every_weight_from_it_on():
    values = np.array([[-0.7, -0.4, -0.21, 0.0], [0.19, 0.21, 0.5, 1.6]])
    rounded, clipped = scale._rounded(values, np.asarray(1.0), 1, np.asarray(0.2))
    assert rounded.tolist() == [[-1, -1, -1, 0], [0, 1, 1, 1]]
    assert clipped == 1
    by_channel, _ = scale._rounded(values, np.array([1.0, 0.4]), 7, np.array([0.45, 0.3]))
    assert by_channel.tolist() == [[-1, 0, 0, 0], [1, 1, 1, 4]]


def test_a_readouts_loss_is_the_divergence_of_its_answers():
    rng = np.random.default_rng(0)
    heard, weight, bias = rng.integers(0, 5, (7, 4)), rng.integers(-3, 4, (3, 4)), rng.integers(-3, 4, 3)
    logits = rng.normal(size=(7, 3))
    answers = scale.Answers(heard=heard.astype(float), logits=logits, timesteps=5)
    ours = np.exp((heard @ weight.T + 5 * bias) * 0.2 / 5)
    p, q = (each / each.sum(axis=1, keepdims=True) for each in (np.exp(logits), ours))
    expected = (p * np.log(p / q)).sum(axis=1).mean()
    assert answers.lost(weight, bias, 0.2) == pytest.approx(expected)


def test_of_one_bit_every_kept_weight_is_its_sign_and_no_format_stores_a_zero(model, data):
    made = quantized(model, data, weight_bits=1)
    state = restore(model).body.state_dict()
    for layer in made.network.chain:
        trained = state[f"{layer.name}.weight"].numpy()
        gain = np.ones(len(trained))
        if f"bn{layer.name[-1]}.weight" in state:
            gain = np.sign(state[f"bn{layer.name[-1]}.weight"].numpy())
        sign = np.sign(trained) * gain.reshape(-1, *[1] * (trained.ndim - 1))
        assert np.array_equal(layer.weight, sign * made.masks[layer.name])
    placed = mapping.place(made.network, LOIHI2)
    assert set(placed.formats.values()) <= {"sparse", "run-length"}
    assert not check.check(made.network, placed, LOIHI2).violations
    assert deployed(made.network) is not None


def test_a_dense_format_of_one_bit_is_a_violation_where_there_are_zeros(model, data):
    wide = mapping.place(quantized(model, data, weight_bits=2).network, LOIHI2)
    assert "shared" in wide.formats.values()
    narrow = quantized(model, data, weight_bits=1).network
    assert check.check(narrow, wide, LOIHI2).violations


def test_a_budget_of_bits_is_kept_and_the_most_of_it_used(model, data):
    for budget in (2.0, 3.0, 5.5, 8.0):
        made = quantized(model, data, bits_budget=budget)
        kept = {name: int(mask.sum()) for name, mask in made.masks.items()}
        mean = sum(kept[layer.name] * layer.weight_bits for layer in made.network.chain) / sum(kept.values())
        assert mean <= budget
        assert budget - mean < 3
        assert min(layer.weight_bits for layer in made.network.chain) >= 2
    assert {layer.weight_bits for layer in quantized(model, data, bits_budget=8.0).network.chain} == {8}
    assert {layer.weight_bits for layer in quantized(model, data, bits_budget=2.0).network.chain} == {2}


def test_a_budget_and_a_width_or_less_than_two_bits_are_refused(model, data):
    with pytest.raises(ConfigError, match="expected either a width or a budget of bits, not both"):
        quantized(model, data, bits_budget=3.0, weight_bits=4)
    with pytest.raises(ConfigError, match=r"expected at least 2, got 1\.5"):
        quantized(model, data, bits_budget=1.5)
