import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toy import N_CLASSES, SHAPE, net, toy

from toolchain import convert, emulate, finetune, nets, pipeline, prune, quantize, recipe, spiking, store, train
from toolchain.data import Split
from toolchain.errors import ConfigError
from toolchain.nets.pool import Pool
from toolchain.spiking import IF


def test_the_body_is_a_chain_of_named_layers():
    model = nets.build(toy(model={"hidden": [5]}).model, SHAPE, N_CLASSES)
    kinds = [(name, type(layer)) for name, layer in model.body.named_children()]
    assert kinds == [
        *[("conv1", nn.Conv2d), ("bn1", nn.BatchNorm2d), ("act1", IF), ("pool1", Pool)],
        *[("conv2", nn.Conv2d), ("bn2", nn.BatchNorm2d), ("act2", IF), ("pool2", Pool)],
        *[("flatten", nn.Flatten), ("linear1", nn.Linear), ("act3", IF), ("readout", nn.Linear)],
    ]
    assert list(nets.prunable(model)) == ["conv1.weight", "conv2.weight", "linear1.weight", "readout.weight"]
    assert model(torch.rand(2, *SHAPE)).shape == (2, N_CLASSES)


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [
        ({}, (1, 14, 14), "a 2x2 pool does not divide the 7x7 map after conv2; crop or pad the 14x14 images to multiples of 4"),
        ({}, (1, 7, 8), "a 2x2 pool does not divide the 7x8 map after conv1; crop or pad the 7x8 images to multiples of 4"),
        ({"architecture": "vgg16"}, (1, 28, 28),
         "a 2x2 pool does not divide the 7x7 map after conv7; crop or pad the 28x28 images to multiples of 16"),
        ({"architecture": "wrn"}, (3, 32, 30), "two strides of 2 do not divide 32x30 images; crop or pad them to multiples of 4"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit_are_refused_with_the_size_that_would(model, shape, sentence):
    settings = (toy() if not model else recipe.from_dict({"model": {**model, "width": 1}})).model
    with pytest.raises(ConfigError) as caught:
        nets.build(settings, shape, 3)
    assert str(caught.value) == f"model: {sentence}"


def test_the_same_generator_gives_the_same_weights_and_the_global_one_is_untouched():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, other, third = net(seed=1), net(seed=1), net(seed=2)
    assert torch.equal(one.body.conv1.weight, other.body.conv1.weight)
    assert not torch.equal(one.body.conv1.weight, third.body.conv1.weight)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_kaiming_normal_by_fan_out():
    model = nets.build(toy(model={"layers": [64, 128]}).model, SHAPE, 10, generator=torch.Generator().manual_seed(0))
    assert model.body.conv2.weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)


def test_logits_are_the_mean_over_steps_of_a_net_shown_the_image_at_each():
    model = net(mode="snn", timesteps=4)
    images = torch.rand(3, *SHAPE)
    x = ((images - model.mean) / model.std).repeat(4, 1, 1, 1)
    logits = model(images)
    spiking.neurons(model)[0].constant = False
    torch.testing.assert_close(logits, model.body(x).reshape(4, 3, -1).mean(dim=0))


@pytest.mark.parametrize(
    ("shape", "kernel"), [((3, 2, 8, 8), 2), ((2, 3, 6, 15), 3), ((2, 5, 4, 6), (4, 6)), ((2, 1, 16, 16), 2)]
)
def test_a_pool_is_torchs_own_gradients_included(shape, kernel):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    found, expected = Pool(kernel)(x), F.avg_pool2d(x, kernel)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn(expected.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    both = [torch.autograd.grad((pooled * weights).sum(), x)[0] for pooled in (found, expected)]
    torch.testing.assert_close(*both, rtol=1e-12, atol=1e-12)
    spikes = (x > 0).float()
    assert torch.equal(Pool(2)(spikes), F.avg_pool2d(spikes, 2))


def test_one_module_is_both_networks():
    model = net()
    images = torch.rand(3, *SHAPE)
    relu = model(images)
    with spiking.configured(model, mode="snn"):
        assert model.mode == "snn"
        assert not torch.equal(model(images), relu)
    assert torch.equal(model(images), relu)


def test_a_mask_zeroes_what_it_does_not_keep():
    model = net()
    mask = {"conv2.weight": torch.rand_like(model.body.conv2.weight) < 0.5}
    before = model.body.conv2.weight.detach().clone()
    nets.apply_mask(model, mask)
    assert torch.equal(model.body.conv2.weight.detach(), before * mask["conv2.weight"])


PAPER = [
    # architecture, image, classes, IF layers, neurons, prunable layers and weights
    ("vgg16", (3, 32, 32), 10, 15, 276_992, 16, 15_302_848),
    ("vgg11", (3, 32, 32), 10, 10, 286_720, 11, 61_359_808),
    ("vgg11-gap", (3, 64, 64), 200, 9, 610_304, 10, 12_134_080),
    ("wrn", (3, 32, 32), 100, 25, 933_888, 29, 5_864_880),
]

SMALL = [
    ({"architecture": "vgg16", "width": 1}, (3, 16, 16)),
    ({"architecture": "vgg11", "width": 1}, (1, 16, 24)),
    ({"architecture": "vgg11-gap", "width": 1}, (3, 48, 48)),
    ({"architecture": "wrn", "depth": 10, "width": 16}, (1, 12, 8)),
    ({"architecture": "wrn", "depth": 16, "width": 8}, (3, 8, 8)),
]


def small(model, shape, *, mode="snn", seed=0):
    """A network of few channels with random statistics, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    settings = recipe.from_dict({"model": model}).model
    made = nets.build(settings, shape, 3, mean=(0.4,) * shape[0], std=(0.3,) * shape[0], generator=generator)
    with torch.no_grad():
        for norm in nets.norms(made):
            norm.running_mean.normal_(0, 0.3, generator=generator)
            norm.running_var.uniform_(0.5, 2, generator=generator)
        for layer in spiking.neurons(made):
            layer.v_th.fill_(0.3)
    spiking.configure(made, mode=mode, timesteps=3)
    return made.eval()


@pytest.mark.parametrize(("architecture", "shape", "classes", "n_if", "n_neurons", "n_layers", "n_weights"), PAPER)
def test_a_network_has_the_papers_neurons_and_weights(
    architecture, shape, classes, n_if, n_neurons, n_layers, n_weights
):
    model = nets.build(recipe.from_dict({"model": {"architecture": architecture}}).model, shape, classes).eval()
    counts = []
    for layer in spiking.neurons(model):
        layer.register_forward_hook(lambda _layer, _inputs, output: counts.append(output[0].numel()))
    assert model(torch.rand(1, *shape)).shape == (1, classes)
    weights = nets.prunable(model)
    assert (len(counts), sum(counts)) == (n_if, n_neurons)
    assert (len(weights), sum(weight.numel() for weight in weights.values())) == (n_layers, n_weights)


@pytest.mark.parametrize(("model", "shape"), SMALL)
def test_every_network_shown_an_image_once_is_the_network_shown_it_at_each_step(model, shape):
    made = small(model, shape).double()
    images = torch.rand(2, *shape, dtype=torch.float64)
    logits = made(images)
    spiking.neurons(made)[0].constant = False
    x = ((images - made.mean[:, None, None]) / made.std[:, None, None]).repeat(3, 1, 1, 1)
    torch.testing.assert_close(logits, made.body(x).reshape(3, 2, -1).mean(dim=0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("model", "shape"), SMALL)
def test_every_network_survives_its_file(model, shape, tmp_path):
    made = small(model, shape)
    mask = {name: torch.rand_like(weight) < 0.5 for name, weight in nets.prunable(made).items()}
    nets.apply_mask(made, mask)
    facts = {
        "mean": (0.4,) * shape[0],
        "std": (0.3,) * shape[0],
        "n_classes": 3,
        "data_source": "x",
        "data_sha256": "0",
    }
    settings = recipe.from_dict({"model": model})
    state = {name: tensor.detach() for name, tensor in made.body.state_dict().items()}
    stored = store.Model(
        recipe=settings, stage="finetune", state=state, mask=mask, timesteps=3, input_shape=shape, metrics={}, **facts
    )
    store.save(stored, tmp_path / "model.pt")
    images = torch.rand(2, *shape)
    assert torch.equal(nets.restore(store.load(tmp_path / "model.pt"))(images), made(images))
    assert stored.n_weights == sum(kept.numel() for kept in mask.values())


@pytest.mark.parametrize(("channels", "stride"), [(4, 1), (6, 1), (4, 2)])
def test_a_block_is_its_equation(channels, stride):
    torch.manual_seed(0)
    block, x = nets.Block(4, channels, stride), torch.randn(5, 4, 8, 8)
    with torch.no_grad():
        block.mix.copy_(torch.tensor([0.25, 2.0]))

    def normalised(x):
        return (x - x.mean(dim=(0, 2, 3), keepdim=True)) / (
            x.var(dim=(0, 2, 3), keepdim=True, correction=0) + 1e-5
        ).sqrt()

    h = normalised(x).relu()
    r = F.conv2d(h, block.conv1.weight, stride=stride, padding=1)
    r = F.conv2d(normalised(r).relu(), block.conv2.weight, padding=1)
    same = channels == 4 and stride == 1
    shortcut = x if same else F.conv2d(h, block.shortcut.weight, stride=stride)
    assert (block.shortcut is None) == same
    torch.testing.assert_close(block(x), 0.25 * shortcut + 2.0 * r, rtol=1e-4, atol=1e-5)


def test_only_the_vgg11_with_two_hidden_layers_drops_out_and_only_in_training():
    model = small({"architecture": "vgg11", "width": 1}, (1, 16, 16), mode="ann")
    dropouts = [(name, layer.p) for name, layer in model.body.named_children() if isinstance(layer, nn.Dropout)]
    assert dropouts == [("dropout1", 0.2), ("dropout2", 0.2)]
    images = torch.rand(4, 1, 16, 16)
    assert torch.equal(model(images), model(images))
    for name in ("vgg16", "vgg11-gap"):
        body = small({"architecture": name, "width": 1}, (1, 32, 32)).body
        assert not any(isinstance(layer, nn.Dropout) for layer in body)


@pytest.mark.parametrize(("model", "shape"), SMALL)
def test_every_network_goes_through_every_stage(model, shape, tmp_path):
    """Masks by score, calibrated thresholds, silent channels: what visits layers finds those inside blocks too."""
    images = np.random.default_rng(0).integers(0, 256, (12, *shape), dtype=np.uint8)
    split = Split(images=images, labels=np.arange(12) % 3)
    made = small(model, shape, mode="ann")
    one_epoch = {"epochs": 1, "batch": 6}
    settings = recipe.from_dict(
        {
            "model": model,
            "timesteps": 2,
            "loss": {"steps": 1},
            "prune": {**one_epoch, "sparsity": 0.5},
            "convert": {"timesteps": 3, "batches": 1, "batch": 6},
            "finetune": one_epoch,
        }
    )
    mask = prune.prune(made, split, settings)
    assert mask.keys() == nets.prunable(made).keys()
    convert.convert(made, split, settings)
    assert all(layer.v_th != 0.3 for layer in spiking.neurons(made))
    assert all(norm.num_batches_tracked == 2 for norm in nets.norms(made))
    finetune.finetune_snn(made, mask, split, settings)
    for name, weight in nets.prunable(made).items():
        assert not weight[~mask[name]].any()
    assert len(pipeline.dead_channels(made, split)) == len(spiking.neurons(made))


def test_training_with_dropout_is_the_same_whatever_the_global_generator_did():
    images = np.random.default_rng(0).integers(0, 256, (12, 1, 16, 16), dtype=np.uint8)
    split = Split(images=images, labels=np.arange(12) % 3)
    model = {"architecture": "vgg11", "width": 1}
    settings = recipe.from_dict({"model": model, "loss": {"objective": "natural"}, "train": {"epochs": 2, "batch": 6}})
    states = []
    for seed in (0, 1):
        made = small(model, (1, 16, 16), mode="ann")
        torch.manual_seed(seed)
        train.train(made, split, settings)
        states.append(made.body.state_dict())
    assert all(torch.equal(states[0][name], tensor) for name, tensor in states[1].items())


@pytest.mark.parametrize(
    ("model", "shape", "pools"),
    [(*SMALL[0], [1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1]), (*SMALL[2], [1, 2, 2, 1, 2, 1, 2, 1, 3, 1])],
)
def test_a_vgg_is_deployed_as_integers_with_its_global_average_as_a_pool(model, shape, pools):
    made = small(model, shape)
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    limits = quantize.Limits(weight_bits=8, bias_max=4095, theta_max=131_071)
    deployed = quantize.quantize(made, timesteps=3, masks={}, images=images, run=emulate.run, limits=limits)
    trace = emulate.run(deployed.network, images, record=True)
    assert [layer.pool for layer in deployed.network.chain] == pools
    for found, expected in zip(trace.spikes, quantize.float_spikes(made, images), strict=True):
        assert found.shape == expected.shape
        assert np.mean(found != expected) < 0.1
