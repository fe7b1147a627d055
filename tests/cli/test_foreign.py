"""Networks made elsewhere, on the command line."""

from __future__ import annotations

import numpy as np
import pytest
from slayer import SHAPE, T, chain, changed, group, write

from toolchain import deployment

N_TEST = 7


@pytest.fixture
def network(tmp_path):
    return write(tmp_path / "network.net")


@pytest.fixture
def data(tmp_path):
    """Images of the network's input shape, and labels of its classes."""
    rng = np.random.default_rng(0)
    n = {"train": 12, "test": N_TEST}
    path = tmp_path / "data.npz"
    np.savez(
        path,
        **{f"x_{part}": rng.integers(0, 256, (count, *SHAPE), dtype=np.uint8) for part, count in n.items()},
        **{f"y_{part}": np.arange(count) % 3 for part, count in n.items()},
    )
    return path


def test_a_file_of_lava_dl_is_checked_and_what_it_leaves_open_is_said(run, network):
    answer = run("check", network, "--profile", "loihi2", "--json")
    assert answer.code == 0
    assert (answer.json["fits"], answer.json["n_cores"]) == (True, 4)
    (note,) = answer.json["notes"]
    assert note in " ".join(run("check", network, "--profile", "loihi2").out.split())


def test_a_file_of_lava_dl_is_exported_with_test_images(run, network, data, tmp_path):
    out = tmp_path / "out"
    answer = run("export", network, "--profile", "loihi2", "--data", data, "--samples", "4", "--out", out, "--json")
    assert answer.code == 0
    folder = deployment.open_folder(out)
    assert folder.deployment.network.timesteps == T
    assert (answer.json["accuracy"]["deployed"]["n"], len(folder.images)) == (N_TEST, 4)
    assert [line["statement"] for line in answer.json["assumptions"] if "input block" in line.get("statement", "")]


def flat(path):
    """The file of a network whose input is a vector of as many values as the images have."""
    made = chain()
    values = int(np.prod(SHAPE))
    hidden = {**made["3"], "inFeatures": values, "weight": np.ones((5, values), dtype=np.float32)}
    return write(path, {"0": {**made["0"], "shape": np.array((values,))}, "1": hidden, "2": made["4"]})


def test_images_are_flattened_for_an_input_without_a_map_and_that_is_said(run, data, tmp_path):
    out = tmp_path / "out"
    options = ("--profile", "loihi2", "--data", data, "--samples", "4", "--out", out)
    answer = run("export", flat(tmp_path / "flat.net"), *options)
    assert answer.code == 0
    assert "assumed: Images are taken to be flattened channel by channel, each row by row." in answer.err
    with np.load(data) as arrays:
        assert np.array_equal(deployment.open_folder(out).images, arrays["x_test"][:4].reshape(4, -1, 1, 1))


def test_images_of_another_shape_are_refused_before_anything_is_written(run, network, tmp_path):
    path, out = tmp_path / "other.npz", tmp_path / "out"
    x, y = np.zeros((6, 2, 6, 5), dtype=np.uint8), np.arange(6) % 3
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    answer = run("export", network, "--profile", "loihi2", "--data", path, "--out", out)
    assert answer.code == 2
    assert answer.said == f"{network}: its input takes images of (2, 6, 6), the data have (2, 6, 5)"
    assert not out.exists()


