"""Mutants of the fast emulator: each a small, plausible mistake that the comparison with the reference must notice.

    python tests/property/mutants.py    # lists what kills each; exit code 1 if one survives

A mutant is a change of the source text of the modules of `toolchain.emulate`. The emulator's own self-test is taken out of those
whose mistake it would refuse to run: here the comparison has to see it. The loops that numba compiles run as plain Python.
"""

from __future__ import annotations

import functools
import re
import sys
import types
import warnings
from contextlib import contextmanager
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import loops
import networks
import traces

from toolchain.emulate import batched

MODULES = ("fired", "synapses", "kernels", "compiled", "neurons", "sparse", "batched")
"""Of `toolchain.emulate`, in the order in which they import each other; the reference is never changed"""
UNCOMPILED = (
    ("import numba\n", ""),
    ("    try:\n        return numba.njit(", "    return loop\n    try:\n        return numba.njit("),
    ('importlib.util.find_spec("numba") is not None', "True"),
    # Small layers meet the ends of blocks, chunks and parts, too.
    ("BLOCK = 1024", "BLOCK = 5"),
    ("_CACHED = 1 << 17", "_CACHED = 1"),
    ("torch.get_num_threads()", "3"),
)
PLAIN_WORDS = "_WORD = np.uint64", "_WORD = int"
UNCOMPILED_SIZE = 300
"""Steps times pixels of an image beyond which plain Python takes too long"""

NO_SELF_TEST = ("if torch.equal(", "if True or torch.equal(")

WRAP = "u = torch.where(current > LIMIT, current - 2 * LIMIT, current)"
WRAP_BELOW = "return torch.where(u <= -LIMIT, current + 2 * LIMIT, u)"
RESET = "v.masked_fill_(spiking, 0)"
RESET_FLOAT = "v.addcmul_(v, out, value=-1)"
RESET_LANES = "out[j] = np.uint8(o)\n            v[j] = v[j] - v[j] * o"
RESET_FRAMES = "out[j] = o\n                    v[j] = v[j] - v[j] * o"
ACTIVE_LANES = "a = np.float32(now[j]) + bias\n            active += _ZERO if a == _ZERO else _ONE"
ACTIVE_FRAMES = "a = now[j] + offsets[j]\n                    active += _ZERO if a == _ZERO else _ONE"

