"""What every command answers: exit codes, one JSON object on stdout, progress on stderr, help that loads nothing heavy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import tiny
from cli_process import COMMAND

from toolchain import cli, compare, data, profile, resources, store

HELP = """
import sys
import click
from toolchain.cli import commands, main

def walk(command, path):
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, [*path, name])

for path in walk(commands, []):
    try:
        main([*path, "--help"])
    except SystemExit as end:
        assert end.code == 0, (path, end.code)
heavy = {"torch", "lava", "numpy", "h5py", "rich"} & set(sys.modules)
assert not heavy, heavy
"""


def every_command(command=cli.commands, path=()):
    if not isinstance(command, click.Group):
        return [path]
    return [found for name, child in command.commands.items() for found in every_command(child, (*path, name))]


def test_the_commands_are_those_of_the_documentation():
    names = [" ".join(path) for path in every_command()]
    listed = [
        "demo",
        "init",
        "run",
        "export",
        "check",
        "fit",
        "heal",
        "simulate",
        "verify",
        "report",
        "compare",
        "sweep",
    ]
    assert names == [*listed, "evaluate", "inspect", "profiles list", "profiles show", "profiles check"]


def test_help_of_every_command_loads_neither_torch_nor_lava():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.count("Usage: rsnn-deploy") == len(every_command()) + 2


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_takes_json(path):
    command = cli.commands
    for name in path:
        command = command.commands[name]
    assert "--json" in [option for parameter in command.params for option in parameter.opts]


@pytest.fixture
def arguments(model, exported, images, tmp_path, profile):
    """A use of each command that needs no Lava, by its name."""
    recipe = [f"--set=data.source={images}", "--set=train.epochs=1", "--set=attack.steps=1", "--set=loss.steps=1"]
    return {
        "run": ["run", "digits-cnn", "--out", tmp_path / "run", "--until", "train", *recipe],
        "evaluate": ["evaluate", model, "--attack", "fgsm", "--samples", "10", "--no-checks"],
        "export": ["export", model, "--profile", "loihi2", "--out", tmp_path / "out", "--samples", "3"],
        "check": ["check", model, "--profile", "loihi2"],
        "check DIR": ["check", exported, "--profile", "loihi2"],
        "simulate": ["simulate", exported, "--backend", "emulator"],
        "report": ["report", exported],
        "compare": ["compare", exported, "--profile", "loihi2", "--profile", "generic45"],
        "profiles list": ["profiles", "list"],
        "profiles show": ["profiles", "show", "loihi1"],
        "profiles check": ["profiles", "check", profile({})],
    }


NAMES = ["run", "evaluate", "export", "check", "check DIR", "simulate", "report", "compare"]
NAMES += ["profiles list", "profiles show", "profiles check"]
SAYS = {"run": "train: ", "evaluate": "fgsm-ens at 32/255: 10 test images", "export": "emulate 30 test images"}
SAYS |= {"compare": "exported on generic45"}


@pytest.mark.parametrize("name", NAMES)
def test_with_json_stdout_is_one_object_and_progress_goes_to_stderr(run, arguments, name):
    answer = run(*arguments[name], "--json")
    assert answer.code == 0
    assert answer.json
    assert SAYS.get(name, "") in answer.err
    assert bool(answer.err) == (name in SAYS)


@pytest.mark.parametrize("name", NAMES)
def test_without_json_stdout_is_for_people(run, arguments, name):
    answer = run(*arguments[name])
    assert answer.code == 0
    assert answer.out.strip()
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.out)


def test_the_report_is_shown_with_the_energy_that_was_asked_for(run, exported):
    assert set(run("report", exported, "--json").json["energy"]) == {"eq12", "lemaire", "hardware"}
    assert set(run("report", exported, "--json", "--energy", "eq12").json["energy"]) == {"eq12"}
    assert set(run("report", exported, "--json", "--energy", "hardware").json["energy"]) == {"hardware"}


def test_a_proxy_is_shown_where_it_is_asked_for_and_labelled(run, exported):
    asked = run("report", exported, "--json", "--proxy").json
    for energy in (asked["energy"], asked["dense"]["energy"], asked["attacked"]["adversarial"]["energy"]):
        assert list(energy["hardware"]["sets"]) == ["unpublished", "loihi1_proxy"]
    assert asked["energy"]["hardware"]["sets"]["loihi1_proxy"]["total_low"]["value"] > 0
    assert "PROXY: coefficients of loihi1, not of loihi2" in " ".join(run("report", exported, "--proxy").out.split())
    assert "PROXY" not in run("report", exported).out


def test_a_comparison_is_written_as_a_page(run, exported, tmp_path):
    page = tmp_path / "compared.html"
    answer = run("compare", exported, "--html", page, "--json")
    assert answer.err.splitlines()[-1] == f"wrote {page}"
    assert page.read_text(encoding="utf-8") == compare.page.render(answer.json)


def test_a_run_that_is_done_is_not_repeated(run, arguments):
    first = run(*arguments["run"], "--json")
    again = run(*arguments["run"], "--json")
    assert again.err == ""
    assert again.json == first.json


def test_evaluate_takes_a_radius_as_a_fraction(run, model):
    radii = ["--eps", "8/255", "--eps", "0.1"]
    answer = run("evaluate", model, "--attack", "fgsm", "--samples", "5", *radii, "--no-checks", "--json")
    assert [outcome.get("eps") for outcome in answer.json["outcomes"]] == [None, 8 / 255, 0.1]


USAGE = {
    "unknown command": (["quux"], "No such command 'quux'."),
    "unknown subcommand": (["profiles", "quux"], "No such command 'quux'."),
    "no profile": (["export", "digits-cnn"], "Missing option '--profile'."),
    "eps as a word": (
        ["evaluate", "digits-cnn", "--eps", "big"],
        "Invalid value for --eps: expected a number such as 8/255 or 0.03, got 'big'",
    ),
    "eps over zero": (
        ["evaluate", "digits-cnn", "--eps", "8/0"],
        "Invalid value for --eps: expected a number such as 8/255 or 0.03, got '8/0'",
    ),
    "eps in steps of a pixel": (
        ["evaluate", "digits-cnn", "--eps", "8"],
        "Invalid value for --eps: expected 0 to 1, got 8",
    ),
    "eps that is no number": (
        ["evaluate", "digits-cnn", "--eps", "nan"],
        "Invalid value for --eps: expected 0 to 1, got nan",
    ),
    "no samples": (
        ["simulate", "somewhere", "--samples", "0"],
        "Invalid value for '--samples': 0 is not in the range x>=1.",
    ),
    "nine bits": (
        ["check", "digits-cnn", "--profile", "loihi2", "--weight-bits", "9"],
        "Invalid value for '--weight-bits': 9 is not in the range 1<=x<=8.",
    ),
    "a layer without bits": (
        ["check", "digits-cnn", "--profile", "loihi2", "--weight-bits", "conv1=4,conv2"],
        "Invalid value for '--weight-bits': expected a number or pairs such as conv1=4,conv2=6, got 'conv1=4,conv2'",
    ),
    "nine bits in a layer": (
        ["check", "digits-cnn", "--profile", "loihi2", "--weight-bits", "conv1=9"],
        "Invalid value for '--weight-bits': 9 is not in the range 1<=x<=8.",
    ),
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_named_and_exits_2(run, case):
    args, sentence = USAGE[case]
    answer = run(*args)
    assert (answer.code, answer.out) == (2, "")
    assert answer.said.lower() == f"error: {sentence}".lower()


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_one_json_object_too(run, case):
    args, sentence = USAGE[case]
    answer = run(*args, "--json")
    assert answer.code == 2
    assert answer.json["exit_code"] == 2
    assert answer.json["error"]["kind"] == "UsageError"
    assert answer.json["error"]["message"].lower() == sentence.lower()


UNKNOWN = {
    "profile": (
        ["check", "digits-cnn", "--profile", "loihi3"],
        "loihi3: no file of this name and no shipped profile; shipped: generic45, loihi1, loihi2, speck2f",
    ),
    "profile to show": (
        ["profiles", "show", "loihi3"],
        "loihi3: no file of this name and no shipped profile; shipped: generic45, loihi1, loihi2, speck2f",
    ),
    "model": (
        ["export", "vgg99", "--profile", "loihi2"],
        "vgg99: no file of this name and no shipped model; shipped: cifar10-vgg16-uniform90.pt, digits-cnn-plain.pt, digits-cnn.pt, fashion-cnn.pt",
    ),
    "recipe": (
        ["run", "vgg99", "--out", "nowhere"],
        f"vgg99: no file of this name and no shipped recipe; shipped: {', '.join(resources.recipes())}",
    ),
    "stage": (
        ["run", "digits-cnn", "--out", "nowhere", "--until", "deploy"],
        "--until: expected one of train, prune, sparse, convert, finetune, got 'deploy'",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_name_gets_the_known_ones(run, case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args, sentence = UNKNOWN[case]
    answer = run(*args, "--json")
    assert answer.code == 2
    assert answer.err == f"rsnn-deploy: {sentence}\n"
    assert answer.json == {"error": {"kind": "ConfigError", "message": sentence}, "exit_code": 2}
    assert list(tmp_path.iterdir()) == []


def test_every_fault_of_a_recipe_is_listed_at_once(run, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('name = 3\nsede = 1\n[prune]\nsparsity = 1.5\n[data]\nsource = "digits"\nvalidate = 0.1\n')
    answer = run("run", recipe, "--out", tmp_path / "out", "--set", "timesteps", "--set", "train.epochs=many")
    assert answer.code == 2
    assert answer.err.splitlines() == [
        f"rsnn-deploy: {recipe}: 6 faults",
        "  --set timesteps: expected key=value",
        "  name: expected str, got 3",
        "  sede: unknown key; did you mean seed?",
        "  prune.sparsity: expected 0 to 0.9999, got 1.5",
        "  data.validate: unknown key; did you mean data.validation?",
        "  train.epochs: expected int, got 'many'",
    ]
    assert not (tmp_path / "out").exists()


def test_an_error_inside_is_one_sentence_and_the_trace_is_for_those_who_ask(monkeypatch, capsys):
    def broken():
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("toolchain.resources.profiles", broken)
    monkeypatch.delenv("RSNN_DEPLOY_DEBUG", raising=False)
    with pytest.raises(SystemExit) as raised:
        cli.main(["profiles", "list"])
    assert raised.value.code == 2
    assert capsys.readouterr().err == (
        "rsnn-deploy: internal error, ZeroDivisionError: a bug; RSNN_DEPLOY_DEBUG=1 shows where. Please report it\n"
    )
    monkeypatch.setenv("RSNN_DEPLOY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["profiles", "list"])


def test_arguments_come_from_the_shell_and_the_exit_code_goes_to_it():
    done = subprocess.run([*COMMAND, "profiles", "list"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["generic45", "loihi1", "loihi2", "speck2f"]
    assert done.stderr == ""
    done = subprocess.run([*COMMAND, "profiles", "show", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_stdout_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "profiles", "list", "--json"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "rsnn-deploy: the system: No space left on device\n"


def test_a_reader_that_goes_away_is_no_error_worth_a_trace():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "profiles", "list", "--json"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_profiles_show_prints_every_number_with_unit_status_and_source(run):
    shown = run("profiles", "show", "loihi2", "--json").json
    loaded = profile.load("loihi2")
    assert shown["name"] == "loihi2"
    neurons = shown["quantities"]["core.neurons"]
    assert {name: neurons[name] for name in ("value", "unit", "status", "source")} == {
        "value": 4095,
        "unit": "neurons",
        "status": "fitted",
        "source": loaded.core.neurons.source,
    }
    assert "value" not in shown["quantities"]["energy.unpublished.synapse_sparse_pj"] or (
        shown["quantities"]["energy.unpublished.synapse_sparse_pj"]["value"] is None
    )
    assert "n/a" in run("profiles", "show", "loihi2").out


def test_exporting_the_same_model_twice_gives_identical_files(run, model, exported, tmp_path):
    options = ["--profile", "loihi2", "--samples", "5"]
    assert run("export", model, *options, "--out", tmp_path / "again").code == 0
    command = [*COMMAND, "export", model, *options, "--out", tmp_path / "elsewhere"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    for path in exported.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
        assert (tmp_path / "elsewhere" / path.name).read_bytes() == path.read_bytes(), path.name
    assert len(list(exported.iterdir())) == 7


def test_a_run_gives_what_export_takes(run, images, tmp_path):
    settings = ["train.epochs=2", "prune.epochs=1", "sparse.epochs=1", "finetune.epochs=1", "attack.steps=1"]
    settings += ["loss.steps=1", "convert.batches=1", "convert.timesteps=4", "timesteps=3", "threads=1"]
    settings += ['model.layers=[4, "A"]', f"data.source={images}"]
    answer = run("run", "digits-cnn", "--out", tmp_path / "run", *(f"--set={item}" for item in settings), "--json")
    assert answer.code == 0
    made = answer.json
    path = tmp_path / "run" / "model.pt"
    assert made["model"] == str(path)
    assert made["sha256"] == store.sha256(path)
    assert list(made["metrics"]) == ["train", "prune", "sparse", "convert", "finetune"]
    answer = run("export", path, "--profile", "loihi2", "--out", tmp_path / "out", "--samples", "2", "--json")
    assert answer.code == 0
    assert answer.json["model"]["sha256"] == made["sha256"]
    assert answer.json["model"]["n_nonzero_weights"] == made["n_nonzero_weights"]


def test_a_run_of_another_recipe_is_not_overwritten(run, arguments, tmp_path):
    run(*arguments["run"])
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    answer = run(*arguments["run"], "--set", "seed=7")
    assert answer.code == 2
    assert answer.said == (
        f"{tmp_path / 'run'}: holds a run of another recipe, which differs in seed; use another --out, "
        "or delete it to start again"
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_data_set_that_changed_since_the_training_is_refused(run, tmp_path, model, monkeypatch):
    monkeypatch.setattr(data, "_digest", lambda *_splits: "0" * 64)
    answer = run("export", model, "--profile", "loihi2", "--out", tmp_path / "out")
    assert answer.code == 2
    assert answer.said == (
        f"{store.load(model).data_source}: its data set is not the one the model was trained on, "
        "so its test images may be training images"
    )


VERDICT = {
    "identical": False,
    "passed": False,
    "reason": "spikes differ, first in layer conv2",
    "samples": 1,
    "asked": 1,
    "kernels": "stock",
    "backends": ["emulator (cpu)", "lava (stock kernels)"],
    "logits_identical": True,
    "layers": [{"name": "conv2", "spikes": 3, "rate": 0.1, "mismatches": 1}],
}


@pytest.mark.parametrize("as_json", [True, False])
def test_a_mismatch_exits_1_with_its_verdict_on_stdout_and_its_reason_on_stderr(run, exported, monkeypatch, as_json):
    monkeypatch.setattr("toolchain.proof.verify", lambda *_args, **_options: VERDICT)
    answer = run("verify", exported, *(["--json"] if as_json else []))
    assert answer.code == 1
    assert answer.err == "rsnn-deploy: verify: spikes differ, first in layer conv2\n"
    if as_json:
        assert answer.json == VERDICT
    else:
        assert "conv2" in answer.out
        assert "identical" not in answer.out


def test_an_interrupted_verdict_exits_130_and_says_how_far_it_came(run, exported, monkeypatch):
    good = {**VERDICT, "identical": True, "passed": True, "asked": 3, "layers": []}
    monkeypatch.setattr("toolchain.proof.verify", lambda *_args, **_options: good)
    answer = run("verify", exported, "--json")
    assert (answer.code, answer.json) == (130, good)
    assert answer.err == "rsnn-deploy: interrupted after 1 of 3 samples\n"


@pytest.mark.parametrize("command", ["simulate", "verify"])
def test_without_lava_one_sentence_says_what_to_do(run, exported, monkeypatch, command):
    monkeypatch.setattr("toolchain.simulate._is_installed", lambda: False)
    answer = run(command, exported, "--json")
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    sentence = (
        f"lava: Lava is not installed in this Python {python}. "
        "Install under Python 3.10, or on 3.11 or 3.12 run `make install-lava`, or use --backend emulator"
    )
    assert answer.code == 2
    assert answer.err == f"rsnn-deploy: {sentence}\n"
    assert answer.json == {"error": {"kind": "BackendError", "message": sentence}, "exit_code": 2}


def test_init_writes_a_recipe_that_fits_the_data_and_says_how_to_go_on(run, tmp_path, home):
    file, source = tmp_path / "own.toml", tiny.images(home)
    answer = run("init", file, "--data", source)
    assert answer.code == 0
    assert answer.out == (
        f"{source}: 85 images to train on, 15 to validate, 1x8x8, 10 classes\n"
        f"wrote {file}; next: rsnn-deploy run {file} --out DIR --set budget=minutes\n"
    )
    again = run("init", file)
    assert (again.code, again.said) == (2, f"{file}: it exists already; name another FILE, or delete it")


def test_init_without_data_leaves_their_place_to_fill_in(run, tmp_path):
    answer = run("init", tmp_path / "own.toml", "--json")
    assert answer.json == {"recipe": str(tmp_path / "own.toml"), "data": None}
    assert 'source = "images.npz"\n' in (tmp_path / "own.toml").read_text()
