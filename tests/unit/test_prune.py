import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy import SHAPE, net, split, toy

from toolchain import nets, prune
from toolchain.errors import ConfigError, FormatError
from toolchain.train import natural, pixels, stream


@pytest.mark.parametrize(
    ("n", "sparsity", "expected"),
    [(2560, 0.9, 256), (288, 0.9, 28), (10, 0.9, 1), (7, 0.9, 1), (5, 0.0, 5), (8, 0.75, 2)],
)
def test_at_least_the_asked_share_is_pruned_and_never_all(n, sparsity, expected):
    assert prune.n_kept(n, sparsity) == expected


def test_top_keeps_the_greatest_and_of_equal_ones_the_first():
    values = torch.tensor([[1.0, 3.0], [3.0, 3.0]])
    assert prune.top(values, 0.5).tolist() == [[False, True], [True, False]]


def test_lwm_keeps_the_greatest_weights_of_every_layer():
    model = net()
    mask = prune.prune(model, split(), toy(prune={"method": "lwm"}))
    for name, weight in nets.prunable(model).items():
        assert int(mask[name].sum()) == weight.numel() // 4
        assert torch.equal(weight.detach() != 0, mask[name])
        lost = net().body.state_dict()[name][~mask[name]].abs().max()
        assert weight.detach()[mask[name]].abs().min() >= lost


def test_scores_start_in_proportion_to_the_weights():
    model = net()
    scored = prune.Scored(model, 0.75)
    expected = (6 / 36) ** 0.5 * model.body.conv2.weight / model.body.conv2.weight.abs().max()
    torch.testing.assert_close(scored.scores["conv2_weight"].detach(), expected.detach())
    assert all(torch.equal(scored.mask()[name], mask) for name, mask in prune.magnitude(model, 0.75).items())


def test_a_scores_gradient_is_the_effective_weights_times_the_weight_and_the_scores_sign():
    model = net()
    images, labels = torch.rand(6, *SHAPE), torch.arange(6) % 3
    scored = prune.Scored(model, 0.75)
    F.cross_entropy(scored(images), labels).backward()
    pruned = net()
    nets.apply_mask(pruned, scored.mask())
    F.cross_entropy(pruned(images), labels).backward()
    for name, weight in nets.prunable(model).items():
        score = scored.scores[name.replace(".", "_")]
        effective = nets.prunable(pruned)[name].grad
        torch.testing.assert_close(score.grad, effective * weight.detach() * score.detach().sign())
        assert weight.grad is None


def test_hydra_changes_the_mask_trains_batch_norm_and_leaves_the_kept_weights():
    before, model = net(), net()
    recipe = toy(prune={"method": "hydra", "epochs": 3, "lr": 0.5})
    mask = prune.prune(model, split(), recipe)
    magnitude = prune.magnitude(before, 0.75)
    assert any(not torch.equal(mask[name], magnitude[name]) for name in mask)
    for name, weight in nets.prunable(model).items():
        assert torch.equal(weight.detach(), before.body.state_dict()[name] * mask[name])
        assert weight.requires_grad
        assert int(mask[name].sum()) == weight.numel() // 4
    assert not torch.equal(model.body.bn1.weight, before.body.bn1.weight)
    assert not torch.equal(model.body.bn1.running_mean, before.body.bn1.running_mean)
    assert torch.equal(model.body.readout.bias, before.body.readout.bias)


def test_without_a_method_nothing_is_pruned():
    model = net()
    assert prune.prune(model, split(), toy(prune={"method": "none"})) == {}
    assert torch.equal(model.body.conv1.weight, net().body.conv1.weight)


def test_the_scored_network_computes_as_the_pruned_one():
    model = net()
    scored = prune.Scored(model, 0.75).eval()
    images = pixels(split().images)
    labels = torch.tensor(split().labels)
    expected = natural(scored, images, labels, stream(0))
    nets.apply_mask(model, scored.mask())
    torch.testing.assert_close(natural(model, images, labels, stream(0)), expected)


def kept_share(mask):
    return sum(int(kept.sum()) for kept in mask.values()) / sum(kept.numel() for kept in mask.values())


@pytest.mark.parametrize(("sparsity", "start"), [(0.99, 0.1), (0.9, 0.1), (0.75, 0.25)])
def test_harps_quotas_start_at_a_tenth_or_at_the_share_to_keep_where_that_is_more(sparsity, start):
    quotas = prune.Quotas(net(), sparsity, pressure=1.0)
    assert quotas.excess().item() == pytest.approx(start / (1 - sparsity) - 1, abs=1e-5)
    sizes = {name: weight.numel() for name, weight in nets.prunable(net()).items()}
    assert {name: int(kept.sum()) for name, kept in quotas.mask().items()} == {
        name: math.floor(start * n + 1e-4) for name, n in sizes.items()
    }