MUTANTS: dict[str, tuple[tuple[str, str], ...]] = {
    "a spike at theta - 1": (("spiking = v > level", "spiking = v >= level"),),
    "theta one too high": (("64 * theta - 64, 64 * bias", "64 * theta, 64 * bias"),),
    "theta one too low": (("64 * theta - 64, 64 * bias", "64 * theta - 128, 64 * bias"),),
    "one theta for all channels": (
        (
            "return tensor[:, None, None] if tensor.ndim == 1 else tensor",
            "return tensor.max() if tensor.ndim == 1 and tensor.min() > 0 else tensor[:, None, None] if tensor.ndim == 1 else tensor",
        ),
    ),
    "soft reset": ((RESET, "v = v - spiking * (level + 64)"),),
    "no reset after a spike": ((RESET, "pass"),),
    "u reset with v": ((RESET, "v.masked_fill_(spiking, 0); u = u.masked_fill(spiking, 0)"),),
    "no reset between images": (
        (
            "u = v = torch.zeros_like(drive[0], dtype=dtype)",
            "u = v = _STATE.get(id(neuron), torch.zeros_like(drive[0], dtype=dtype))",
        ),
        (
            "    return Fired(spikes, spikes.sum(dim=0)",
            "    _STATE[id(neuron)] = v\n    return Fired(spikes, spikes.sum(dim=0)",
        ),
        ("_FORGETS = 4096", "_FORGETS, _STATE = 4096, {}"),
    ),
    "bias at the first step only": (("+ u + offset", "+ u + offset * (t == 0)"),),
    "bias not scaled": (("64 * theta - 64, 64 * bias", "64 * theta - 64, bias"),),
    "bias map upside down": (
        ("if tensor.ndim == 1 else tensor\n", "if tensor.ndim == 1 else tensor.flip(1) if tensor.ndim else tensor\n"),
    ),
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
    "logits of the last step": (("drive.long().sum(dim=0).cpu()", "drive.long()[-1].cpu()"),),
    "steps in reverse": (("self.spikes.transpose(0, 1).bool()", "self.spikes.transpose(0, 1).bool().flip(1)"),),
    "activity without bias": (("torch.count_nonzero(drive_now + offset)", "torch.count_nonzero(drive_now)"),),
    "activity of the first step only": (("tally[0, t] = active_now", "tally[0, t] = active_now * (t == 0)"),),
    "synops of all weights": (
        ("counts.fan_out(layer, source, layer.weight)", "counts.fan_out(layer, source, layer.weight + 1000)"),
    ),
    "synops counted one layer late": (("part.tallies[index + 1, 4]", "part.tallies[index, 4]"),),
    "a message of any value is an event": (
        (
            "np.count_nonzero(messages.numpy(), axis=0)",
            "np.count_nonzero(messages.numpy() == messages.numpy(), axis=0)",
        ),
    ),
    "float: a spike at theta - 1": (("torch.gt(v, level, out=out)", "torch.ge(v, level, out=out)"),),
    "float: theta one too high": (("    level = theta - 1\n", "    level = theta\n"),),
    "float: v above the floor by a sixty-fourth does not count": (
        ("torch.gt(v, level, out=out)", "torch.ge(v, level + 1, out=out)"),
    ),
    "float: soft reset": ((RESET_FLOAT, "v.sub_(out * (level + 1))"),),
    "float: no reset after a spike": ((RESET_FLOAT, "pass"),),
    "float: v does not saturate": (("v.clamp_(min=FLOOR)", "pass"),),
    "float: v saturates at a whole number": (("FLOOR = -(FLOAT_BOUND - 1 / 64)", "FLOOR = -FLOAT_BOUND"),),
    "float: saturation is looked for in one step": (("steps * float(driven.min())", "float(driven.min())"),),
    "float: saturations not counted": (("tally[2, t] += torch.count_nonzero(v <= -FLOAT_BOUND)", "pass"),),
    "float: no bias": (("driven = drive[:, part] + bias", "driven = drive[:, part] + 0"),),
    "float: activity of the membrane": (
        ("tally[0, t] += torch.count_nonzero(now)", "tally[0, t] += torch.count_nonzero(v)"),
    ),
    "float: the last images are forgotten": (("range(0, samples, together)", "range(0, samples - 1, together)"),),
    "float: used for neurons that leak": (("return not neuron.leaks and (bound", "return (bound"),),
    "float: used where u wraps": (("bound < FLOAT_BOUND or _greatest(drive) < FLOAT_BOUND", "True"),),
    "float: used from the first value that wraps": (
        ("_greatest(drive) < FLOAT_BOUND", "_greatest(drive) <= FLOAT_BOUND"),
    ),
    "frames: a spike at theta - 1": (("if v[j] > levels[j] else", "if v[j] >= levels[j] else"),),
    "frames: no reset after a spike": ((RESET_FRAMES, "out[j] = o"),),
    "frames: patterns run on": (("n = min(BLOCK, last - start, pattern - at)", "n = min(BLOCK, last - start)"),),
    "frames: v is kept between images": (
        ("            for j in range(n):\n                v[j] = _ZERO\n", ""),
        ("v = np.empty(BLOCK, dtype=np.float32)", "v = np.zeros(BLOCK, dtype=np.float32)"),
    ),
    "frames: a changing drive is held": (("drive[t if held > 1 else 0,", "drive[0,"),),
    "frames: activity without bias": ((ACTIVE_FRAMES, ACTIVE_FRAMES.replace("a == _ZERO", "now[j] == _ZERO")),),
    "frames: bias map upside down": (
        ("np.moveaxis(bias, 0, -1).reshape(-1)", "np.moveaxis(bias[:, ::-1], 0, -1).reshape(-1)"),
    ),
    "lanes: a spike at theta - 1": (("if v[j] > level else", "if v[j] >= level else"),),
    "lanes: no reset after a spike": ((RESET_LANES, "out[j] = np.uint8(o)"),),
    "lanes: v is kept between neurons": (("    for j in range(samples):\n        v[j] = _ZERO\n", ""),),
    "lanes: activity without bias": ((ACTIVE_LANES, ACTIVE_LANES.replace("a == _ZERO", "now[j] == 0")),),
    "lanes: one step drives all": (
        ("now = drive[t * stride :", "now = drive[0 * stride :"),
        ("t * stride + samples]", "samples]"),
    ),
    "lanes: the fourth weight of four is the third": (("w3 * source[d + lane]", "w2 * source[d + lane]"),),
    "lanes: the last weights are dropped": (("while k < end:", "while k < end - 1:"),),
    "lanes: sums are kept between neurons": (("            total[lane] = 0\n", "            pass\n"),),
    "lanes: y and x of a stride swapped": (
        (
            "rows * padded[2] + columns",
            "(rows * padded[2] + columns).reshape(len(columns), -1).T if len(rows) != columns.size else (rows * padded[2] + columns).T",
        ),
    ),
    "lanes: no dilation": (("padded[1] + ky * dy) * padded[2] + kx * dx", "padded[1] + ky) * padded[2] + kx"),),
    "lanes: groups read the first channels": (("(group * weight.shape[1] + ci)", "ci"),),
    "lanes: a pool takes one corner": (("for i in range(q) for j in range(q)", "for i in range(1) for j in range(1)"),),
    "lanes: padding on the far side": (
        (
            "padded[:, py : py + height, px : px + width]",
            "padded[:, 2 * py : 2 * py + height, 2 * px : 2 * px + width]",
        ),
    ),
    "lanes: 16 bits although the sum is wider": (("if reach <= np.iinfo(np.int16).max else", "if True else"),),
    "lanes: 16 bits without regard to pools": ((" * layer.pool**2\n    bias", "\n    bias"),),
    "lanes: used where u wraps": (("layer.neuron.leaks or bound >= FLOAT_BOUND or", "layer.neuron.leaks or"),),
    "lanes: used for neurons that leak": (("if layer.neuron.leaks or bound", "if bound"),),
    "lanes: bias map upside down": (
        (
            "values[:, None, None] if values.ndim == 1 else values\n    return",
            "values[:, None, None] if values.ndim == 1 else values[:, ::-1] if values.ndim else values\n    return",
        ),
    ),
    "lanes: frames laid out sample by sample": (
        (".to(torch.uint8).permute(1, 2, 3, 0)", ".to(torch.uint8).flip(0).permute(1, 2, 3, 0)"),
    ),
    "shared out: the last part is left out": (("for k in range(1, threads)]", "for k in range(1, threads - 1)]"),),
    "wraps not counted": (("torch.count_nonzero(u != current)", "torch.count_nonzero(u != u)"),),
    "saturations counted at both ends": (("voltage <= -LIMIT)", "voltage.abs() >= LIMIT)"),),
}


