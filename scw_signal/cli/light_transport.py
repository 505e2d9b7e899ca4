"""Imports scw_signal.transport without the modules that urllib3 does not need here.

The service speaks plain HTTP, so ssl is not needed. Without it a signal starts sooner
and takes less memory, and urllib3 2 prints no warning about LibreSSL on the console.
urllib3 supports a Python that was built without ssl; this module makes ours look like
one. urllib3 2 also imports importlib.metadata, in case HTTP/2 is switched on. That is
a tenth of the instructions of a signal, so it is loaded only when it is used.

Only a command may import this, since it changes sys.modules for the whole process, and
it must come before any other import of urllib3. It raises ScwSignalError if a library
is missing or has a wrong version: otherwise the agent would see that only after its
first failed try.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from scw_signal import libraries
from scw_signal.errors import ScwSignalError

_DEFERRED = "importlib.metadata"


class _DeferredModule(ModuleType):
    """Takes the place of a module while urllib3 is imported."""

    @staticmethod
    def version(name: str) -> Any:
        """Call the real function."""
        return importlib.import_module(_DEFERRED).version(name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # asked by the import system
            raise AttributeError(attribute)
        _remove(self)  # another attribute is used: load the real module
        return getattr(importlib.import_module(_DEFERRED), attribute)


def _remove(stand_in: ModuleType) -> None:
    if sys.modules.get(_DEFERRED) is stand_in:
        del sys.modules[_DEFERRED]


if _fault := libraries.fault(sys.path):
    raise ScwSignalError(_fault)

sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
_stand_in = _DeferredModule(_DEFERRED)
sys.modules.setdefault(_DEFERRED, _stand_in)

from scw_signal import transport  # noqa: E402

_remove(_stand_in)

__all__ = ["transport"]
