"""The sections of a recipe: every key with its default, its range and a line that documents it."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

STAGES = ("train", "prune", "sparse", "convert", "finetune")
END_TO_END = ("prune", "finetune")
HEAL = "heal"
"""The stage beside those of a recipe, after which a network is good as integers: see `toolchain.heal`."""
PAPER = "paper"
"""The budget that leaves a recipe file's keys as they stand."""

_N_PARAMETERS = {
    "piecewise-linear": 1,
    "exponential": 2,
    "rectangular": 1,
    "straight-through": 0,
    "bptr": 0,
    "rate-gradient": 0,
}


def _key(default: Any, doc: str, *, low: float | None = None, high: float | None = None) -> Any:
    """A documented dataclass field whose numbers must lie in [low, high]."""
    return field(default=default, metadata={"doc": doc, "low": low, "high": high})


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Section [data]."""

    source: str = _key(
        "digits",
        "`digits`, `fashion-mnist`, `cifar10`, `cifar100`, `tinyimagenet`, or the path of an .npz with x_train, y_train, x_test, "
        "y_test, or of a folder with train/CLASS/ and test/CLASS/",
    )
    folder: str = _key("data", "where the published data sets lie, as torchvision or their archive unpacks them")
    layout: Literal["auto", "NCHW", "NHWC"] = _key("auto", "order of the axes of an .npz's four-dimensional images")
    size: int = _key(0, "side to which a folder's images are scaled; 0: they are of one size", low=0, high=1024)
    average: int = _key(1, "n x n pixels become one, their rounded mean", low=1, high=16)
    validation: float = _key(0.15, "share of the training images set aside for validation", low=0.01, high=0.9)
    train_images: int = _key(0, "only so many of the remaining training images are used, the first; 0: all", low=0)
    extra: str = _key(
        "", "an .npz with more x_train and y_train, such as pseudo-labelled images; none of it is validation"
    )
    augmentation: Literal["none", "crop-flip", "random-resized-crop"] = _key(
        "none", "of training images: moved by up to an eighth and mirrored, or a random box scaled up and mirrored"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Section [model]."""

    architecture: Literal["cnn", "vgg11", "vgg11-gap", "vgg16", "wrn"] = _key(
        "cnn",
        "`vgg11-gap` ends in a global average (for 64x64 images), `wrn` is a wide ResNet; only `cnn` takes `layers`, `hidden`, `kernel`",
    )
    width: int = _key(
        64, "channels of the first convolution (vgg) or group of blocks (wrn: 16 k); later ones follow", low=1
    )
    depth: int = _key(28, "layers of a wrn: 6 n + 4", low=10)
    layers: tuple[int | str, ...] = _key(
        (32, "A", 64, "A"), 'channels of each convolution of a cnn; "A" is a 2x2 average pool'
    )
    hidden: tuple[int, ...] = _key((), "widths of a cnn's hidden linear layers before the last one", low=1)
    kernel: int = _key(3, "width of a cnn's kernels; odd, padded to keep the map's size", low=1, high=15)
    precision: Literal["auto", "float32", "bfloat16"] = _key(
        "auto",
        "what convolutions and linear layers multiply in; `auto`: bfloat16 on GPUs that have it; membranes are float32",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """Section [loss]: of every training stage."""

    objective: Literal["trades", "mart", "adversarial", "natural"] = _key(
        "trades", "`adversarial` is cross entropy on attacked images, `natural` on the images themselves"
    )
    weight: float = _key(
        2.0, "weight of the KL term of `trades` (lambda of the ANN, beta of the SNN) and `mart`", low=0
    )
    kl: Literal["clean", "adversarial"] = _key("clean", "the KL's first argument: KL(p(x) || p(x~)) is `clean`")
    eps: float = _key(2 / 255, "radius of the training attack, in pixels of [0, 1]", low=0, high=1)
    steps: int = _key(10, "PGD steps of the ANN's training attack", low=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Section [train]: the dense ANN: SGD with momentum 0.9 and a cosine schedule."""

    epochs: int = _key(100, "passes over the training images", low=0)
    lr: float = _key(0.1, "learning rate at the start", low=0)
    weight_decay: float = _key(1e-4, "L2 penalty", low=0)
    batch: int = _key(128, "images a step", low=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSettings:
    """Section [prune]: the mask."""

    method: Literal["hydra", "harp", "lwm", "random", "file", "none"] = _key(
        "hydra",
        "scores learned for a share of each layer (`hydra`), for shares learned too (`harp`), each layer's greatest "
        "weights (`lwm`), a `random` mask, the mask of a `file`, or no mask",
    )
    mask: str = _key("", "`file`: an .npz of boolean arrays by weight, a model.pt, or a pruned state dict")
    sparsity: float = _key(
        0.9, "share of the weights that are pruned: of each layer, or with `harp` of all", low=0, high=0.9999
    )
    epochs: int = _key(20, "passes over the training images (hydra, harp)", low=0)
    lr: float = _key(0.1, "learning rate at the start", low=0)
    weight_decay: float = _key(1e-4, "L2 penalty", low=0)
    batch: int = _key(128, "images a step", low=2)
    pressure: float = _key(
        1.0, "`harp`: its penalty starts at this times the share to keep: 0.01 at 99 %, as published", low=0
    )
    settle: bool = _key(
        True,
        "`harp`: after the last epoch the shares are scaled, all by one factor, to keep just what was asked for",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseSettings:
    """Section [sparse]: the ANN finetuned under its mask."""

    epochs: int = _key(30, "passes over the training images", low=0)
    lr: float = _key(0.01, "learning rate at the start", low=0)
    weight_decay: float = _key(1e-4, "L2 penalty", low=0)
    batch: int = _key(128, "images a step", low=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """Section [convert]: the calibration of thresholds."""

    timesteps: int = _key(100, "steps an image while calibrating", low=1)
    batches: int = _key(10, "training batches looked at", low=1)
    batch: int = _key(64, "images a batch", low=2)
    percentile: float = _key(99.7, "percentile of a layer's input that becomes its threshold", low=1, high=100)
    scale: float = _key(0.3, "factor on all thresholds afterwards", low=0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSettings:
    """Section [finetune]: the sparse SNN, attacked by RFGSM."""

    epochs: int = _key(80, "passes over the training images", low=0)
    lr: float = _key(0.001, "learning rate at the start", low=0)
    weight_decay: float = _key(1e-4, "L2 penalty", low=0)
    batch: int = _key(64, "images a step", low=2)
    surrogate: str = _key("piecewise-linear(1)", "gradient of a spike: " + ", ".join(_N_PARAMETERS))


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackSettings:
    """Section [attack]: of the evaluation."""

    eps: float = _key(8 / 255, "radius, in pixels of [0, 1]", low=0, high=1)
    steps: int = _key(10, "PGD steps, of size 2.5 * eps / steps", low=1)
    validation: int = _key(0, "validation images that are attacked after each stage, the first ones; 0: all", low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything a run depends on. Two runs of equal recipes on equal data give equal models."""

    name: str = _key("model", "name of the model")
    budget: str = _key(
        PAPER, "the table of `[budgets]`, such as `[budgets.minutes]`, whose keys replace the file's; `paper`: none"
    )
    method: Literal["convert", "end-to-end"] = _key(
        "convert", "an ANN is trained and converted, or the spiking network is trained from random weights"
    )
    seed: int = _key(0, "seed of everything random but the data split, which is fixed", low=0, high=2**31)
    timesteps: int = _key(8, "steps an image in the spiking network", low=1, high=1024)
    threads: int = _key(2, "CPU threads; part of the recipe because it orders floating point sums", low=1, high=256)
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = LossSettings()
    train: TrainSettings = TrainSettings()
    prune: PruneSettings = PruneSettings()
    sparse: SparseSettings = SparseSettings()
    convert: ConvertSettings = ConvertSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    attack: AttackSettings = AttackSettings()

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of a run, in order."""
        return STAGES if self.method == "convert" else END_TO_END

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain types that JSON can hold; `from_dict` is its inverse."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain


def parse_surrogate(text: str) -> tuple[str, tuple[float, ...]]:
    """Kind and parameters of a surrogate such as `exponential(0.3, 2)`. Raises ValueError with a sentence."""
    match = re.fullmatch(r"\s*([a-z-]+)\s*(?:\(([^()]*)\))?\s*", text)
    if match is None or match[1] not in _N_PARAMETERS:
        raise ValueError(f"expected one of {', '.join(_N_PARAMETERS)}, got {text!r}")
    kind, wanted = match[1], _N_PARAMETERS[match[1]]
    try:
        numbers = tuple(float(part) for part in (match[2] or "").split(",") if part.strip())
    except ValueError:
        numbers = ()
    if len(numbers) != wanted or any(not 0 < number < float("inf") for number in numbers):
        raise ValueError(f"expected {wanted} positive numbers after {kind}, got {text!r}")
    return kind, numbers


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case tuple():
            return [_plain(item) for item in value]
        case _:
            return value


def contradictions(recipe: Recipe) -> Iterator[str]:
    """Faults that take more than one look at one value."""
    yield from _model_contradictions(recipe.model)
    if (recipe.prune.method == "file") != bool(recipe.prune.mask):
        yield 'prune.mask: expected a path with prune.method = "file", and none without'
    if recipe.method == "end-to-end" and recipe.prune.method in {"hydra", "harp", "lwm"}:
        yield f'prune.method: "{recipe.prune.method}" needs a trained network; end to end, use random, file or none'
    try:
        parse_surrogate(recipe.finetune.surrogate)
    except ValueError as error:
        yield f"finetune.surrogate: {error}"


def _model_contradictions(model: ModelSettings) -> Iterator[str]:
    if model.architecture != "cnn":
        for key in ("layers", "hidden", "kernel"):
            if getattr(model, key) != getattr(ModelSettings(), key):
                yield f'model.{key}: only for model.architecture = "cnn", here "{model.architecture}"; leave it out'
    if model.depth % 6 != 4:
        yield f"model.depth: expected 6 n + 4, such as 16 or 28, got {model.depth}"
    layers = model.layers
    for item in layers:
        if item != "A" and (not isinstance(item, int) or item < 1):
            yield f'model.layers: expected positive channels or "A", got {item!r}'
    if not layers or layers[0] == "A":
        yield "model.layers: expected a convolution's channels first"
    if any(one == other == "A" for one, other in itertools.pairwise(layers)):
        yield "model.layers: two pools follow each other; put a convolution between them"
    if model.kernel % 2 == 0:
        yield f"model.kernel: expected an odd number, got {model.kernel}"
