"""The HTML page: it loads nothing, it escapes everything, and its figures are those of the report."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from decimal import Decimal

import pytest
from click.testing import CliRunner
from hardware import LOIHI1, LOIHI2
from pages import figures, find, full, parsed

from toolchain import cli, deployment, report, resources
from toolchain.errors import FormatError
from toolchain.report.page import charts

HOSTILE = "</script></title><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='x &amp; {{ 7 * 7 }}"
MODEL = "digits-cnn.pt"
BOTH = pytest.mark.parametrize("chip", [LOIHI1, LOIHI2], ids=lambda chip: chip.name)


def page_of(made):
    return parsed(report.page.render(made))


def leaves(node, path=""):
    """The place of every figure, a table with a value, of a section."""
    for key, child in node.items() if isinstance(node, dict) else enumerate(node):
        if isinstance(child, dict) and "value" in child:
            yield f"{path}/{key}/value"
        elif isinstance(child, dict | list):
            yield from leaves(child, f"{path}/{key}")


def says(text, value):
    """Whether a text is the value, rounded to the digits it has."""
    share = text.endswith("%")
    read = Decimal(text.rstrip("%").replace(",", ""))
    half = Decimal(5).scaleb(int(read.as_tuple().exponent) - 1)
    return abs(read - Decimal(value) * (100 if share else 1)) <= half * Decimal("1.0001")


@BOTH
def test_every_figure_on_the_page_equals_the_report(chip):
    made = full(chip)
    found = list(figures(page_of(made)))
    assert len(found) > 200
    for path, value, text in found:
        assert value == find(made, path), path
        if text is not None:
            assert (text == "n/a") == (value is None), path
            assert value is None or says(text, value), (path, text, value)


@BOTH
def test_every_figure_of_energy_memory_activity_and_accuracy_is_on_the_page(chip):
    made = full(chip)
    shown = {path for path, _, _ in figures(page_of(made))}
    for section in ("energy", "memory"):
        assert set(leaves(made[section], f"/{section}")) <= shown
    for index, layer in enumerate(made["activity"]["layers"]):
        steps = {f"/activity/layers/{index}/spikes_per_step/{step}" for step in range(len(layer["spikes_per_step"]))}
        assert steps <= shown
    assert "/accuracy/stages/finetune/validation/pgd-ens/accuracy" in shown
    assert "/accuracy/deployed/accuracy" in shown
    numbers = [entry.get("numbers", {}) for entry in made["assumptions"]]
    assert {f"/assumptions/{i}/numbers/{name}" for i, entry in enumerate(numbers) for name in entry} <= shown


@BOTH
def test_the_page_holds_the_report_whole(chip):
    made = full(chip)
    assert json.loads(page_of(made).with_id("report").text) == made


def test_a_report_read_back_from_its_file_gives_the_same_bytes():
    made = full(LOIHI2)
    assert report.page.render(json.loads(json.dumps(made, indent=1))) == report.page.render(made)


@BOTH
def test_the_page_loads_nothing(chip):
    html = report.page.render(full(chip))
    page = parsed(html)
    assert not [
        element.tag for element in page.all() if element.tag in {"link", "img", "iframe", "object", "base", "image"}
    ]
    for element in page.all():
        assert not {"src", "srcset", "action", "background", "xlink:href", "style"} & set(element.attributes)
        assert element.attributes.get("href", "#").startswith("#")
        assert not [name for name in element.attributes if name.startswith("on")]
    style = next(page.all("style")).text
    assert "url(" not in style
    assert "@import" not in style
    script = list(page.all("script"))[-1].text
    assert not re.search(r"https?:|fetch|XMLHttpRequest|import|WebSocket|eval", script)
    policy = next(element.attributes["content"] for element in page.all("meta") if "http-equiv" in element.attributes)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)]
    assert policy == "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'".format(*hashes)


def poisoned(node, key=""):
    """The report with hostile text added to every string, and to the names of stages, numbers and terms."""
    if isinstance(node, dict):
        open_names = key in {"stages", "numbers", "terms", "sets"}
        return {name + HOSTILE * open_names: poisoned(child, name) for name, child in node.items()}
    if isinstance(node, list):
        return [poisoned(child, key) for child in node]
    return node + HOSTILE if isinstance(node, str) and key not in {"attack", "spikes"} else node


@BOTH
def test_text_from_profiles_and_models_is_never_markup(chip):
    made = full(chip)
    hostile = poisoned(made)
    harmless, attacked = page_of(made), page_of(hostile)
    shape = [(element.tag, list(element.attributes)) for element in harmless.all()]
    assert [(element.tag, list(element.attributes)) for element in attacked.all()] == shape
    assert json.loads(attacked.with_id("report").text) == hostile
    assert HOSTILE in attacked.with_id("sources").text
    assert HOSTILE in attacked.with_id("assumptions").text


def test_a_script_in_the_source_of_a_profile_stays_text():
    made = full(LOIHI2)
    made["memory"]["stored_bytes"]["source"] = "<script>alert(1)</script>"
    assert "<script>alert" not in report.page.render(made)
    assert "<script>alert(1)</script>" in page_of(made).with_id("sources").text


def test_what_is_unknown_reads_not_available_and_has_no_bar():
    page = page_of(full(LOIHI2))
    chart = page.with_id("energy").classed("bars")[0]
    assert not chart.classed("bar")
    assert [text.text.split(":")[0] for text in chart.classed("value")] == ["n/a"] * 7
    energy = next(tile.text for tile in page.all("div") if tile.text.startswith("Energy"))
    assert energy == "Energyn/ano coefficients published for loihi2"


def test_bars_are_as_long_as_their_figures():
    chart = page_of(full(LOIHI1)).with_id("energy").classed("bars")[0]
    groups = [group for group in chart.all("g") if "data-path" in group.attributes]
    pairs = [
        (json.loads(group.attributes["data-value"]), float(bar.attributes["width"]))
        for group in groups
        for bar in group.classed("bar")
    ]
    assert len(pairs) == 6  # all but the hops
    longest = max(value for value, _ in pairs)
    for value, width in pairs:
        assert width == pytest.approx(330 * value / longest, abs=0.006)


def test_a_raster_has_a_mark_for_each_spike():
    made = full(LOIHI2)
    paths = page_of(made).with_id("activity").classed("spikes")
    for path, layer in zip(paths, made["activity"]["raster"]["layers"], strict=True):
        assert path.attributes["d"].count("M") == layer["n_spikes"] == "".join(layer["spikes"]).count("1")


def test_what_biases_change_against_messages_is_on_the_page():
    made = full(LOIHI1)
    assert "Input" not in [heading.text for heading in page_of(made).all("h2")]
    layer = {"name": "first", "spikes": 900, "spikes_messages": 910, "differing": 12, "differing_share": 0.0012}
    compared = {"samples": 40, "classes_differing": 3, "layers": [layer]}
    made["input"] = {"coding": "biases", "limit": 4095, "divisor": 3, "against_messages": compared}
    section = page_of(made).with_id("input")
    assert {path: value for path, value, _ in figures(section)} == {
        "/input/limit": 4095,
        **{f"/input/against_messages/{key}": compared[key] for key in ("samples", "classes_differing")},
        **{f"/input/against_messages/layers/0/{key}": layer[key] for key in layer if key != "name"},
    }


def test_every_core_of_every_chip_is_a_cell():
    made = full(LOIHI2)
    page = page_of(made)
    assert len(page.classed("core")) == made["mapping"]["n_cores"] == 3
    assert len([cell for cell in page.classed("free") if cell.tag == "rect"]) == 120 - 3
    # 4 x 16 neurons, 2 x 9 x 4 weights of 8 bits: the thresholds are what the middle core has least of
    title = next(page.classed("core")[1].all("title")).text
    assert title == "core 1, second: distinct thresholds 1 of 8 groups, 12.5%"


@pytest.mark.parametrize(
    ("fill", "band", "text"),
    [
        (None, "unknown", "n/a"),
        (0.0, "f0", "0 %"),
        (0.001, "f0", "<1 %"),
        (0.25, "f0", "25 %"),
        (0.251, "f1", "25 %"),
        (0.9, "f3", "90 %"),
        (0.999, "f4", "99 %"),
        (1.0, "f4", "100 %"),
        (1.001, "over", "101 %"),
    ],
)
def test_a_cell_never_looks_emptier_or_fuller_than_it_is(fill, band, text):
    assert (charts.band(fill), charts.percent(fill)) == (band, text)


def test_a_core_that_could_not_be_measured_is_not_drawn_as_empty():
    made = full(LOIHI2)
    for resource in made["mapping"]["cores"]["resources"]:
        resource["used"][0] = None
    cell = page_of(made).classed("core")[0]
    assert cell.attributes["class"] == "core unknown"
    assert "n/a" in cell.text


def test_a_violation_stands_in_the_summary():
    header = next(page_of(full(LOIHI1)).all("header"))
    assert "Does not fit." in header.text
    assert "input: graded input messages exceeded. loihi1 sends spikes, not numbers" in header.text


@pytest.mark.parametrize("lacking", ["cores", "raster", "steps", "hardware", "eq12", "accuracy"])
def test_what_a_report_lacks_is_left_out(lacking):
    made = full(LOIHI1)
    match lacking:
        case "cores":
            del made["mapping"]["cores"]
        case "raster":
            made["activity"]["raster"] = None
        case "steps":
            for layer in made["activity"]["layers"]:
                layer["spikes_per_step"] = None
        case "accuracy":
            made["accuracy"] = {}
        case model:
            del made["energy"][model]
    page = page_of(made)
    assert {path: value for path, value, _ in figures(page)}["/model/sparsity"] == made["model"]["sparsity"]
    if lacking == "accuracy":
        assert "Not measured." in page.with_id("accuracy").text


def test_an_energy_model_the_page_does_not_know_is_shown_all_the_same():
    made = full(LOIHI2)
    unheard = {"value": 1.5, "unit": "nJ/image", "how": "modelled", "source": "somebody, 2031"}
    made["energy"]["unheard"] = {"total": unheard, "sets": {"a": {"terms": {"x": unheard}}}}
    shown = {path: text for path, _, text in figures(page_of(made)) if text}
    assert shown["/energy/unheard/total/value"] == shown["/energy/unheard/sets/a/terms/x/value"] == "1.5"


@BOTH
def test_tables_have_captions_and_headings_and_drawings_have_names(chip):
    page = page_of(full(chip))
    for table in page.all("table"):
        assert next(table.all("caption")).text
        assert all(next(row.all("th")).attributes["scope"] == "row" for row in next(table.all("tbody")).all("tr"))
        assert all(heading.attributes["scope"] == "col" for heading in next(table.all("thead")).all("th"))
    for drawing in page.all("svg"):
        named = drawing.attributes.get("role") == "img" and drawing.children[0].tag == "title"
        assert named or drawing.attributes["aria-hidden"] == "true"
    anchors = {element.attributes["id"] for element in page.all() if "id" in element.attributes}
    assert {link.attributes["href"][1:] for link in page.all("a")} <= anchors


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_it_is_written_on(scheme):
    style = next(page_of(full(LOIHI2)).all("style")).text
    block = style.split(":root {")[1 + (scheme == "dark")].split("}")[0]
    colour = dict(re.findall(r"--([\w-]+): (#\w{6});", block))
    pairs = [
        ("ink", "paper"),
        ("soft", "paper"),
        ("mark", "paper"),
        ("alert", "paper"),
        ("ink", "faint"),
        ("ink-over", "over"),
    ]
    for ink, ground in [*pairs, *((f"ink{i}", f"f{i}") for i in range(5))]:
        bright, dark = sorted((luminance(colour[ink]), luminance(colour[ground])), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_the_page_may_not_replace_part_of_an_export(tmp_path):
    for name in ("report.html", "network.net", "manifest.json"):
        with pytest.raises(FormatError) as error:
            deployment.write_page(tmp_path, full(LOIHI2), tmp_path / "." / name)
        reason = "part of the export, which its manifest vouches for; take another name"
        assert str(error.value) == f"{tmp_path / name}: {reason}"
    deployment.write_page(tmp_path, full(LOIHI2), tmp_path / "mine.html")
    assert (tmp_path / "mine.html").read_text(encoding="utf-8") == report.page.render(full(LOIHI2))


def test_export_leaves_the_page_that_report_writes(tmp_path):
    settings = deployment.Settings(profile="loihi2", samples=2)
    deployment.export(resources.model_path(MODEL), settings, tmp_path / "a", log=lambda _: None)
    done = CliRunner().invoke(cli.commands, ["report", str(tmp_path / "a"), "--html", str(tmp_path / "b.html")])
    assert done.exit_code == 0, done.output
    made = (tmp_path / "b.html").read_bytes()
    assert made == (tmp_path / "a" / "report.html").read_bytes()
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["files"]["report.html"] == hashlib.sha256(made).hexdigest()
    (tmp_path / "a" / "report.html").write_text("another", encoding="utf-8")
    with pytest.raises(FormatError, match=r"report\.html: not the file that was exported; export again"):
        deployment.open_folder(tmp_path / "a")
