"""Writes docs/results.md from the figures on the disk: what was done, the table, the plot, the verdicts, the hours."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study import claims, plan, work

from toolchain.evaluate import wilson

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from toolchain.recipe import Recipe

DOCS = Path(__file__).resolve().parents[2] / "docs"
COLOURS = ("#222222", "#86b6e8", "#3f7fbf", "#1b4f8a", "#7d3c98", "#c0392b", "#e08e2b")


def columns() -> dict[str, str]:
    """Return the accuracies of the table with their headings."""
    fgsm = {f"fgsm-{eps * 255:g}": f"FGSM {eps * 255:g}/255" for eps in plan.EPS}
    strongest = f"{plan.EPS[-1] * 255:g}"
    pgd, _ = claims.ATTACKS
    both = {pgd: f"PGD {strongest}/255", claims.ROBUST: f"PGD and search {strongest}/255"}
    return {"clean": "clean", **fgsm, **both, "square": f"Square {strongest}/255"}


def write(base: Recipe, out: Path, docs: Path = DOCS) -> None:
    """`docs/results.md`, its plot and `docs/results/figures.json` say all that is known so far."""
    arms = [arm for arm in plan.arms(base) if any(out.glob(f"seed-*/{arm.name}/figures.json"))]
    seeds = {
        int(folder.name.removeprefix("seed-")): {
            arm.name: work.robust(work.kept(folder / arm.name / "figures.json"))
            for arm in arms
            if (folder / arm.name / "figures.json").exists()
        }
        for folder in sorted(out.glob("seed-*"))
    }
    verdicts = [claims.judge(claim, list(seeds.values())) for claim in claims.claims()]
    choices = work.kept(out / "choices.json")
    folder = docs / "results"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [
        _head(base, seeds),
        *_partial(base, seeds),
        _table(arms, seeds),
        "![Accuracies and energy of each arm](results/arms.svg)",
        *_masked(arms, seeds),
        _claims(verdicts, len(seeds)),
        _settings(base, choices),
        _every_seed(arms, seeds),
        _cost(arms, out, sorted(seeds)),
        _limits(base),
    ]
    (docs / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    work.keep(folder / "figures.json", _json(base, seeds, verdicts, choices, _seconds(out)))
    _draw(arms, seeds, folder / "arms.svg")


def _head(base: Recipe, seeds: dict[int, dict[str, Any]]) -> str:
    n = len(seeds)
    channels = "-".join(str(item) for item in base.model.layers if item != "A")
    return f"""# Results: the method on Fashion-MNIST

Made by `make results DATA=fashion_mnist.npz`; every figure is in [results/figures.json](results/figures.json). Fashion-MNIST, each 2x2 cell
averaged to 14x14 pixels; a {channels} network, T = {base.timesteps}, trained on {plan.N_TRAIN:,} images (a tenth of them for validation),
{n} seed{"s" if n != 1 else ""}, on the CPU. Training attack {base.loss.eps * 255:g}/255, evaluation at 1, 2 and 4 times that. An image counts as right under
an attack only if it is so clean and under every one of 19 surrogate gradients. Robustness is what remains under PGD and under search, which judges
trials of few pixels by the network itself, on the same images. Learning rates were chosen on validation images; test images were looked at only for the
figures of this page."""


def _partial(base: Recipe, seeds: dict[int, dict[str, Any]]) -> list[str]:
    """Return what is still missing, in a sentence."""
    wanted = len(plan.arms(base)) * len(plan.SEEDS)
    whole = [one for found in seeds.values() for one in found.values() if {*columns(), "activity"} <= one.keys()]
    begun = sum(len(found) for found in seeds.values())
    if len(whole) == wanted:
        return []
    return [
        f"""**The study is not finished**: of {wanted} networks, {len(whole)} are measured in full and {begun - len(whole)} in part. The same command goes
