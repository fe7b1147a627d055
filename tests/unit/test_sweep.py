"""`sweep`: every point is what the integers give by other ways, what is finished is kept, and an image stops when its class stands."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import tiny
import torch
from hardware import LOIHI2, limited
from rich.console import Console
from whole import integers

from toolchain import attacks, deployment, emulate, evaluate, mapping, profile, store, sweep
from toolchain.deployed.measure import made_ready
from toolchain.deployment import Settings
from toolchain.errors import ConfigError, FormatError, UnsupportedError
from toolchain.ir import Readout
from toolchain.sweep import early

SETTINGS = Settings(profile="loihi2")
SOME = sweep.Effort(samples=15, attacked=6)
GRID = {"bits": [3, 8], "timesteps": [2, 4], "sparsity": [0.0, 0.9]}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny.model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def swept(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("swept")
    return out, sweep.sweep(model, out, SETTINGS, **GRID, effort=dataclasses.replace(SOME, early_exit=True))


def point(result, bits, timesteps, sparsity=None):
    (row,) = (
        row
        for row in result["rows"]
        if (row["bits"], row["timesteps"], row["sparsity_asked"]) == (bits, timesteps, sparsity)
    )
    return row


def test_every_combination_is_a_row(swept):
    out, result = swept
    keys = [(row["sparsity_asked"], row["timesteps"], row["bits"]) for row in result["rows"]]
    assert keys == list(itertools.product([None, 0.9], [2, 4], [3, 8]))
    assert json.loads((out / "sweep.json").read_text()) == json.loads(json.dumps(result))


def test_the_point_of_the_model_itself_is_what_other_verbs_say_of_it(swept, model):
    row = point(swept[1], 8, 4)
    made = store.load(model)
    ready = made_ready(made, SETTINGS)
    validation = deployment.training_data(made).validation
    right = ready.target.classify(validation.images[:15]) == validation.labels[:15]
    assert row["accuracy"] == evaluate.accuracy(right)
    attack = made.recipe.attack
    attacked = evaluate.attacked(
        ready.chain,
        validation.first(6),
        "pgd-ens",
        members=attacks.STRONGEST,
        eps=attack.eps,
        steps=attack.steps,
        seed=made.recipe.seed,
        target=ready.target,
    )
    assert row["robust"] == {"measured": "validation", **attacked.to_dict()}
    placed = mapping.place(ready.made.network, LOIHI2)
    assert (row["n_cores"], row["n_chips"]) == (placed.n_cores, placed.n_chips)
    trace = emulate.run(ready.made.network, validation.images[:15])
    assert row["spikes"] == trace.step_spikes.sum() / 15
    assert row["sparsity"] == made.sparsity


def test_a_point_of_other_steps_is_the_same_weights_and_thresholds_run_for_them(swept, model):
    made = store.load(model)
    data = deployment.training_data(made)
    other = dataclasses.replace(made, timesteps=2)
    network = deployment.quantized(other, data, dataclasses.replace(SETTINGS, weight_bits=3), LOIHI2).network
    assert network.timesteps == 2
    split = data.validation.first(15)
    right = emulate.run(network, split.images).classes() == split.labels
    assert point(swept[1], 3, 2)["accuracy"]["n_right"] == right.sum()


def test_a_further_sparsity_leaves_the_same_share_of_every_layer_within_its_mask(model, tmp_path):
    made = store.load(model)
    variants = sweep.Variants(made, deployment.training_data(made), tmp_path)
    further = variants.made(4, 0.9)
    share = (1 - 0.9) / (1 - made.sparsity)
    for name, mask in made.mask.items():
        kept = further.mask[name]
        assert int(kept.sum()) == round(share * int(mask.sum()))
        assert not bool((kept & ~mask).any())
        assert torch.equal(further.state[name], torch.where(kept, made.state[name], 0.0))
    assert further.sparsity == pytest.approx(0.9, abs=0.005)
    assert variants.made(4, None) is made
    assert list(tmp_path.iterdir()) == []


def test_sparsities_that_the_model_has_already_are_the_model_as_it_is_once(swept):
    assert swept[1]["notes"] == ["sparsity 0: the model as it is, 50.00% sparse"]


def test_a_killed_sweep_goes_on_and_ends_as_one_that_was_not(swept, model, tmp_path):
    def killed(line):
        if line.startswith("point 6"):
            raise KeyboardInterrupt

    keys = {**GRID, "effort": dataclasses.replace(SOME, early_exit=True)}
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(model, tmp_path, SETTINGS, **keys, log=killed)
    assert len(list((tmp_path / "points").iterdir())) == 5
    lines: list[str] = []
    sweep.sweep(model, tmp_path, SETTINGS, **keys, log=lines.append)
    assert [line.split(":")[0] for line in lines if line.startswith("point")] == [f"point {n} of 8" for n in (6, 7, 8)]
    for name in ("sweep.json", "sweep.svg"):
        assert (tmp_path / name).read_bytes() == (swept[0] / name).read_bytes()


def test_a_folder_takes_a_wider_sweep_but_no_other(model, tmp_path):
    quick = sweep.Effort(samples=5, attacked=0)
    sweep.sweep(model, tmp_path, SETTINGS, effort=quick)
    lines: list[str] = []
    wider = sweep.sweep(model, tmp_path, SETTINGS, timesteps=[2, 4], effort=quick, log=lines.append)
    assert lines == ["point 1 of 2: bits as recorded, T = 2, as sparse as it is"]
    assert len(wider["rows"]) == 2
    with pytest.raises(
        ConfigError, match=r"holds another sweep, which differs in samples; use another --out, or delete it"
    ):
        sweep.sweep(model, tmp_path, SETTINGS, effort=sweep.Effort(samples=6, attacked=0))


@pytest.mark.parametrize("there", ["", "[]", '{"bits": 8}', '{"bits": null, "timesteps": 4, "sparsity_asked": null}'])
def test_a_file_that_is_no_point_is_refused(model, tmp_path, there):
    quick = sweep.Effort(samples=5, attacked=0)
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "bown-t4-sown.json").write_text(there)
    with pytest.raises(FormatError, match="not a point of a sweep; delete it to repeat it"):
        sweep.sweep(model, tmp_path, SETTINGS, effort=quick)


def test_sparsities_as_near_as_numbers_go_are_points_of_their_own(model, tmp_path):
    near = [0.9, 0.90000001]
    quick = sweep.Effort(samples=5, attacked=0)
    rows = sweep.sweep(model, tmp_path, SETTINGS, sparsity=near, effort=quick)["rows"]
    assert [row["sparsity_asked"] for row in rows] == near
    assert sorted(path.name for path in (tmp_path / "points").iterdir()) == [
        "bown-t4-s0.9.json",
        "bown-t4-s0.90000001.json",
    ]


def test_a_point_that_does_not_fit_is_a_row_that_says_why(model, tmp_path, monkeypatch):
    small = limited(LOIHI2, neurons=40, max_fill=1.0, cores=1)
    monkeypatch.setattr(profile, "read", lambda name: small if name == "small" else profile.load(name))
    result = sweep.sweep(model, tmp_path, Settings(profile="small"), effort=sweep.Effort(attacked=0))
    (row,) = result["rows"]
    assert row["fits"] is False
    assert "cores" in row["reason"]
    assert (row["accuracy"], row["n_cores"], row["energy"]) == (None, None, {})
    console = Console(file=io.StringIO(), width=200)
    sweep.render(result, console)
    assert f"(1) {row['reason']}" in console.file.getvalue()
    ET.fromstring((tmp_path / "sweep.svg").read_text())


def test_a_model_without_spikes_is_refused(tmp_path):
    settings = tiny.recipe.load("digits-cnn", overrides=[*tiny.OVERRIDES, f"data.source={tiny.images(tmp_path)}"])
    path = tiny.save(tmp_path / "ann.pt", settings, "train")
    with pytest.raises(UnsupportedError, match=r"stage train has no spikes yet\. Run the recipe until convert"):
        sweep.sweep(path, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


def test_finetuned_variants_are_kept_and_their_masks_and_steps_stay(model, tmp_path):
    made = store.load(model)
    data = deployment.training_data(made)
    lines: list[str] = []
    variants = sweep.Variants(made, data, tmp_path, epochs=1, log=lines.append)
    tuned = variants.made(2, 0.9)
    assert [path.name for path in tmp_path.iterdir()] == ["t2-s0.9.pt"]
    assert lines[0].startswith(f"T = 2, sparsity {tuned.sparsity:.1%}: epoch 1 of 1, loss ")
    assert (tuned.timesteps, tuned.stage) == (2, "finetune")
    plain = sweep.Variants(made, data, tmp_path / "none").made(2, 0.9)
    for name, mask in plain.mask.items():
        assert torch.equal(tuned.mask[name], mask)
        assert bool((tuned.state[name][~mask] == 0).all())
        assert not torch.equal(tuned.state[name], plain.state[name])
    assert variants.made(4, None) is made
    longer = variants.made(4, 0.9)  # the same weights and mask, trained for other steps
    assert any(not torch.equal(longer.state[name], tuned.state[name]) for name in tuned.state)
    again = variants.made(2, 0.9)
    assert all(torch.equal(again.state[name], tuned.state[name]) for name in tuned.state)
    assert len(lines) == 2


def test_a_finetune_that_was_killed_goes_on_from_its_last_epoch(model, tmp_path):
    def killed(line):
        if ": epoch 2" in line:
            raise KeyboardInterrupt

    made = store.load(model)
    data = deployment.training_data(made)
    whole = sweep.Variants(made, data, tmp_path / "whole", epochs=3).made(2, None)
    with pytest.raises(KeyboardInterrupt):
        sweep.Variants(made, data, tmp_path, epochs=3, log=killed).made(2, None)
    lines: list[str] = []
    resumed = sweep.Variants(made, data, tmp_path, epochs=3, log=lines.append).made(2, None)
    assert [line.split(",")[1] for line in lines] == [" sparsity 50.0%: epoch 3 of 3"]
    assert all(torch.equal(resumed.state[name], whole.state[name]) for name in whole.state)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["t2-sown.pt"]


@pytest.fixture(scope="module", params=["pools", "whole"])
def case(request, model):
    """A network and images: one with pools, biases and five steps, one that was trained."""
    if request.param == "pools":
        return integers(), np.random.default_rng(1).integers(0, 256, (200, 1, 8, 8), dtype=np.uint8)
    made = store.load(model)
    data = deployment.training_data(made)
    return deployment.quantized(made, data, SETTINGS, LOIHI2).network, data.train.images


def test_the_logits_after_a_step_are_those_of_a_network_that_stops_there(case):
    network, pixels = case
    found = early.cumulated(network, pixels)
    for steps in range(1, network.timesteps + 1):
        shorter = dataclasses.replace(network, timesteps=steps)
        assert np.array_equal(found[:, steps - 1], emulate.run(shorter, pixels).logits)


def test_a_proven_exit_never_changes_a_class(case):
    network, pixels = case
    sums = early.cumulated(network, pixels)
    steps = early.proven(sums, network.readout)
    stopped = sums[np.arange(len(steps)), steps - 1].argmax(axis=1)
    assert np.array_equal(stopped, sums[:, -1].argmax(axis=1))


@pytest.mark.parametrize("pool", [1, 2])
def test_a_class_stands_only_if_no_spikes_to_come_can_change_it(pool):
    rng = np.random.default_rng(0)
    readout = Readout(name="out", weight=rng.integers(-3, 4, (3, 3)), bias=rng.integers(-2, 3, 3), pool=pool)
    every = np.array(list(itertools.product([0, pool**2], repeat=3))) @ readout.weight.T + readout.bias
    start = pool**2 * rng.integers(-20, 21, (300, 1, 3))
    sums = every[rng.integers(0, 8, (300, 3))].cumsum(axis=1) + start
    steps = early.proven(sums, readout)
    for image, until in zip(sums, steps, strict=True):
        for t in (1, 2):
            ends = [image[t - 1] + sum(more) for more in itertools.product(every, repeat=3 - t)]
            if t >= until:
                assert {int(end.argmax()) for end in ends} == {int(image[-1].argmax())}
    assert set(steps) == {1, 2, 3}


@pytest.mark.parametrize("given_up", [0.0, 0.02, 0.1, 1.0])
def test_the_margin_is_the_least_from_which_on_no_more_is_given_up(given_up):
    rng = np.random.default_rng(3)
    sums = rng.integers(-6, 10, (150, 5, 4)).cumsum(axis=1)
    labels = np.where(rng.random(150) < 0.8, sums[:, -1].argmax(axis=1), 0)
    full = int((sums[:, -1].argmax(axis=1) == labels).sum())

    def lost(margin):
        steps = early.by_margin(sums, margin)
        return full - int((sums[np.arange(150), steps - 1].argmax(axis=1) == labels).sum())

    allowed = [margin for margin in range(60) if all(lost(more) <= given_up * 150 for more in range(margin, 60))]
    assert early.calibrated(sums, labels, given_up=given_up) == allowed[0]


def test_early_exit_says_what_it_saves_and_costs(swept, model):
    made = store.load(model)
    data = deployment.training_data(made)
    network = deployment.quantized(made, data, SETTINGS, LOIHI2).network
    row = point(swept[1], 8, 4)
    split = data.validation.first(15)
    sums = early.cumulated(network, split.images)
    found = row["early_exit"]["margin"]
    chosen = [early.calibrated(sums[half::2], split.labels[half::2]) for half in (0, 1)]
    assert found["margins_of_halves"] == chosen[::-1]
    assert found["margin"] == early.calibrated(sums, split.labels)
    steps = np.array([early.by_margin(sums, chosen[(image + 1) % 2])[image] for image in range(15)])
    right = sums[np.arange(15), steps - 1].argmax(axis=1) == split.labels
    assert found["clean"]["mean_steps"] == steps.mean()
    assert found["clean"]["saved"] == pytest.approx(1 - steps.mean() / 4)
    half = 1.959963984540054 * (steps / 4).std(ddof=1) / np.sqrt(15)
    assert np.mean(found["clean"]["saved_interval95"]) == pytest.approx(found["clean"]["saved"])
    assert np.ptp(found["clean"]["saved_interval95"]) == pytest.approx(2 * half)
    assert found["clean"]["n_right"] == right.sum()
    assert found["clean"]["against_full"]["difference"] == pytest.approx(right.mean() - row["accuracy"]["accuracy"])
    proven = row["early_exit"]["proven"]
    assert proven["clean"]["n_changed"] == proven["attacked"]["n_changed"] == 0
    assert proven["attacked"]["n_right"] == row["robust"]["n_right"]


def test_the_table_has_a_line_a_point_and_marks_what_no_other_beats(swept):
    result = swept[1]
    console = Console(file=io.StringIO(), width=200)
    sweep.render(result, console)
    lines = console.file.getvalue().splitlines()
    (plot,) = (plot for plot in result["plots"] if plot["name"] == "energy: Lemaire, 45 nm")
    table = [line.split() for line in lines if line.split()[:1] and line.split()[0].isdigit()]
    assert len(table) == 2 * len(result["rows"])
    for index, row in enumerate(result["rows"]):
        cells = table[index]
        assert cells[1:3] == [str(row["bits"]), str(row["timesteps"])]
        marks = "".join(mark for mark, series in (("c", "clean"), ("r", "robust")) if index in plot["front"][series])
        assert cells[8:] == ([marks] if marks else [])


def test_the_table_says_what_the_profile_does_not_know(swept):
    result = swept[1]
    console = Console(file=io.StringIO(), width=200)
    sweep.render(result, console)
    assert "Not known on loihi2: latency." in console.file.getvalue().splitlines()
    known = {"value": 12.5, "unit": "us/image"}
    rows = [
        {**row, "latency": known, "note": "the host computes" * (not place)} for place, row in enumerate(result["rows"])
    ]
    console = Console(file=io.StringIO(), width=200)
    sweep.render({**result, "rows": rows}, console)
    assert "Not known" not in console.file.getvalue()
    assert "12.500" in console.file.getvalue()
    assert "The host computes." in console.file.getvalue().splitlines()


def test_the_plot_has_a_bar_for_each_accuracy_over_an_axis(swept):
    out, result = swept
    svg = ET.fromstring((out / "sweep.svg").read_text())
    bars = [tag for tag in svg.iter() if "stroke-opacity" in tag.attrib]
    assert len(bars) == 2 * len(result["rows"])
    high = {float(tag.attrib["y1"]) - float(tag.attrib["y2"]) for tag in bars}
    spans = {180 * np.ptp(row[key]["interval95"]) for row in result["rows"] for key in ("accuracy", "robust")}
    assert all(min(abs(each - span) for each in high) < 0.02 for span in spans)


def test_the_plot_has_a_dot_for_each_accuracy_over_both_axes(swept):
    out, result = swept
    svg = ET.fromstring((out / "sweep.svg").read_text())
    dots = [tag for tag in svg.iter() if len(tag) == 1]
    assert len(dots) == 4 * len(result["rows"])
    said = [dot[0].text for dot in dots]
    row = point(result, 3, 2)
    low, high = row["accuracy"]["interval95"]
    assert f"3 bits, T = 2, 50.0% sparse: {row['accuracy']['accuracy']:.1%} ({low:.1%} to {high:.1%})" in said
    assert "nan" not in (out / "sweep.svg").read_text()