def test_a_quotas_gradient_is_that_of_its_equation_times_the_sum_of_the_masks_gradients():
    """The mask's gradient is found from the pruned network alone: dL/dM = dL/dW_eff * W, pruned weights included."""
    model = net()
    images, labels = torch.rand(6, *SHAPE), torch.arange(6) % 3
    quotas = prune.Quotas(model, 0.9, pressure=1.0)
    F.cross_entropy(quotas(images), labels).backward()
    pruned = net()
    nets.apply_mask(pruned, quotas.mask())
    F.cross_entropy(pruned(images), labels).backward()
    for name, weight in nets.prunable(model).items():
        key = name.replace(".", "_")
        of_mask = nets.prunable(pruned)[name].grad * weight.detach()
        least, share = 0.01, torch.sigmoid(quotas.quotas[key].detach())
        expected = of_mask.sum() * (1 - least) * share * (1 - share)
        torch.testing.assert_close(quotas.quotas[key].grad, expected)
        torch.testing.assert_close(quotas.scores[key].grad, of_mask * quotas.scores[key].detach().sign())


def test_harps_penalty_is_its_formula_and_grows_until_the_quotas_meet_the_target():
    quotas = prune.Quotas(net(), 0.99, pressure=1.0)
    images, labels = torch.rand(6, *SHAPE), torch.arange(6) % 3
    plain = natural(quotas, images, labels, stream(0)).item()
    penalized = quotas.penalized(natural)
    for epoch in (0, 1):
        quotas.begin(epoch)
        expected = (epoch + 1) * 0.01 * (0.1 / 0.01 - 1)
        assert penalized(quotas, images, labels, stream(0)).item() - plain == pytest.approx(expected, rel=1e-4)
    with torch.no_grad():
        for parameter in quotas.quotas.values():
            parameter.fill_(-20.0)
    quotas.begin(2)
    assert quotas.gamma.item() == pytest.approx(0.02)
    assert penalized(quotas, images, labels, stream(0)) == natural(quotas, images, labels, stream(0))
    with torch.no_grad():
        for parameter in quotas.quotas.values():
            parameter.fill_(0.0)
    quotas.begin(3)
    assert quotas.gamma.item() == pytest.approx(0.02), "met once, it stays, though the quotas grow again"


def test_the_penaltys_gradient_is_the_finite_difference_of_the_kept_share():
    quotas = prune.Quotas(net(), 0.9, pressure=1.0)
    key = "conv2_weight"
    excess = quotas.excess()
    (found,) = torch.autograd.grad(excess, quotas.quotas[key])
    step = 1e-2
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            quotas.quotas[key].add_(sign * step)
            values.append(quotas.excess().item())
            quotas.quotas[key].sub_(sign * step)
    assert found.item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-2)


@pytest.mark.parametrize("shift", [-1.0, -6.0])
def test_settled_quotas_keep_the_asked_share_and_their_proportions(shift):
    quotas = prune.Quotas(net(), 0.9, pressure=1.0)
    with torch.no_grad():
        for number, parameter in enumerate(quotas.quotas.values()):
            parameter.fill_(number / 2 + shift)
    before = {name: quotas._quota(name).item() - quotas.least for name in quotas.mask()}
    quotas.settle()
    after = {name: quotas._quota(name).item() - quotas.least for name in quotas.mask()}
    assert quotas.excess().item() == pytest.approx(0, abs=1e-5)
    assert 0.09 < kept_share(quotas.mask()) <= 0.1
    ratios = [after[name] / before[name] for name in before]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-4)
    assert (ratios[0] < 1) == (shift == -1.0)


def test_a_settled_quota_is_a_whole_layer_at_the_most():
    quotas = prune.Quotas(net(), 0.3, pressure=1.0)
    with torch.no_grad():
        for name, parameter in quotas.quotas.items():
            parameter.fill_(9.0 if name == "conv1_weight" else -3.0)
    quotas.settle()
    mask = quotas.mask()
    assert int(mask["conv1.weight"].sum()) == 35, "of 36: a quota is short of 1"
    assert 0.68 < kept_share(mask) <= 0.7


def test_harp_spares_layers_unequally_and_reaches_the_asked_sparsity():
    model = net()
    recipe = toy(prune={"method": "harp", "sparsity": 0.9, "epochs": 3, "lr": 10.0}, loss={"objective": "natural"})
    mask = prune.prune(model, split(), recipe)
    assert 0.09 < kept_share(mask) <= 0.1
    shares = {name: int(kept.sum()) / kept.numel() for name, kept in mask.items()}
    assert max(shares.values()) > 1.2 * min(shares.values())
    for name, weight in nets.prunable(model).items():
        assert not weight.detach()[~mask[name]].any()
        assert weight.requires_grad