on with it. A claim whose networks are missing counts as not decidable."""
    ]


def _table(arms: Sequence[plan.Arm], seeds: dict[int, dict[str, Any]]) -> str:
    measures = {key: words for key, words in columns().items() if _known(seeds, key)}
    rows = [["", "sparsity", *measures.values(), "spikes an image", "energy saved, eq. 12"]]
    for arm in arms:
        figures = [found[arm.name] for found in seeds.values() if arm.name in found]
        row = [arm.about, f"{100 * statistics.fmean(one['sparsity'] for one in figures):.1f} %"]
        row += [_spread([100 * one[key]["accuracy"] for one in figures if key in one]) for key in measures]
        row.append(_spread([one["activity"]["spikes"] for one in figures if "activity" in one], "{:,.0f}"))
        row.append(_spread(_savings(arm.name, seeds), "{:.2f}"))
        rows.append(row)
    n = {
        key: next(one[key]["n"] for found in seeds.values() for one in found.values() if key in one) for key in measures
    }
    images = ", ".join(f"{measures[key]} {count:,}" for key, count in n.items())
    return f"""## Accuracy, spikes and energy

{_markdown(rows)}

Accuracies in percent, mean and standard deviation over seeds. Test images: {images}. Spikes and additions are counted on
{plan.N_SPIKES:,} test images by the float network. Energy saved: additions of eq. 12 (kept synapses a neuron times its spikes) of the dense
network, divided by this one's; modelled arithmetic, not hardware."""


def _masked(arms: Sequence[plan.Arm], seeds: dict[int, dict[str, Any]]) -> list[str]:
    """Return which networks the black-box attack breaks more often than PGD and search, on the same images."""
    more, n_both = [], 0
    for arm in arms:
        for seed, found in seeds.items():
            one = found.get(arm.name, {})
            if "square" in one and claims.ROBUST in one:
                square, both = one["square"]["right"], one[claims.ROBUST]["right"]
                shares = [100 * text[: len(square)].count("1") / len(square) for text in (square, both)]
                n_both += 1
                if shares[0] < shares[1]:
                    more.append(f"{arm.name} seed {seed} ({shares[0]:.0f} against {shares[1]:.0f} %)")
    if not n_both:
        return []
    if not more:
        return [
            f"Square, which needs no gradient, is never stronger than PGD and search on the same images ({n_both} networks): no sign of masked gradients."
        ]
    return [
        f"""**A sign of masked gradients**: of {n_both} networks, Square breaks {len(more)} more often than PGD and search, on the same
{plan.N_SQUARE} images: {", ".join(more)}. Robust accuracies are upper bounds there, and verdicts that rest on them are weaker than
their intervals say."""
    ]


def _claims(verdicts: Sequence[claims.Verdict], n_seeds: int) -> str:
    rows = [["claim", "the paper, VGG-16 on CIFAR-10 (table)", "here", "the claim asks for", "verdict"]]
    for one in verdicts:
        unit = f" {one.claim.unit}" if one.claim.unit else ""
        here = "not measured"
        if one.mean is not None:
            here = f"{one.mean:+.2f}{unit}" if one.claim.unit == "points" else f"{one.mean:.2f}{unit}"
            if one.low is not None and one.high is not None:
                here += f" ({one.low:.2f} to {one.high:.2f})"
        rows.append([one.claim.says, one.claim.paper, here, one.claim.test(), f"**{one.verdict}**"])
    return f"""## The paper's claims

{_markdown(rows)}

"Here" is the mean of one number a seed, with its 95 % interval by Student's t over {n_seeds} seed{"s" if n_seeds != 1 else ""}: a claim is reproduced if the whole
interval agrees with it, not reproduced if none of it does, and else not decidable at this scale. Points are percentage points of
accuracy on the same images, robustness that under PGD and search. Verdicts are about this network, these data, this budget."""


