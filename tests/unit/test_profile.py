"""Profiles: the shipped ones load, and a faulty one lists every fault at once, each with its path."""

from __future__ import annotations

import hashlib
import sys

import pytest

from toolchain import profile, resources
from toolchain.errors import ConfigError, UnsupportedError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CHIPS = ("loihi1", "loihi2")
SHIPPED = (*CHIPS, "generic45", "speck2f")


def table(name="loihi2"):
    return tomllib.loads(resources.profile_path(name).read_text(encoding="utf-8"))


def faults(changed):
    with pytest.raises(ConfigError) as raised:
        profile.from_dict(changed)
    return raised.value.faults


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_loads_by_name_and_by_path_and_knows_its_hash(name):
    path = resources.profile_path(name)
    loaded = profile.read(name)
    assert loaded == profile.read(path)
    assert loaded.name == name
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_has_a_unit_a_status_and_a_citation(name):
    loaded = profile.read(name)
    for path, quantity, what in profile.quantities(loaded):
        assert quantity.status in profile.STATUSES, path
        assert quantity.unit, path
        assert what, path
        assert any(quantity.source.startswith(citation) for citation in loaded.sources.values()), path
        assert (quantity.value is None) == (quantity.status == "unknown"), path


@pytest.mark.parametrize("name", SHIPPED)
def test_every_source_is_cited(name):
    loaded = profile.read(name)
    cited = {quantity.source for _, quantity, _ in profile.quantities(loaded)}
    for key, citation in loaded.sources.items():
        assert any(source.startswith(citation) for source in cited), key


def test_loihi2_publishes_no_energy_an_operation():
    energy = profile.load("loihi2").energy
    known = [path for path, q, _ in profile.quantities(profile.load("loihi2")) if ".unpublished." in path and q.value]
    assert (energy.default, known) == ("unpublished", [])
    assert energy.static_w.value == pytest.approx(0.232)


def test_loihi1_has_two_sets_of_coefficients_and_names_the_one_to_use_unasked():
    energy = profile.load("loihi1").energy
    assert sorted(energy.sets) == ["davies2018", "sanafe"]
    assert energy.coefficients is energy.sets["davies2018"]
    for name, status in (("davies2018", "simulated"), ("sanafe", "fitted")):
        found = {q.status for path, q, _ in profile.quantities(profile.load("loihi1")) if f".{name}." in path}
        assert found == {status}, "a set mixes sources"
    assert energy.sets["davies2018"].message_pj is None, "a term that is no part of a set's model"


def test_a_proxy_is_labelled_as_assumed():
    chip = profile.load("loihi2")
    assert {q.status for path, q, _ in profile.quantities(chip) if ".loihi1_proxy." in path} == {"assumed"}


def test_only_loihi2_takes_graded_messages():
    assert [profile.load(name).input for name in CHIPS] == ["bias", "graded"]


@pytest.mark.parametrize(("bits", "coding"), [(1, "bias"), (9, "graded")])
def test_a_profile_that_does_not_say_takes_messages_where_they_carry_numbers(bits, coding):
    changed = table()
    del changed["input"]
    changed["precision"]["message_bits"]["value"] = bits
    assert profile.from_dict(changed).input == coding


@pytest.mark.parametrize(
    ("bits", "said", "fault"),
    [
        (1, "graded", 'input: graded messages need precision.message_bits above 1; use "bias"'),
        (9, "spikes", 'input: expected "graded" or "bias", got \'spikes\''),
    ],
)
def test_an_input_the_chip_cannot_take_is_a_fault(bits, said, fault):
    changed = table()
    changed["input"] = said
    changed["precision"]["message_bits"]["value"] = bits
    assert faults(changed) == (fault,)


def test_five_faults_are_listed_at_once():
    changed = table()
    changed["core"]["nuerons"] = changed["core"].pop("neurons")
    del changed["core"]["synapse_words"]["unit"]
    del changed["core"]["groups"]["source"]
    changed["chip"]["cores"]["value"] = -120
    changed["precision"]["weight_bits"]["value"] = "8"
    changed["energy"]["static_w"]["status"] = "mesured"
    assert faults(changed) == (
        "chip.cores: expected at least 1, got -120",
        "core.nuerons: unknown key; did you mean core.neurons?",
        'core.synapse_words: missing unit (expected "words")',
        "core.groups: missing source",
        "precision.weight_bits: expected an integer, got '8'",
        (
            "energy.static_w: status: expected one of measured, simulated, vendor, constant, fitted, assumed, unknown, "
            "got 'mesured'; did you mean measured?"
        ),
    )