def test_harp_without_settling_may_keep_more_than_was_asked_for():
    recipe = toy(prune={"method": "harp", "sparsity": 0.99, "epochs": 1, "lr": 0.001, "settle": False})
    assert kept_share(prune.prune(net(), split(), recipe)) > 0.05


def test_resuming_harp_ends_with_the_same_mask():
    recipe = toy(prune={"method": "harp", "sparsity": 0.9, "epochs": 3, "lr": 0.5})
    epochs = []
    mask = prune.prune(net(), split(), recipe, after=epochs.append)
    resumed = prune.prune(net(), split(), recipe, start=epochs[0])
    assert all(torch.equal(mask[name], resumed[name]) for name in mask)


def test_a_random_mask_depends_on_the_seed_alone_and_keeps_the_same_share_of_each_layer():
    masks = [
        prune.prune(net(seed=n), split(), toy(prune={"method": "random"}, seed=s)) for n, s in [(0, 1), (5, 1), (0, 2)]
    ]
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert not all(torch.equal(masks[0][name], masks[2][name]) for name in masks[0])
    assert all(int(kept.sum()) == kept.numel() // 4 for kept in masks[0].values())


def asks_for_file(path, **sections):
    return toy(prune={"method": "file", "mask": str(path)}, **sections)


def test_a_mask_file_is_taken_as_it_is_and_layers_it_does_not_name_keep_everything(tmp_path):
    kept = np.random.default_rng(0).random((6, 4, 3, 3)) < 0.3
    np.savez(tmp_path / "mask.npz", **{"conv2.weight": kept})
    model = net()
    mask = prune.prune(model, split(), asks_for_file(tmp_path / "mask.npz"))
    assert torch.equal(mask["conv2.weight"], torch.from_numpy(kept))
    assert mask["conv1.weight"].all()
    assert torch.equal(model.body.conv2.weight.detach() != 0, mask["conv2.weight"])


@pytest.mark.parametrize("wrapped", [False, True])
def test_of_a_pruned_state_dict_the_zeros_are_the_mask(tmp_path, wrapped):
    other = net(seed=3)
    expected = prune.magnitude(other, 0.75)
    nets.apply_mask(other, expected)
    state = {f"module.{name}": tensor for name, tensor in other.state_dict().items()}
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "pruned.pt")
    mask = prune.prune(net(), split(), asks_for_file(tmp_path / "pruned.pt"))
    assert all(torch.equal(mask[name], kept) for name, kept in expected.items())


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"conv9": np.ones(2, bool)}, "expected masks of conv1.weight, conv2.weight, readout.weight; found conv9"),
        ({"conv2.weight": np.ones((6, 4, 5, 5), bool)}, "conv2.weight: expected (6, 4, 3, 3), got (6, 4, 5, 5)"),
        ({"conv2.weight": np.ones((6, 4, 3, 3))}, "conv2.weight: expected a boolean array, got float64"),
        ({"conv2.weight": np.zeros((6, 4, 3, 3), bool)}, "conv2.weight: nothing is kept; a network needs every layer"),
    ],
)
def test_a_mask_that_does_not_fit_is_one_sentence(tmp_path, arrays, sentence):
    path = tmp_path / "mask.npz"
    np.savez(path, **arrays)
    with pytest.raises(FormatError) as caught:
        prune.prune(net(), split(), asks_for_file(path))
    assert str(caught.value) == f"{path}: {sentence}"


def test_a_mask_of_objects_is_refused_unread(tmp_path):
    path = tmp_path / "mask.npz"
    np.savez(path, **{"conv2.weight": np.array([None])})
    with pytest.raises(FormatError) as caught:
        prune.given(net(), str(path))
    reason = "it holds arrays of Python objects, which could execute code; save plain bool"
    assert str(caught.value) == f"{path}: {reason}"


@pytest.mark.parametrize("name", ["mask.npz", "mask.pt"])
def test_a_file_that_is_not_a_mask_is_one_sentence(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        prune.given(net(), str(path))
    path.write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="not a"):
        prune.given(net(), str(path))


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"prune": {"method": "file"}}, 'prune.mask: expected a path with prune.method = "file", and none without'),
        ({"prune": {"mask": "m.npz"}}, 'prune.mask: expected a path with prune.method = "file", and none without'),
        (
            {"method": "end-to-end"},
            'prune.method: "hydra" needs a trained network; end to end, use random, file or none',
        ),
    ],
)
def test_masks_that_cannot_be_made_are_refused_with_the_recipe(sections, sentence):
    with pytest.raises(ConfigError) as caught:
        toy(**sections)
    assert str(caught.value) == f"recipe: {sentence}"
