"""Trains robust sparse spiking networks, deploys them as integers, and proves the deployed network on Lava.

Importing this package loads neither torch nor Lava.
"""

__version__ = "0.1.0"
