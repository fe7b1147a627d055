"""Mutants of the fast emulator: each a small, plausible mistake that the comparison with the reference must notice.

    python tests/property/mutants.py    # lists what kills each; exit code 1 if one survives

A mutant is a change of the source text of `toolchain.emulate.batched`. The emulator's own self-test is taken out of those
whose mistake it would refuse to run: here the comparison has to see it.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import types
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import networks
from traces import differences

from toolchain.emulate import batched, reference

NO_SELF_TEST = ("if torch.equal(", "if True or torch.equal(")

WRAP = "u = torch.where(current > LIMIT, current - 2 * LIMIT, current)"
WRAP_BELOW = "return torch.where(u <= -LIMIT, current + 2 * LIMIT, u)"
RESET = "v.masked_fill_(spiking, 0)"

MUTANTS: dict[str, tuple[tuple[str, str], ...]] = {
    "a spike at theta - 1": (("spiking = v > level", "spiking = v >= level"),),
    "theta one too high": (("if theta.ndim else theta) - 64", "if theta.ndim else theta)"),),
    "theta one too low": (("if theta.ndim else theta) - 64", "if theta.ndim else theta) - 128"),),
    "one theta for all channels": (("theta[:, None, None] if theta.ndim", "theta.max() if theta.ndim"),),
    "soft reset": ((RESET, "v = v - spiking * (level + 64)"),),
    "no reset after a spike": ((RESET, "pass"),),
    "u reset with v": ((RESET, "v.masked_fill_(spiking, 0); u = u.masked_fill(spiking, 0)"),),
    "no reset between images": (
        (
            "u = v = torch.zeros_like(drive[0], dtype=dtype)",
            "u = v = _STATE.get(id(neuron), torch.zeros_like(drive[0], dtype=dtype))",
        ),
        ("    return spikes, [active", "    _STATE[id(neuron)] = v\n    return spikes, [active"),
        ("_BATCH_BYTES =", "_STATE = {}\n_BATCH_BYTES ="),
    ),
    "bias at the first step only": (("+ u + offset", "+ u + offset * (t == 0)"),),
    "bias not scaled": (("offset = 64 * (", "offset = ("),),
    "bias map upside down": (("if bias.ndim == 1 else bias)", "if bias.ndim == 1 else bias.flip(1))"),),
    "v does not saturate": (("v = voltage.clamp(1 - LIMIT, LIMIT - 1)", "v = voltage"),),
    "v saturates one bit early": (("voltage.clamp(1 - LIMIT,", "voltage.clamp(1 - LIMIT // 2,"),),
    "u does not wrap": ((WRAP, "u = current"), (WRAP_BELOW, "return u")),
    "u wraps from above only": ((WRAP_BELOW, "return u"),),
    "u wraps as often as needed": ((WRAP_BELOW, "return (current + LIMIT - 1) % (2 * LIMIT) - LIMIT + 1"),),
    "u saturates": ((WRAP, "u = current.clamp(max=LIMIT)"),),
    "u is added in 64 bits": (("current = exact.to(torch.int32).to(exact.dtype)", "current = exact"),),
    "u is added in 32 bits although it leaks": (("torch.int64 if neuron.leaks or", "torch.int64 if"),),
    "wraps are looked for too late": (("64 * bound >= LIMIT", "64 * bound >= 4 * LIMIT"),),
    "a convolution does not wrap": (("if isinstance(layer, Conv) and bound", "if False and bound"), NO_SELF_TEST),
    "a dense layer wraps": (("if isinstance(layer, Conv) and bound", "if bound"), NO_SELF_TEST),
    "odd sums in float32": (("[torch.float64] if bound >= LIMIT else", "[torch.float32] if bound >= 1 << 24 else"),),
    "a pool is a mean": ((", divisor_override=1", ""), NO_SELF_TEST),
    "a pool is a maximum": (
        ("F.avg_pool2d(signal, layer.pool, divisor_override=1)", "F.max_pool2d(signal, layer.pool)"),
        NO_SELF_TEST,
    ),
    "a dense layer reads W, H, C": (
        ("signal.flatten(1), weight", "signal.transpose(1, 3).flatten(1), weight"),
        NO_SELF_TEST,
    ),
    "a convolution flips its kernel": (
        ("F.conv2d(signal, weight,", "F.conv2d(signal, weight.flip(2, 3),"),
        NO_SELF_TEST,
    ),
    "stride of y and x swapped": (("weight, None, layer.stride,", "weight, None, layer.stride[::-1],"), NO_SELF_TEST),
    "groups taken from the wrong channels": (
        ("F.conv2d(signal, weight,", "F.conv2d(signal.flip(1), weight,"),
        NO_SELF_TEST,
    ),
    "messages at the first step only": (
        ("u = drive_now if", "drive_now = drive_now * (t < len(drive))\n        u = drive_now if"),
    ),
    "decays round down": (('rounding_mode="trunc"', 'rounding_mode="floor"'),),
    "decays round to nearest": ((', 4096, rounding_mode="trunc")', ", 4096.0).round().to(state.dtype)"),),
    "decays swapped": (
        ("drive_now + _decay(u, neuron.i_decay)", "drive_now + _decay(u, neuron.v_decay)"),
        ("_decay(v, neuron.v_decay)", "_decay(v, neuron.i_decay % 4096)"),
    ),
    "a decay that is what remains": (("state * (4096 - amount)", "state * amount"),),
    "the current decays with its input": (
        ("drive_now + _decay(u, neuron.i_decay)", "_decay(drive_now + u, neuron.i_decay)"),
    ),
    "v decays after u is added": (
        ("voltage = _decay(v, neuron.v_decay) + u + offset", "voltage = _decay(v + u + offset, neuron.v_decay)"),
    ),
    "logits with the bias of one step": (("+ steps * bias", "+ bias"),),
    "logits of the last step": (("drive.long().sum(dim=0)[", "drive.long()[-1]["),),
    "steps in reverse": (("out.transpose(0, 1).bool()", "out.transpose(0, 1).bool().flip(1)"),),
    "activity without bias": (("torch.count_nonzero(drive_now + offset)", "torch.count_nonzero(drive_now)"),),
    "activity of the first step only": (("active += active_now", "active = active_now"),),
    "wraps not counted": (("torch.count_nonzero(u != current)", "torch.count_nonzero(u != u)"),),
    "saturations counted at both ends": (("voltage <= -LIMIT)", "voltage.abs() >= LIMIT)"),),
}


@functools.cache
def _suite():
    """Return cases, with what the reference makes of them; the same ones each time."""
    drawn = [*networks.corners().values(), *(networks.seeded(seed) for seed in range(150))]
    return [(case, reference.run(case.network, case.images, record=True)) for case in drawn]


def mutated(changes):
    """Return the emulator's module with its source changed. Raises ValueError where a change does not apply once."""
    spec = importlib.util.find_spec("toolchain.emulate.batched")
    source = Path(spec.origin).read_text()
    for old, new in changes:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} stands {source.count(old)} times in {spec.origin}; bring the mutants up to date")
        source = source.replace(old, new)
    module = types.ModuleType("toolchain.emulate.mutant")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, "mutant", "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
    return module


def killer(module):
    """Return the first case that shows the module to be wrong, and how; None where it survives."""
    for number, (case, expected) in enumerate(_suite()):
        try:
            actual = module.Emulator(case.network).run(case.images, record=True, batch=1)
        except RuntimeError as error:
            return f"network {number} does not run ({type(error).__name__})"
        if found := differences(expected, actual):
            return f"network {number}: {found[0]}"
    return None


def verdicts():
    """Return what kills each mutant, None for a survivor. Raises ValueError if the emulator itself is not clean."""
    if found := killer(batched):
        raise ValueError(f"the emulator differs from the reference: {found}")
    return {name: killer(mutated(changes)) for name, changes in MUTANTS.items()}


def main():
    """Print the verdicts; return the exit code."""
    found = verdicts()
    for name, killed_by in found.items():
        sys.stdout.write(f"{name:40} {killed_by or 'SURVIVES'}\n")
    survivors = sum(killed_by is None for killed_by in found.values())
    sys.stdout.write(f"{len(found) - survivors} of {len(found)} killed\n")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
