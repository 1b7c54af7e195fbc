"""Everything that provisioning makes on a server, in a form that can be compared."""

import json
from typing import Any

from tests.migrations.redis.documents import Memory

_MOMENTS = ("createdAt", "lastSeen")


def snapshot(memory: Memory) -> dict[str, Any]:
    """Users, keys, the users' file, and the ledger but for moments in time."""
    with memory.node.client(database=memory.database) as admin:
        entry = json.loads(admin.hget(memory.ledger, memory.key) or "{}")
        file = memory.node.directory / "users.acl"
        return {
            "users": sorted(line for line in admin.acl_list() if memory.id12 in line),
            "saved": sorted(line for line in file.read_text().splitlines() if memory.id12 in line),
            "meta": admin.hgetall(f"{memory.prefix}meta"),
            "keys": sorted(admin.keys(f"{memory.prefix}*")) + sorted(admin.keys(f"{memory.ledger}:*{memory.key}")),
            "entry": {name: value for name, value in entry.items() if name not in _MOMENTS},
        }
