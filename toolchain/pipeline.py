"""The main path, from a recipe to a model: train, prune, sparse, convert, finetune, or what of these the recipe's method takes.

Each stage starts from the file the stage before it left, and leaves its own; a run that is killed goes on from its last
epoch and ends bit for bit as one that was not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolchain import recipe as recipes
from toolchain import store
from toolchain.errors import ConfigError, FormatError
from toolchain.recipe import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from toolchain.data import Data, Split
    from toolchain.nets import Net
    from toolchain.prune import Mask
    from toolchain.recipe import Recipe
    from toolchain.store import Model
    from toolchain.train import AfterEpoch, Epoch

RESUME = "resume.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened in a run: an epoch of a stage ended, with its loss, or the stage itself, with its metrics."""

    stage: str
    epoch: int
    n_epochs: int
    loss: float | None = None
    metrics: Mapping[str, Any] | None = None


def run(
    recipe: Recipe,
    out: Path,
    *,
    until: str | None = None,
    reuse: Sequence[Path] = (),
    progress: Callable[[Event], None] | None = None,
) -> dict[str, Any]:
    """`out` holds `model.pt`, or the file of the stage `until`; the stages already there are not repeated.

    reuse: folders of other runs, from which each stage is taken whose recipe asks for the same up to there.
    Returns: the model's path, hash, sparsity and metrics of every stage, JSON-able.
    Raises: ConfigError where `out` holds another recipe's run or the data changed; FormatError.
    """
    from toolchain import ranks

    with ranks.joined():
        return _run(recipe, out, until=until, reuse=reuse, show=progress or printer())


def _run(
    recipe: Recipe, out: Path, *, until: str | None, reuse: Sequence[Path], show: Callable[[Event], None]
) -> dict[str, Any]:
    from toolchain import data, ranks

    stages = recipe.stages
    if until is not None and until not in stages:
        raise ConfigError(where="--until", faults=(f"expected one of {', '.join(stages)}, got {until!r}",))
    if ranks.rank() == 0:
        _claim(out, recipe)
    loaded = data.load(recipe.data.source, recipe.data)
    store.require_space(out, _n_bytes(recipe, loaded, missing=[s for s in stages if not _file(out, s).exists()]))
    last = until or stages[-1]
    model: Model | None = None
    with _threads(recipe.threads):
        for stage in stages[: stages.index(last) + 1]:
            path = _file(out, stage)
            ranks.wait()
            if not path.exists():
                same = _same(stage, recipe, reuse)
                made = same or _do(stage, model, data=loaded, recipe=recipe, out=out, show=show)
                ranks.wait()
                if ranks.rank() == 0:
                    store.save(made, path)
                    (out / RESUME).unlink(missing_ok=True)
            ranks.wait()
            model = store.load(path)
            if changed := recipes.differences(model.recipe, recipe):
                fault = f"made by another recipe, which differs in {', '.join(changed)}; use another --out"
                raise ConfigError(where=str(path), faults=(fault,))
            if model.data_sha256 != loaded.sha256:
                fault = f"made from other data than {loaded.source} holds now; use another --out"
                raise ConfigError(where=str(path), faults=(fault,))
    assert model is not None
    return {
        "model": str(_file(out, last)),
        "stage": last,
        "sha256": store.sha256(_file(out, last)),
        "sparsity": model.sparsity,
        "layer_sparsity": model.layer_sparsity,
        "n_weights": model.n_weights,
        "n_nonzero_weights": model.n_nonzero_weights,
        "metrics": dict(model.metrics),
    }


def printer() -> Callable[[Event], None]:
    """What shows events on stderr: one line that is rewritten on a terminal, else a line every few seconds."""
    from toolchain import ranks

    terminal = sys.stderr.isatty()
    shown = 0.0
    began, first = time.monotonic(), -1  # of the stage under way: when it was gone on with, and after which epoch

    def show(event: Event) -> None:
        nonlocal shown, began, first
        if ranks.rank() > 0:
            return
        now = time.monotonic()
        if event.metrics is not None:
            start = "\r\033[K" if terminal else ""
            sys.stderr.write(f"{start}{event.stage}: {_summary(event.metrics)}\n")
            began, first = now, -1
        else:
            first = event.epoch - 1 if first < 0 else first
            if terminal or now - shown > 10:
                shown = now
                left = (now - began) / (event.epoch - first) * (event.n_epochs - event.epoch)
                line = f"{event.stage}: epoch {event.epoch} of {event.n_epochs}, loss {event.loss:.3f}, {_duration(left)} left"
                sys.stderr.write(f"\r\033[K{line}" if terminal else f"{line}\n")
        sys.stderr.flush()

    return show


