"""Running an exported folder and comparing traces: every difference is found, however samples arrive."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny

from toolchain import deployment, proof
from toolchain.deployment import Settings
from toolchain.emulate import reference
from toolchain.trace import Trace

SAMPLES = 6


def trace(*spikes: object, logits=((3, -2),), backend="by hand"):
    """A trace of hidden layers, given their spikes: each (S, T, C, H, W)."""
    arrays = tuple(np.asarray(layer, dtype=np.bool_) for layer in spikes)
    return Trace(
        backend=backend,
        layers=tuple(f"layer{index}" for index in range(len(arrays))),
        logits=np.asarray(logits, dtype=np.int64),
        counts=tuple(layer.sum(axis=1, dtype=np.int32) for layer in arrays),
        spikes=arrays,
    )


CHESS = (np.indices((1, 4, 2, 3, 3)).sum(axis=0) % 2).astype(bool)


def flipped(*places: tuple[int, ...]):
    spikes = CHESS.copy()
    for place in places:
        spikes[place] ^= True
    return spikes


def test_equal_traces_are_identical():
    verdict = proof.compare(trace(CHESS, CHESS), trace(CHESS, CHESS), kernels="fast", allow_silent=False)
    assert verdict["identical"] is True
    assert verdict["passed"] is True
    assert verdict["reason"] == ""
    assert verdict["kernels"] == "fast"
    assert verdict["logits_identical"] is True
    assert verdict["layers"] == [
        {"name": f"layer{index}", "spikes": 36, "rate": 0.5, "mismatches": 0} for index in range(2)
    ]


def test_a_single_planted_spike_is_found_in_its_layer():
    planted = trace(CHESS, flipped((0, 3, 1, 2, 2)))
    verdict = proof.compare(trace(CHESS, CHESS), planted, kernels="stock", allow_silent=True)
    assert verdict["identical"] is False
    assert verdict["passed"] is False
    assert verdict["logits_identical"] is True
    assert [layer["mismatches"] for layer in verdict["layers"]] == [0, 1]
    assert verdict["reason"] == "spikes differ, first in layer layer1"


def test_every_planted_spike_is_counted():
    planted = trace(flipped((0, 0, 0, 0, 0), (0, 1, 1, 1, 1)), flipped((0, 2, 0, 0, 1)))
    verdict = proof.compare(trace(CHESS, CHESS), planted, kernels="stock", allow_silent=False)
    assert [layer["mismatches"] for layer in verdict["layers"]] == [2, 1]
    assert verdict["reason"] == "spikes differ, first in layer layer0"


def test_spikes_in_other_steps_differ_though_their_counts_do_not():
    early, late = np.zeros_like(CHESS), np.zeros_like(CHESS)
    early[:, 0], late[:, 1] = True, True
    verdict = proof.compare(trace(early), trace(late), kernels="stock", allow_silent=False)
    assert np.array_equal(trace(early).counts[0], trace(late).counts[0])
    assert verdict["layers"][0]["mismatches"] == 36


def test_other_logits_differ_though_no_spike_does():
    verdict = proof.compare(trace(CHESS), trace(CHESS, logits=((3, -1),)), kernels="stock", allow_silent=False)
    assert (verdict["identical"], verdict["logits_identical"], verdict["passed"]) == (False, False, False)
    assert verdict["reason"] == "logits differ"


def test_logits_must_be_those_that_were_written_too():
    expected = np.array([[3, -3], [0, 0]])
    verdict = proof.compare(trace(CHESS), trace(CHESS), kernels="stock", allow_silent=False, expected=expected)
    assert (verdict["identical"], verdict["logits_identical"]) == (False, False)
    expected = np.array([[3, -2], [0, 0]])
    verdict = proof.compare(trace(CHESS), trace(CHESS), kernels="stock", allow_silent=False, expected=expected)
    assert (verdict["identical"], verdict["logits_identical"]) == (True, True)


@pytest.mark.parametrize("always", [False, True])
def test_a_layer_that_never_or_always_spikes_fails_unless_it_is_allowed(always):
    extreme = np.full_like(CHESS, always)
    verdict = proof.compare(trace(CHESS, extreme), trace(CHESS, extreme), kernels="stock", allow_silent=False)
    assert (verdict["identical"], verdict["passed"]) == (True, False)
    assert verdict["reason"] == (
        "never or always spiking: layer1. Identical, but nothing to compare; --allow-silent accepts it"
    )
    verdict = proof.compare(trace(CHESS, extreme), trace(CHESS, extreme), kernels="stock", allow_silent=True)
    assert (verdict["identical"], verdict["passed"], verdict["reason"]) == (True, True, "")


def test_traces_of_other_shapes_differ_in_every_neuron():
    verdict = proof.compare(trace(CHESS), trace(CHESS[:, :3]), kernels="stock", allow_silent=False)
    assert verdict["layers"][0]["mismatches"] == CHESS.size


def test_traces_of_other_layers_are_no_comparison():
    with pytest.raises(ValueError, match="zip"):
        proof.compare(trace(CHESS, CHESS), trace(CHESS), kernels="stock", allow_silent=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a tiny model."""
    out = tmp_path_factory.mktemp("exported")
    model = tiny.model(tmp_path_factory.mktemp("tiny"))
    deployment.export(model, Settings(profile="loihi2", samples=SAMPLES), out, log=lambda _line: None)
    return out


