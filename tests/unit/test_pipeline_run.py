"""The run from a recipe to a model, killed and resumed."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from toy import toy, write_npz

from toolchain import nets, pipeline, recipe, store
from toolchain.errors import ConfigError, FormatError

RUN = """
import json, pathlib, sys
from toolchain import pipeline, recipe
pipeline.run(recipe.from_dict(json.loads(sys.argv[1])), pathlib.Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(write_npz(tmp_path_factory.mktemp("data") / "data.npz"))


@pytest.fixture(scope="module")
def done(source, tmp_path_factory):
    """A finished run: its recipe, folder, result and events."""
    events = []
    out = tmp_path_factory.mktemp("run")
    made = toy(data={"source": source})
    return made, out, pipeline.run(made, out, progress=events.append), events


def test_a_run_ends_in_a_sparse_spiking_model(done):
    made, out, result, _ = done
    model = store.load(out / "model.pt")
    assert (model.stage, model.mode, model.recipe) == ("finetune", "snn", made)
    assert model.sparsity == result["sparsity"] >= 0.75
    assert result["sha256"] == store.sha256(out / "model.pt")
    assert result["model"] == str(out / "model.pt")
    json.dumps(result)


def test_every_stage_leaves_a_model_and_its_metrics(done):
    _, out, result, _ = done
    names = {"recipe.json", "train.pt", "prune.pt", "sparse.pt", "convert.pt", "model.pt"}
    assert {entry.name for entry in out.iterdir()} == names
    assert list(result["metrics"]) == list(recipe.STAGES)
    last = result["metrics"]["finetune"]
    assert set(last) == {"sparsity", "layer_sparsity", "validation", "dead_channels", "thresholds"}
    assert last["layer_sparsity"] == result["layer_sparsity"] == {"conv1": 0.75, "conv2": 0.75, "readout": 0.75}
    assert last["validation"]["pgd-ens"]["n"] == 14
    assert set(last["dead_channels"]) == {"act1", "act2"}


def test_the_mask_is_the_same_from_prune_on(done):
    _, out, _, _ = done
    models = [store.load(out / f"{stage}.pt") for stage in ("prune", "sparse", "convert", "model")]
    for model in models[1:]:
        assert all(torch.equal(model.mask[name], mask) for name, mask in models[0].mask.items())


def test_progress_tells_each_epoch_and_each_stage(done):
    _, _, _, events = done
    assert [(event.stage, event.epoch) for event in events if event.metrics is None] == [
        (stage, epoch) for stage in ("train", "prune", "sparse", "finetune") for epoch in (1, 2)
    ]
    assert [event.stage for event in events if event.metrics is not None] == list(recipe.STAGES)


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not(done, source, tmp_path):
    made, _, result, _ = done
    assert pipeline.run(made, tmp_path / "again")["sha256"] == result["sha256"]
    other = toy(data={"source": source}, seed=1)
    assert pipeline.run(other, tmp_path / "other")["sha256"] != result["sha256"]


def test_until_stops_after_a_stage_and_a_later_run_goes_on(done, tmp_path):
    made, _, result, _ = done
    assert pipeline.run(made, tmp_path, until="prune")["stage"] == "prune"
    assert not (tmp_path / "sparse.pt").exists()
    assert pipeline.run(made, tmp_path)["sha256"] == result["sha256"]


def test_a_finished_run_is_not_repeated(done):
    made, out, result, _ = done
    events = []
    assert pipeline.run(made, out, progress=events.append) == result
    assert events == []


@pytest.mark.parametrize("attempt", range(2))
def test_a_run_killed_at_any_moment_and_resumed_ends_with_the_same_bytes(done, tmp_path, attempt):
    made, _, result, _ = done
    arguments = [sys.executable, "-c", RUN, json.dumps(made.to_dict()), str(tmp_path)]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    while not (tmp_path / "resume.pt").exists() and process.poll() is None:
        time.sleep(0.005)
    time.sleep(random.Random(f"{attempt}{time.time()}").uniform(0, 1.2))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert pipeline.run(made, tmp_path)["sha256"] == result["sha256"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_runs_killed_twenty_times_at_random_moments_end_with_the_same_bytes(done, tmp_path):
    """A process is killed between its first file and its end, over and over; when a run is through, another begins."""
    made, _, result, _ = done
    rng, n_kills, n_runs = random.Random(time.time()), 0, 0
    while n_kills < 20:
        out = tmp_path / str(n_runs)
        arguments = [sys.executable, "-c", RUN, json.dumps(made.to_dict()), str(out)]
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
        while not (out / "recipe.json").exists() and process.poll() is None:
            time.sleep(0.005)
        try:
            process.wait(rng.uniform(0, 3))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            n_kills += 1
            continue
        assert process.returncode == 0
        assert store.sha256(out / "model.pt") == result["sha256"]
        n_runs += 1
    assert pipeline.run(made, out)["sha256"] == result["sha256"]
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("n_writes", [0, 1, 3, 4, 6, 9, 11, 13])
def test_a_run_that_dies_at_any_write_and_is_resumed_ends_with_the_same_bytes(done, tmp_path, monkeypatch, n_writes):
    made, _, result, _ = done
    left = iter(range(n_writes))
    write = store.write_files

    def fails(folder, contents):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(folder, contents)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_files", fails)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(made, tmp_path)
    assert pipeline.run(made, tmp_path)["sha256"] == result["sha256"]


def test_another_recipe_in_the_same_folder_is_refused(done, source):
    _, out, _, _ = done
    with pytest.raises(ConfigError) as caught:
        pipeline.run(toy(data={"source": source}, train={"epochs": 5}, seed=4), out)
    expected = f"{out}: holds a run of another recipe, which differs in seed, train.epochs"
    assert str(caught.value) == f"{expected}; use another --out, or delete it to start again"


def test_a_model_of_another_recipe_is_not_taken_for_a_finished_stage(done, source, tmp_path):
    _, out, _, _ = done
    (tmp_path / "train.pt").write_bytes((out / "train.pt").read_bytes())
    with pytest.raises(ConfigError) as caught:
        pipeline.run(toy(data={"source": source}, seed=4), tmp_path)
    expected = f"{tmp_path}/train.pt: made by another recipe, which differs in seed; use another --out"
    assert str(caught.value) == expected


def test_changed_data_are_refused(tmp_path):
    path = write_npz(tmp_path / "data.npz")
    made = toy(data={"source": str(path)})
    pipeline.run(made, tmp_path / "run", until="train")
    write_npz(path, n=120)
    with pytest.raises(ConfigError, match=r"train\.pt: made from other data than .* holds now; use another --out$"):
        pipeline.run(made, tmp_path / "run")


def test_a_resume_file_that_is_not_one_is_refused(done, tmp_path):
    made, _, _, _ = done
    (tmp_path / "resume.pt").write_bytes(store.dump({"stage": "train"}))
    with pytest.raises(FormatError) as caught:
        pipeline.run(made, tmp_path)
    assert str(caught.value) == f"{tmp_path}/resume.pt: not a run to resume; delete it to repeat the stage"


def test_an_unknown_stage_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError) as caught:
        pipeline.run(toy(), tmp_path, until="fly")
    assert str(caught.value) == "--until: expected one of train, prune, sparse, convert, finetune, got 'fly'"


def test_the_thread_count_is_restored(done, tmp_path):
    made, _, _, _ = done
    before = torch.get_num_threads()
    pipeline.run(made, tmp_path, until="train")
    assert torch.get_num_threads() == before


def test_selection_never_reads_the_test_images(monkeypatch, done, tmp_path):
    from toolchain import data

    made, _, _, _ = done

    def forbidden(_source, _settings=None):
        raise AssertionError

    monkeypatch.setattr(data, "load_test", forbidden)
    pipeline.run(made, tmp_path)


def test_lwm_and_no_mask_run_to_the_end(source, tmp_path):
    lwm = pipeline.run(toy(data={"source": source}, prune={"method": "lwm"}), tmp_path / "lwm")
    assert lwm["sparsity"] >= 0.75
    dense = pipeline.run(toy(data={"source": source}, prune={"method": "none"}), tmp_path / "dense")
    assert dense["sparsity"] == pytest.approx(0, abs=0.01)
    assert nets.restore(store.load(tmp_path / "dense" / "model.pt")).mode == "snn"


def test_without_a_terminal_progress_is_a_line_a_stage_and_few_epochs(capsys, done, tmp_path):
    made, _, _, _ = done
    pipeline.run(made, tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert sum("validation accuracy" in line for line in lines) == 5
    assert len(lines) < 10
    assert not any("\r" in line for line in lines)


@pytest.fixture(scope="module")
def baseline(source, done, tmp_path_factory):
    """A spiking network trained end to end under the mask of the finished run: its recipe and folder."""
    _, folder, _, _ = done
    mask = {"method": "file", "mask": str(folder / "prune.pt")}
    made = toy(data={"source": source}, method="end-to-end", prune=mask)
    out = tmp_path_factory.mktemp("baseline")
    pipeline.run(made, out)
    return made, out


def test_end_to_end_trains_a_spiking_network_from_random_weights_under_the_given_mask(done, baseline):
    _, folder, _, _ = done
    _, out = baseline
    assert {entry.name for entry in out.iterdir()} == {"recipe.json", "prune.pt", "model.pt"}
    model, given = store.load(out / "model.pt"), store.load(folder / "prune.pt")
    assert (model.stage, model.mode) == ("finetune", "snn")
    assert all(torch.equal(model.mask[name], kept) for name, kept in given.mask.items())
    assert all(torch.equal(model.state[name] != 0, kept) for name, kept in given.mask.items())
    start = store.load(out / "prune.pt")
    assert {start.state[f"act{n}.v_th"].item() for n in (1, 2)} == {1.0}
    assert model.state["act1.v_th"].item() != 1.0


def test_end_to_end_with_a_random_mask_repeats_to_the_byte(source, tmp_path):
    made = toy(data={"source": source}, method="end-to-end", prune={"method": "random"})
    one, other = (pipeline.run(made, tmp_path / name) for name in ("one", "other"))
    assert one["sha256"] == other["sha256"]
    assert one["sparsity"] == 0.75


def test_the_attacked_validation_images_can_be_fewer(source, tmp_path):
    made = toy(data={"source": source}, attack={"validation": 5})
    metrics = pipeline.run(made, tmp_path, until="train")["metrics"]["train"]
    assert [metrics["validation"][name]["n"] for name in ("none", "pgd-ens")] == [14, 5]


def test_stages_of_another_run_are_taken_where_the_recipe_is_the_same_up_to_there(done, source, tmp_path):
    _, out, _, _ = done
    made = toy(data={"source": source}, name="other", sparse={"epochs": 1})
    events = []
    pipeline.run(made, tmp_path / "reusing", reuse=[tmp_path, out], progress=events.append)
    assert [event.stage for event in events if event.metrics is not None] == ["sparse", "convert", "finetune"]
    alone = pipeline.run(made, tmp_path / "alone")
    assert store.sha256(tmp_path / "reusing" / "model.pt") == alone["sha256"]


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": {"lr": 0.2}}, {"loss": {"steps": 1}}])
def test_no_stage_is_taken_from_a_run_that_differs_before_it(done, source, tmp_path, change):
    _, out, _, _ = done
    events = []
    pipeline.run(toy(data={"source": source}, **change), tmp_path, until="prune", reuse=[out], progress=events.append)
    assert [event.stage for event in events if event.metrics is not None] == ["train", "prune"]


def test_a_run_that_will_not_fit_on_the_disk_is_refused_before_it_trains(source, tmp_path, monkeypatch):
    """4 * 9 + 6 * 36 + 3 * 24 + 3 weights, two batch norms of 8 and 12, 2 thresholds: 349 numbers; a model and twice weights, scores and momenta."""
    made, needed, events = toy(data={"source": source}), 4 * 349 * (1 + 2 * 3), []
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed - 1))
    with pytest.raises(FormatError) as caught:
        pipeline.run(made, tmp_path, progress=events.append)
    sentence = f"{tmp_path}: 0 MB are free, and about 0 MB will be written; make room, or use another --out"
    assert str(caught.value) == sentence
    assert events == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=needed))
    pipeline.run(made, tmp_path, until="train")


