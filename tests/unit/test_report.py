"""The report: its schema, its figures' sources, and what a terminal shows of it."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hardware import LOIHI1, LOIHI2, conv_case, dense_case, half_zeros, limited, trace
from pages import recorded, subject
from rich.console import Console

from toolchain import check, emulate, mapping, report
from toolchain.energy import Run
from toolchain.ir import Network
from toolchain.profile import quantities
from toolchain.report.detail import per_core


def built(net=None, chip=LOIHI2, spikes=(3, 2), **options):
    net = net or dense_case(half_zeros())
    return report.build(subject(net, chip), Run(trace=trace(net, spikes)), **options)


def shown(made):
    console = Console(file=io.StringIO(), width=160)
    report.render(made, console)
    return console.file.getvalue()


def figures(node, path=""):
    """Every number or null of a section, with the table that holds it."""
    if isinstance(node, dict):
        for key, child in node.items():
            if isinstance(child, dict | list):
                yield from figures(child, f"{path}.{key}")
            elif not isinstance(child, str):
                yield f"{path}.{key}", node
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from figures(child, f"{path}[{index}]")


@pytest.mark.parametrize("chip", [LOIHI1, LOIHI2])
@pytest.mark.parametrize("section", ["energy", "memory", "neurobench", "dense.energy", "dense.memory", "dense.ratios"])
def test_every_figure_says_its_unit_how_it_is_known_and_its_source(chip, section):
    node = built(chip=chip)
    for key in section.split("."):
        node = node[key]
    found = list(figures(node))
    assert found
    for path, holder in found:
        assert set(holder) == {"value", "unit", "how", "source"}, path
        assert holder["how"] in {"counted", "modelled", "assumed"}, path
        assert holder["unit"], path
        assert holder["source"], path


def test_the_report_has_the_published_schema():
    made = built()
    assert made["schema"] == 2
    assert {"sparsity", "n_weights", "n_nonzero_weights", "sha256", "T"} <= set(made["model"])
    assert {"name", "sha256"} <= set(made["profile"])
    assert {"n_neurons", "n_synapses", "n_synapses_netx", "layers"} <= set(made["network"])
    layer_keys = [
        "name",
        "kind",
        "shape",
        "n_neurons",
        "n_weights",
        "n_nonzero_weights",
        "n_synapses",
        "weight_bits",
        "theta",
        "range",
    ]
    assert set(layer_keys) <= set(made["network"]["layers"][0])
    assert {"n_cores", "n_chips", "layers"} <= set(made["mapping"])
    assert {"name", "format", "n_cores", "tile", "worst_core"} <= set(made["mapping"]["layers"][0])
    assert {"dense_fp32_bytes", "stored_bytes", "unique_bytes", "resident_bytes"} <= set(made["memory"])
    assert {"backend", "samples", "spikes_per_image", "layers"} <= set(made["activity"])
    assert {"eq12", "lemaire", "hardware"} <= set(made["energy"])
    assert made["accuracy"] == {}
    assert json.loads(json.dumps(made)) == made


def test_the_model_is_counted_by_its_masks_the_network_by_its_weights():
    net = dense_case(half_zeros())
    about = subject(net, LOIHI2)
    about.masks["dense"] = np.ones((80, 80), dtype=bool)  # 3200 trained weights have rounded to zero
    made = report.build(about, Run(trace=trace(net, [3, 2])))
    # 1 weight of `first`, 80 x 80 of `dense`, 80 x 10 of the readout
    assert made["model"]["n_weights"] == made["model"]["n_nonzero_weights"] == 1 + 6400 + 800
    assert made["model"]["sparsity"] == 0
    assert made["network"]["n_synapses"] == 80 + 3200 + 800


def test_memory_is_the_sum_over_cores():
    made = built()["memory"]
    # first: 2 axon words, 1 group, 80 neurons, 1 kernel word, 80 axon map words (it feeds the one core of `dense`)
    first = 2 + 1 + 80 + 1 + 80
    # dense: 80 axon words, 1 group, 80 neurons, 80 x 13 words, 80 axon map words; the readout: 80, 1, 10, 80 x 4, 0
    dense, out = 80 + 1 + 80 + 1040 + 80, 80 + 1 + 10 + 80 * 4
    assert made["resident_words"]["value"] == first + dense + out
    assert made["resident_bytes"]["value"] == 8 * (first + dense + out)
    assert [layer["resident_synapse_words"]["value"] for layer in made["layers"]] == [1, 1040, 320]
    assert made["dense_fp32_bytes"]["value"] == 4 * 7201
    assert made["stored_bytes"]["value"] is None
    assert built(stored_bytes=99)["memory"]["stored_bytes"]["value"] == 99


def test_activity_names_layers_that_never_or_always_spike():
    made = built(spikes=(8, 0))
    assert (made["activity"]["always_on"], made["activity"]["silent"]) == (["first"], ["dense"])
    text = shown(made)
    assert "first always spikes: it carries no information" in text
    assert "dense never spikes: it carries no information" in text


def test_rates_are_spikes_a_neuron_and_step():
    made = built(spikes=(4, 2))
    assert [layer["rate"] for layer in made["activity"]["layers"]] == [4 / 8, 2 / 8]
    assert made["activity"]["spikes_per_image"] == 80 * 4 + 80 * 2


def test_the_worst_core_is_the_fullest_and_names_its_scarcest_resource():
    net = conv_case()
    layer = built(net)["mapping"]["layers"][0]
    assert layer["worst_core"] == {
        "core": 0,
        "resource": "distinct thresholds",
        "used": 1,
        "limit": 8,
        "unit": "groups",
        "fill": 1 / 8,
    }


def test_the_terminal_shows_unknown_energy_as_not_available_and_the_backend_of_the_counts():
    text = shown(built())
    assert "Activity: 1 images on by hand" in text
    assert (
        "Energy of loihi2: n/a. Not published, so left out: synapses nonzero, synapses stored, updates active" in text
    )


def test_accuracy_that_was_not_measured_reads_so():
    assert "Accuracy: not measured" in shown(built())


def test_accuracy_is_that_of_the_traced_images():
    made = built(labels=np.array([0]), metrics={"finetune": {"validation": {"none": {"accuracy": 0.75}}}})
    assert made["accuracy"]["deployed"] == {"accuracy": 1.0, "n": 1, "n_right": 1, "backend": "by hand"}
    text = shown(made)
    integers = next(line for line in text.splitlines() if "integers, by hand" in line)
    assert integers.split()[-4:] == ["1", "test", "100.0%", "n/a"]
    finetuned = next(line for line in text.splitlines() if "after finetune" in line)
    assert finetuned.split()[-2:] == ["75.0%", "n/a"]


def test_every_assumed_or_fitted_number_of_the_profile_is_listed():
    unsure = {
        path: quantity.value for path, quantity, _ in quantities(LOIHI2) if quantity.status in {"assumed", "fitted"}
    }
    listed = [entry for entry in built()["assumptions"] if "numbers" in entry]
    assert unsure == {path: value for entry in listed for path, value in entry["numbers"].items()}
    assert all(entry["status"] in {"assumed", "fitted"} and entry["source"] for entry in listed)


def test_a_violation_is_shown_first():
    assert "input: graded input messages exceeded. loihi1 sends spikes, not numbers" in shown(built(chip=LOIHI1))


def test_a_section_that_was_left_out_is_not_shown():
    made = built()
    del made["energy"]["hardware"]
    assert "modelled for loihi2" not in shown(made)


def test_each_core_says_what_it_uses_of_each_limited_resource():
    cores = built()["mapping"]["cores"]
    assert (cores["core"], cores["chip"], cores["layer"]) == ([0, 1, 2], [0, 0, 0], ["first", "dense", "out"])
    assert cores["per_chip"] == 120
    used = {resource["resource"]: (resource["used"], resource["limit"]) for resource in cores["resources"]}
    assert used["neurons"] == ([80, 80, 10], 3685)
    assert used["synaptic memory"] == ([1, 1040, 320], 14400)
    assert used["total memory"] == ([2 + 1 + 80 + 1 + 80, 80 + 1 + 80 + 1040 + 80, 80 + 1 + 10 + 320], 18000)
    assert "output axons" not in used  # loihi2 does not limit them


def test_shares_that_sit_on_one_core_add_up_and_a_core_nobody_could_measure_is_unknown():
    net = dense_case(half_zeros())
    placed = mapping.place(net, LOIHI2)
    first, dense, out = placed.cores
    together = replace(placed, cores=(first, replace(dense, index=0), replace(out, layer="nobody")))
    cores = per_core(together, check.check(net, together, LOIHI2), LOIHI2)
    assert (cores["core"], cores["layer"]) == ([0, 2], ["first + dense", "nobody"])
    assert cores["resources"][0]["used"] == [160, None]


def test_spikes_of_the_steps_add_up_to_those_of_the_image():
    net = conv_case()
    seen = recorded(net)
    made = report.build(subject(net, LOIHI2), Run(trace=seen))["activity"]
    for layer, spikes in zip(made["layers"], seen.spikes, strict=True):
        assert layer["spikes_per_step"] == [step.sum() / 3 for step in np.moveaxis(spikes, 1, 0)]
        assert sum(layer["spikes_per_step"]) == pytest.approx(layer["spikes_per_image"])


def test_spikes_that_no_backend_told_step_by_step_are_unknown():
    made = built()["activity"]
    assert [layer["spikes_per_step"] for layer in made["layers"]] == [None, None]
    assert made["raster"] is None


def test_the_emulator_counts_the_spikes_of_each_step_over_all_batches():
    net = conv_case()
    images = np.random.default_rng(0).integers(0, 256, (5, *net.input.shape), dtype=np.uint8)
    seen = emulate.Emulator(net).run(images, record=True, batch=2)
    assert seen.step_spikes.sum() > 0
    assert seen.step_spikes.tolist() == [spikes.sum(axis=(0, 2, 3, 4)).tolist() for spikes in seen.spikes]


def test_a_raster_shows_the_first_image_in_neurons_spread_over_the_layer():
    net = conv_case(pool=4)  # 2 x 16 x 16 neurons in the first layer
    seen = recorded(net)
    made = report.build(subject(net, LOIHI2), Run(trace=seen), labels=np.array([7, 1, 1]))
    raster = made["activity"]["raster"]
    assert {key: raster[key] for key in ("sample", "label", "class", "backend")} == {
        "sample": 0,
        "label": 7,
        "class": 0,
        "backend": "by hand",
    }
    first, second = raster["layers"]
    assert (first["n_neurons"], first["n_shown"], len(set(first["neurons"]))) == (512, 200, 200)
    assert second["neurons"] == list(range(64))
    for layer, spikes in zip(raster["layers"], seen.spikes, strict=True):
        chosen = spikes[0].reshape(8, -1)[:, layer["neurons"]].T
        assert layer["spikes"] == ["".join(map(str, train.astype(int))) for train in chosen]
        assert layer["n_spikes"] == chosen.sum()


def test_the_formats_name_every_section_of_a_report():
    formats = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    (sections,) = re.findall(r"\| \| `(schema model profile [^`]*)` \|", formats)
    assert sections.split() == list(built())


def test_a_kernel_that_tiles_repeat_is_resident_more_often_than_it_is_unique():
    net = conv_case()
    small = limited(
        LOIHI2, neurons=16, max_fill=1.0
    )  # `first` and `second` in tiles of 16 neurons: 2 x 16 and 4 x 16 of them
    placed = mapping.place(net, small)
    made = report.build(subject(net, small), Run(trace=trace(net, [1, 1])))["memory"]
    for layer in made["layers"]:
        words = [core.synapse_words for core in placed.cores if core.layer == layer["name"]]
        ranges = {core.channels for core in placed.cores if core.layer == layer["name"]}
        assert layer["resident_synapse_words"]["value"] == sum(words)
        shared = placed.formats[layer["name"]] == "shared"
        assert layer["unique_synapse_words"]["value"] == (max(words) * len(ranges) if shared else sum(words))
    repeated = sum(
        layer["resident_synapse_words"]["value"] - layer["unique_synapse_words"]["value"] for layer in made["layers"]
    )
    assert made["resident_bytes"]["value"] - made["unique_bytes"]["value"] == 8 * repeated


def test_the_dense_twin_has_every_weight_the_same_spikes_and_figures_that_are_all_assumed():
    net = dense_case(half_zeros())
    made = report.build(subject(net, LOIHI1), Run(trace=trace(net, [3, 2], active=[9, 9])))
    dense = made["dense"]
    energy = dense["energy"]
    # 80 neurons x 3 spikes x all 80 weights, and 80 x 2 x 10
    assert energy["eq12"]["additions"]["value"] == 80 * 3 * 80 + 80 * 2 * 10
    assert energy["hardware"]["counts"]["synops_nonzero"]["value"] == 640 + 80 * 3 * 80 + 80 * 2 * 10
    assert energy["hardware"]["counts"]["spikes"]["value"] == made["energy"]["hardware"]["counts"]["spikes"]["value"]
    assert {holder["how"] for section in ("energy", "memory") for _, holder in figures(dense[section])} == {"assumed"}
    ratio = dense["ratios"]["energy"]["eq12"]["fp32"]["value"]
    assert ratio == pytest.approx((80 * 3 * 80 + 1600) / (80 * 3 * 40 + 1600))
    assert dense["mapping"] == {"n_cores": 1, "n_chips": 1, "reason": None}


def test_a_dense_twin_that_no_core_can_hold_says_so_and_has_no_chips_energy():
    net = dense_case(half_zeros())
    last = replace(net.readout, weight=net.readout.weight * half_zeros()[:10])
    net = Network(input=net.input, layers=net.layers, readout=last, timesteps=8)
    small = limited(LOIHI1, synapse_words=60)  # a neuron's 40 synapses fit, its 80 would not
    made = report.build(subject(net, small), Run(trace=trace(net, [3, 2])))["dense"]
    assert (made["mapping"]["n_cores"], made["mapping"]["n_chips"]) == (None, None)
    assert "synaptic memory" in made["mapping"]["reason"]
    assert "hardware" not in made["energy"]
    assert made["memory"]["resident_bytes"]["value"] is None
    assert made["energy"]["lemaire"]["total"]["value"] > 0


def test_what_an_attack_changes_stands_beside_the_same_images_clean():
    net = dense_case(half_zeros())
    attack = {"name": "by hand", "statement": "Images made by hand."}
    clean, adversarial = (Run(trace=trace(net, spikes, active=[9, 9])) for spikes in ([3, 2], [6, 2]))
    attacked = report.Attacked(attack=attack, clean=clean, adversarial=adversarial, labels=np.array([0]))
    made = report.build(subject(net, LOIHI1), clean, attacked=attacked)["attacked"]
    assert made["clean"]["energy"] == built(net, LOIHI1)["energy"] | {"hardware": made["clean"]["energy"]["hardware"]}
    assert made["ratios"]["spikes"]["value"] == (80 * 6 + 80 * 2) / (80 * 3 + 80 * 2)
    eq12 = [made[side]["energy"]["eq12"]["fp32"]["value"] for side in ("clean", "adversarial")]
    assert made["ratios"]["energy"]["eq12"]["fp32"]["value"] == pytest.approx(eq12[1] / eq12[0])
    terms = made["adversarial"]["energy"]["hardware"]["sets"]["davies2018"]["terms"]
    assert terms["spikes"]["value"] == pytest.approx((80 * 6 + 80 * 2) * 1.7e-3)


def test_a_ratio_to_what_is_unknown_is_unknown():
    made = built(chip=LOIHI2)["dense"]["ratios"]["energy"]["hardware"]["sets"]["unpublished"]
    assert made["dynamic_low"]["value"] is None
    assert (
        made["dynamic_low"]["source"]
        == "omitted: dense over pruned, the same spikes assumed, of which one is not known"
    )


def test_loihi2_prints_what_was_measured_of_pilotnet_as_a_scale():
    made = built(chip=LOIHI2)
    assert {(entry["value"], entry["unit"], entry["status"]) for entry in made["context"]} == {
        (74, "cores", "measured"),
        (16, "steps", "measured"),
        (152.8, "us", "measured"),
        (1.661, "mJ", "measured"),
        (1.094, "mJ", "measured"),
    }
    text = " ".join(shown(made).split())
    assert "For scale, another network on loihi2 [measured: Shrestha" in text
    assert "PilotNet LIF network]: 74 cores, 16 steps an inference, time of a step 152.8 us" in text
    assert built(chip=LOIHI1)["context"] == []
