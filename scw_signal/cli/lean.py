"""Imports scw_signal.transport without what urllib3 would load in vain.

The service speaks plain HTTP, so ssl is of no use; without it a signal starts
sooner, takes less memory, and on LibreSSL urllib3 2 has nothing to warn about
on the console. urllib3 supports a Python that was built without ssl, and this
makes ours look like one. importlib.metadata, which urllib3 2 imports lest
HTTP/2 be switched on, is put off until somebody uses it: a tenth of a signal's
instructions.

Only a command may import this, and before anything else that needs urllib3: it
owns its process.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is imported when something in it is first called."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)

        def call(*arguments: Any) -> Any:
            name = str(self.__name__)
            if sys.modules.get(name) is self:
                del sys.modules[name]
            return getattr(importlib.import_module(name), attribute)(*arguments)

        return call


sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
sys.modules.setdefault("importlib.metadata", _Later("importlib.metadata"))

from scw_signal import transport  # noqa: E402

__all__ = ["transport"]
