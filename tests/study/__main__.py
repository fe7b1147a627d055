"""Trains and evaluates the study and writes docs/results.md: `make results DATA=fashion_mnist.npz`.

It goes on where it was, after whatever stopped it, and the page shows what there is. Several processes may share a folder: one
trains the first seed, which chooses the learning rates, while others begin other seeds with `--only ahead`.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import click
from study import page, plan, work

from toolchain import heap
from toolchain import recipe as recipes

ROOT = Path(__file__).parents[2]


@click.command()
@click.argument("source", metavar="DATA", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=ROOT / "runs" / "results", help="Folder of the runs.")
@click.option(
    "--seeds",
    default=",".join(map(str, plan.SEEDS)),
    show_default=True,
    help="With commas between; several processes may share a folder.",
)
@click.option(
    "--only",
    type=click.Choice(["ahead", *(f"choose-{grid.name}" for grid in plan.GRIDS), "train", "evaluate", "page"]),
    help="One of the parts; all by default.",
)
@click.option("--arms", default="", help="Only those whose name begins so; all by default.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of fashion.toml.")
@click.option("--images", type=int, default=plan.N_TRAIN, show_default=True, help="Training images, the first ones.")
def main(
    source: Path, out: Path, seeds: str, only: str | None, arms: str, overrides: tuple[str, ...], images: int
) -> None:
    """Train on DATA, an .npz of Fashion-MNIST, evaluate, and write the page."""
    heap.keep_freed()  # as every command does
    if not importlib.util.find_spec("matplotlib"):
        raise click.ClickException("the plot needs matplotlib: install the extra `bench`")
    out = out.resolve()
    base = recipes.load(plan.RECIPE, overrides=overrides)
    plan.prepare(source, out, images)
    wanted = [int(seed) for seed in seeds.split(",")]
    if only == "ahead":
        work.ahead(base, out, wanted, click.echo)
    for grid in plan.GRIDS:
        if only == f"choose-{grid.name}":
            work.choose(base, grid, out, click.echo)
    if only in {None, "train"}:
        work.train(base, out, wanted, click.echo, arms.split(","))
    if only in {None, "evaluate"}:
        for _ in work.evaluate(base, out, wanted, click.echo):
            page.write(base, out)
    page.write(base, out)


if __name__ == "__main__":
    main()
