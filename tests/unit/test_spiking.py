import pytest
import torch
from toy import net

from toolchain import spiking
from toolchain.spiking import IF, Bptr, Exponential, PiecewiseLinear, Rectangular, StraightThrough

SURROGATES = [PiecewiseLinear(1.0), PiecewiseLinear(0.5), Exponential(0.3, 2), Rectangular(1.0), StraightThrough()]


def loop(x, v_th, surrogate, leak=0.0):
    """The neuron as a loop over time that autograd differentiates, the reset path included."""

    class Spike(torch.autograd.Function):
        @staticmethod
        def forward(ctx, d) -> torch.Tensor:
            ctx.save_for_backward(d)
            return (d >= 0).to(d.dtype)

        @staticmethod
        def backward(ctx, g) -> torch.Tensor:
            (d,) = ctx.saved_tensors
            return g * spiking.derivative(surrogate, d)

    v, out = torch.zeros_like(x[0]), []
    for t in range(len(x)):
        u = (1 - leak) * v + x[t]
        o = Spike.apply(u - v_th)
        v = (1 - o) * u
        out.append(o)
    return torch.stack(out)


def layer(v_th, surrogate, timesteps, leak=0.0):
    made = IF(v_th=v_th, timesteps=timesteps, leak=leak).double()
    spiking.configure(made, mode="snn", surrogate=surrogate)
    return made


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
@pytest.mark.parametrize("timesteps", [1, 2, 9])
def test_the_fused_neuron_equals_the_loop_forward_and_backward(surrogate, timesteps):
    generator = torch.Generator().manual_seed(timesteps)
    x = torch.randn(timesteps, 3, 2, 4, generator=generator, dtype=torch.float64).requires_grad_()
    weights = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    fused = layer(0.4, surrogate, timesteps)
    spikes = fused(x.flatten(0, 1)).reshape(x.shape)
    v_th = torch.tensor(fused.v_th.item(), dtype=torch.float64, requires_grad=True)
    expected = loop(x, v_th, surrogate)
    assert torch.equal(spikes, expected)
    assert 0 < spikes.mean() < 1
    found = torch.autograd.grad((spikes * weights).sum(), [x, fused.v_th])
    wanted = torch.autograd.grad((expected * weights).sum(), [x, v_th])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("constant", [False, True])
def test_a_leaky_neuron_equals_the_loop_forward_and_backward(constant):
    generator = torch.Generator().manual_seed(1)
    shown = torch.randn(1 if constant else 7, 40, generator=generator, dtype=torch.float64).mul(0.3).requires_grad_()
    weights = torch.randn(7, 40, generator=generator, dtype=torch.float64)
    fused = layer(0.4, Exponential(0.3, 2), 7, leak=0.3)
    fused.constant = constant
    expected = loop(shown.expand(7, 40), fused.v_th, fused.surrogate, leak=0.3)
    spikes = fused(shown.flatten() if constant else shown).reshape(7, 40)
    assert torch.equal(spikes, expected)
    assert not torch.equal(expected, loop(shown.expand(7, 40), fused.v_th, fused.surrogate))
    one, other = (torch.autograd.grad((found * weights).sum(), [shown, fused.v_th]) for found in (spikes, expected))
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("leak", [0.0, 0.3])
@pytest.mark.parametrize("constant", [False, True])
def test_without_gradients_the_spikes_are_the_same(constant, leak):
    made = layer(0.4, StraightThrough(), 6, leak)
    made.constant = constant
    x = torch.randn(7 if constant else 42, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        quick = made(x)
    assert torch.equal(quick, made(x))
    assert 0 < quick.mean() < 1


def test_the_neuron_spikes_at_its_threshold_and_resets_to_zero():
    x = torch.tensor([0.25, 0.25, 0.5, 0.25]).reshape(4, 1)
    assert layer(0.5, StraightThrough(), 4)(x.double()).flatten().tolist() == [0, 1, 1, 0]


def test_bptr_passes_the_gradient_where_the_neuron_ever_spikes():
    x = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64).requires_grad_()
    spikes = layer(0.5, Bptr(), 2)(x)
    (gradient,) = torch.autograd.grad((spikes * torch.tensor([[2.0, 2.0], [3.0, 3.0]])).sum(), x)
    assert gradient.tolist() == [[2, 0], [3, 0]]


@pytest.mark.parametrize(
    ("surrogate", "expected"),
    [
        (PiecewiseLinear(2.0), [0.0, 0.25, 0.5, 0.25]),
        (Exponential(0.3, 2), [0.3 * 2.718281828459045**-4, 0.3 * 2.718281828459045**-2, 0.3, 0.3 * 2.718281828459045**-2]),
        (Rectangular(2.0), [0.0, 0.0, 0.5, 0.0]),
        (StraightThrough(), [1.0, 1.0, 1.0, 1.0]),
    ],
    ids=str,
)  # fmt: skip
def test_a_surrogate_is_its_formula(surrogate, expected):
    d = torch.tensor([-2.0, -1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(spiking.derivative(surrogate, d), torch.tensor(expected, dtype=torch.float64))
    assert d.tolist() == [-2, -1, 0, 1]


@pytest.mark.parametrize("surrogate", [*SURROGATES, Bptr()], ids=str)
def test_a_surrogate_is_read_from_its_own_name(surrogate):
    assert spiking.surrogate(str(surrogate)) == surrogate


def test_in_mode_ann_the_layer_is_relu():
    x = torch.randn(5, 3)
    assert torch.equal(IF()(x), torch.relu(x))


def test_thresholds_below_the_bound_compute_as_the_bound_and_are_clamped():
    x = torch.full((4, 1), 0.02, dtype=torch.float64)
    low = layer(0.001, StraightThrough(), 4)
    assert low(x).flatten().tolist() == [0, 1, 0, 1]
    spiking.clamp_thresholds(low)
    assert low.v_th.item() == pytest.approx(0.03)


def test_settings_return_whatever_happens():
    model = net(mode="snn", timesteps=5)
    before = [(one.mode, one.timesteps, one.surrogate) for one in spiking.neurons(model)]

    def fails():
        with spiking.configured(model, mode="ann", timesteps=2, surrogate=Bptr()):
            assert (model.mode, model.timesteps) == ("ann", 2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert [(one.mode, one.timesteps, one.surrogate) for one in spiking.neurons(model)] == before


def test_half_precision_input_is_computed_in_single_precision():
    made = IF(timesteps=2)
    spiking.configure(made, mode="snn")
    assert made(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32
