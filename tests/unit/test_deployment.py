"""The folder of a deployment: its report speaks of its network, its emulation gives its logits."""

from __future__ import annotations

import dataclasses
import json

import h5py
import numpy as np
import pytest
import tiny

from toolchain import deployment, profile, proof, store
from toolchain.deployment import Settings
from toolchain.emulate import reference
from toolchain.errors import FormatError

SAMPLES = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The folder, and the report `export` returned."""
    out = tmp_path_factory.mktemp("exported")
    said = []
    made = deployment.export(model, Settings(profile="loihi2", samples=SAMPLES), out, log=said.append)
    assert said == ["quantize to 8 bits on 85 training images", "emulate 30 test images", "attack 30 test images"]
    return out, made


@pytest.fixture(scope="module")
def report(exported):
    return exported[1]


@pytest.fixture(scope="module")
def network(exported):
    return deployment.open_folder(exported[0]).deployment.network


def test_the_folder_holds_seven_files_and_the_manifest_names_the_other_six(exported):
    out, _ = exported
    files = ["manifest.json", "mapping.json", "network.net", "report.html", "report.json", "run_lava.py", "samples.npz"]
    assert sorted(path.name for path in out.iterdir()) == files
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["files"] == {name: store.sha256(out / name) for name in files if name != "manifest.json"}


def test_the_manifest_says_what_the_folder_was_made_of(exported, model):
    out, _ = exported
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["model_sha256"] == store.sha256(model)
    assert manifest["profile_sha256"] == profile.load("loihi2").sha256
    assert manifest["settings"] == dataclasses.asdict(Settings(profile="loihi2", samples=SAMPLES))


def test_the_report_returned_is_the_report_written(exported):
    out, made = exported
    assert json.loads((out / "report.json").read_text()) == made == deployment.read_report(out)


def test_the_samples_are_the_first_test_images(exported, model):
    folder = deployment.open_folder(exported[0])
    with np.load(store.load(model).data_source) as raw:
        assert np.array_equal(folder.images[:, 0], raw["x_test"][:SAMPLES])
        assert np.array_equal(folder.labels, raw["y_test"][:SAMPLES])


def test_the_messages_are_what_the_network_makes_of_the_images(exported, network):
    with np.load(exported[0] / "samples.npz") as held:
        assert np.array_equal(held["messages"], network.input.encode(held["images"]))


def test_the_logits_of_the_samples_are_the_specifications(exported, network):
    folder = deployment.open_folder(exported[0])
    assert np.array_equal(folder.logits, reference.run(network, folder.images).logits)
    assert len(np.unique(folder.logits, axis=0)) == SAMPLES


def test_simulating_on_the_emulator_gives_the_logits_of_the_samples(exported):
    folder = deployment.open_folder(exported[0])
    result = proof.simulate_folder(exported[0], backend="emulator", samples=None, kernels="stock")
    assert result["logits"] == folder.logits.tolist()
    assert result["classes"] == folder.logits.argmax(axis=1).tolist()
    assert result["labels"] == folder.labels.tolist()
    assert result["correct"] == int((folder.logits.argmax(axis=1) == folder.labels).sum())
    assert result["samples"] == SAMPLES


def test_fewer_samples_are_the_first(exported):
    result = proof.simulate_folder(exported[0], backend="emulator", samples=2, kernels="stock")
    assert result["logits"] == deployment.open_folder(exported[0]).logits[:2].tolist()


def test_progress_is_told_how_many_samples_are_done(exported):
    done = []
    proof.simulate_folder(exported[0], backend="emulator", samples=None, kernels="stock", progress=done.append)
    assert done[-1] == SAMPLES
    assert done == sorted(set(done))


def test_the_report_counts_what_the_network_file_holds(exported, report, network):
    """Counted in the netx file itself, whose pools are spread."""
    with h5py.File(exported[0] / "network.net") as file:
        entries = [file[f"layer/{index}"] for index in range(len(file["layer"]))]
        weighted = [entry for entry in entries if "weight" in entry]
        for entry, layer in zip(weighted, report["network"]["layers"], strict=True):
            if layer["kind"] == "conv":
                assert tuple(entry["shape"][()]) == tuple(layer["shape"])
        dense = weighted[-1]["weight"][()]
        assert report["network"]["layers"][-1]["n_synapses_netx"] == np.count_nonzero(dense)
    assert report["network"]["n_neurons"] == sum(int(np.prod(shape)) for shape in network.shapes)
    assert [layer["name"] for layer in report["network"]["layers"]] == [layer.name for layer in network.chain]
    assert [layer["theta"] for layer in report["network"]["layers"][:-1]] == [
        [layer.neuron.theta.min(), layer.neuron.theta.max()] for layer in network.layers
    ]


def test_the_report_counts_the_trained_weights(report, model):
    trained = store.load(model)
    assert report["model"]["n_weights"] == trained.n_weights
    assert report["model"]["n_nonzero_weights"] == trained.n_nonzero_weights
    assert report["model"]["sparsity"] == trained.sparsity
    assert report["model"]["T"] == trained.timesteps
    layers = report["network"]["layers"]
    assert sum(layer["n_weights"] for layer in layers) == trained.n_weights
    assert sum(layer["n_nonzero_weights"] for layer in layers) == trained.n_nonzero_weights
    kept = sum(np.count_nonzero(weight) for weight in trained.state.values() if weight.ndim > 1)
    assert trained.n_nonzero_weights == kept


def test_the_activity_of_the_report_is_that_of_the_test_images(report, network, model):
    with np.load(store.load(model).data_source) as raw:
        images, labels = raw["x_test"][:, None], raw["y_test"]
    trace = reference.run(network, images)
    spikes = [float(counts.sum()) / tiny.N_TEST for counts in trace.counts]
    assert [layer["spikes_per_image"] for layer in report["activity"]["layers"]] == pytest.approx(spikes)
    assert report["activity"]["spikes_per_image"] == pytest.approx(sum(spikes))
    assert report["activity"]["samples"] == tiny.N_TEST
    right = int((trace.classes() == labels).sum())
    assert (report["accuracy"]["deployed"]["n_right"], report["accuracy"]["deployed"]["n"]) == (right, tiny.N_TEST)


def test_the_mapping_of_the_report_is_the_mapping_written(exported, report):
    placed = json.loads((exported[0] / "mapping.json").read_text())
    assert report["mapping"]["n_cores"] == len(placed["cores"])
    for layer in report["mapping"]["layers"]:
        assert layer["n_cores"] == sum(core["layer"] == layer["name"] for core in placed["cores"])
        assert layer["format"] == placed["formats"][layer["name"]]
        assert layer["tile"] == placed["tiles"][layer["name"]]


KEYS = {
    "schema": {},
    "model": {"sparsity", "n_weights", "n_nonzero_weights", "sha256", "T"},
    "profile": {"name", "sha256"},
    "network": {"n_neurons", "n_synapses", "n_synapses_netx", "layers"},
    "mapping": {"n_cores", "n_chips", "layers"},
    "memory": {"dense_fp32_bytes", "stored_bytes", "unique_bytes", "resident_bytes"},
    "activity": {"backend", "samples", "spikes_per_image", "layers"},
    "energy": {"eq12", "lemaire", "hardware"},
    "accuracy": set(),
}
NETWORK_LAYER = {"name", "kind", "shape", "n_neurons", "n_weights", "n_nonzero_weights", "n_synapses", "weight_bits"}
NETWORK_LAYER |= {"theta", "range"}
MAPPING_LAYER = {"name", "format", "n_cores", "tile", "worst_core"}


@pytest.mark.parametrize("section", KEYS)
def test_the_report_has_every_promised_key(report, section):
    assert section in report
    missing = set(KEYS[section]) - set(report[section]) if KEYS[section] else set()
    assert missing == set()


@pytest.mark.parametrize(("section", "keys"), [("network", NETWORK_LAYER), ("mapping", MAPPING_LAYER)])
def test_every_layer_of_the_report_has_every_promised_key(report, section, keys):
    assert len(report[section]["layers"]) == 3
    for layer in report[section]["layers"]:
        assert keys - set(layer) == set()


def figures(table, path):
    """Every leaf of a section: what has a value is one figure."""
    for name, item in table.items():
        if isinstance(item, dict) and "value" not in item:
            yield from figures(item, (*path, name))
        elif isinstance(item, dict):
            yield (*path, name), item
        elif isinstance(item, list):
            yield from figures(
                {str(index): each for index, each in enumerate(item) if isinstance(each, dict)}, (*path, name)
            )
        elif not isinstance(item, str):
            yield (*path, name), {"value": item}


@pytest.mark.parametrize("section", ["memory", "energy"])
def test_every_figure_says_how_it_is_known_and_by_what_source(report, section):
    found = dict(figures(report[section], (section,)))
    assert len(found) > 5
    for path, figure in found.items():
        assert isinstance(figure["source"], str), path
        assert figure["source"], path
        assert figure["unit"], path
        assert figure["how"] in {"counted", "modelled", "assumed"}, path


def test_what_nobody_published_is_null_and_not_zero(report):
    hardware = dict(figures(report["energy"]["hardware"], ()))
    unknown = {path for path, figure in hardware.items() if figure["value"] is None}
    assert ("synapses_nonzero",) in {path[-1:] for path in unknown}


def test_a_figure_of_the_report_is_json(exported):
    text = (exported[0] / "report.json").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_samples_beyond_the_reports_limit_are_taken_from_the_test_set(model, tmp_path, monkeypatch):
    monkeypatch.setattr(deployment, "REPORT_IMAGES", 4)
    made = deployment.export(model, Settings(profile="loihi2", samples=9), tmp_path / "out", log=lambda _line: None)
    assert len(deployment.open_folder(tmp_path / "out").images) == 9
    assert made["activity"]["samples"] == 9
    made = deployment.export(model, Settings(profile="loihi2", samples=3), tmp_path / "out", log=lambda _line: None)
    assert made["activity"]["samples"] == 4


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("theta", ["layer", "channel"])
def test_the_settings_of_an_export_are_those_of_its_network(model, tmp_path, bits, theta):
    settings = Settings(profile="loihi2", samples=2, weight_bits=bits, theta=theta)
    deployment.export(model, settings, tmp_path, log=lambda _line: None)
    network = deployment.open_folder(tmp_path).deployment.network
    assert {layer.weight_bits for layer in network.chain} == {bits}
    assert max(int(np.abs(layer.weight).max()) for layer in network.chain) <= 1 << (bits - 1)
    assert {layer.neuron.theta.ndim for layer in network.layers} == {0 if theta == "layer" else 1}


@pytest.mark.parametrize(
    ("asked", "used"),
    [(None, (4, 8, 6)), ({"conv2": 3}, (4, 3, 6)), ({"conv1": 7}, (7, 8, 6)), (5, (5, 5, 5))],
)
def test_the_widths_recorded_in_a_model_are_used_unless_others_are_asked_for(model, tmp_path, asked, used):
    made = dataclasses.replace(store.load(model), weight_bits={"conv1": 4, "readout": 6})
    store.save(made, tmp_path / "model.pt")
    assert store.load(tmp_path / "model.pt").weight_bits == {"conv1": 4, "readout": 6}
    settings = Settings(profile="loihi2", samples=2, weight_bits=asked)
    deployment.export(tmp_path / "model.pt", settings, tmp_path / "out", log=lambda _line: None)
    network = deployment.open_folder(tmp_path / "out").deployment.network
    assert tuple(layer.weight_bits for layer in network.chain) == used


@pytest.mark.parametrize("bits", [{"conv1": 0}, {"conv1": 9}, {"conv1": True}, {"conv1": "4"}, {4: 4}, [4]])
def test_widths_that_are_none_are_refused(model, tmp_path, bits):
    table = store.read(model) | {"weight_bits": bits}
    (tmp_path / "model.pt").write_bytes(store.dump(table))
    with pytest.raises(FormatError) as error:
        store.load(tmp_path / "model.pt")
    assert str(error.value) == f"{tmp_path / 'model.pt'}: not a whole model: weight_bits {bits!r}"
