"""Deployments beside each other: rows are what reports say, fronts are what no row beats, the page is the JSON."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hardware import LOIHI1, LOIHI2, conv_case, limited
from pages import figures, find, full, parsed, recorded
from rich.console import Console
from tiny import model as tiny_model

from toolchain import compare, deployment, profile, report
from toolchain.compare.pareto import front, plots
from toolchain.energy import Run
from toolchain.errors import UnsupportedError


def arithmetic():
    """A report on a profile without cores."""
    net = conv_case()
    about = report.Subject(
        network=net,
        masks={layer.name: layer.weight != 0 for layer in net.chain},
        profile=profile.read("generic45"),
        mapping=None,
        facts={"model": {"name": "by-hand"}},
    )
    return json.loads(json.dumps(report.build(about, Run(trace=recorded(net)), labels=np.array([0, 1, 0]))))


@pytest.fixture(scope="module")
def comparison():
    rows = [compare.row("one", full(LOIHI1)), compare.row("two", full(LOIHI2)), compare.row("three", arithmetic())]
    return {"schema": compare.SCHEMA, "rows": rows, "plots": plots(rows)}


def test_a_row_says_what_its_report_says():
    made = full(LOIHI1)
    row = compare.row("one", made)
    hardware = made["energy"]["hardware"]
    assert (row["n_cores"], row["fits"]) == (made["mapping"]["n_cores"], made["check"]["ok"])
    assert row["accuracy"]["accuracy"] == made["accuracy"]["deployed"]["accuracy"]
    assert row["robust"]["accuracy"] == 20 / 40
    assert row["energy"]["davies2018"] == hardware["sets"]["davies2018"]["dynamic_low"]
    assert row["energy"]["sanafe + static"] == hardware["sets"]["sanafe"]["total_low"]
    assert row["energy"]["Lemaire, 45 nm"] == made["energy"]["lemaire"]["total"]
    assert row["latency"] == hardware["latency"]
    assert row["memory"]["resident_bytes"] == made["memory"]["resident_bytes"]


def test_what_a_profile_does_not_know_is_not_in_its_row():
    row = compare.row("two", full(LOIHI2))
    assert list(row["energy"]) == ["eq. 12, fp32", "Lemaire, 45 nm"]
    assert row["latency"]["value"] is None


def test_a_profile_without_cores_has_a_row_of_arithmetic_alone():
    row = compare.row("three", arithmetic())
    assert (row["fits"], row["n_cores"], row["n_chips"], row["latency"]) == (None, None, None, None)
    assert row["note"] == "networks are not placed on generic45"
    assert row["memory"]["resident_bytes"]["value"] is None
    assert row["energy"]["Lemaire, 45 nm"]["value"] > 0


def test_a_report_without_cores_is_shown_without_a_zero_for_what_is_unknown():
    made = arithmetic()
    console = Console(file=io.StringIO(), width=160)
    report.render(made, console)
    text = console.file.getvalue()
    assert "by-hand on generic45" in text
    assert "networks are not placed on generic45" in text
    header = next(parsed(report.page.render(made)).all("header")).text
    assert "Coresn/a" in header
    assert "Not checked" in header


POINTS = [(4, 0.9), (3, 0.8), (3, 0.7), (5, 0.9), (2, None), (4, 0.9), (6, 0.95)]


def test_the_front_is_what_no_row_beats_cheapest_first_and_equals_stand_together():
    points = [{"row": index, "x": x, "clean": y} for index, (x, y) in enumerate(POINTS)]
    assert front(points, "clean") == [1, 0, 5, 6]


def test_rows_that_do_not_fit_or_know_no_price_are_in_no_plot(comparison):
    # loihi1 does not take this network's messages, and generic45 has no cores and no memory of its own
    assert [plot["name"] for plot in comparison["plots"]] == ["energy: eq. 12, fp32", "energy: Lemaire, 45 nm"]
    assert [point["row"] for plot in comparison["plots"] for point in plot["points"]] == [1, 2, 1, 2]


def test_every_figure_of_the_page_is_that_of_the_comparison(comparison):
    page = parsed(compare.page.render(comparison))
    found = list(figures(page))
    assert len(found) > 25
    for path, value, text in found:
        assert value == find(comparison, path), path
        assert text is None or (text == "n/a") == (value is None), path
    assert json.loads(page.with_id("report").text) == comparison


def test_a_hostile_name_stays_text(comparison):
    hostile = "</script><script>alert(1)</script>"
    made = {**comparison, "rows": [{**row, "model": hostile, "note": hostile} for row in comparison["rows"]]}
    page = parsed(compare.page.render(made))
    assert len(list(page.all("script"))) == 1
    assert hostile in next(page.all("main")).text


def test_the_terminal_names_every_row_and_says_na_for_what_is_unknown(comparison):
    console = Console(file=io.StringIO(), width=160)
    compare.render(comparison, console)
    lines = console.file.getvalue().splitlines()
    three = next(line.split() for line in lines if "generic45" in line)
    assert three == ["3", "three", "generic45", "n/a", "0.0%", "n/a", "66.7%", "n/a", "n/a"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("compared"))


def settings(**more):
    return deployment.Settings(profile="", **more)


def test_a_model_is_run_on_each_profile_and_a_folder_on_its_own(models, tmp_path):
    export = deployment.Settings(profile="loihi2", samples=4, attacked=0)
    made = deployment.export(models, export, tmp_path / "folder", log=lambda _line: None)
    said = []
    found = compare.compare(
        [str(models), str(tmp_path / "folder")], ["loihi2"], settings(), samples=30, log=said.append
    )
    assert said == [f"{models.stem} on loihi2", "folder on loihi2"]
    model, folder = found["rows"]
    assert (model["model"], folder["model"]) == (models.stem, "folder")
    assert {**model, "model": ""} == {**folder, "model": ""}
    assert folder["n_cores"] == made["mapping"]["n_cores"]
    (own,) = compare.compare([str(tmp_path / "folder")], [], settings())["rows"]
    assert own == folder
    (other,) = compare.compare([str(tmp_path / "folder")], ["generic45"], settings())["rows"]
    assert (other["profile"], other["accuracy"]["n"]) == ("generic45", 4)
    both = compare.compare([str(tmp_path / "folder")], ["loihi2", "generic45"], settings())["rows"]
    assert [row["note"] for row in both] == [
        "clean accuracy on 30 images, not as many as in other rows",
        "networks are not placed on generic45; clean accuracy on 4 images, not as many as in other rows",
    ]


def test_a_model_that_does_not_fit_is_a_row_that_says_why(models, tmp_path, monkeypatch):
    small = limited(LOIHI2, neurons=40, max_fill=1.0, cores=1)
    monkeypatch.setattr(profile, "read", lambda _name: small)
    (row,) = compare.compare([str(models)], ["small"], settings(), samples=3)["rows"]
    assert row["fits"] is False
    assert "cores" in row["reason"]
    assert (row["n_cores"], row["energy"]) == (None, {})
    text = parsed(compare.page.render({"schema": compare.SCHEMA, "rows": [row], "plots": []})).with_id("rows").text
    assert row["reason"] in text


def test_a_model_needs_a_profile(models):
    with pytest.raises(UnsupportedError, match=r"a model is made for no profile\. Name one with --profile"):
        compare.compare([str(models)], [], settings())
