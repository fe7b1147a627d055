"""The study's work: training and evaluation, each piece done once, kept on the disk, and its processor time counted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from study import claims, measure, plan

from toolchain import data, pipeline, store
from toolchain.evaluate import accuracy, attacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from toolchain.data import Split
    from toolchain.nets import Net
    from toolchain.recipe import Recipe

    Log = Callable[[str], None]


class Journal:
    """Processor seconds by part, on the disk after every event; what a killed process did since is lost with its work."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = kept(path)
        self._since = time.process_time()

    def spent(self, part: str) -> None:
        """All processor time since the last call was spent on `part`."""
        now = time.process_time()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._since
        self._since = now
        keep(self.path, self.seconds)


def keep(path: Path, table: Any) -> None:
    """`path` holds the table as JSON, whole or not at all."""
    store.write_text(path, json.dumps(table, indent=1) + "\n")


def kept(path: Path) -> Any:
    """Return the table `path` holds, or an empty one."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def folder_of(out: Path, seed: int, arm: str) -> Path:
    """Return where an arm of a seed is trained."""
    return out / f"seed-{seed}" / arm


def train(base: Recipe, out: Path, seeds: Sequence[int], log: Log, begin: Sequence[str] = ("",)) -> None:
    """Every arm of every seed whose name begins so has its `model.pt`; before, each grid has chosen its learning rate."""
    for grid in plan.GRIDS:
        choose(base, grid, out, log)
    choices = {name: choice["chosen"] for name, choice in kept(out / "choices.json").items()}
    for seed in seeds:
        for arm in plan.arms(base):
            folder = folder_of(out, seed, arm.name)
            if arm.name.startswith(tuple(begin)) and not (folder / "model.pt").exists():
                log(f"train {arm.name}, seed {seed}")
                journal = Journal(folder / "seconds.json")
                _run(plan.recipe(base, arm, seed, out, choices), folder, out, journal, arm.name)


def ahead(base: Recipe, out: Path, seeds: Sequence[int], log: Log) -> None:
    """The dense ANN and the masks of every seed are there, which no grid decides: `train` takes them."""
    for seed in seeds:
        journal = Journal(out / f"seed-{seed}" / "seconds.json")
        for arm in plan.arms(base):
            recipe = plan.recipe(base, arm, seed, out, dict.fromkeys(arm.chosen.values(), 0.0))
            if recipe.method == "convert":
                log(f"mask of {arm.name}, seed {seed}")
                _run(recipe, out / f"ahead-{seed}" / arm.name, out, journal, arm.name, until="prune")


def choose(base: Recipe, grid: plan.Grid, out: Path, log: Log) -> None:
    """`choices.json` says which value of a grid validates best under attack, and how each of them did."""
    choices = kept(out / "choices.json")
    if grid.name in choices:
        return
    arm = next(arm for arm in plan.arms(base) if arm.name == grid.arm)
    folder, seed = out / f"grid-{grid.name}", plan.CHOICE_SEED
    journal = Journal(folder / "seconds.json")
    before = {name: choice["chosen"] for name, choice in choices.items()}
    tried: dict[float, Any] = {}
    for value in grid.values:
        log(f"try {grid.key} = {value:g} on {arm.name}")
        recipe = plan.recipe(
            base, arm, seed, out, {**dict.fromkeys(arm.chosen.values(), 0.0), **before, grid.name: value}
        )
        path = _run(recipe, folder / f"{value:g}", out, journal, arm.name, until=grid.stage)
        net, _ = measure.restored(path)
        validation = data.load(recipe.data.source, recipe.data).validation.first(plan.N_CHOICE)
        right = attacked(net, validation, "pgd-ens", eps=recipe.attack.eps, steps=recipe.attack.steps).right
        tried[value] = accuracy(right)
        journal.spent(arm.name)
        log(f"  validation accuracy under attack {tried[value]['accuracy']:.1%}")
    best = max(tried, key=lambda value: tried[value]["n_right"])
    table = {f"{value:g}": outcome for value, outcome in tried.items()}
    choices = kept(out / "choices.json")  # another process may have chosen meanwhile
    choices[grid.name] = {"key": grid.key, "arm": grid.arm, "seed": seed, "chosen": best, "tried": table}
    keep(out / "choices.json", choices)


def _run(recipe: Recipe, folder: Path, out: Path, journal: Journal, part: str, until: str | None = None) -> Path:
    """Return the model file of a run, whose stages are taken from other runs of the study where they are the same."""
    show = pipeline.printer()

    def watch(event: pipeline.Event) -> None:
        journal.spent(f"{part}/{event.stage}")
        show(event)

    others = sorted({path.parent for path in out.glob("*/*/**/*.pt")} - {folder})
    result = pipeline.run(recipe, folder, until=until, reuse=others, progress=watch)
    journal.spent(part)
    return Path(result["model"])


def measures(test: Split) -> dict[str, tuple[Split, str, float]]:
    """Return what is measured by an attack, what most claims need first: images, attack, radius."""
    strongest = plan.EPS[-1]
    fgsm = {f"fgsm-{eps * 255:g}": (test.first(plan.N_FGSM), "fgsm-ens", eps) for eps in reversed(plan.EPS)}
    return {
        "clean": (test, "none", 0.0),
        f"pgd-{strongest * 255:g}": (test.first(plan.N_PGD), "pgd-ens", strongest),
        f"search-{strongest * 255:g}": (test.first(plan.N_PGD), "search-ens", strongest),
        "square": (test.first(plan.N_SQUARE), f"square-{plan.SQUARE_QUERIES}", strongest),
        **fgsm,
    }


def evaluate(base: Recipe, out: Path, seeds: Sequence[int], log: Log) -> Iterator[None]:
    """Every trained arm of every seed has its `figures.json`; yields after each measure, so that tables can be written.

    One measure is taken of all arms before the next one is: what there is can be compared.
    """
    test = data.load_test(str(out / "data.npz"))
    for name in ("activity", *measures(test)):
        for seed in seeds:
            journal = Journal(out / f"evaluate-{seed}" / "seconds.json")
            for arm in plan.arms(base):
                path = folder_of(out, seed, arm.name) / "model.pt"
                figures = kept(path.with_name("figures.json"))
                if not path.exists() or name in figures:
                    continue
                log(f"{name} of {arm.name}, seed {seed}")
                net, model = measure.restored(path)
                figures |= {"sparsity": model.sparsity, "layer_sparsity": model.layer_sparsity}
                figures[name] = _measured(name, net, model.mask, test)
                keep(path.with_name("figures.json"), figures)
                journal.spent(arm.name)
            yield


def robust(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return an arm's figures with those under both attacks that robustness is measured by, where both are there."""
    if not all(name in figures for name in claims.ATTACKS):
        return dict(figures)
    rights = [np.array(list(figures[name]["right"])) == "1" for name in claims.ATTACKS]
    right = np.logical_and.reduce(rights)
    found = {
        "eps": figures[claims.ATTACKS[0]]["eps"],
        **accuracy(right),
        "right": "".join("01"[int(one)] for one in right),
    }
    return {**figures, claims.ROBUST: found}


def _measured(name: str, net: Net, mask: Mapping[str, Any], test: Split) -> dict[str, Any]:
    if name == "activity":
        return measure.activity(net, mask, test.first(plan.N_SPIKES))
    split, attack, eps = measures(test)[name]
    outcome = attacked(net, split, attack, eps=eps)
    right = "".join("01"[int(one)] for one in np.asarray(outcome.right))
    return {"eps": eps, "n_members": len(outcome.members), **accuracy(outcome.right), "right": right}