def _settings(base: Recipe, choices: dict[str, Any]) -> str:
    rows = [["", "epochs", "learning rate", "batch"]]
    rates = {name: choice["chosen"] for name, choice in choices.items()}
    rows += [
        ["dense ANN, TRADES", str(base.train.epochs), f"{base.train.lr:g}", str(base.train.batch)],
        ["mask (HYDRA, HARP)", str(base.prune.epochs), f"{base.prune.lr:g}", str(base.prune.batch)],
        ["sparse ANN", str(base.sparse.epochs), f"{rates.get('sparse', 0):g}", str(base.sparse.batch)],
        ["SNN after conversion", str(base.finetune.epochs), f"{rates.get('convert', 0):g}", str(base.finetune.batch)],
        [
            "SNN end to end, equal SNN epochs",
            str(base.finetune.epochs),
            f"{rates.get('end-to-end', 0):g}",
            str(base.finetune.batch),
        ],
        [
            "SNN end to end, equal total work",
            str(plan.equal_work(base)),
            f"{rates.get('end-to-end', 0):g}",
            str(base.finetune.batch),
        ],
    ]
    grid = [["learning rate of", "tried on", "validation accuracy under attack"]]
    ends = [name for name, choice in choices.items() if choice["chosen"] in _ends(choice["tried"])]
    border = f" The best value stands at an end of its grid: {', '.join(ends)}." if ends else ""
    for choice in choices.values():
        tried = ", ".join(f"{value}: {100 * found['accuracy']:.1f} %" for value, found in choice["tried"].items())
        grid.append([f"`{choice['key']}`", f"{choice['arm']}, seed {choice['seed']}", tried])
    return f"""## Settings

{_markdown(rows)}

TRADES with {base.loss.steps} PGD steps and weight {base.loss.weight:g}; the spiking networks with RFGSM. Equal total work counts passes: 7 + 2 * {base.loss.steps} an image
and epoch of the ANN, 9 T of the SNN. Everything else as in `tests/study/fashion.toml`, whose silence means the published setting.
PGD has 10 steps, search 10 and 50 trials. Learning rates come from these grids, on {plan.N_CHOICE} validation images under PGD at {plan.EPS[-1] * 255:g}/255.{border}

{_markdown(grid)}"""


def _ends(tried: dict[str, Any]) -> tuple[float, float]:
    return min(map(float, tried)), max(map(float, tried))


def _every_seed(arms: Sequence[plan.Arm], seeds: dict[int, dict[str, Any]]) -> str:
    measures = {key: words for key, words in columns().items() if _known(seeds, key)}
    rows = [["", "seed", *measures.values()]]
    for arm in arms:
        for seed, found in seeds.items():
            if arm.name in found:
                rows.append([arm.about, str(seed), *(_interval(found[arm.name].get(key)) for key in measures)])
    return f"""## Every seed

Accuracy in percent with its 95 % Wilson interval over test images.

{_markdown(rows)}"""


def _cost(arms: Sequence[plan.Arm], out: Path, seeds: Sequence[int]) -> str:
    seconds = _seconds(out)
    rows = [["processor minutes", "training, own stages", "evaluation"]]
    for arm in arms:
        own, evaluation = [], []
        for seed in seeds:
            spent = seconds.get(f"seed-{seed}", {})
            parts = {key: value for key, value in spent.items() if key.split("/")[0] == arm.name}
            evaluation.append(seconds.get(f"evaluate-{seed}", {}).get(arm.name, 0.0) / 60)
            own.append(sum(parts.values()) / 60)
        rows.append([arm.about, " + ".join(f"{x:.1f}" for x in own), " + ".join(f"{x:.1f}" for x in evaluation)])
    grids = sum(value for part, spent in seconds.items() if part.startswith("grid-") for value in spent.values()) / 3600
    total = sum(value for spent in seconds.values() for value in spent.values()) / 3600
    return f"""## Hours spent

{_markdown(rows)}

One number a seed. Stages that arms share (the dense ANN of a seed, all of `hydra-90` up to its sparse ANN on seed {plan.CHOICE_SEED}) are counted
where they were trained first. The grids took {grids:.2f} processor hours, everything together {total:.2f}: time of one thread, counted, on a
machine that did other work as well."""


def _limits(base: Recipe) -> str:
    return f"""## What this does not show

The network is a hundredth of the paper's and the data set is easier; {base.train.epochs} epochs stand where the paper has 100. Three seeds bound an
effect only loosely (Student's factor is 4.3). {plan.N_PGD} images bound a single robust accuracy to about ±5 points; differences are taken on the
same images. Robust accuracy above the dense network's is real, or a weakness that neither 19 gradients nor search find: Square, which needs
no gradient, stands in the table for that. End-to-end training gets as many epochs as the conversion's SNN, or as many passes as all of its stages; the paper gave it up
to 350 epochs. APGD is not part of this study."""