def _duration(seconds: float) -> str:
    """Whole hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _summary(metrics: Mapping[str, Any]) -> str:
    validation = metrics["validation"]
    dead = ", ".join(f"{name} {n}" for name, n in metrics["dead_channels"].items())
    return (
        f"validation accuracy {validation['none']['accuracy']:.1%} clean, {validation['pgd-ens']['accuracy']:.1%} under PGD; "
        f"sparsity {metrics['sparsity']:.2%}; silent channels: {dead}"
    )


def _n_bytes(recipe: Recipe, data: Data, *, missing: Sequence[str]) -> int:
    """About what the missing stages need on the disk: their models, and one stage's state to resume from, old and new.

    A state holds weights and momenta, and of a network that learns scores the scores besides.
    Raises: ConfigError where the images do not fit the network; FormatError where a given mask does not.
    """
    import torch

    from toolchain import nets, prune

    with torch.device("meta"):
        net = nets.build(recipe.model, data.shape, data.n_classes)
    if "prune" in missing and recipe.prune.method == "file":
        prune.given(net, recipe.prune.mask)  # a mask that does not fit is not left to be found after hours
    models = most = 0.0
    for stage in missing:
        learns_scores = stage == "prune" and recipe.prune.method in {"hydra", "harp"}
        most = max(most, models + 2 * (3 if learns_scores else 2))
        masked = stage != "train" and recipe.prune.method != "none"
        models += 1 - recipe.prune.sparsity + 1 / 32 if masked else 1  # a bit of mask for each weight
    return math.ceil(most * sum(4 * parameter.numel() for parameter in net.parameters()))


def _file(out: Path, stage: str) -> Path:
    return out / ("model.pt" if stage == STAGES[-1] else f"{stage}.pt")


def _claim(out: Path, recipe: Recipe) -> None:
    """`out` is this recipe's, and free of what a killed run was writing."""
    path = out / "recipe.json"
    if path.exists():
        try:
            there = recipes.from_dict(json.loads(store.read_bytes(path)), where=str(path))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FormatError(path=str(path), reason=f"not JSON: {error}") from None
        if changed := recipes.differences(there, recipe):
            fault = f"holds a run of another recipe, which differs in {', '.join(changed)}"
            raise ConfigError(where=str(out), faults=(f"{fault}; use another --out, or delete it to start again",))
    else:
        store.write_text(path, json.dumps(recipe.to_dict(), indent=2) + "\n")
    for leftover in out.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def _same(stage: str, recipe: Recipe, folders: Sequence[Path]) -> Model | None:
    """The model another run made in a stage, if no key that matters up to there differs from the recipe's."""
    later = {*recipe.stages[recipe.stages.index(stage) + 1 :], "name"}
    for path in (_file(folder, stage) for folder in folders):
        if path.exists():
            model = store.load(path)
            if {key.partition(".")[0] for key in recipes.differences(model.recipe, recipe)} <= later:
                return dataclasses.replace(model, recipe=recipe)
    return None


