import pytest
import torch
import torch.nn.functional as F
from toy import SHAPE, net, split, toy

from toolchain import nets, prune
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