@pytest.mark.parametrize(
    ("section", "key", "given", "fault"),
    [
        ("core", "neurons", 4095, "core.neurons: expected { value, unit, status, source }, got 4095"),
        ("core", "neurons", {"value": 1.5}, "core.neurons: expected an integer, got 1.5"),
        ("core", "neurons", {"value": True}, "core.neurons: expected an integer, got True"),
        ("core", "neurons", {"unit": "words"}, "core.neurons: unit: expected \"neurons\", got 'words'"),
        ("core", "axons_in", {"unit": "x"}, 'core.axons_in: unit: expected "axons" or "words", got \'x\''),
        ("core", "max_fill", {"value": 1.1}, "core.max_fill: expected 0.01 to 1, got 1.1"),
        ("core", "neurons", {"sauce": 1}, "core.neurons: unknown key sauce; did you mean source?"),
        (
            "core",
            "neurons",
            {"source": "logz, page 3"},
            "core.neurons: source: [sources] has no 'logz'; did you mean logs?",
        ),
        ("core", "neurons", {"source": 3}, "core.neurons: source: expected a text, got 3"),
        ("energy", "static_w", {"value": -1}, "energy.static_w: expected at least 0, got -1"),
        ("energy", "static_w", {"value": float("nan")}, "energy.static_w: expected at least 0, got nan"),
        ("energy", "static_w", {"value": float("inf")}, "energy.static_w: expected at least 0, got inf"),
        ("energy", "static_w", {"status": "unknown"}, "energy.static_w: an unknown number has no value"),
    ],
)
def test_a_faulty_number_is_named_by_its_path(section, key, given, fault):
    changed = table()
    if isinstance(given, dict):
        changed[section][key].update(given)
    else:
        changed[section][key] = given
    assert faults(changed) == (fault,)


def test_a_limit_cannot_be_unknown():
    changed = table()
    changed["core"]["neurons"] = {"unit": "neurons", "status": "unknown", "source": "unpublished"}
    assert faults(changed) == ("core.neurons: cannot be unknown: a network could not be placed or checked without it",)


def test_a_missing_value_says_how_to_write_an_unknown_one():
    changed = table()
    del changed["energy"]["static_w"]["value"]
    assert faults(changed) == ('energy.static_w: missing value (what nobody knows has status = "unknown")',)


def test_a_missing_status_is_a_fault():
    changed = table()
    del changed["energy"]["static_w"]["status"]
    assert faults(changed) == ("energy.static_w: missing status",)


def test_missing_and_unknown_sections_are_faults():
    changed = table()
    changed["chips"] = changed.pop("chip")
    del changed["memory"]
    del changed["name"]
    changed["time"] = 3
    assert faults(changed) == (
        "chips: unknown section; did you mean chip?",
        "name: missing",
        "chip: missing",
        "time: expected a section, got 3",
        "memory: missing",
    )


def test_a_memory_formula_is_one_of_two():
    changed = table()
    changed["memory"]["formula"] = "buckets"
    assert faults(changed) == ("memory.formula: expected one of lists, budget, got 'buckets'",)


def test_a_width_of_weights_is_an_integer_from_1_to_8():
    changed = table("loihi1")
    changed["precision"]["weight_widths"]["value"] = [1, 9]
    assert faults(changed) == ("precision.weight_widths: expected 1 to 8, got 9",)
    changed["precision"]["weight_widths"]["value"] = 8
    assert faults(changed) == ("precision.weight_widths: expected a list of integers, got 8",)


def test_an_absent_limit_does_not_exist():
    changed = table()
    del changed["core"]["groups"]
    assert profile.from_dict(changed).core.groups is None


def test_an_unreadable_file_is_one_sentence(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("core = [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.toml: not TOML: "):
        profile.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"mine\.toml: not TOML: "):
        profile.load(path)


def test_an_unknown_name_lists_the_shipped_ones():
    with pytest.raises(ConfigError, match=r"shipped: .*loihi1.*loihi2"):
        profile.load("loihi3")


def test_a_profile_is_shown_with_its_sources_and_unknowns(capsys):
    profile.render(profile.load("loihi2"))
    out = capsys.readouterr().out
    assert "energy.unpublished.synapse_sparse_pj" in out
    assert "n/a" in out
    assert "technology brief, 2021" in out


