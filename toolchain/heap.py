"""Memory that was freed stays with the process.

The C library takes every large array from the system anew and gives it back at once. The system hands out zeroed pages one fault at a
time, which costs a convolution of spikes a quarter of its time, and far more in a virtual machine whose memory is balanced.
"""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
"""mallopt(3), as in glibc's malloc.h"""


def keep_freed() -> None:
    """Lets this process reuse what it freed; where the C library is not glibc, nothing changes.

    The process then holds what it needed at its fullest until it ends. Source: mallopt(3), M_MMAP_MAX and M_TRIM_THRESHOLD.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 2**26)
