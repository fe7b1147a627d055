"""What a layer's neurons did on a batch, passed between the rooms of the emulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from toolchain.ir import Conv

Kernels = Literal["torch", "compiled", "measured"]


@dataclass(frozen=True, slots=True)
class Fired:
    """Spikes of all steps of all samples, and what was counted.

    Shapes: spikes in frames, float32 (T, samples, C, H, W), or in lanes, uint8 (C, H, W, T * samples), step-major; counts
    (samples, C, H, W); sums (T, C, H, W), spikes over samples; tally int64 (3, T): active, wraps, saturations. sums and tally hold nothing
    of use unless the activity was to be counted.
    """

    spikes: Tensor
    counts: Tensor
    sums: Tensor
    tally: Tensor

    def frames(self) -> Tensor:
        """Spikes as a convolution takes them. Shape: (T * samples, C, H, W)."""
        return self.spikes.permute(3, 0, 1, 2) if self._in_lanes else self.spikes.flatten(0, 1)

    def lanes(self) -> Tensor:
        """Spikes as a sparse layer takes them. Shape: uint8 (C, H, W, T * samples)."""
        if self._in_lanes:
            return self.spikes
        return self.spikes.flatten(0, 1).to(torch.uint8).permute(1, 2, 3, 0).contiguous()

    def recorded(self) -> Tensor:
        """Spikes as a trace has them. Shape: bool (samples, T, C, H, W)."""
        if not self._in_lanes:
            return self.spikes.transpose(0, 1).bool()
        by_step = self.spikes.reshape(*self.spikes.shape[:3], self.tally.shape[1], len(self.counts))
        return by_step.permute(4, 3, 0, 1, 2).bool()

    def with_relays(self, source: Fired, layer: Conv, *, activity: bool) -> Fired:
        """These neurons and, behind them, the relays of a layer, which do what its source did."""
        (first, last), (sy, sx) = layer.relays, layer.stride

        def relayed(values: Tensor) -> Tensor:
            return values[..., first:last, ::sy, ::sx]

        if self._in_lanes:
            spikes = torch.cat([self.spikes, source.lanes()[first:last, ::sy, ::sx]])
        else:
            frames = torch.cat([self.frames(), relayed(source.frames()).to(self.spikes.dtype)], dim=1)
            spikes = frames.reshape(*self.spikes.shape[:2], *frames.shape[1:])
        counts = torch.cat([self.counts, relayed(source.counts)], dim=1)
        if not activity:
            return Fired(spikes, counts, self.sums, self.tally)
        sums, tally = relayed(source.sums), self.tally.clone()
        tally[0] += sums.flatten(1).sum(dim=1, dtype=torch.float64).to(tally)
        return Fired(spikes, counts, torch.cat([self.sums, sums], dim=1), tally)

    @property
    def _in_lanes(self) -> bool:
        return self.spikes.dtype == torch.uint8
