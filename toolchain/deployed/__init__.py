"""The network that runs on the chip, measured as the float one is: attacked, compared with it step by step, explained.

`Chain` is the integer network as a module that any attack takes; `measure` attacks it.
"""

from toolchain.deployed.chain import Chain, Record, Values
from toolchain.deployed.fingerprint import fingerprint
from toolchain.deployed.images import Adversarial

__all__ = ["Adversarial", "Chain", "Record", "Values", "fingerprint"]
