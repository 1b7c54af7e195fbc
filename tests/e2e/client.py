"""An app in the cluster: a pod that mounts the connection Secret and nothing else, and speaks SQL.

The image is the migrations image, since it has a PostgreSQL driver and is there; the code is given on the command line.
Everything it needs it reads from the Secret, as a servicebinding.io client would.
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.e2e.kube import Body, Kube

CONNECT = '''
import json, pathlib, psycopg
from psycopg.types.json import Jsonb

class Binding(dict):
    """Files of the mounted Secret."""
    def __missing__(self, key):
        return pathlib.Path("/bindings/memory", key).read_text()

binding = Binding()
tls = pathlib.Path("/bindings/memory/ca.crt")
host, port = binding["endpoint"].rsplit(":", 1)
connection = psycopg.connect(
    host=host, port=port, dbname=binding["database"], user=binding["username"], password=binding["password"],
    sslmode="verify-full" if tls.exists() else "require", sslrootcert=str(tls) if tls.exists() else None,
    connect_timeout=10, autocommit=True,
)

def ask(query, *values):
    """All rows of a query."""
    return connection.execute(query, values).fetchall()
'''

USE = """
dataset, dimension = binding["dataset"], int(binding["dimension"])
ask("SELECT FROM memory_append(%s, 'said', %s)", dataset, Jsonb({"text": "hello"}))
ask("SELECT FROM memory_put(%s, 'mood', %s)", dataset, Jsonb("sunny"))
for axis, word in enumerate(["bakery", "harbour", "orchard"]):
    vector = [0.1] * dimension
    vector[axis] = 9.0
    ask("SELECT FROM memory_upsert_embedding(%s, %s, %s::text::vector, %s)", dataset, word, str(vector), f"the {word}")
asked = str([9.0] + [0.1] * (dimension - 1))
print(json.dumps({
    "events": ask("SELECT count(*) FROM memory_read(%s)", dataset)[0][0],
    "found": [row[0] for row in ask("SELECT key FROM memory_search(%s, %s::text::vector)", dataset, asked)],
    "mood": ask("SELECT value FROM memory_get(%s, 'mood')", dataset)[0][0],
}))
"""

COUNT = """
print(json.dumps({"events": ask("SELECT count(*) FROM memory_read(%s)", binding["dataset"])[0][0]}))
"""


def pod(namespace: str, name: str, secret: str, image: str, code: str) -> Body:
    """A pod of an app, under Pod Security *restricted*: it may do nothing that the Secret does not give."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65534,
                "fsGroup": 65534,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "app",
                    "image": image,
                    "command": ["python3", "-c", code],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "memory", "mountPath": "/bindings/memory", "readOnly": True}],
                }
            ],
            "volumes": [{"name": "memory", "secret": {"secretName": secret, "defaultMode": 0o440}}],
        },
    }


class App:
    """Runs an app's code in the cluster and gives what it prints."""

    def __init__(self, kube: Kube, image: str, prelude: str = CONNECT) -> None:
        self._kube = kube
        self._image = image
        self._prelude = prelude
        self._runs = 0

    def __call__(self, namespace: str, secret: str, script: str = USE) -> Any:
        """Run `script` with the Secret mounted; `AssertionError` with its log when it fails."""
        code, log = self.outcome(namespace, secret, script)
        assert code == 0, log
        return json.loads(log.splitlines()[-1])

    def outcome(self, namespace: str, secret: str, script: str) -> tuple[int, str]:
        """Run `script` and give its exit code and log."""
        self._runs += 1
        name = f"app-{self._runs}"
        self._kube(
            "create", "-f", "-", body=pod(namespace, name, secret, self._image, self._prelude + textwrap.dedent(script))
        )

        def ended() -> int | None:
            status = self._kube.get("pod", name, namespace).get("status", {})
            states = [one.get("state", {}).get("terminated") for one in status.get("containerStatuses", [])]
            return states[0]["exitCode"] if states and states[0] else None

        code = self._kube.until(f"pod {namespace}/{name} ends", lambda: _boxed(ended()))[0]
        log = self._kube("logs", name, "-n", namespace)
        self._kube("delete", "pod", name, "-n", namespace, "--wait=false")
        return code, log


def _boxed(code: int | None) -> tuple[int] | None:
    # Exit code 0 is an answer too.
    return None if code is None else (code,)
