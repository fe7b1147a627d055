"""The HTML page in headless Chromium: it runs without a complaint, its figures are the report's, the map of cores switches."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from hardware import LOIHI1, LOIHI2
from pages import figures, find, full, parsed

from toolchain import compare, report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
CHIPS = {chip.name: chip for chip in (LOIHI1, LOIHI2)}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        BROWSER is None, reason=f"no Chromium: none of {', '.join(NAMES)} is on the PATH, nor is CHROMIUM set"
    ),
]


@pytest.fixture(scope="module")
def reports():
    return {name: full(chip) for name, chip in CHIPS.items()}


@pytest.fixture
def browse(tmp_path):
    """Opens html from a file, with a fragment; returns the document as it then is and what the console said."""

    def opened(html, *options: str, fragment="", dump=True):
        file = tmp_path / "page.html"
        file.write_text(html, encoding="utf-8")
        done = subprocess.run(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'user'}",
                *options,
                *(["--dump-dom"] if dump else []),
                file.as_uri() + fragment,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout, re.findall(r"CONSOLE.*", done.stderr)

    return opened


def with_script(html, script):
    """The page with another script that its policy lets run, which acts as a person would."""
    html = re.sub(r"<meta http-equiv[^>]*>", "", html)
    return html.replace("</body>", f"<script>{script}</script></body>")


def cells(dom):
    return [cell for cell in parsed(dom).classed("core") if cell.tag == "g"]


def test_the_console_is_heard(browse):
    _, said = browse("<!DOCTYPE html><title>x</title><script>console.error('alas'); nowhere();</script>")
    assert "alas" in said[0]
    assert "nowhere is not defined" in said[1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", CHIPS)
def test_the_page_runs_without_a_complaint_and_its_figures_are_those_of_the_report(browse, reports, name, scheme):
    dark = "--blink-settings=preferredColorScheme=0"
    dom, said = browse(report.page.render(reports[name]), *([dark] if scheme == "dark" else []))
    assert said == []
    found = list(figures(parsed(dom)))
    assert len(found) > 200
    for path, value, _ in found:
        assert value == find(reports[name], path), path


def test_the_script_draws_the_map_as_it_was_drawn_without_it(browse, reports):
    html = report.page.render(reports["loihi1"])
    dom, _ = browse(html)

    def drawn(page):
        return [(cell.attributes["class"], cell.text, cell.attributes["data-path"]) for cell in cells(page)]

    assert drawn(dom) == drawn(html)
    assert "Coloured by scarcest resource. Fullest: core" in parsed(dom).with_id("map-says").text


def test_the_address_chooses_the_resource_of_the_map(browse, reports):
    made = reports["loihi1"]
    cores = made["mapping"]["cores"]
    html = report.page.render(made)
    for index, resource in enumerate(cores["resources"]):
        dom, said = browse(html, fragment=f"#cores={resource['rule']}")
        assert said == []
        for at, cell in enumerate(cells(dom)):
            assert cell.attributes["data-path"] == f"/mapping/cores/resources/{index}/used/{at}"
            assert cell.attributes["data-value"] == str(resource["used"][at])
            words = f"{resource['resource']} {resource['used'][at]:,} of {resource['limit']:,} {resource['unit']}"
            assert words in next(cell.all("title")).text
        assert f"Coloured by {resource['resource']}." in parsed(dom).with_id("map-says").text


def test_a_click_chooses_the_resource_of_the_map(browse, reports):
    click = "document.querySelector('input[value=R02]').click();"
    dom, said = browse(with_script(report.page.render(reports["loihi2"]), click))
    assert said == []
    assert {cell.attributes["data-path"].rsplit("/", 2)[0] for cell in cells(dom)} == {"/mapping/cores/resources/1"}
    assert "Coloured by synaptic memory." in parsed(dom).with_id("map-says").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_comparison_runs_without_a_complaint_and_its_figures_are_its_own(browse, reports, scheme):
    rows = [compare.row(name, reports[name]) for name in CHIPS] + [compare.row("again", reports["loihi2"])]
    comparison = {"schema": compare.SCHEMA, "rows": rows, "plots": compare.plots(rows)}
    assert comparison["plots"]
    dark = "--blink-settings=preferredColorScheme=0"
    dom, said = browse(compare.page.render(comparison), *([dark] if scheme == "dark" else []))
    assert said == []
    found = list(figures(parsed(dom)))
    assert len(found) > 40
    for path, value, _ in found:
        assert value == find(comparison, path), path
    dom, _ = browse(compare.page.render(comparison), "--window-size=500,900")
    assert len(parsed(dom).classed("clean")) >= len(comparison["plots"][0]["points"])


def test_another_script_on_the_page_would_not_run(browse, reports):
    html = report.page.render(reports["loihi2"]).replace("</body>", "<script>document.title = 'taken'</script></body>")
    dom, said = browse(html)
    assert "<title>by-hand on loihi2</title>" in dom
    assert any("Content Security Policy" in line for line in said)


@pytest.mark.parametrize("width", [500, 900, 1400])
def test_the_page_is_never_wider_than_the_window(browse, reports, width):
    measure = "const root = document.documentElement; root.dataset.over = root.scrollWidth - innerWidth;"
    dom, _ = browse(with_script(report.page.render(reports["loihi1"]), measure), f"--window-size={width},900")
    assert int(next(parsed(dom).all("html")).attributes["data-over"]) <= 0


def test_the_page_is_drawn_light_and_dark_and_prints(browse, reports, tmp_path):
    html = report.page.render(reports["loihi2"])
    pictures = []
    for scheme, options in (("light", []), ("dark", ["--blink-settings=preferredColorScheme=0"])):
        picture = tmp_path / f"{scheme}.png"
        browse(html, f"--screenshot={picture}", "--window-size=800,600", *options, dump=False)
        pictures.append(picture.read_bytes())
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 20_000 for picture in pictures)
    assert pictures[0] != pictures[1]
    paper = tmp_path / "page.pdf"
    browse(html, f"--print-to-pdf={paper}", dump=False)
    assert len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) > 1
