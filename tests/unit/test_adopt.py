"""A module of torch becomes a network of ours that computes the same, or is refused by the name of what it cannot have."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foreign import IFNode, Leaky, LIFNode, reset
from torch import nn
from torch.nn.utils import prune

from toolchain import emulate, quantize, spiking
from toolchain.adopt import COUNTS, adopt
from toolchain.errors import ConfigError, UnsupportedError
from toolchain.quantize import Limits
from toolchain.spiking import IF

SHAPE = (2, 8, 8)
T = 5


class Features(nn.Module):
    """A convolution that is normalised, spikes and is pooled."""

    def __init__(self, neurons) -> None:
        super().__init__()
        self.conv, self.norm, self.neurons = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), neurons
        self.pool = nn.AvgPool2d(2)

    def forward(self, x):
        return self.pool(self.neurons(self.norm(self.conv(x))))


class Model(nn.Module):
    """A module in modules, with its flatten in the forward."""

    def __init__(self, make=lambda: IF(v_th=0.4)) -> None:
        super().__init__()
        self.features = Features(make())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Linear(64, 9), make(), nn.Linear(9, 3))

    def forward(self, x):
        x = self.features(x)
        return self.head(self.drop(x.view(x.size(0), -1)))


def model(make=lambda: IF(v_th=0.4), seed=0):
    torch.manual_seed(seed)
    made = Model(make)
    norm = made.features.norm
    with torch.no_grad():
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.1, 0.3)
    spiking.configure(made, mode="snn", timesteps=T)
    return made.eval()


def images(n=12, shape=SHAPE):
    return np.random.default_rng(1).integers(0, 256, (n, *shape), dtype=np.uint8)


def stepwise(module, x, steps=T):
    """The mean over steps of what a module of another library gives, fed the image at each step."""
    reset(module)
    with torch.no_grad():
        return sum(module(torch.from_numpy(x) / 255) for _ in range(steps)) / steps


def ours(adopted, x):
    with torch.no_grad():
        return adopted.net(torch.from_numpy(x) / 255)


def test_layers_stand_in_the_order_they_run_under_their_dotted_paths():
    net = adopt(model(), SHAPE).net
    names = ["features.conv", "features.norm", "features.neurons", "features.pool", "view", "drop", "head.0", "head.1"]
    assert [name for name, _ in net.body.named_children()] == [*names, "head.2"]
    assert (net.mode, net.timesteps) == ("snn", T)


def test_our_own_neurons_compute_what_the_module_computes():
    module, x = model(), images()
    with torch.no_grad():
        expected = module((torch.from_numpy(x) / 255).repeat(T, 1, 1, 1)).reshape(T, len(x), 3).mean(dim=0)
    assert torch.allclose(ours(adopt(module, SHAPE), x), expected, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [lambda: IFNode(0.5), lambda: IFNode(v_threshold=0.25), lambda: Leaky(1.0, 0.5, "zero")],
    ids=["IFNode", "IFNode low", "Leaky"],
)
def test_neurons_of_other_libraries_compute_what_they_do_step_by_step(make):
    module, x = model(make), images()
    adopted = adopt(module, SHAPE, timesteps=T)
    assert torch.allclose(ours(adopted, x), stepwise(module, x), atol=1e-6)


@pytest.mark.parametrize("neurons", [IFNode(step_mode="m"), Leaky(1.0, 1.0, "zero", init_hidden=False)])
def test_the_mode_that_another_library_steps_in_does_not_matter(neurons):
    net = adopt(flat(neurons, nn.Linear(4, 3)), SHAPE, timesteps=T).net
    assert isinstance(net.body[2], IF)


def test_the_module_given_is_left_as_it_was():
    module = model().train()
    before, state = copy.deepcopy(module.state_dict()), torch.random.get_rng_state()
    adopted = adopt(module, SHAPE)
    with torch.no_grad():
        adopted.net.body[0].weight.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(layer.training for layer in module.modules())
    assert not module.features.neurons.constant


def test_what_torch_prunes_is_masked_even_where_a_kept_weight_is_zero():
    module = model()
    with torch.no_grad():
        module.head[0].weight[0, 0] = 0
    kept = torch.ones(9, 64)
    kept[3:] = 0
    prune.custom_from_mask(module.head[0], "weight", kept)
    adopted = adopt(module, SHAPE)
    assert np.array_equal(adopted.masks["head.0"], kept.numpy() != 0)
    assert list(adopted.masks) == ["head.0"]
    assert not adopted.net.body.get_submodule("drop").training
    weight = dict(adopted.net.body.named_children())["head.0"].weight
    assert torch.count_nonzero(weight[3:]) == 0
    assert torch.count_nonzero(weight[:3]) > 0


def test_mean_and_std_are_those_the_module_expects():
    module, x = model(), images()
    mean, std = torch.tensor([0.2, 0.4]), torch.tensor([0.5, 0.8])
    normalised = (torch.from_numpy(x) / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = module(normalised.repeat(T, 1, 1, 1)).reshape(T, len(x), 3).mean(dim=0)
    adopted = adopt(module, SHAPE, mean=mean.tolist(), std=std.tolist())
    assert torch.allclose(ours(adopted, x), expected, atol=1e-5)


def test_spikes_at_the_end_are_counted_by_an_identity_that_quantizes_exactly():
    module, x = nn.Sequential(nn.Flatten(), nn.Linear(128, 6), IFNode(0.3)), images()
    adopted = adopt(module, SHAPE, timesteps=T)
    assert torch.equal(ours(adopted, x), stepwise(module, x))
    limits = Limits(weight_bits=8, bias_max=4095, theta_max=131_071)
    made = quantize.quantize(adopted.net, timesteps=T, masks={}, images=x, run=emulate.run, limits=limits)
    trace = emulate.run(made.network, x, record=True)
    assert made.network.readout.name == COUNTS
    assert np.array_equal(trace.logits, 127 * trace.counts[0][:, :, 0, 0])
    assert trace.logits.any()


def test_a_threshold_that_must_be_exceeded_is_not_reached_by_equalling_it():
    """snnTorch spikes iff v > threshold: a drive that adds up to it exactly does not do it."""
    for neurons, spikes in ((IFNode(1.0), 1), (Leaky(1.0, 1.0, "zero"), 0)):
        module = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False), neurons)
        with torch.no_grad():
            module[1].weight.copy_(torch.tensor([[1.0], [0.5]]))
        adopted = adopt(module, (1, 1, 1), timesteps=2)
        x = np.full((1, 1, 1, 1), 255, dtype=np.uint8)
        limits = Limits(weight_bits=8, bias_max=4095, theta_max=131_071)
        made = quantize.quantize(adopted.net, timesteps=2, masks={}, images=x, run=emulate.run, limits=limits)
        float_counts = (ours(adopted, x) * 2).int().tolist()
        assert float_counts == [[2 * spikes or 1, spikes]]
        assert emulate.run(made.network, x).counts[0].reshape(1, 2).tolist() == float_counts


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = nn.Conv2d(2, 2, 3, padding=1), IF(), nn.Linear(128, 3)

    def forward(self, x):
        return self.head((x + self.act(self.conv(x))).flatten(1))


class Skipping(Branching):
    def forward(self, x):
        self.conv(x)
        return self.head(self.act(x).flatten(1))


class Functional(Branching):
    def forward(self, x):
        return self.head(F.relu(self.conv(x)).flatten(1))


class Deciding(Branching):
    def forward(self, x):
        return self.head(x) if x.sum() > 0 else x


class Twice(Branching):
    def forward(self, x):
        return self.head(self.act(self.conv(self.act(self.conv(x)))).flatten(1))


class Nested(nn.Module):
    def __init__(self, inner) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


class OwnForward(nn.Linear):
    def forward(self, x):
        return super().forward(x) ** 2


def flat(*tail: nn.Module):
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 4), *tail)


ONLY = "only integrate-and-fire neurons with a hard reset to 0 can be deployed"
SEQUENTIAL = "Pass a torch.nn.Sequential of its layers"
LAYERS = "layers are Conv2d, Linear, BatchNorm2d, AvgPool2d, Flatten, Dropout, our IF, IFNode and Leaky"
REFUSED = {
    "soft reset": (flat(IFNode(1.0, None)), f"2: IFNode: v_reset is None, a soft reset; {ONLY}"),
    "reset elsewhere": (flat(IFNode(1.0, -0.5)), f"2: IFNode: v_reset is -0.5; {ONLY}"),
    "leak": (flat(Leaky(0.9, 1.0, "zero")), f"2: Leaky: beta is 0.9, a leak; {ONLY}"),
    "subtraction": (flat(Leaky(1.0)), f"2: Leaky: reset_mechanism is 'subtract', a soft reset; {ONLY}"),
    "no reset": (flat(Leaky(1.0, 1.0, "none")), f"2: Leaky: reset_mechanism is 'none'; {ONLY}"),
    "inhibition": (flat(Leaky(1.0, 1.0, "zero", inhibition=True)), f"2: Leaky: inhibition is set; {ONLY}"),
    "thresholds": (
        flat(Leaky(1.0, torch.tensor([1.0, 2.0]), "zero")),
        f"2: Leaky: threshold differs among its neurons; {ONLY}",
    ),
    "another version": (
        flat(Leaky(1.0, 1.0, "zero", early=True)),
        f"2: Leaky: on a test drive it spikes differently at step 3; {ONLY}",
    ),
    "leaky node": (flat(LIFNode()), f"2: LIFNode: its membrane leaks; {ONLY}"),
    "ReLU": (flat(nn.ReLU()), "2: it does not spike; put spiking neurons in its place"),
    "max pool": (
        nn.Sequential(nn.Conv2d(2, 2, 1), IFNode(), Nested(nn.MaxPool2d(2))),
        "2.inner: it takes the greatest of spikes, which no synapse does; train with AvgPool2d",
    ),
    "unknown layer": (Nested(flat(nn.Softmax(1))), f"inner.2: Softmax cannot be deployed; {LAYERS}"),
    "no neurons": (flat(), f"network: it has no spiking neurons; {LAYERS}"),
    "own forward": (
        nn.Sequential(nn.Flatten(), OwnForward(128, 4), IFNode()),
        "1: OwnForward has a forward of its own; only Linear's can be deployed",
    ),
    "partial flatten": (
        nn.Sequential(nn.Flatten(2), nn.Linear(128, 4), IFNode()),
        "0: only Flatten() from the first dimension to the last can be deployed",
    ),
    "branch": (
        Branching(),
        "the image: it leads to conv and flatten, and sends no spikes, which alone can skip layers",
    ),
    "skipped layer": (Skipping(), "conv: no edges leave it, nor head; a network has one output"),
    "function": (Functional(), f"forward: it computes relu, which is no layer. {SEQUENTIAL}"),
    "twice": (Twice(), "conv: it runs twice; a network of layers runs each once"),
    "shapes": (
        flat(IFNode(), nn.Linear(5, 2)),
        "3: it does not take the (4,) it is given; it takes 5 values",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_deployed_is_refused_by_its_dotted_path(name):
    module, sentence = REFUSED[name]
    with pytest.raises(UnsupportedError) as error:
        adopt(module, SHAPE, timesteps=T)
    assert str(error.value) == sentence


def test_a_forward_that_looks_at_values_is_refused():
    with pytest.raises(UnsupportedError) as error:
        adopt(Nested(Deciding()), SHAPE, timesteps=T)
    assert str(error.value).startswith("inner: its forward cannot be traced (TraceError: ")
    assert str(error.value).endswith(f"). {SEQUENTIAL}")


def test_relus_of_ours_are_refused_with_the_way_forward():
    module = model()
    spiking.configure(module, mode="ann")
    with pytest.raises(UnsupportedError) as error:
        adopt(module, SHAPE)
    remedy = "Turn the module into a spiking one first: spiking.configure(module, mode='snn', timesteps=T)"
    assert str(error.value) == f"features.neurons: its neurons are ReLUs, for their mode is ann. {remedy}"


def test_steps_must_be_said_where_the_neurons_do_not_say_them():
    with pytest.raises(ConfigError, match=r"^timesteps: say how many steps an image takes$"):
        adopt(flat(IFNode()), SHAPE)
    module = model()
    module.head[1].timesteps = 9
    with pytest.raises(ConfigError, match=r"^timesteps: say how many steps an image takes; its neurons say \[5, 9\]$"):
        adopt(module, SHAPE)


def test_a_mean_of_too_few_channels_is_refused():
    with pytest.raises(ConfigError, match=r"^mean and std: expected 2 numbers each, one a channel, got 1 and 2$"):
        adopt(model(), SHAPE, mean=(0.5,))
