"""A module of one's own, deployed: the folder is as of a model, and nothing is claimed that nobody knows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from foreign import IFNode
from torch import nn

import toolchain
from toolchain import deployment, nirfile, proof
from toolchain.emulate import reference
from toolchain.errors import CapacityError, ConfigError, UnsupportedError

SHAPE = (1, 6, 6)
T = 4
SMALL = """
extends = "loihi2"
name = "small"
description = "one core that holds a few synapses"

[core]
synapse_words = { value = 2, unit = "words", status = "assumed", source = "own" }

[sources]
own = "made up"
"""


def module():
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), IFNode(0.3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 3), IFNode(0.2)
    )


def images(n=20):
    return np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    """The folder of a module with test images, and the report that came back."""
    out = tmp_path_factory.mktemp("deployed")
    test = images(9)[::-1].copy(), np.arange(9) % 3
    said = []
    made = toolchain.deploy(
        module(),
        images(),
        profile="loihi2",
        out=out,
        test=test,
        timesteps=T,
        weight_bits=6,
        samples=50,
        log=said.append,
    )
    assert said == ["quantize on 20 images", "emulate 9 test images"]
    return out, made, test


def test_the_folder_is_one_that_every_command_reads(deployed):
    out, made, _ = deployed
    assert deployment.read_report(out) == made
    network = deployment.open_folder(out).deployment.network
    assert [layer.name for layer in network.chain] == ["0", "4", "spike_counts"]
    assert {layer.weight_bits for layer in network.chain} == {6}
    assert network.timesteps == T


def test_the_samples_are_the_test_images_as_far_as_they_go(deployed):
    out, _, (pixels, labels) = deployed
    folder = deployment.open_folder(out)
    assert np.array_equal(folder.images, pixels)
    assert np.array_equal(folder.labels, labels)
    assert np.array_equal(folder.logits, reference.run(folder.deployment.network, pixels).logits)


def test_accuracy_is_of_the_test_images(deployed):
    out, made, (_, labels) = deployed
    right = int((deployment.open_folder(out).logits.argmax(axis=1) == labels).sum())
    assert (made["accuracy"]["deployed"]["n_right"], made["accuracy"]["deployed"]["n"]) == (right, 9)


def test_without_labels_no_accuracy_is_claimed(tmp_path, capsys):
    made = toolchain.deploy(module(), images(), profile="loihi2", out=tmp_path, timesteps=T)
    assert made["accuracy"] == {}
    result = proof.simulate_folder(tmp_path, backend="emulator", samples=None, kernels="stock")
    assert result["correct"] is None
    assert set(result["labels"]) == {deployment.UNKNOWN}
    from toolchain import show

    show.simulation(result)
    assert "right" not in capsys.readouterr().out


def test_where_the_chip_takes_no_messages_the_report_says_what_that_changes(tmp_path):
    made = toolchain.deploy(module(), images(), profile="loihi1", out=tmp_path, timesteps=T)
    assert made["input"]["coding"] == "biases"
    assert made["input"]["against_messages"]["samples"] == 20


def test_without_a_folder_it_is_named_after_class_and_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toolchain.deploy(module(), images(), profile="loihi2", timesteps=T)
    assert deployment.open_folder(tmp_path / "build" / "Sequential-loihi2").deployment.network.timesteps == T


def test_equal_modules_have_equal_hashes_and_others_have_not(tmp_path):
    def sha256(model):
        made = toolchain.deploy(model, images(), profile="loihi2", out=tmp_path, timesteps=T)
        assert json.loads((tmp_path / "manifest.json").read_text())["model_sha256"] == made["model"]["sha256"]
        return made["model"]["sha256"]

    other = module()
    with torch.no_grad():
        other[4].bias[0] += 1
    assert sha256(module()) == sha256(module()) != sha256(other)


def test_a_graph_of_the_module_is_written_where_asked_for(tmp_path):
    pytest.importorskip("nir")
    path = tmp_path / "mine.nir"
    toolchain.deploy(module(), images(), profile="loihi2", out=tmp_path / "out", timesteps=T, nir=path)
    found = nirfile.read(path, SHAPE)
    assert found.integers == (tmp_path / "out" / "network.net").read_bytes()
    assert [name for name, _ in found.adopted.net.body.named_children()] == [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "flatten_spikes",
        "spike_counts",
    ]


REFUSED = {
    "floats": ({"example": images() / 255}, "example: expected uint8 images (N, C, H, W), values 0 to 255, got float64 (20, 1, 6, 6)"),
    "no channels": ({"example": images()[:, 0]}, "example: expected uint8 images (N, C, H, W), values 0 to 255, got uint8 (20, 6, 6)"),
    "other shape": (
        {"test": (images()[:, :, 1:], np.zeros(20))},
        "test: expected uint8 images (N, 1, 6, 6), values 0 to 255, got uint8 (20, 1, 5, 6)",
    ),
    "labels": ({"test": (images(), np.zeros(3))}, "test: expected a label of each of 20 images, got shape (3,)"),
    "steps": ({"timesteps": None}, "timesteps: say how many steps an image takes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_said_before_anything_is_written(tmp_path, name):
    changed, sentence = REFUSED[name]
    settings = {"example": images(), "profile": "loihi2", "out": tmp_path / "out", "timesteps": T, **changed}
    with pytest.raises(ConfigError) as error:
        toolchain.deploy(module(), settings.pop("example"), **settings)
    assert str(error.value) == sentence
    assert not (tmp_path / "out").exists()


def test_a_structure_that_no_core_computes_is_refused_by_the_path_of_its_layer(tmp_path):
    chain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Sequential(nn.AvgPool2d(2), IFNode()), nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(UnsupportedError) as error:
        toolchain.deploy(chain, images(), profile="loihi2", out=tmp_path / "out", timesteps=T)
    assert str(error.value) == "1.0: an average pool is deployed only after spiking neurons"


def test_a_module_that_does_not_fit_leaves_the_folder_that_was_there(tmp_path):
    out = tmp_path / "out"
    toolchain.deploy(module(), images(), profile="loihi2", out=out, timesteps=T)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    small = tmp_path / "small.toml"
    small.write_text(SMALL)
    with pytest.raises(CapacityError):
        toolchain.deploy(module(), images(), profile=str(small), out=out, timesteps=T)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
