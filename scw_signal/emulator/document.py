"""The metadata document of the emulated server, and its text form."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BOOTING = "booting kernel"  # the state_detail before a signal, set by the platform
_BARE = re.compile(r"[A-Za-z0-9@%_+=:,./-]+")


def flatten(document: Mapping[str, object]) -> str:
    """Return a metadata document as the text of a reply to `GET /conf`."""
    return "".join(
        f"{line}\n"
        for key, value in document.items()
        for line in _lines(key.upper(), value)
    )


def _lines(key: str, value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield f"{key}={quoted(' '.join(value).upper())}"
        for name, part in value.items():
            yield from _lines(f"{key}_{name}".upper(), part)
    elif isinstance(value, list):
        yield f"{key}={len(value)}"
        for index, part in enumerate(value):
            yield from _lines(f"{key}_{index}", part)
    else:
        yield f"{key}={'' if value is None else quoted(str(value))}"


def quoted(value: str) -> str:
    """Return a value as a shell, and the service, would write it."""
    if _BARE.fullmatch(value):
        return value
    return "'" + value.replace("'", "'\"'\"'") + "'"


def printable(text: str, most: int = 160) -> str:
    """Return foreign text as ASCII of limited length, without control characters."""
    shown = text.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= most else shown[: most - 3] + "..."


# A server with a routed IPv4 address, in the form such documents had in 2026.
DOCUMENT: Mapping[str, object] = json.loads("""{
 "allowed_actions": ["poweroff", "terminate", "reboot", "stop_in_place", "backup"],
 "arch": "x86_64", "boot_type": "local", "bootscript": null,
 "commercial_type": "DEV1-S", "creation_date": "2026-01-12T08:00:01.250000+00:00",
 "dynamic_ip_required": false, "enable_ipv6": false, "end_of_service": false,
 "extra_networks": [], "filesystems": [], "hostname": "openbsd",
 "id": "00000000-0000-4000-8000-000000000100",
 "image": {"arch": "x86_64", "from_server": "",
  "id": "00000000-0000-4000-8000-000000000101", "name": "OpenBSD",
  "organization": "00000000-0000-4000-8000-000000000102",
  "project": "00000000-0000-4000-8000-000000000102", "public": false,
  "root_volume": {"id": "00000000-0000-4000-8000-000000000103", "name": "",
   "size": 10000000000, "volume_type": "sbs_snapshot"},
  "state": "available", "tags": [], "zone": "fr-par-1"},
 "ipv6": null,
 "location": {"cluster_id": "12", "hypervisor_id": "301", "node_id": "77",
  "platform_id": "23", "zone_id": "fr-par-1"},
 "mac_address": "de:00:00:00:01:00", "maintenances": [],
 "modification_date": "2026-01-12T08:00:06.500000+00:00", "name": "openbsd",
 "organization": "00000000-0000-4000-8000-000000000102", "placement_group": null,
 "private_ip": null, "private_nics": [],
 "project": "00000000-0000-4000-8000-000000000102", "protected": false,
 "public_ip": {"address": "198.51.100.42", "dynamic": false, "family": "inet",
  "gateway": "62.210.0.1", "id": "00000000-0000-4000-8000-000000000111",
  "ipam_id": "00000000-0000-4000-8000-000000000112", "netmask": "32",
  "provisioning_mode": "dhcp", "state": "attached", "tags": []},
 "public_ips": [{"address": "198.51.100.42", "dynamic": false, "family": "inet",
  "gateway": "62.210.0.1", "id": "00000000-0000-4000-8000-000000000111",
  "ipam_id": "00000000-0000-4000-8000-000000000112", "netmask": "32",
  "provisioning_mode": "dhcp", "state": "attached", "tags": []}],
 "public_ips_v4": [{"address": "198.51.100.42", "dynamic": false, "family": "inet",
  "gateway": "62.210.0.1", "id": "00000000-0000-4000-8000-000000000111",
  "ipam_id": "00000000-0000-4000-8000-000000000112", "netmask": "32",
  "provisioning_mode": "dhcp", "state": "attached", "tags": []}],
 "public_ips_v6": [], "routed_ip_enabled": true,
 "security_group": {"id": "00000000-0000-4000-8000-000000000104",
  "name": "Default security group"},
 "ssh_public_keys": [{
  "key": "ssh-ed25519 \
AAAAC3NzaC1lZDI1NTE5AAAAIEFuIGVtdWxhdGVkIGtleTogbm9ib2R5IGhhcyBpdC4u puffy",
  "fingerprint": "256 SHA256:\
vlX8LvGsMsP5snpN7i5aTSe8AiCavrOY+Y5Wa53voT8 puffy (ED25519)"}],
 "state": "starting", "state_detail": "booting kernel",
 "tags": ["openbsd", "role=web front"],
 "volumes": {"0": {"boot": false, "id": "00000000-0000-4000-8000-000000000105",
  "volume_type": "sbs_volume", "zone": "fr-par-1"}},
 "zone": "fr-par-1"
}""")
