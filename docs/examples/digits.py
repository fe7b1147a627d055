"""Trains a robust sparse spiking network on digits, deploys it, proves it on Lava, and plots what an attacker leaves right.

    python docs/examples/digits.py build/example                     # minutes
    python docs/examples/digits.py build/example train.epochs=2      # overrides of the recipe, as of `rsnn-deploy run --set`

Needs Python 3.10 with Lava for the proof; without, the plot and the export are made all the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

import toolchain
from toolchain import evaluate


def main(out: Path, overrides: list[str]) -> None:
    """`out` holds the run, the exported folder and robustness.svg."""
    recipe = toolchain.load_recipe("digits-cnn", overrides)
    model = Path(toolchain.run(recipe, out / "run")["model"])

    settings = toolchain.Settings(profile="loihi2", samples=20)
    report = toolchain.export_model(model, settings, out / "deployed", log=print)
    right = report["accuracy"]["deployed"]["accuracy"]
    print(f"{right:.1%} of the test images are right on {report['mapping']['n_cores']} cores")
    for layer in report["activity"]["layers"]:
        print(f"{layer['name']}: {layer['rate']:.1%} of its neurons spike in a step")

    eps = tuple(k / 255 for k in (8, 16, 32, 64))
    outcome = evaluate.evaluate(model, attack=("fgsm-ens",), eps=eps, samples=100, checks=False)
    (out / "robustness.svg").write_text(evaluate.plot(outcome), encoding="utf-8")
    print(f"{out / 'robustness.svg'}: accuracy against the radius of 19 gradients")

    try:
        verdict = toolchain.verify(out / "deployed")
    except toolchain.ToolchainError as error:
        print(f"not proven: {error}")
        return
    print(f"identical to Lava in {verdict['samples']} samples" if verdict["passed"] else verdict["reason"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