def _savings(arm: str, seeds: dict[int, dict[str, Any]]) -> list[float]:
    return [
        found["dense"]["activity"]["additions"] / found[arm]["activity"]["additions"]
        for found in seeds.values()
        if "activity" in found.get("dense", {}) and "activity" in found.get(arm, {})
    ]


def _known(seeds: dict[int, dict[str, Any]], key: str) -> bool:
    return any(key in one for found in seeds.values() for one in found.values())


def _spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    if not values:
        return ""
    mean = form.format(statistics.fmean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def _interval(found: Any) -> str:
    if found is None:
        return ""
    low, high = wilson(found["n_right"], found["n"])
    return f"{100 * found['accuracy']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    head, *rest = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rest])


def _seconds(out: Path) -> dict[str, dict[str, float]]:
    """Return the processor seconds of each folder directly in `out`, by part."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted(out.glob("**/seconds.json")):
        parts = found.setdefault(path.relative_to(out).parts[0], {})
        for part, spent in json.loads(path.read_text(encoding="utf-8")).items():
            parts[part] = parts.get(part, 0.0) + spent
    return found


def _json(base: Recipe, seeds: Any, verdicts: Sequence[claims.Verdict], choices: Any, seconds: Any) -> dict[str, Any]:
    """Return every figure, without which image was which."""
    recipe = base.to_dict()
    del recipe["data"]["source"]
    slim = {
        seed: {
            arm: {
                key: {k: v for k, v in one.items() if k != "right"} if isinstance(one, dict) else one
                for key, one in figures.items()
            }
            for arm, figures in found.items()
        }
        for seed, found in seeds.items()
    }
    judged = [
        {"says": one.claim.says, "paper": one.claim.paper, "unit": one.claim.unit, "asks": one.claim.test()}
        | {key: value for key, value in dataclasses.asdict(one).items() if key != "claim"}
        for one in verdicts
    ]
    return {"recipe": recipe, "choices": choices, "claims": judged, "seeds": slim, "seconds": seconds}


def _draw(arms: Sequence[plan.Arm], seeds: dict[int, dict[str, Any]], path: Path) -> None:
    """`path` is a plot: each arm's accuracies, a small dot a seed and a large one their mean, and its energy."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 9})
    figure, (left, right) = plt.subplots(
        1, 2, sharey=True, figsize=(10, 0.42 * len(arms) + 1.4), width_ratios=(2.4, 1), layout="constrained"
    )
    places = {arm.name: -number for number, arm in enumerate(arms)}
    for (key, words), colour in zip(columns().items(), COLOURS, strict=True):
        shown = False
        for arm in arms:
            values = [
                100 * found[arm.name][key]["accuracy"] for found in seeds.values() if key in found.get(arm.name, {})
            ]
            if values:
                left.plot(values, [places[arm.name]] * len(values), ".", color=colour, alpha=0.5, markersize=5)
                label = None if shown else words
                left.plot(statistics.fmean(values), places[arm.name], "o", color=colour, markersize=7, label=label)
                shown = True
    for arm in arms:
        values = _savings(arm.name, seeds)
        right.plot(values, [places[arm.name]] * len(values), ".", color="#1e7d4f", alpha=0.5, markersize=5)
        if values:
            right.plot(statistics.fmean(values), places[arm.name], "o", color="#1e7d4f", markersize=7)
    left.set_yticks(list(places.values()), [arm.about for arm in arms])
    left.set_xlabel("test accuracy, %")
    left.set_xlim(0, 100)
    left.grid(axis="x", alpha=0.3)
    if arms:
        left.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=3, frameon=False)
    right.set_xscale("log")
    right.set_xlabel("additions of the dense network / this one's")
    right.grid(axis="x", alpha=0.3, which="both")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    path.write_text(
        "".join(f"{line.rstrip()}\n" for line in path.read_text(encoding="utf-8").splitlines()), encoding="utf-8"
    )
