"""docs/formats.md holds of the code and of the files it writes: every name in it exists, and nothing that exists is left out."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import relays
import tiny

from toolchain import deployment, emulate, ir, mapping, placement, profile, proof, store
from toolchain.deployment import Settings
from toolchain.emulate import reference
from toolchain.report.relays import relays as relays_section
from toolchain.report.scenarios import Subject
from toolchain.trace import Trace

PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
SAMPLES = 3


def section(title):
    """The text of a section of the page, found by the start of its heading."""
    (found,) = re.findall(rf"^## {re.escape(title)}.*?\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return found


def rows(title):
    """The rows of a section's table, without its head: lists of cells."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names(cell):
    """The names between backticks of a cell, an index such as [l] left out."""
    return [
        word.partition("[")[0] for quoted in re.findall(r"`([^`]+)`", cell) for word in quoted.replace(",", " ").split()
    ]


def fields(noun):
    return {field.name for field in dataclasses.fields(noun)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def out(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    deployment.export(model, Settings(profile="loihi2", samples=SAMPLES), folder, log=lambda _line: None)
    return folder


@pytest.fixture(scope="module")
def report(out):
    return json.loads((out / "report.json").read_text())


def test_every_field_of_the_networks_nouns_is_documented():
    documented, noun = {}, ""
    for first, names_cell, *_ in rows("Network"):
        noun = names(first)[0] if first else noun
        documented.setdefault(noun, set()).update(names(names_cell))
    nouns = {"Network", "Input", "BiasCoding", "Conv", "Dense", "Neuron", "Readout"}
    assert set(documented) == nouns
    assert "`shapes[k]`" in section("Network")  # derived from the layers, and so explained beside them
    documented["Network"].add("shapes")
    assert "each layer has a `name`" in section("Network")
    for layer in ("Conv", "Dense", "Readout"):
        documented[layer].add("name")
    documented["Conv"].add("weight_bits")  # bounds the weight, so stands in its row
    for noun in nouns:
        assert documented[noun] == fields(getattr(ir, noun)), noun


def test_every_field_of_a_core_is_documented():
    documented = [name for first, _ in rows("Mapping") for name in names(first)]
    assert sorted(documented) == sorted(fields(placement.Core))


def test_every_field_of_the_mapping_is_documented():
    intro = section("Mapping").partition("\n|")[0]
    assert fields(placement.Mapping) <= set(names(intro))


def test_the_mapping_is_written_as_its_nouns_are(out):
    written = json.loads((out / "mapping.json").read_text())
    assert set(written) == fields(placement.Mapping)
    assert all(set(core) == fields(placement.Core) for core in written["cores"])
    assert set(written["formats"].values()) <= {"shared", "dense", "sparse"}


def test_every_field_of_a_trace_is_documented():
    assert [name for first, *_ in rows("Trace") for name in names(first)] == [
        field.name for field in dataclasses.fields(Trace)
    ]


@pytest.mark.parametrize("record", [True, False])
def test_a_trace_has_the_documented_shapes(out, record):
    folder = deployment.open_folder(out)
    network = folder.deployment.network
    trace = reference.run(network, folder.images, record=record)
    n, steps = SAMPLES, network.timesteps
    hidden = network.shapes[:-1]
    assert (trace.logits.dtype, trace.logits.shape) == (np.int64, (n, 10))
    assert [(counts.dtype, counts.shape) for counts in trace.counts] == [(np.int32, (n, *shape)) for shape in hidden]
    recorded = [(spikes.dtype, spikes.shape) for spikes in trace.spikes or ()]
    assert recorded == ([(np.bool_, (n, steps, *shape)) for shape in hidden] if record else [])
    counted = emulate.run(network, folder.images[:2])
    per_step = trace.active, trace.wraps, trace.saturations, counted.step_spikes
    assert {tally.shape for tally in per_step} == {(len(hidden), network.timesteps)}
    assert counted.synops.shape == (len(hidden) + 1, network.timesteps)


def test_a_model_file_has_the_documented_keys(model):
    table = store.read(model)
    documented = {names(key)[0]: content for key, content in rows("`model.pt`")}
    assert sorted(documented) == sorted(table)
    assert table["schema"] == names(documented["schema"])[0] == store.SCHEMA
    assert set(names(documented["input"])) == set(table["input"])
    assert set(names(documented["data"])) == set(table["data"])
    pruned = [entry for entry in table["weights"].values() if isinstance(entry, dict)]
    assert len(pruned) == 3
    assert all(set(entry) == {"shape", "mask", "values"} for entry in pruned)
    assert {"shape", "mask", "values"} <= set(names(documented["weights"]))
    assert all(set(entry) == set(names(documented["batch_norm"])) for entry in table["batch_norm"].values())
    assert set(table["thresholds"]) == {"act1", "act2"}


def test_a_model_says_which_of_the_documented_stages_it_is_at(model):
    documented = names({key.strip("`"): content for key, content in rows("`model.pt`")}["stage"])
    assert store.read(model)["stage"] in documented
    from toolchain.recipe import STAGES

    assert documented == list(STAGES)


def test_a_network_file_has_the_documented_groups(out):
    text = section("`network.net`")
    with h5py.File(out / "network.net") as file:
        assert set(file) == {"layer", "mapping", "meta"}
        paths = {names(first)[0] for first, _ in rows("`network.net`")}
        assert paths == {"mapping/json", "mapping/cores", "meta/json", "meta/masks/NAME"}
        layers = [set(file[f"layer/{index}"]) for index in range(len(file["layer"]))]
        kinds = [bytes(file[f"layer/{index}/type"][0]).decode() for index in range(len(layers))]
        assert kinds == ["input", "conv", "conv", "flatten", "dense"]
        assert layers[0] == {"type", "shape"}
        assert layers[1] == {*["type", "shape", "weight", "bias", "neuron", "stride", "padding", "dilation", "groups"]}
        assert layers[4] == {"type", "shape", "weight", "bias", "neuron"}
        assert set(file["layer/1/neuron"]) == {"type", "vThMant", "iDecay", "vDecay"}
        for name in layers[1] | set(file["layer/1/neuron"]):
            assert re.search(rf"[`/{{,\s]{name}[`}},/\s]", text), name
        assert file["layer/1/weight"].dtype == np.int16
        assert file["layer/1/weight"].compression == "gzip"
        meta = json.loads(bytes(file["meta/json"][()]))
        mapping = json.loads(bytes(file["mapping/json"][()]))
        columns = file["mapping/cores"].attrs["columns"].split(",")
        assert file["mapping/cores"].shape == (3, len(columns))
        assert set(file["meta/masks"]) == {layer["name"] for layer in meta["layers"]}
    cell = {first.strip("`"): content for first, content in rows("`network.net`")}
    assert set(names(cell["mapping/json"])) == set(mapping)
    assert set(meta) == {"schema", "timesteps", "input", "layers", "readout", "facts"}
    for name in [*meta, *meta["input"], *meta["layers"][0]]:
        assert re.search(rf"[`{{,]{name}[`{{,}}\[]", cell["meta/json"]), name


def test_the_thresholds_of_the_file_are_one_less_than_theta(out):
    network = deployment.open_folder(out).deployment.network
    with h5py.File(out / "network.net") as file:
        for index, layer in enumerate(network.layers, start=1):
            assert np.array_equal(file[f"layer/{index}/neuron/vThMant"][()], layer.neuron.theta - 1)


def test_the_weights_of_the_file_are_spread_over_their_pools(out):
    network = deployment.open_folder(out).deployment.network
    conv = network.layers[1]
    assert conv.pool == 2
    with h5py.File(out / "network.net") as file:
        weight = file["layer/2/weight"][()]
        assert np.array_equal(weight, np.kron(conv.weight, np.ones((1, 1, 2, 2), dtype=int)))
        assert file["layer/2/stride"][()].tolist() == [2, 2]
        assert file["layer/2/padding"][()].tolist() == [2, 2]


def test_bias_maps_of_the_file_are_width_first(out):
    network = deployment.open_folder(out).deployment.network
    assert network.layers[0].neuron.bias.ndim == 3
    with h5py.File(out / "network.net") as file:
        assert np.array_equal(file["layer/1/bias"][()], network.layers[0].neuron.bias.transpose(2, 1, 0))


def test_the_masks_of_the_file_are_those_of_the_trained_model(out, model):
    masks = deployment.open_folder(out).deployment.masks
    trained = store.load(model).mask
    assert {f"{name}.weight" for name in masks} == set(trained)
    for name, mask in masks.items():
        assert np.array_equal(mask.reshape(-1), trained[f"{name}.weight"].numpy().reshape(-1))


def test_samples_have_the_documented_arrays(out):
    symbols = {"S": SAMPLES, "C": 1, "H": 8, "W": 8, "classes": 10}
    documented = {}
    for first, shape, _ in rows("`samples.npz`"):
        kind, _, axes = shape.partition(" ")
        documented[names(first)[0]] = (kind, tuple(symbols[axis] for axis in re.findall(r"\w+", axes)))
    with np.load(out / "samples.npz") as samples:
        assert {name: (samples[name].dtype.name, samples[name].shape) for name in samples.files} == documented


def parts(report, path):
    """Every dictionary of a report at a path such as `network.layers[]`."""
    found = [report]
    for step in path.split(".") if path else []:
        found = [item[step.rstrip("[]{}")] for item in found]
        if step.endswith("[]"):
            found = [item for items in found for item in items]
        if step.endswith("{}"):
            found = [item for items in found for item in items.values()]
    return [item for item in found if item is not None]


REPORT = [(path.strip("`"), names(keys)) for path, keys in rows("`report.json`")]


OFTEN_NULL = "relays"
"""A section that only networks with residual blocks have"""


@pytest.mark.parametrize(
    ("path", "keys"),
    [row for row in REPORT if row[0] != OFTEN_NULL],
    ids=[path or "report" for path, _ in REPORT if path != OFTEN_NULL],
)
def test_a_report_has_the_documented_keys_and_no_others(report, path, keys):
    found = parts(report, path)
    assert found
    optional = {"accuracy": {"stages"}, "check.usage[]": {"violations"}, "mapping": {"reason"}}.get(path, set())
    for item in found:
        assert set(item) - optional == set(keys) - optional


def test_every_section_of_a_report_is_documented(report):
    documented = {path.partition(".")[0].rstrip("[]") for path, _ in REPORT if path}
    assert documented == {name for name, item in report.items() if isinstance(item, dict)} | {"context", OFTEN_NULL}


def test_the_section_of_relays_has_the_documented_keys():
    case = relays.seeded(0)
    placed = mapping.place(case.network, profile.load("loihi2"))
    masks = {layer.name: layer.weight != 0 for layer in case.network.chain}
    subject = Subject(network=case.network, masks=masks, profile=profile.load("loihi2"), mapping=placed)
    found = relays_section(subject, reference.run(case.network, case.images))
    keys = set(dict(REPORT)[OFTEN_NULL])
    assert set(found) | set(found["layers"][0]) == keys


def test_a_verdict_has_the_documented_keys(out):
    folder = deployment.open_folder(out)
    trace = reference.run(folder.deployment.network, folder.images, record=True)
    verdict = proof.compare(trace, trace, kernels="stock", allow_silent=False)
    documented = [name for first, _ in rows("`verify --json`") for name in names(first)]
    assert sorted(documented) == sorted(verdict)
    assert set(verdict["layers"][0]) == {"name", "spikes", "rate", "mismatches"}


def test_a_manifest_has_the_documented_keys(out):
    manifest = json.loads((out / "manifest.json").read_text())
    text = section("`manifest.json`").partition(". ")[0]
    documented = [name.partition("{")[0] for name in re.findall(r"`([a-z_0-9]+(?:\{[^}]*\})?)`", text)]
    assert documented == list(manifest)


def test_every_schema_is_known():
    """A change of a number here asks for a reader of the old one, or a refusal that says how to go on."""
    from toolchain import export
    from toolchain import report as reports

    assert (deployment.SCHEMA, export.SCHEMA, reports.SCHEMA, store.SCHEMA) == (1, 1, 2, "rsnn-deploy/model/1")
