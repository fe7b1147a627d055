"""The rules: each one kept by a sound placement, and each one broken by a network, a profile or a placement."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hardware import LOIHI1, LOIHI2, conv, conv_case, dense_case, half_zeros, limited, network, readout

from toolchain import mapping
from toolchain.check import RULES, check
from toolchain.ir import Neuron

ALONE = limited(LOIHI1, layers=1)
"""One layer a core"""


def broken(net, placed, chip):
    return list(check(net, placed, chip).violations)


def rules_broken(net, placed, chip):
    return sorted({finding.rule for finding in broken(net, placed, chip)})


def test_a_placement_of_loihi2_breaks_no_rule():
    net = dense_case(half_zeros())
    assert check(net, mapping.place(net, LOIHI2), LOIHI2).violations == ()


def test_every_rule_has_an_id_a_name_and_a_sentence():
    titles = [rule.__doc__.split(":")[0] for rule in RULES]
    assert [title.split()[0] for title in titles] == [f"R{n:02}" for n in range(1, len(RULES) + 1)]
    assert all(rule.__name__.startswith(title.split()[0].lower()) for rule, title in zip(RULES, titles, strict=True))


@pytest.mark.parametrize(
    ("rule", "case", "chip", "limit"),
    [
        ("R01", conv_case(), LOIHI2, {"neurons": 63}),
        ("R02", conv_case(), LOIHI2, {"synapse_words": 17}),
        ("R03", conv_case(), LOIHI2, {"total_words": 148}),
        ("R04", dense_case(half_zeros()), ALONE, {"axons_in": 79}),
        ("R05", conv_case(), ALONE, {"axons_out": 63}),
        ("R06", conv_case(), LOIHI2, {"axon_map_words": 63}),
        ("R07", conv_case(), ALONE, {"list_words": 4}),
        ("R09", conv_case(), LOIHI2, {"cores": 2}),
    ],
)
def test_one_unit_less_than_used_breaks_the_rule(rule, case, chip, limit):
    # conv_case on loihi2: 2 axon words + 1 group + 64 neurons + 18 kernel words + 64 axon map words = 149
    chip = limited(chip, max_fill=1.0)
    placed = mapping.place(case, chip)
    (name, value), *_ = limit.items()
    enough = limited(chip, **{name: value + 1})
    assert rule not in {
        finding.rule for finding in broken(case, placed, enough) if finding.layer in {"second", "dense", "chip 0"}
    }
    found = [
        f
        for f in broken(case, placed, limited(chip, **limit))
        if f.rule == rule and f.layer in {"second", "dense", "chip 0"}
    ]
    assert [(f.used, f.limit) for f in found] == [(value + 1, value)]


def test_more_thresholds_than_groups_break_r08():
    net = network((1, 2, 2), conv("a", np.ones((9, 1, 1, 1), int), theta=np.arange(1, 10)), last=readout(36))
    wide = limited(LOIHI2, groups=9)
    assert rules_broken(net, mapping.place(net, wide), LOIHI2) == ["R08"]


def test_head_room_is_kept_of_neurons_and_words():
    net = conv_case()
    placed = mapping.place(net, LOIHI2)
    neurons = limited(LOIHI2, neurons=71)  # 90 % of 71 are 63.9
    assert [(f.rule, f.used, f.limit) for f in broken(net, placed, neurons)] == [("R01", 64, 63)]


def precise(**values):
    precision = LOIHI2.precision
    changed = {name: replace(getattr(precision, name), value=value) for name, value in values.items()}
    return replace(LOIHI2, precision=replace(precision, **changed))


@pytest.mark.parametrize(
    ("rule", "limit", "used", "value"),
    [
        ("R10", "weight_bits", 8, 7),
        ("R11", "theta_max", 100, 99),
        ("R12", "bias_max", 5, 4),
        ("R13", "message_bits", 9, 8),
        ("R14", "state_bits", 24, 23),
    ],
)
def test_a_number_the_chip_cannot_hold_breaks_the_rule_of_its_precision(rule, limit, used, value):
    layer = conv("a", np.ones((1, 1, 1, 1), int))
    layer = replace(layer, neuron=Neuron(theta=np.array(100), bias=np.array([-5])))
    net = network((1, 2, 2), layer, last=replace(readout(4, classes=2), weight_bits=2))
    placed = mapping.place(net, LOIHI2)
    (finding,) = broken(net, placed, precise(**{limit: value}))
    assert (finding.rule, finding.used, finding.limit, finding.core) == (rule, used, value, None)
    assert finding.remedy
    assert not broken(net, placed, precise(**{limit: used}))


def test_loihi1_refuses_graded_input_and_says_what_helps():
    net = conv_case()
    (error,) = check(net, mapping.place(net, LOIHI1), LOIHI1).errors()
    assert str(error) == (
        "input of loihi1: graded input messages 9 bits of 1. "
        "loihi1 sends spikes, not numbers; export the model for loihi1, so that its input is coded as biases. [R13]"
    )


def misplaced(net, **changes):
    placed = mapping.place(net, LOIHI2)
    first, *others = placed.cores
    return replace(placed, cores=(replace(first, **changes), *others))


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({"y": (0, 3)}, 8),  # the last of 4 rows of 4 x 2 neurons is nowhere
        ({"y": (1, 5)}, 64),  # outside: 32 neurons nowhere and 32 places of nothing
        ({"layer": "second", "channels": (0, 2)}, 32),  # every neuron of `first` is nowhere
    ],
)
def test_a_neuron_that_is_not_on_exactly_one_core_breaks_r15(changes, used):
    net = conv_case()
    found = [f for f in broken(net, misplaced(net, **changes), LOIHI2) if f.rule == "R15"]
    assert (found[0].layer, found[0].used) == ("first", used)


def test_a_neuron_on_two_cores_breaks_r15():
    net = conv_case()
    placed = mapping.place(net, LOIHI2)
    twice = replace(placed, cores=(*placed.cores, replace(placed.cores[0], index=3)))
    assert [(f.rule, f.used) for f in broken(net, twice, LOIHI2) if f.rule == "R15"] == [("R15", 32)]


def test_a_core_of_an_unknown_layer_breaks_r15():
    net = conv_case()
    placed = mapping.place(net, LOIHI2)
    stranger = replace(placed, cores=(*placed.cores, replace(placed.cores[0], index=3, layer="elsewhere")))
    assert rules_broken(net, stranger, LOIHI2) == ["R15"]


def test_two_shares_on_one_core_break_r09():
    net = conv_case()
    placed = mapping.place(net, LOIHI2)
    cores = (placed.cores[0], replace(placed.cores[1], index=0), placed.cores[2])
    assert rules_broken(net, replace(placed, cores=cores), LOIHI2) == ["R09"]


def test_a_format_a_layer_cannot_have_breaks_r16():
    net = conv_case()
    placed = mapping.place(net, LOIHI2)
    assert rules_broken(net, replace(placed, formats={**placed.formats, "second": "run-length"}), LOIHI2) == [
        "R16",
        "R17",
    ]


@pytest.mark.parametrize(
    "name", ["axons_in", "axons_out", "groups", "synapse_words", "axon_map_words", "axon_mem_words"]
)
def test_a_misstated_figure_breaks_r17(name):
    net = conv_case()
    true = getattr(mapping.place(net, LOIHI2).cores[0], name)
    (finding,) = broken(net, misplaced(net, **{name: true + 3}), LOIHI2)
    assert (finding.rule, finding.core, finding.used) == ("R17", 0, 3)
    assert finding.remedy == f"The mapping states {true + 3}, the network needs {true}. Place the network again."


def test_a_violation_names_the_narrower_weights_that_would_fit():
    net = dense_case(half_zeros())
    placed = mapping.place(net, LOIHI2)
    chip = limited(LOIHI2, max_fill=1.0, synapse_words=1000)
    error = next(error for error in check(net, placed, chip).errors())
    # 37 of 40 synapses: 37 x 20 + 10 = 750 bit, 12 words a source: 960. 40 x (7 + 12) + 10 = 770 bit, 13 words a source; at 6 bit 730 bit, 12 words: 960
    assert str(error) == (
        "dense on core 1 of loihi2: synaptic memory 1,040 words of 1,000. "
        "Prune dense by a further 8 %, use --weight-bits 6, or a profile with larger cores. [R02]"
    )


def test_the_verdict_goes_through_json_with_a_line_a_rule_and_layer():
    net = conv_case()
    result = check(net, mapping.place(net, LOIHI2), LOIHI2).to_dict()
    assert json.loads(json.dumps(result)) == result
    assert result["ok"] is True
    assert {"rule": "R02", "layer": "second", "used": 18, "limit": 14400}.items() <= next(
        use for use in result["usage"] if (use["rule"], use["layer"]) == ("R02", "second")
    ).items()
