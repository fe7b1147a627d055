"""The energy of a chip: events times coefficients, one published set at a time, and what is unknown stays so."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hardware import (
    LOIHI1,
    LOIHI2,
    coefficient,
    conv,
    conv_case,
    dense_case,
    half_zeros,
    network,
    readout,
    trace,
    unrolled,
)
from networks import seeded

from toolchain import energy, mapping

LAYER_TERMS = ("synapses_nonzero", "synapses_stored", "updates_active", "updates_inactive", "spikes")


def hardware(net, chip, counted, *, messages=None, **options):
    run = energy.Run(trace=counted, messages=messages)
    return energy.hardware(net, mapping.place(net, chip), chip, run, **options)


def value(entry):
    return entry["value"]


def values(table):
    return {name: value(entry) for name, entry in table.items()}


def with_set(chip, name, changed):
    return replace(chip, energy=replace(chip.energy, sets={**chip.energy.sets, name: changed}))


def case(chip=LOIHI1, **options):
    net = dense_case(half_zeros())
    return hardware(net, chip, trace(net, [3, 2], active=[100, 60]), **options)


# synops: 80 pixels x 1 x 8 steps, then 80 x 40 x 3, then 80 x 10 x 2; neurons x T: (80 + 80 + 10) x 8;
# active: 160 as traced, and the 10 x 8 of the readout
SYNOPS = (640, 9600, 1600)
UPDATES, ACTIVE, SPIKES = 1360, 160 + 80, 80 * 3 + 80 * 2


def test_the_events_of_each_layer_are_counted():
    found = case()
    assert values(found["counts"]) == {
        "synops_nonzero": sum(SYNOPS),
        "synops_stored": sum(SYNOPS),
        "updates": UPDATES,
        "updates_active": ACTIVE,
        "updates_inactive": UPDATES - ACTIVE,
        "spikes": SPIKES,
        "deliveries": SPIKES,  # each spike is heard by the one core of the next layer
    }
    for name, total in found["counts"].items():
        assert sum(value(layer[name]) for layer in found["layers"]) == value(total)
    assert [value(layer["synops_nonzero"]) for layer in found["layers"]] == list(SYNOPS)
    assert [value(layer["updates_active"]) for layer in found["layers"]] == [100, 60, 80]


def test_the_terms_of_davies_are_events_times_coefficients():
    found = case()
    chosen = found["sets"]["davies2018"]
    terms = values(chosen["terms"])
    assert terms["synapses_nonzero"] == pytest.approx(sum(SYNOPS) * 23.6e-3)
    assert terms["updates_active"] == pytest.approx(ACTIVE * 81e-3)
    assert terms["updates_inactive"] == pytest.approx((UPDATES - ACTIVE) * 52e-3)
    assert terms["spikes"] == pytest.approx(SPIKES * 1.7e-3)
    assert "deliveries" not in terms, "no part of this set's model"
    # The one core holds all layers: their synops in 8 steps x 3.5 ns + 170 updates x 5.3 ns; + 113 ns barrier
    t_step = sum(SYNOPS) / 8 * 3.5 + 170 * 5.3 + 113
    assert value(found["t_step"]) == pytest.approx(t_step)
    assert value(found["steps"]) == 8 + 2
    assert value(found["latency"]) == pytest.approx(10 * t_step / 1000)
    assert terms["static"] == pytest.approx(0.104 * 10 * t_step)  # W x ns = nJ
    known = [name for name in terms if name not in {"hops", "synapses_stored"}]
    assert value(chosen["total_low"]) == pytest.approx(sum(terms[name] for name in known))
    assert chosen["omitted"] == ["hops"]


def test_the_terms_of_sana_fe_are_its_own_and_know_the_format_of_a_synapse():
    placed = mapping.place(dense_case(half_zeros()), LOIHI1).formats
    price = {"shared": 24.0, "sparse": 33.6, "run-length": 33.6, "dense": 35.5}
    terms = values(case()["sets"]["sanafe"]["terms"])
    synapses = sum(n * price[form] for n, form in zip(SYNOPS, placed.values(), strict=True))
    assert placed["first"] == "shared"
    assert terms["synapses_nonzero"] == pytest.approx(synapses / 1000)
    assert terms["updates_active"] == pytest.approx(ACTIVE * (51.2 + 21.6) / 1000)
    assert terms["updates_inactive"] == pytest.approx((UPDATES - ACTIVE) * 51.2 / 1000)
    assert terms["spikes"] == pytest.approx(SPIKES * 69.3 / 1000)
    assert terms["deliveries"] == pytest.approx(SPIKES * 111.0 / 1000)


@pytest.mark.parametrize("chosen", ["davies2018", "sanafe"])
def test_each_layer_has_its_share_of_each_term_and_the_shares_add_up(chosen):
    made = case()["sets"][chosen]
    for term in set(made["terms"]) - {"hops", "static"}:
        assert sum(value(layer[term]) for layer in made["layers"]) == pytest.approx(value(made["terms"][term]))
        assert value(made["terms"][term]) > 0


@pytest.mark.parametrize("chosen", ["davies2018", "sanafe"])
def test_doubling_a_coefficient_doubles_its_term_and_no_other(chosen):
    base = LOIHI1.energy.sets[chosen]
    prices = {
        "update_active_pj": {"updates_active"},
        "update_inactive_pj": {"updates_inactive"},
        "spike_pj": {"spikes"},
        "message_pj": {"deliveries"},
    }
    before = values(case()["sets"][chosen]["terms"])
    for name, terms in prices.items():
        if getattr(base, name) is None:
            continue
        made = case(with_set(LOIHI1, chosen, coefficient(base, name, 2)))["sets"][chosen]
        after = values(made["terms"])
        known = {term for term in after if after[term] is not None}
        assert {term for term in known if after[term] != before[term]} == terms
        assert all(after[term] == pytest.approx(2 * before[term]) for term in terms)
        total = sum(after[term] for term in known - {"synapses_stored"})
        assert value(made["total_low"]) == pytest.approx(total)


def test_doubling_every_price_of_a_synapse_doubles_the_synapses():
    base = LOIHI1.energy.sets["sanafe"]
    names = [entry.name for entry in fields(base) if entry.name.startswith("synapse_")]
    doubled = base
    for name in names:
        doubled = coefficient(doubled, name, 2)
    one, two = (case(chip)["sets"]["sanafe"]["terms"] for chip in (LOIHI1, with_set(LOIHI1, "sanafe", doubled)))
    assert value(two["synapses_nonzero"]) == pytest.approx(2 * value(one["synapses_nonzero"]))


def test_the_sets_are_never_mixed():
    changed = with_set(LOIHI1, "sanafe", coefficient(LOIHI1.energy.sets["sanafe"], "spike_pj", 1000))
    assert case(changed)["sets"]["davies2018"] == case()["sets"]["davies2018"]


def test_an_unknown_coefficient_leaves_its_term_unknown_and_out_of_the_total():
    changed = with_set(LOIHI1, "davies2018", coefficient(LOIHI1.energy.sets["davies2018"], "spike_pj", None))
    known, unknown = (case(chip)["sets"]["davies2018"] for chip in (LOIHI1, changed))
    assert value(unknown["terms"]["spikes"]) is None
    assert unknown["omitted"] == ["spikes", "hops"]
    assert value(unknown["total_low"]) == pytest.approx(value(known["total_low"]) - value(known["terms"]["spikes"]))


def test_stored_zeros_make_synops_a_range_in_a_shared_kernel_only():
    weight = np.zeros((4, 2, 3, 3), dtype=int)
    weight[:, :, 1, 1] = 1
    net = conv_case(weight=weight)
    found = hardware(net, LOIHI1, trace(net, [1, 0]))
    # into `first` 16 pixels x 2 x 8 steps; into `second` 2 x 4 x 16 of the centre tap, of 800 stored
    assert value(found["counts"]["synops_nonzero"]) == 256 + 128
    stored = 800 if found["layers"][1]["format"] == "shared" else 128
    assert value(found["counts"]["synops_stored"]) == 256 + stored
    sparse = dense_case(half_zeros())
    found = hardware(sparse, LOIHI1, trace(sparse, [1, 0]))["counts"]
    assert value(found["synops_nonzero"]) == value(found["synops_stored"])


def test_hardware_synops_are_not_divided_by_a_pool():
    plain, pooled = (conv_case(pool=pool) for pool in (1, 2))
    nothing = {pool: np.zeros(net.input.shape) for pool, net in ((1, plain), (2, pooled))}
    one = hardware(plain, LOIHI1, trace(plain, [1, 0]), messages=nothing[1])["counts"]["synops_nonzero"]
    four = hardware(pooled, LOIHI1, trace(pooled, [1, 0]), messages=nothing[2])["counts"]["synops_nonzero"]
    assert (value(one), value(four)) == (800, 4 * 800)


@pytest.mark.parametrize("seed", range(12))
def test_synops_and_deliveries_of_the_cores_are_those_counted_one_by_one(seed):
    net = seeded(seed, tiny=True).network
    rng = np.random.default_rng(seed)
    events = [rng.integers(0, 9, source).astype(float) for _, source, _ in net.wired()]
    placed = mapping.place(net, LOIHI1)
    wired = {layer.name: (layer, source, event) for (layer, source, _), event in zip(net.wired(), events, strict=True)}
    for load in energy.loads(net, placed, events):
        layer, source, event = wired[load.core.layer]
        mine = np.zeros(layer.output_shape(source), dtype=bool)
        mine[slice(*load.core.channels), slice(*load.core.y), slice(*load.core.x)] = True
        nonzero = unrolled(layer, source)[mine.ravel()]
        assert load.synops == (nonzero @ event.ravel()).sum()
        stored = nonzero
        if placed.formats[load.core.layer] in {"shared", "dense"}:
            stored = unrolled(layer, source, np.ones_like(layer.weight, dtype=bool))[mine.ravel()]
        assert load.deliveries == event.ravel()[stored.any(axis=0)].sum()


def test_the_worst_core_adds_up_the_layers_it_holds():
    net = dense_case(half_zeros())
    placed = mapping.place(net, LOIHI1)
    together = replace(placed, cores=tuple(replace(core, index=0) for core in placed.cores))
    run = energy.Run(trace=trace(net, [3, 2]))
    found = energy.hardware(net, together, LOIHI1, run)
    worst = found["worst_core"]
    assert worst["where"] == "core 0 (first + dense + out)"
    assert (value(worst["synops"]), value(worst["updates"])) == (sum(SYNOPS) / 8, 170)
    assert value(found["t_step"]) == pytest.approx(sum(SYNOPS) / 8 * 3.5 + 170 * 5.3 + 113)


def test_what_loihi2_does_not_publish_is_none_and_omitted_never_zero():
    found = case(LOIHI2)
    assert list(found["sets"]) == ["unpublished"], "a proxy is priced only where it is asked for"
    chosen = found["sets"]["unpublished"]
    assert values(chosen["terms"]) == dict.fromkeys(chosen["terms"])
    assert chosen["omitted"] == list(chosen["terms"])
    assert [value(found[name]) for name in ("t_step", "latency", "static")] == [None] * 3
    assert [value(chosen[name]) for name in ("total_low", "total_high")] == [None] * 2
    assert found["worst_core"]["where"] == "core 1 (dense)"


def test_a_proxy_is_labelled_and_priced_by_loihi1_alone():
    chosen = energy.priced_by(case(LOIHI2), LOIHI2, proxy=True)
    (only,) = chosen.values()
    assert (only["label"], only["statement"]) == ("PROXY of loihi1", "PROXY: coefficients of loihi1, not of loihi2")
    terms = values(only["terms"])
    # loihi2 has other formats than loihi1; every synapse costs the same in this set
    assert terms["synapses_nonzero"] == pytest.approx(sum(SYNOPS) * 23.6e-3)
    assert terms["static"] is None


def test_a_proxy_that_a_profile_names_as_its_default_is_shown_and_still_labelled():
    chip = replace(LOIHI2, energy=replace(LOIHI2.energy, default="loihi1_proxy"))
    found = case(chip)
    assert list(found["sets"]) == ["unpublished", "loihi1_proxy"]
    assert found["sets"]["loihi1_proxy"]["label"] == "PROXY of loihi1"
    assert energy.priced_by(found, chip, proxy=True) == {}


def test_a_given_time_of_a_step_prices_static_power_alone_on_loihi2():
    found = case(LOIHI2, t_step_ns=1000.0)
    chosen = found["sets"]["unpublished"]
    assert found["t_step"]["how"] == "assumed"
    assert value(chosen["total_low"]) == pytest.approx(0.232 * 10 * 1000)  # 10 steps
    assert "static" not in chosen["omitted"]


def test_without_a_count_of_driven_neurons_updates_are_omitted():
    net = dense_case(half_zeros())
    chosen = hardware(net, LOIHI1, trace(net, [3, 2]))["sets"]["davies2018"]
    assert chosen["omitted"] == ["updates_active", "updates_inactive", "hops"]
    assert chosen["terms"]["updates_active"]["source"] == "omitted: by hand does not count driven neurons"


def test_counted_messages_replace_the_assumption_that_every_pixel_sends():
    net = network((1, 2, 2), conv("a", np.ones((1, 1, 1, 1), int)), last=readout(4))
    assumed = hardware(net, LOIHI1, trace(net, [0]))["counts"]["synops_nonzero"]
    counted = hardware(net, LOIHI1, trace(net, [0]), messages=np.array([[[8.0, 0, 0, 0]]]).reshape(1, 2, 2))["counts"]
    assert (value(assumed), assumed["how"]) == (4 * 8, "assumed")
    assert (value(counted["synops_nonzero"]), counted["synops_nonzero"]["how"]) == (8, "counted")