@contextmanager
def _threads(n: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _do(
    stage: str, before: Model | None, *, data: Data, recipe: Recipe, out: Path, show: Callable[[Event], None]
) -> Model:
    """The model after a stage, resumed from its last finished epoch where there is one."""
    from toolchain import nets, ranks, train

    if before is None:
        generator = train.stream(recipe.seed, "initial weights")
        net = nets.build(recipe.model, data.shape, data.n_classes, mean=data.mean, std=data.std, generator=generator)
        mask: Mask = {}
    else:
        net, mask = nets.restore(before), dict(before.mask)
    net = net.to(ranks.device())
    mask = {name: kept.to(ranks.device()) for name, kept in mask.items()}

    def after(epoch: Epoch) -> None:
        table = {
            "stage": stage,
            "epoch": {field.name: getattr(epoch, field.name) for field in dataclasses.fields(epoch)},
        }
        if ranks.rank() == 0:
            store.write_bytes(out / RESUME, store.dump(table))
        show(Event(stage=stage, epoch=epoch.number, n_epochs=epoch.total, loss=epoch.loss))

    started = time.monotonic()
    mask = _apply(stage, net, mask, data.train, recipe, start=_resumed(out, stage), after=after)
    model = store.Model(
        recipe=recipe,
        stage=stage,
        state={name: tensor.detach().cpu() for name, tensor in net.body.state_dict().items()},
        mask={name: kept.cpu() for name, kept in mask.items()},
        timesteps=recipe.timesteps,
        input_shape=data.shape,
        mean=data.mean,
        std=data.std,
        n_classes=data.n_classes,
        data_source=data.source,
        data_sha256=data.sha256,
        metrics={},
    )
    metrics = measure(net, model, data.validation)
    show(Event(stage=stage, epoch=0, n_epochs=0, metrics=metrics | {"seconds": time.monotonic() - started}))
    earlier = before.metrics if before else {}
    return dataclasses.replace(model, metrics={**earlier, stage: metrics})


def _apply(
    stage: str, net: Net, mask: Mask, split: Split, recipe: Recipe, *, start: Epoch | None, after: AfterEpoch
) -> Mask:
    """`net` has gone through a stage; its mask is returned."""
    from toolchain import convert, finetune, prune, train

    match stage:
        case "train":
            train.train(net, split, recipe, start=start, after=after)
        case "prune":
            return prune.prune(net, split, recipe, start=start, after=after)
        case "sparse":
            finetune.finetune_ann(net, mask, split, recipe, start=start, after=after)
        case "convert":
            convert.convert(net, split, recipe)
        case "finetune":
            finetune.finetune_snn(net, mask, split, recipe, start=start, after=after)
    return mask


def _resumed(out: Path, stage: str) -> Epoch | None:
    """The last finished epoch of a stage, or None where it has not begun."""
    from toolchain.train import Epoch

    path = out / RESUME
    if not path.exists():
        return None
    table = store.read(path)
    try:
        return Epoch(**table["epoch"]) if table["stage"] == stage else None
    except (KeyError, TypeError):
        reason = "not a run to resume; delete it to repeat the stage"
        raise FormatError(path=str(path), reason=reason) from None


def measure(net: Net, model: Model, validation: Split) -> dict[str, Any]:
    """Sparsity, accuracy on the validation images, and how many channels of each layer never become active on them."""
    from toolchain import attacks, evaluate

    recipe = model.recipe
    members = attacks.STRONGEST if model.mode == "snn" else attacks.TRUE_GRADIENT
    settings: dict[str, Any] = {"eps": recipe.attack.eps, "steps": recipe.attack.steps, "seed": recipe.seed}
    some = validation.first(recipe.attack.validation or len(validation))
    outcomes = {
        "none": evaluate.attacked(net, validation, "none", **settings).to_dict(),
        "pgd-ens": evaluate.attacked(net, some, "pgd-ens", members=members, **settings).to_dict(),
    }
    return {
        "sparsity": model.sparsity,
        "layer_sparsity": model.layer_sparsity,
        "validation": outcomes,
        "dead_channels": dead_channels(net, validation),
        "thresholds": {name: float(t) for name, t in model.state.items() if name.endswith(".v_th")},
    }


def dead_channels(net: Net, split: Split) -> dict[str, int]:
    """How many channels of each layer of neurons are never active on a split, by the layer's name."""
    import torch

    from toolchain.spiking import IF
    from toolchain.train import pixels

    found: dict[str, int] = {}
    layers = {name: layer for name, layer in net.body.named_modules() if isinstance(layer, IF)}

    def watch(name: str) -> Callable[..., None]:
        def hook(_layer: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            active = output.transpose(0, 1).flatten(1).amax(dim=1) > 0
            found[name] = int((~active).sum())

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            net(pixels(split.images).to(next(net.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return found
