"""Lets Lava 0.10.0, which was made for Python 3.10, be imported by Python 3.11 and 3.12; does nothing on 3.10.

Since 3.11 a dataclass refuses a default that has no hash. `lava.magma.compiler.var_model` has such defaults: instances of a
dataclass, `ByteEncoder`, that nobody changes. While that module is imported, and no longer, its dataclasses get the hash of
any object. Nothing else of Lava is touched, and nothing it computes; the suites that prove Lava exact run on these Pythons too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATCHED = "lava.magma.compiler.var_model"


@contextlib.contextmanager
def hashable_defaults() -> Iterator[None]:
    """Lava can be imported meanwhile."""
    if sys.version_info < (3, 11):
        yield
        return
    original = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return lambda later: dataclass(later, **options)
        made = original(cls, **options) if options else original(cls)
        if made.__module__ == _PATCHED and made.__hash__ is None:
            made.__hash__ = object.__hash__
        return made

    replaced: Callable[..., Any] = dataclass
    dataclasses.dataclass = replaced
    try:
        yield
    finally:
        dataclasses.dataclass = original
