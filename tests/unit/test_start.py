"""The recipe that `init` writes, and the recipes that ship."""

import dataclasses

import numpy as np
import pytest
from toy import write_npz

from toolchain import nets, pipeline, recipe, resources, start
from toolchain.errors import ConfigError

SHIPPED = [name for name in resources.recipes() if name != "digits-cnn"]
BUDGETS = ["paper", "hour", "minutes"]
PUBLISHED = {
    # Source: arXiv 2505.15833 and the code it extends. Epochs, learning rate, batch of each stage.
    "train": (100, 0.1, 128),
    "prune": (20, 0.1, 128),
    "sparse": (30, 0.01, 128),
    "finetune": (80, 0.001, 64),
}


def keys(kind, prefix=""):
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default):
            yield from keys(type(field.default), f"{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def test_the_template_is_a_recipe_of_the_defaults_that_names_every_key(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(recipe.template({}))
    assert recipe.load(path) == recipe.from_dict({})
    uncommented = [line.removeprefix("# ") for line in path.read_text().splitlines() if " = " in line]
    names = [line.partition(" = ")[0] for line in uncommented]
    assert [name for name in names if name in {key.rpartition(".")[2] for key in keys(recipe.Recipe)}]
    assert {key.rpartition(".")[2] for key in keys(recipe.Recipe)} <= set(names)


def test_the_template_with_every_line_uncommented_is_still_the_defaults(tmp_path):
    path = tmp_path / "r.toml"
    plain = {key.rpartition(".")[2] for key in keys(recipe.Recipe)}
    lines = [
        line.removeprefix("# ") if line.removeprefix("# ").partition(" = ")[0] in plain else line
        for line in recipe.template({}).splitlines()
    ]
    path.write_text("\n".join(lines))
    assert recipe.load(path) == recipe.from_dict({})


def test_what_is_chosen_is_set(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(recipe.template({"name": "x", "model.layers": (4, "A"), "loss.eps": 3 / 255, "train.lr": 0.5}))
    made = recipe.load(path)
    assert (made.name, made.model.layers, made.loss.eps, made.train.lr) == ("x", (4, "A"), 3 / 255, 0.5)


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((28, 28), (32, "A", 64, "A", 128)),
        ((32, 32, 3), (32, "A", 64, "A", 128, "A")),
        ((9, 8), (32, 64, 128)),
        ((8, 16), (32, "A", 64, 128)),
    ],
)
def test_a_recipe_for_ones_own_images_fits_them(tmp_path, shape, layers):
    images = np.random.default_rng(0).integers(0, 256, (40, *shape), dtype=np.uint8)
    source, file = str(tmp_path / "d.npz"), tmp_path / "own.toml"
    np.savez(source, x_train=images, y_train=np.arange(40) % 3, x_test=images[:9], y_test=np.arange(9) % 3)
    found = start.write(file, source)["data"]
    made = recipe.load(file)
    assert (made.name, made.data.source, made.model.layers) == ("own", source, layers)
    nets.build(made.model, found["shape"], found["n_classes"])
    assert (found["n_classes"], found["n_train"], found["n_validation"]) == (3, 34, 6)


def test_a_recipe_of_ones_own_trains(tmp_path):
    source, file = str(write_npz(tmp_path / "d.npz")), tmp_path / "own.toml"
    start.write(file, source)
    few = [
        "model.layers=[3]",
        "train.epochs=1",
        "prune.epochs=1",
        "sparse.epochs=1",
        "finetune.epochs=1",
        "loss.steps=1",
    ]
    made = recipe.load(file, overrides=["budget=minutes", *few, "convert.timesteps=2"])
    assert pipeline.run(made, tmp_path / "run")["stage"] == "finetune"


def test_a_file_that_exists_is_not_overwritten(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text("mine")
    with pytest.raises(ConfigError) as caught:
        start.write(file, None)
    assert str(caught.value) == f"{file}: it exists already; name another FILE, or delete it"
    assert file.read_text() == "mine"


SMALL = {"train": 0.02, "prune": 0.05, "finetune": 0.01}
"""The learning rates that a small network takes instead"""


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_has_the_published_settings_and_cheaper_budgets(name):
    paper, hour, minutes = (recipe.load(name, overrides=[f"budget={budget}"]) for budget in BUDGETS)
    stages = [made.stages for made in (paper, hour, minutes)]
    assert stages == [recipe.STAGES] * 3
    small = name == "fashion-cnn"
    for stage, (epochs, lr, batch) in PUBLISHED.items():
        own = getattr(paper, stage)
        skipped = name.endswith("dense") and stage == "sparse"
        assert own.epochs == (0 if skipped else epochs)
        assert own.lr == (SMALL.get(stage, lr) if small else lr)
        assert (own.batch, own.weight_decay) == (batch, 1e-4)
        assert own.epochs >= getattr(hour, stage).epochs >= getattr(minutes, stage).epochs
    loss, convert = paper.loss, paper.convert
    assert (loss.objective, loss.weight, loss.kl, loss.steps) == ("trades", 2, "clean", 10)
    assert loss.eps == pytest.approx((4 if small else 2) / 255)
    assert (convert.timesteps, convert.batches, convert.batch) == (100, 10, 64)
    assert (convert.percentile, convert.scale, paper.timesteps) == (99.7, 0.3, 8)
    assert paper.finetune.surrogate == "piecewise-linear(1)"
    assert (paper.name, paper.budget) == (name, "paper")


SHAPES = {"cifar10": ((3, 32, 32), 10), "cifar100": ((3, 32, 32), 100), "tinyimagenet": ((3, 64, 64), 200)}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_runs_to_the_end_on_images_of_its_kind(name, tmp_path):
    wanted = recipe.load(name, overrides=["budget=minutes"])
    shape, n_classes = SHAPES.get(wanted.data.source, ((28, 28), 10))
    rng = np.random.default_rng(0)
    arrays = {
        f"{letter}_{part}": values
        for part, n in (("train", 2 * n_classes + 60), ("test", n_classes))
        for letter, values in (("x", rng.integers(0, 256, (n, *shape), np.uint8)), ("y", np.arange(n) % n_classes))
    }
    np.savez(tmp_path / "d.npz", **arrays)
    few = ["train.epochs=1", "finetune.epochs=1", "convert.timesteps=4", "attack.validation=4", "loss.steps=1"]
    overrides = ["budget=minutes", f"data.source={tmp_path / 'd.npz'}", "threads=1", *few]
    assert pipeline.run(recipe.load(name, overrides=overrides), tmp_path / "run")["stage"] == "finetune"
