"""Benches are not timed here; what they are made of works: rows become a page, networks spike, races are fair."""

from __future__ import annotations

import ast
import dataclasses

import numpy as np
import pytest
from bench import __main__ as command
from bench import harness, page, vgg

ROW = harness.Row(
    case="VGG-16",
    subject="emulator",
    value=0.004,
    unit="s/image",
    ratio=1 / 1234.4,
    against="stock Lava",
    target="1,000",
)


def state(**changes):
    made = {"name": "speed", "about": "Speed.\n\nOf all.", "machine": "a machine", "finished": True, "plots": []}
    return {**made, "rows": [dataclasses.asdict(ROW)], **changes}


def test_a_section_has_its_title_its_machine_and_only_the_columns_that_are_used():
    assert page.section(state()) == (
        "## Speed\n\nOf all.\n\nMeasured on: a machine.\n\n"
        "| case | program | median | against | target |\n| --- | --- | --- | --- | --- |\n"
        "| VGG-16 | emulator | 0.004 s/image | 1,234 times less than stock Lava | 1,000 |\n"
    )


def test_a_run_cut_short_keeps_its_rows_and_says_so():
    section = page.section(state(finished=False))
    assert "This run was cut short.\n\n| case" in section
    assert "| VGG-16 | emulator |" in section


def test_a_section_is_replaced_where_it_stands_and_the_prose_around_it_stays(tmp_path):
    page.write([state(), state(name="other")], tmp_path)
    path = tmp_path / "performance.md"
    path.write_text(path.read_text().replace("<!-- bench other", "By hand.\n\n<!-- bench other"))
    page.write([state(machine="another machine")], tmp_path)
    text = path.read_text()
    assert text.count("Measured on: a machine.") == 1
    assert text.index("another machine") < text.index("By hand.") < text.index("a machine.\n")


def test_a_race_gives_each_subject_its_turn_in_each_round_in_both_orders():
    order = []
    timings = harness.race({name: lambda name=name: order.append(name) for name in "ab"}, rounds=2)
    assert "".join(order) == "ab" + "abba"
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    ours, theirs = harness.Timing(seconds=(2.0, 9.0, 3.0)), harness.Timing(seconds=(1.0, 1.0, 3.0))
    assert ours.ratio(theirs) == 2.0


def test_a_timing_becomes_a_row_in_the_unit_asked_for():
    row = harness.Timing(seconds=(1.0, 2.0, 4.0)).row(case="c", subject="s", unit="ms/image", per=4)
    assert (row.low, row.value, row.high) == (250, 500, 1000)


def test_every_bench_says_what_it_measures():
    names = command.names()
    assert names[0] == "emulator"
    abouts = [ast.get_docstring(ast.parse((command.FOLDER / f"{name}.py").read_text())) for name in names]
    assert [len(about.split("\n\n")) >= 2 for about in abouts] == [True] * len(names)


@pytest.mark.parametrize(("depth", "sparsity"), [(11, 0.9), (16, 0.0), (16, 0.99)])
def test_every_layer_of_a_random_vgg_spikes_in_5_to_30_percent_on_images_it_was_not_set_on(depth, sparsity):
    network = vgg.build(depth, sparsity=sparsity, width=0.25)
    rates = vgg.rates(network, vgg.images(4, seed=9))
    assert all(0.05 <= rate <= 0.30 for rate in rates), rates
    widest = max(network.layers, key=lambda layer: layer.weight.size)
    assert np.mean(widest.weight == 0) == pytest.approx(sparsity, abs=0.01)


def test_a_full_vgg_has_the_neurons_and_weights_of_the_method():
    channels = {depth: vgg.layout(depth, 1.0) for depth in vgg.LAYERS}
    assert [item for item in channels[16][0] if item != "A"] == [64, 64, 128, 128, *[256] * 3, *[512] * 6]
    assert (channels[16][0].count("A"), channels[11][0].count("A")) == (4, 3)
    assert (channels[16][1], channels[11][1]) == ((256, 256), (4096, 4096))


def test_a_dense_twin_has_no_zero_weight():
    network = vgg.build(16, sparsity=0.9, width=0.1)
    twin = vgg.dense_twin(network)
    assert all((layer.weight != 0).all() for layer in twin.chain)
    assert twin.shapes == network.shapes
