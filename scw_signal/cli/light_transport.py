"""Imports scw_signal.transport without what urllib3 would load in vain.

The service speaks plain HTTP, so ssl is of no use; without it a signal starts
sooner, takes less memory, and on LibreSSL urllib3 2 has nothing to warn about
on the console. urllib3 supports a Python that was built without ssl, and this
makes ours look like one. importlib.metadata, which urllib3 2 imports lest
HTTP/2 be switched on, is put off until somebody calls what urllib3 took from it: a
tenth of a signal's instructions.

Only a command may import this, and before anything else that needs urllib3: it
owns its process. It raises ScwSignalError if the libraries will not do: otherwise the
agent would learn that after its first failed try.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from scw_signal import libraries
from scw_signal.errors import ScwSignalError

_PUT_OFF = "importlib.metadata"


class _PutOff(ModuleType):
    """Stands for a module while urllib3 is imported."""

    @staticmethod
    def version(name: str) -> Any:
        """Return what the function of that name does."""
        return importlib.import_module(_PUT_OFF).version(name)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # the import system's own questions
            raise AttributeError(attribute)
        _take_away(self)  # somebody wants more of it: then it is loaded after all
        return getattr(importlib.import_module(_PUT_OFF), attribute)


def _take_away(stand_in: ModuleType) -> None:
    if sys.modules.get(_PUT_OFF) is stand_in:
        del sys.modules[_PUT_OFF]


if _fault := libraries.fault(sys.path):
    raise ScwSignalError(_fault)

sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
_stand_in = _PutOff(_PUT_OFF)
sys.modules.setdefault(_PUT_OFF, _stand_in)

from scw_signal import transport  # noqa: E402

_take_away(_stand_in)

__all__ = ["transport"]
