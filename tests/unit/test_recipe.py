import json

import pytest
from toy import TABLE, toy

from toolchain import recipe
from toolchain.errors import ConfigError


def fault(table):
    with pytest.raises(ConfigError) as caught:
        recipe.from_dict(table)
    return str(caught.value)


def test_every_key_has_a_default_and_a_recipe_survives_json():
    for one in (recipe.from_dict({}), toy()):
        assert recipe.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_the_shipped_recipe_loads_by_name():
    shipped = recipe.load("digits-cnn")
    assert (shipped.name, shipped.timesteps, shipped.prune.sparsity) == ("digits-cnn", 8, 0.9)


def test_every_fault_is_listed_with_its_place():
    table = {
        "seed": -1,
        "finetune": {"epochs": "x", "epocs": 3},
        "data": 7,
        "loss": {"kl": "both", "eps": "8/0"},
        "model": {"layers": [1.5], "kernel": True},
        "prune": {"sparsity": 1},
    }
    assert fault(table).splitlines() == [
        "recipe: 9 faults",
        "  seed: expected 0 to 2147483648, got -1",
        "  finetune.epochs: expected int, got 'x'",
        "  finetune.epocs: unknown key; did you mean finetune.epochs?",
        "  data: expected a section, got 7",
        "  loss.kl: expected one of clean, adversarial, got 'both'",
        "  loss.eps: expected a number or a fraction such as \"8/255\", got '8/0'",
        "  model.layers: expected int or str, got 1.5",
        "  model.kernel: expected int, got True",
        "  prune.sparsity: expected 0 to 0.9999, got 1.0",
    ]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"model": {"layers": ["A", 3]}}, "recipe: model.layers: expected a convolution's channels first"),
        ({"model": {"layers": [3, "B"]}}, "recipe: model.layers: expected positive channels or \"A\", got 'B'"),
        (
            {"model": {"layers": [3, "A", "A"]}},
            "recipe: model.layers: two pools follow each other; put a convolution between them",
        ),
        ({"model": {"kernel": 2}}, "recipe: model.kernel: expected an odd number, got 2"),
        (
            {"model": {"architecture": "vgg16", "hidden": [4]}},
            'recipe: model.hidden: only for model.architecture = "cnn", here "vgg16"; leave it out',
        ),
        ({"model": {"depth": 20}}, "recipe: model.depth: expected 6 n + 4, such as 16 or 28, got 20"),
        (
            {"finetune": {"surrogate": "exponential(1)"}},
            "recipe: finetune.surrogate: expected 2 positive numbers after exponential, got 'exponential(1)'",
        ),
    ],
)
def test_a_contradiction_is_one_sentence(table, sentence):
    assert fault(table) == sentence


def test_overrides_are_read_as_toml_or_else_as_text():
    overrides = ["loss.objective=natural", "train.epochs = 3", 'model.layers=[8, "A"]', "loss.eps=4/255", "seed=5"]
    made = recipe.load("digits-cnn", overrides=overrides)
    assert (made.loss.objective, made.train.epochs, made.model.layers, made.seed) == ("natural", 3, (8, "A"), 5)
    assert made.loss.eps == 4 / 255


def test_a_wrong_override_is_a_fault_among_the_others():
    with pytest.raises(ConfigError) as caught:
        recipe.load("digits-cnn", overrides=["epochs", "name.x=3", "train.epochs=-1"])
    assert caught.value.faults == (
        "--set epochs: expected key=value",
        "--set name.x=3: name is not a section",
        "train.epochs: expected at least 0, got -1",
    )


def test_differences_names_the_keys():
    assert recipe.differences(toy(), toy(train={"epochs": 9}, seed=1)) == ("seed", "train.epochs")


def test_a_file_that_is_not_toml_is_one_sentence(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[train\n")
    with pytest.raises(ConfigError, match=f"^{path}: not TOML: "):
        recipe.load(path)


def test_an_unknown_recipe_names_the_shipped_ones():
    with pytest.raises(
        ConfigError, match=r"^nonsuch: no file of this name and no shipped recipe; shipped: .*digits-cnn"
    ):
        recipe.load("nonsuch")


def test_the_toy_recipe_only_names_keys_that_exist():
    assert set(TABLE) <= set(toy().to_dict())


BUDGETED = """
[train]
epochs = 100
lr = 0.2
[budgets.hour]
train.epochs = 10
[budgets.minutes]
timesteps = 4
[budgets.minutes.train]
epochs = 1
"""


@pytest.fixture
def budgeted(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(BUDGETED)
    return path


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ("paper", 100, 8)),
        (["budget=hour"], ("hour", 10, 8)),
        (["budget=minutes"], ("minutes", 1, 4)),
        (["train.epochs=3", "budget=minutes"], ("minutes", 3, 4)),
        (["budget=paper", "train.epochs=7"], ("paper", 7, 8)),
    ],
)
def test_a_budget_replaces_the_keys_it_names_and_an_override_has_the_last_word(budgeted, overrides, expected):
    made = recipe.load(budgeted, overrides=overrides)
    assert (made.budget, made.train.epochs, made.timesteps) == expected
    assert made.train.lr == 0.2


def test_a_file_may_name_its_own_budget(budgeted):
    budgeted.write_text('budget = "hour"\n' + BUDGETED)
    assert recipe.load(budgeted).train.epochs == 10
    assert recipe.load(budgeted, overrides=["budget=minutes"]).train.epochs == 1


def test_a_recipe_under_a_budget_is_read_back_without_the_file(budgeted):
    made = recipe.load(budgeted, overrides=["budget=minutes"])
    assert recipe.from_dict(made.to_dict()) == made


def test_every_budgets_faults_are_listed_whichever_is_chosen(budgeted):
    budgeted.write_text(BUDGETED.replace("epochs = 10\n", "epocs = 10\n").replace("timesteps = 4", "timesteps = 0"))
    with pytest.raises(ConfigError) as caught:
        recipe.load(budgeted, overrides=["budget=week", "seed=-1"])
    assert caught.value.faults == (
        "budgets.hour.train.epocs: unknown key; did you mean budgets.hour.train.epochs?",
        "budgets.minutes.timesteps: expected 1 to 1024, got 0",
        "budget: expected one of paper, hour, minutes, got 'week'",
        "seed: expected 0 to 2147483648, got -1",
    )
