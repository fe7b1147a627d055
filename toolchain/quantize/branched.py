"""Layers with skip connections become a chain: spikes that are heard later are relayed beside those of each layer.

Between two layers of neurons there is nothing but convolutions and sums, so that what neurons hear is linear in the spikes of
layers before them: one kernel for each of those, composed of the convolutions on the way, and a bias. At most one convolution
of a way has a window: two after one another would have a border between them that no single kernel has.

A layer's channels are its own, then its relays, the latest spikes first. Relays pass a layer's stride by the centre of its window; a
kernel of 1x1 then takes at stride 1 what it took at that stride before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from toolchain.nets.branched import SPIKES
from toolchain.quantize.folded import Folded, normalised, opened, unsupported
from toolchain.spiking import IF, V_TH_MIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from toolchain.nets import Branched

    Floats = npt.NDArray[np.float64]

Pair = tuple[int, int]
_ONE = (1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Geometry:
    """How a kernel moves over spikes."""

    stride: Pair = _ONE
    padding: Pair = (0, 0)
    dilation: Pair = _ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """What a sum hears of the spikes of one layer. name: the convolution it came by. Shape: weight (Cout, Cin, kh, kw)."""

    name: str
    weight: Floats
    at: _Geometry = _Geometry()

    @property
    def window(self) -> Pair:
        """Sides of the kernel."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def pointwise(self) -> bool:
        """Whether it hears, of each place, that place alone."""
        return self.window == _ONE and self.at.padding == (0, 0)

    @property
    def centred(self) -> bool:
        """Whether its window reaches equally far to all sides, and as far beyond the border."""
        return all(
            side % 2 and pad == apart * (side // 2)
            for side, pad, apart in zip(self.window, self.at.padding, self.at.dilation, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sum:
    """What is heard of each layer of neurons, by its name, and a constant. Shape: bias (C,)."""

    terms: dict[str, _Term]
    bias: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Neurons:
    """A layer of neurons and what it hears."""

    name: str
    module: IF
    heard: _Sum


def unbranched(part: Branched, channels: int) -> tuple[list[Folded], Floats | None]:
    """Return the layers of a part of a network as a chain, for `channels` of spikes, and what it gives of their last one's channels.

    Each is called after the convolution that it hears its latest source by. Where neurons are the part's last layer, it gives their
    spikes: None; else a sum: a matrix (C, channels, relays among them). Raises UnsupportedError, naming a layer.
    """
    layers, end = _neurons(part, channels)
    heard = [*(layer.heard for layer in layers), *([end] if end else [])]
    made: list[Folded] = []
    given = [SPIKES]  # the layers of neurons whose spikes the layer before sends, and the strides they have passed
    widths, passed = {SPIKES: channels}, {SPIKES: _ONE}
    for index, layer in enumerate(layers):
        later = {source for after in heard[index + 1 :] for source in after.terms}
        found = _composed(layer, given, widths, passed)
        kept = [at for at, source in enumerate(given) if source in later]
        if kept:
            reach = max(at for at, source in enumerate(given) if source in layer.heard.terms) + 1
            first, last = min(kept[0], reach), kept[-1] + 1
            ends = np.cumsum([0, *(widths[source] for source in given)])
            found = replace(found, relays=(int(ends[first]), int(ends[last])))
            _check_relayed(found)
            stride = _pair(found.module.stride)
            for source in given[first:last]:
                passed[source] = (passed[source][0] * stride[0], passed[source][1] * stride[1])
            given = given[first:last]
        else:
            given = []
        taken = {one.name for one in made}
        made.append(found if found.name not in taken else replace(found, name=layer.name))
        given, widths[layer.name], passed[layer.name] = [layer.name, *given], len(found.weight), _ONE
    return made, _given(part.names[-1], end, given, widths, passed) if end else None


def _neurons(part: Branched, channels: int) -> tuple[list[_Neurons], _Sum | None]:
    """Return the layers of neurons, in order, and what each hears; and the sum at the end, if that is none of theirs."""
    sums = {SPIKES: _itself(SPIKES, channels)}
    found: list[_Neurons] = []
    for name, module in part.named_layers():
        heard = _added(name, [sums[source] for source in part.sources[name]])
        match module:
            case nn.Conv2d():
                sums[name] = _convolved(name, module, heard)
            case IF():
                found.append(_Neurons(name=name, module=module, heard=heard))
                sums[name] = _itself(name, len(heard.bias))
            case nn.BatchNorm2d():
                sums[name] = _normed(name, module, heard)
            case nn.Identity() if name == part.names[-1]:
                return found, heard
            case nn.Identity():
                sums[name] = heard
            case _:
                kind = type(module).__name__
                reason = f"{kind} between the ends of a skip connection cannot be deployed; only Conv2d, BatchNorm2d and neurons can"
                raise unsupported(name, reason)
    return found, None


def _normed(name: str, norm: nn.BatchNorm2d, heard: _Sum) -> _Sum:
    """Return what a batch norm makes of a sum."""
    each = nn.Conv2d(len(heard.bias), len(heard.bias), 1, groups=len(heard.bias), device="meta")
    whole = np.ones((len(heard.bias), 1, 1, 1))
    found = normalised(
        Folded(name=name, module=each, weight=whole, bias=heard.bias, threshold=None, pool=1, mask=whole != 0), norm
    )
    terms = {source: replace(term, weight=term.weight * found.weight) for source, term in heard.terms.items()}
    return _Sum(terms=terms, bias=found.bias)


def _given(name: str, end: _Sum, given: Sequence[str], widths: Mapping[str, int], passed: Mapping[str, Pair]) -> Floats:
    """Return a sum of spikes as a matrix of the channels that the last layer sends. Raises UnsupportedError where it is more."""
    blocks = []
    for source in given:
        term = _relayed(name, end.terms[source], passed[source]) if source in end.terms else None
        if end.bias.any() or (term and not (term.pointwise and term.at.stride == _ONE)):
            raise unsupported(
                name, "only spikes can be summed where no neurons hear the sum; a convolution leads to it"
            )
        blocks.append(term.weight[:, :, 0, 0] if term else np.zeros((len(end.bias), widths[source])))
    return np.concatenate(blocks, axis=1)


def _itself(name: str, channels: int) -> _Sum:
    return _Sum(terms={name: _Term(name=name, weight=np.eye(channels)[:, :, None, None])}, bias=np.zeros(channels))


def _added(name: str, sums: Sequence[_Sum]) -> _Sum:
    terms: dict[str, _Term] = {}
    for one in sums:
        for source, term in one.terms.items():
            terms[source] = _together(name, terms[source], term) if source in terms else term
    return _Sum(terms=terms, bias=np.sum([one.bias for one in sums], axis=0))


def _convolved(name: str, conv: nn.Conv2d, heard: _Sum) -> _Sum:
    """Return what a convolution makes of a sum."""
    layer = opened(name, conv, 1, {})
    own = _Term(
        name=name,
        weight=_ungrouped(layer.weight, conv.groups),
        at=_Geometry(stride=_pair(conv.stride), padding=_pair(conv.padding), dilation=_pair(conv.dilation)),
    )
    terms = {source: _after(term, own) for source, term in heard.terms.items()}
    if heard.bias.any() and any(own.at.padding):
        raise unsupported(name, "it pads a sum that has a bias, which no layer of a chain does")
    return _Sum(terms=terms, bias=layer.bias + own.weight.sum(axis=(2, 3)) @ heard.bias)


def _after(first: _Term, then: _Term) -> _Term:
    """Return one term that hears spikes as one convolution after another does."""
    (one, two), before = first.at.stride, then.at.stride
    if first.pointwise and first.at.stride == _ONE:
        weight = np.einsum("omyx,mi->oiyx", then.weight, first.weight[:, :, 0, 0], optimize=True)
        return replace(then, weight=weight)
    if then.pointwise:
        weight = np.einsum("om,miyx->oiyx", then.weight[:, :, 0, 0], first.weight, optimize=True)
        return replace(first, weight=weight, at=replace(first.at, stride=(one * before[0], two * before[1])))
    raise unsupported(first.name, f"has no spiking neurons before {then.name}")


def _together(name: str, one: _Term, other: _Term) -> _Term:
    """Return the sum of two terms that hear the same spikes."""
    wide, small = (one, other) if one.weight[0, 0].size >= other.weight[0, 0].size else (other, one)
    if wide.at.stride != small.at.stride:
        raise unsupported(name, _unlike(wide, small))
    return replace(wide, weight=wide.weight + _within(name, small, wide))


def _within(name: str, small: _Term, wide: _Term) -> Floats:
    """Return a kernel as part of the window of another, zeros around it. Raises UnsupportedError where it moves otherwise."""
    same = small.window == wide.window and small.at.padding == wide.at.padding
    apart = small.window == _ONE or small.at.dilation == wide.at.dilation
    inside = all(least <= most for least, most in zip(small.window, wide.window, strict=True))
    if not apart or not (same or (inside and small.centred and wide.centred)):
        raise unsupported(name, _unlike(wide, small))
    larger = np.zeros((*small.weight.shape[:2], *wide.window))
    y, x = ((most - least) // 2 for least, most in zip(small.window, wide.window, strict=True))
    larger[:, :, y : y + small.window[0], x : x + small.window[1]] = small.weight
    return larger


def _unlike(one: _Term, other: _Term) -> str:
    return (
        f"it hears the sum of {one.name or 'spikes'} and {other.name or 'spikes'}, whose windows move over spikes differently "
        f"({_in_words(one)}; {_in_words(other)})"
    )


def _in_words(term: _Term) -> str:
    y, x = term.window
    return f"{y}x{x} at stride {term.at.stride}, padded by {term.at.padding}"


def _composed(layer: _Neurons, given: Sequence[str], widths: Mapping[str, int], passed: Mapping[str, Pair]) -> Folded:
    """Return a layer that hears, of the sources that the layer before sends, those that its neurons hear."""
    terms = {
        source: _relayed(layer.name, layer.heard.terms[source], passed[source])
        for source in given
        if source in layer.heard.terms
    }
    wide = max(
        terms.values(), key=lambda term: term.weight[0, 0].size
    )  # of several as large, that of the latest spikes
    channels, at = len(layer.heard.bias), 0
    blocks: list[Floats] = []
    parts: list[tuple[str, int]] = []
    for source in given[: 1 + max(given.index(source) for source in terms)]:
        if source in terms:
            term = terms[source]
            if term.at.stride != wide.at.stride:
                raise unsupported(layer.name, _unlike(wide, term))
            blocks.append(_within(layer.name, term, wide))
            parts.append((source, at))
        else:
            blocks.append(np.zeros((channels, widths[source], *wide.window)))
        at += widths[source]
    weight = np.concatenate(blocks, axis=1)
    module = nn.Conv2d(
        weight.shape[1],
        channels,
        wide.window,
        stride=wide.at.stride,
        padding=wide.at.padding,
        dilation=wide.at.dilation,
        device="meta",
    )
    return Folded(
        name=wide.name or layer.name,
        module=module,
        weight=weight,
        bias=layer.heard.bias,
        threshold=max(layer.module.v_th.item(), V_TH_MIN),
        pool=1,
        mask=weight != 0,
        leak=layer.module.leak,
        parts=_by_convolution(terms, parts) if len(parts) > 1 else (),
    )


def _by_convolution(terms: Mapping[str, _Term], parts: Sequence[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    """Return where the weight of each source begins, by the convolution that it is heard by, or by its own name too where two come by one."""
    by = [terms[source].name for source, _ in parts]
    return tuple(
        ((name or "spikes") if by.count(name) == 1 else f"{name or 'itself'} of {source or 'spikes'}", at)
        for name, (source, at) in zip(by, parts, strict=True)
    )


def _relayed(name: str, term: _Term, passed: Pair) -> _Term:
    """Return a term as it hears spikes that were relayed through strides."""
    (sy, sx), (py, px) = term.at.stride, passed
    if passed == _ONE:
        return term
    if sy % py or sx % px or not term.pointwise:
        reason = (
            f"it hears {term.name or 'spikes'} ({_in_words(term)}) beside layers that have gone on at stride {passed}; "
            "only a convolution of 1x1 at that stride can skip them"
        )
        raise unsupported(name, reason)
    return replace(term, at=replace(term.at, stride=(sy // py, sx // px)))


def _check_relayed(layer: Folded) -> None:
    """Raise UnsupportedError where no spikes can be relayed beside a layer."""
    pair = zip(layer.weight.shape[2:], _pair(layer.module.padding), _pair(layer.module.dilation), strict=True)
    if any(side % 2 == 0 or pad != apart * (side // 2) for side, pad, apart in pair):
        reason = "a skip connection passes it, and its window is not odd and padded by half of its reach"
        raise unsupported(layer.name, reason)


def _ungrouped(weight: Floats, groups: int) -> Floats:
    """Return the weight that hears every channel, zeros for those of other groups."""
    if groups == 1:
        return weight
    out, each = len(weight) // groups, weight.shape[1]
    full = np.zeros((len(weight), each * groups, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * out, (group + 1) * out)
        full[rows, group * each : (group + 1) * each] = weight[rows]
    return full


def _pair(value: object) -> Pair:
    y, x = value if isinstance(value, tuple) else (value, value)
    return int(y), int(x)