def test_what_a_run_writes_at_most_is_what_it_asked_for(source, tmp_path, monkeypatch):
    """Of a network large enough that names and tables do not count."""
    asked, most = [], 0
    require, write = store.require_space, store.write_files

    def watched(folder, contents):
        nonlocal most
        there = sum(path.stat().st_size for path in folder.iterdir())
        most = max(most, there + sum(map(len, contents.values())))
        write(folder, contents)

    monkeypatch.setattr(store, "write_files", watched)
    monkeypatch.setattr(store, "require_space", lambda folder, n: (asked.append(n), require(folder, n)))
    one = {"epochs": 1}
    made = toy(data={"source": source}, model={"layers": [64, "A", 128]}, train=one, sparse=one, finetune=one)
    pipeline.run(made, tmp_path)
    assert 0.95 * asked[0] < most < 1.05 * asked[0]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"data": {"source": "none.npz"}}, "none.npz: cannot be read: No such file or directory"),
        (
            {"model": {"layers": [4, "A", 4, "A", 4, "A", 4, "A"]}},
            "model: a 2x2 pool does not divide the 1x1 map after conv4; crop or pad the 8x8 images to multiples of 16",
        ),
    ],
)
def test_data_that_are_not_there_or_do_not_fit_are_refused_before_training(source, tmp_path, sections, expected):
    events = []
    with pytest.raises((ConfigError, FormatError)) as caught:
        pipeline.run(toy(**{"data": {"source": source}, **sections}), tmp_path, progress=events.append)
    assert (str(caught.value), events) == (expected, [])


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (125, "2 min 05 s"), (3600, "1 h 00 min"), (90061, "25 h 01 min")],
)
def test_durations_are_told_in_two_units(seconds, text):
    assert pipeline._duration(seconds) == text


def test_progress_tells_the_time_left_from_the_epochs_since_the_run_went_on(monkeypatch, capsys):
    """A stage resumed after its fourth epoch: two epochs of 30 seconds each are behind it, four before it."""
    clock = iter([0.0, 30.0, 60.0])
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: next(clock))
    show = pipeline.printer()
    for epoch in (5, 6):
        show(pipeline.Event(stage="train", epoch=epoch, n_epochs=10, loss=0.5))
    assert capsys.readouterr().err.splitlines() == [
        "train: epoch 5 of 10, loss 0.500, 2 min 30 s left",
        "train: epoch 6 of 10, loss 0.500, 2 min 00 s left",
    ]


def test_a_mask_file_that_is_not_there_is_said_before_anything_is_trained(source, tmp_path):
    made = toy(data={"source": source}, prune={"method": "file", "mask": str(tmp_path / "none.npz")})
    events = []
    with pytest.raises(FormatError) as caught:
        pipeline.run(made, tmp_path / "run", progress=events.append)
    assert str(caught.value) == f"{tmp_path}/none.npz: cannot be read: No such file or directory"
    assert events == []