def test_a_profile_goes_to_plain_types():
    found = profile.to_dict(profile.load("loihi1"))
    assert found["quantities"]["energy.davies2018.synapse_sparse_pj"]["value"] == pytest.approx(23.6)
    assert found["quantities"]["precision.weight_widths"]["value"] == (1, 2, 3, 4, 5, 6, 8)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda energy: energy.pop("default"), "energy.default: expected one of davies2018, sanafe, got ''"),
        (
            lambda energy: energy.update(default="mine"),
            "energy.default: expected one of davies2018, sanafe, got 'mine'",
        ),
        (lambda energy: energy.pop("static_w"), "energy.static_w: missing"),
        (lambda energy: energy["sanafe"].pop("hop_ew_pj"), "energy.sanafe.hop_ew_pj: missing"),
        (
            lambda energy: energy.update(static_W=energy["static_w"]),
            "energy.static_W: unknown key; did you mean energy.static_w?; coefficients stand in [energy.NAME]",
        ),
    ],
)
def test_a_set_of_coefficients_is_complete_and_one_is_the_default(change, fault):
    changed = table("loihi1")
    change(changed["energy"])
    assert faults(changed) == (fault,)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("generic45", "generic45: this profile has no cores. Name a chip, such as loihi2"),
        (
            "speck2f",
            "speck2f: this chip runs a layer a core; networks are not placed on it. Only `check` knows its limits",
        ),
    ],
)
def test_a_profile_without_cores_to_place_on_is_refused_as_a_chip(name, sentence):
    with pytest.raises(UnsupportedError) as raised:
        profile.load(name)
    assert str(raised.value) == sentence


def test_lists_that_belong_together_have_one_length():
    changed = table("generic45")
    changed["operations"]["sram_access_pj"]["value"] = [10.0, 20]
    assert faults(changed) == ("operations.sram_access_pj: expected 3 numbers, as sram_bytes has, got 2",)
    changed = table("speck2f")
    changed["layers"]["neuron_entries"]["value"] = [1]
    assert faults(changed) == ("layers.neuron_entries: expected 9 numbers, as kernel_entries has, got 1",)


SMALL = """
extends = "loihi2"
name = "small"

[sources]
bench = "measured on my desk"

[core]
neurons = { value = 100, unit = "neurons", status = "measured", source = "bench" }
"""


def own(tmp_path, text, name="small.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_profile_overrides_single_keys_of_the_one_it_extends(tmp_path):
    base, small = profile.load("loihi2"), profile.load(own(tmp_path, SMALL))
    changed = {
        path: q.value
        for (path, q, _), (_, before, _) in zip(profile.quantities(small), profile.quantities(base), strict=True)
        if q != before
    }
    assert changed == {"core.neurons": 100}
    assert (small.name, small.core.neurons.source) == ("small", "measured on my desk")
    assert small.sha256 != base.sha256


def test_the_hash_of_a_profile_covers_what_it_extends(tmp_path):
    own(tmp_path, SMALL, "base.toml")
    path = own(tmp_path, 'extends = "base.toml"', "mine.toml")
    before = profile.load(path).sha256
    own(tmp_path, SMALL.replace("100", "101"), "base.toml")
    assert profile.load(path).sha256 != before
    assert profile.load(path).core.neurons.value == 101


def test_another_formula_replaces_the_memory_section_as_a_whole(tmp_path):
    with pytest.raises(ConfigError, match=r"memory\.word_bits: missing"):
        profile.load(own(tmp_path, SMALL + '\n[memory]\nformula = "lists"\n'))


def test_profiles_that_extend_each_other_are_refused(tmp_path):
    own(tmp_path, 'extends = "b.toml"', "a.toml")
    path = own(tmp_path, 'extends = "a.toml"', "b.toml")
    with pytest.raises(ConfigError, match=r"extends: b\.toml extends this file in turn"):
        profile.load(path)


@pytest.mark.parametrize(
    ("given", "fault"), [("3", "expected a profile's name or file, got 3"), ('"loihi9"', "loihi9")]
)
def test_what_a_profile_extends_must_exist(tmp_path, given, fault):
    with pytest.raises(ConfigError, match=fault):
        profile.load(own(tmp_path, f"extends = {given}"))