@functools.cache
def _suite():
    """Return cases, with what the reference makes of them; the same ones each time."""
    drawn = [*networks.corners().values(), *(networks.seeded(seed) for seed in range(150))]
    return [(case, traces.expected(case)) for case in drawn]


@functools.cache
def _sources():
    folder = Path(batched.__file__).parent
    sources = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
    sources = _changed(sources, UNCOMPILED)
    return {name: source.replace(*PLAIN_WORDS) for name, source in sources.items()}


def _changed(sources, changes):
    sources = dict(sources)
    for old, new in changes:
        found = [name for name, source in sources.items() for _ in range(source.count(old))]
        if len(found) != 1:
            raise ValueError(f"{old!r} stands {len(found)} times in toolchain.emulate; bring the mutants up to date")
        sources[found[0]] = sources[found[0]].replace(old, new)
    return sources


@contextmanager
def mutated(changes):
    """Yield the emulator's package with its source changed. Raises ValueError where a change does not apply once."""
    package = sys.modules["mutant"] = types.ModuleType("mutant")
    try:
        for name, source in _changed(_sources(), changes).items():
            module = sys.modules[f"mutant.{name}"] = types.ModuleType(f"mutant.{name}")  # dataclasses look it up
            setattr(package, name, module)
            renamed = re.sub(r"toolchain\.emulate(?!\.reference)", "mutant", source)
            exec(compile(renamed, f"mutant {name}", "exec"), vars(module))
        yield package
    finally:
        for name in MODULES:
            sys.modules.pop(f"mutant.{name}", None)
        del sys.modules["mutant"]


def killer(package):
    """Return the first case that shows the package to be wrong, and how; None where it survives."""
    try:
        return next(_faults(package), None)
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        return f"does not run ({type(error).__name__})"


def _faults(package):
    for number, (case, expected) in enumerate(_suite()):
        if number == 20:  # the first networks show most faults outside of the loops
            for kernels in ("torch", "compiled"):
                yield from loops.faults(package, kernels)
        for kernels in ("torch", "compiled"):
            if kernels == "compiled" and case.network.timesteps * case.images[0].size > UNCOMPILED_SIZE:
                continue
            emulator = package.batched.Emulator(case.network, kernels=kernels)
            actual = emulator.run(case.images, record=True, batch=1 if kernels == "torch" else 2)
            yield from (f"network {number}: {what}" for what in traces.differences(expected, actual))


def verdicts(chosen=tuple(MUTANTS)):
    """Return what kills each mutant, None for a survivor. Raises ValueError if the emulator itself is not clean."""
    with mutated(()) as package:
        if found := killer(package):
            raise ValueError(f"the emulator differs from the reference: {found}")
    found = {}
    for name in chosen:
        with mutated(MUTANTS[name]) as package, warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # plain Python warns of overflows, compiled loops do not
            found[name] = killer(package)
    return found


def main():
    """Print the verdicts; return the exit code."""
    found = verdicts()
    for name, killed_by in found.items():
        sys.stdout.write(f"{name:50} {killed_by or 'SURVIVES'}\n")
    survivors = sum(killed_by is None for killed_by in found.values())
    sys.stdout.write(f"{len(found) - survivors} of {len(found)} killed\n")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