class Stand:
    """In the place of a Lava session: the emulator's traces, some samples at a time, changed as `change` says."""

    def __init__(self, folder, change=lambda trace, _start: trace, pieces=(1, 2, 3), interrupt=None) -> None:
        self.folder, self.change, self.pieces, self.interrupt = folder, change, pieces, interrupt
        self.asked = []

    def stream(self, path, messages, *, record, layers, **settings):
        self.asked.append((path.name, len(messages), record, settings))
        network, start = self.folder.deployment.network, 0
        for piece in self.pieces:
            if start == self.interrupt:
                raise KeyboardInterrupt
            part = reference.run(network, self.folder.images[start : start + piece], record=record)
            assert tuple(layers) == part.layers
            yield self.change(dataclasses.replace(part, backend="lava (fast kernels)"), start)
            start += piece


def test_verify_compares_what_the_emulator_and_lava_gave(exported):
    def plant(trace, start):
        spikes = [layer.copy() for layer in trace.spikes]
        spikes[1][0, 0, 0, 0, start] ^= True
        return dataclasses.replace(trace, spikes=tuple(spikes))

    lava, done = Stand(deployment.open_folder(exported), plant), []
    verdict = proof.verify(exported, samples=6, kernels="fast", session=lava, progress=done.append)
    assert lava.asked == [("network.net", 6, True, {"timesteps": 4, "kernels": "fast"})]
    assert done == [1, 3, 6]
    assert (verdict["samples"], verdict["asked"]) == (6, 6)
    assert [layer["mismatches"] for layer in verdict["layers"]] == [0, 3]
    assert verdict["backends"] == ["emulator (cpu)", "lava (fast kernels)"]
    assert verdict["reason"] == "spikes differ, first in layer conv2"


def test_a_verdict_does_not_depend_on_how_samples_arrive(exported):
    folder = deployment.open_folder(exported)
    one, many = (proof.verify(exported, session=Stand(folder, pieces=pieces)) for pieces in ((6,), (1,) * 6))
    assert one == many
    assert one["passed"]
    assert 0 < one["layers"][0]["rate"] < 1


def test_an_interrupt_leaves_the_verdict_on_what_was_done(exported):
    folder = deployment.open_folder(exported)
    verdict = proof.verify(exported, session=Stand(folder, interrupt=3))
    assert (verdict["samples"], verdict["asked"], verdict["passed"]) == (3, 6, True)
    whole = proof.verify(exported, samples=3, session=Stand(folder, pieces=(3,)))
    assert {**verdict, "asked": 3} == whole


def test_an_interrupt_before_anything_is_done_is_an_interrupt(exported):
    with pytest.raises(KeyboardInterrupt):
        proof.verify(exported, session=Stand(deployment.open_folder(exported), interrupt=0))


def test_verify_notices_that_the_logits_written_are_not_the_networks(exported, monkeypatch):
    """As where the samples were written by another version of the emulator."""
    folder = deployment.open_folder(exported)
    monkeypatch.setattr(deployment, "open_folder", lambda _path: dataclasses.replace(folder, logits=folder.logits + 1))
    verdict = proof.verify(exported, session=Stand(folder))
    assert (verdict["logits_identical"], verdict["reason"]) == (False, "logits differ")
