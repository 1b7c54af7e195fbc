"""Tries a binding on the toy server: exits 0 when the login may write, 1 when not. `try_login.py DIRECTORY`."""

import json
import socket
import sys
from pathlib import Path


def main(directory: Path) -> int:
    """Writes a key with the login of a binding directory."""
    binding = {path.name: path.read_text() for path in directory.iterdir() if not path.name.startswith("..")}
    asked = {
        "user": binding["username"],
        "password": binding["password"],
        "do": "put",
        "key": f"home/{binding['schema']}/tried",
        "value": "by the kit",
    }
    with socket.create_connection((binding["host"], int(binding["port"])), timeout=10) as connection:
        file = connection.makefile("rwb")
        file.write(json.dumps(asked).encode() + b"\n")
        file.flush()
        return 0 if "ok" in json.loads(file.readline()) else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