REFUSED = {
    "no data": ((), "{network}: say with --data where its test images are, for accuracy and activity are of those"),
    "other integers": (
        ("--data", "{data}", "--weight-bits", "4"),
        "{network}: its integers are taken as they are; leave out --weight-bits, --theta, --dt, --mean and --std",
    ),
    "no file of netx": (("--data", "{data}"), "{other}: not a netx file (OSError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_export_that_cannot_be_is_refused_before_anything_is_written(run, network, data, tmp_path, name):
    options, sentence = REFUSED[name]
    other = tmp_path / "other.net"
    other.write_bytes(b"nothing")
    names = {"network": network, "data": data, "other": other}
    model = other if "other" in sentence else network
    out = tmp_path / "out"
    answer = run("export", model, "--profile", "loihi2", "--out", out, *(option.format(**names) for option in options))
    assert answer.code == 2
    assert answer.said.startswith(sentence.format(**names))
    assert not out.exists()


def test_a_layer_that_cannot_be_deployed_is_named(run, tmp_path):
    path = write(tmp_path / "delayed.net", changed("3", delay=np.zeros(36)))
    answer = run("check", path, "--profile", "loihi2")
    assert (answer.code, answer.said) == (2, "layer/3: it has delay, which cannot be deployed")


@pytest.mark.parametrize("command", ["check", "export"])
def test_a_model_of_ours_knows_its_data_and_steps(run, model, command):
    answer = run(command, model, "--profile", "loihi2", "--timesteps", "4", "--data", "digits")
    assert answer.code == 2
    assert "--data and --timesteps cannot be given for" in answer.err


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory, run_once):
    """A NIR graph of a model, and the folder exported with it."""
    pytest.importorskip("nir")
    home = tmp_path_factory.mktemp("graph")
    run_once(
        *("export", str(model), "--profile", "loihi2", "--samples", "5", "--attacked", "0"),
        *("--out", str(home / "out"), "--nir", str(home / "model.nir")),
    )
    return home / "model.nir", home / "out"


def test_a_graph_of_a_model_is_deployed_as_the_model_was(run, graph, images, tmp_path):
    path, folder = graph
    again = tmp_path / "again"
    options = ("--profile", "loihi2", "--data", images, "--samples", "5", "--out", again)
    answer = run("export", path, *options)
    assert answer.code == 0
    assert "assumed: The integers beside the graph are deployed as they are." in answer.err
    assert group(again / "network.net") == group(folder / "network.net")
    one, other = (deployment.open_folder(each) for each in (folder, again))
    assert np.array_equal(one.logits, other.logits)
    assert np.array_equal(one.images, other.images)


@pytest.mark.parametrize("options", [("--weight-bits", "5"), ("--theta", "channel")])
def test_a_graph_of_a_model_is_quantized_anew_where_other_integers_are_asked_for(run, graph, images, tmp_path, options):
    path, folder = graph
    again = tmp_path / "again"
    answer = run("export", path, "--profile", "loihi2", "--data", images, "--samples", "5", "--out", again, *options)
    assert answer.code == 0
    assert group(again / "network.net").keys() == group(folder / "network.net").keys()
    assert group(again / "network.net") != group(folder / "network.net")


def test_a_graph_is_checked_for_a_chip_that_takes_biases(run, graph, images):
    answer = run("check", graph[0], "--profile", "loihi1", "--data", images, "--json")
    assert (answer.code, answer.json["fits"]) == (0, True)


def test_a_graph_is_not_written_over_a_part_of_the_export(run, model, tmp_path):
    pytest.importorskip("nir")
    out = tmp_path / "out"
    answer = run("export", model, "--profile", "loihi2", "--out", out, "--nir", out / "network.net")
    assert answer.code == 2
    assert answer.said.endswith("part of the export, which its manifest vouches for; take another name")
    assert not out.exists()


def test_integers_of_lava_dl_have_no_graph(run, network, data, tmp_path):
    out, path = tmp_path / "out", tmp_path / "a.nir"
    answer = run("export", network, "--profile", "loihi2", "--data", data, "--out", out, "--nir", path)
    assert answer.code == 2
    assert answer.said == f"{network}: its integers are deployed as they are, and a NIR graph is of floats"
    assert not out.exists()
    assert not path.exists()


def test_a_budget_of_bits_is_for_models_of_ours(run, tmp_path):
    path = tmp_path / "network.net"
    path.write_bytes(b"")
    answer = run("check", path, "--profile", "loihi2", "--bits-budget", "4")
    assert (answer.code, answer.said) == (
        2,
        f"{path}: a budget of bits is for models of ours; use --weight-bits, which takes single layers too",
    )
