"""Profiles: the shipped ones load, and a faulty one lists every fault at once, each with its path."""

from __future__ import annotations

import copy
import hashlib

import pytest

from toolchain import profile, resources
from toolchain.errors import ConfigError

SHIPPED = ("loihi1", "loihi2")


def table(name="loihi2"):
    return copy.deepcopy(profile.tomllib.loads(resources.profile_path(name).read_text(encoding="utf-8")))


def faults(changed):
    with pytest.raises(ConfigError) as raised:
        profile.from_dict(changed)
    return raised.value.faults


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_loads_by_name_and_by_path_and_knows_its_hash(name):
    path = resources.profile_path(name)
    loaded = profile.load(name)
    assert loaded == profile.load(path)
    assert loaded.name == name
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", SHIPPED)
def test_every_number_has_a_unit_a_status_and_a_citation(name):
    loaded = profile.load(name)
    for path, quantity, what in profile.quantities(loaded):
        assert quantity.status in profile.STATUSES, path
        assert quantity.unit, path
        assert what, path
        assert any(quantity.source.startswith(citation) for citation in loaded.sources.values()), path
        assert (quantity.value is None) == (quantity.status == "unknown"), path


@pytest.mark.parametrize("name", SHIPPED)
def test_every_source_is_cited(name):
    loaded = profile.load(name)
    cited = {quantity.source for _, quantity, _ in profile.quantities(loaded)}
    for key, citation in loaded.sources.items():
        assert any(source.startswith(citation) for source in cited), key


def test_loihi2_publishes_no_energy_an_operation():
    energy = profile.load("loihi2").energy
    assert (energy.synapse_pj.value, energy.update_active_pj.value, energy.spike_pj.value) == (None, None, None)
    assert energy.static_w.value == pytest.approx(0.232)


def test_only_loihi2_sends_graded_messages():
    assert [profile.load(name).precision.graded for name in SHIPPED] == [False, True]


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
    assert "energy.synapse_pj" in out
    assert "n/a" in out
    assert "technology brief, 2021" in out


def test_a_profile_goes_to_plain_types():
    found = profile.to_dict(profile.load("loihi1"))
    assert found["quantities"]["energy.synapse_pj"]["value"] == pytest.approx(23.6)
    assert found["quantities"]["precision.weight_widths"]["value"] == (1, 2, 3, 4, 5, 6, 8)
