"""The claims, in the order in which they are checked."""

from __future__ import annotations

import importlib

MODULES = (
    "installing",
    "stages",
    "answers",
    "stops",
    "directories",
    "commands",
    "duties",
    "confinement",
    "service",
    "removing",
)


def load() -> None:
    """Let every module add its claims."""
    for module in MODULES:
        importlib.import_module(f".{module}", __package__)
