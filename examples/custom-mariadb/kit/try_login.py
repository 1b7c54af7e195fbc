"""Tries a binding on MariaDB: exits 0 when the login may write, 1 when not. `try_login.py DIRECTORY`."""

import sys
from pathlib import Path

import pymysql


def main(directory: Path) -> int:
    """Writes a key with the login of a binding directory."""
    binding = {path.name: path.read_text() for path in directory.iterdir() if not path.name.startswith("..")}
    try:
        with (
            pymysql.connect(
                host=binding["host"],
                port=int(binding["port"]),
                user=binding["username"],
                password=binding["password"],
                database=binding["schema"],
                autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "REPLACE INTO memory_kv (dataset, `key`, value) VALUES (%s, 'tried', '1')", binding["dataset"]
            )
    except pymysql.Error:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
