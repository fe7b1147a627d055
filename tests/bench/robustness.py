"""Compares the shipped robust model with the plainly trained one, on the same test images under the same attacks.

python tests/bench/robustness.py [--steps 10] [--attack pgd-ens]
"""

from __future__ import annotations

import click

from toolchain import evaluate, resources, store


def outcome(name: str, attack: str, eps: float, steps: int) -> evaluate.Outcome:
    """Return which test images a shipped model gets right."""
    model = store.load(resources.model_path(name))
    return evaluate.measure(resources.model_path(name), attack, eps=eps, steps=steps, seed=model.recipe.seed)


@click.command()
@click.option("--steps", type=int, default=10, show_default=True, help="Steps of PGD.")
@click.option("--attack", "attacks", multiple=True, default=("none", *evaluate.DEFAULT), show_default=True)
def main(steps: int, attacks: tuple[str, ...]) -> None:
    """Print accuracy with its interval, and the paired difference, under each attack."""
    eps = store.load(resources.model_path("digits-cnn.pt")).recipe.attack.eps
    for attack in attacks:
        robust, plain = (outcome(name, attack, eps, steps) for name in ("digits-cnn.pt", "digits-cnn-plain.pt"))
        paired = evaluate.compare(robust.right, plain.right)
        shares = [evaluate.accuracy(found.right) for found in (robust, plain)]
        texts = [
            f"{share['accuracy']:.1%} ({share['interval95'][0]:.1%} to {share['interval95'][1]:.1%})"
            for share in shares
        ]
        low, high = paired["interval95"]
        click.echo(
            f"{attack:12} robust {texts[0]}, plain {texts[1]}, difference {paired['difference']:+.1%} ({low:+.1%} to {high:+.1%})"
        )


if __name__ == "__main__":
    main()
