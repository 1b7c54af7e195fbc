"""The template as it stands, from a claim to a login: what `make test` tries of a custom backend from end to end."""

import json
import subprocess
import sys

import yaml

from memoryctl.objects import make_secret, secret_key
from tests.custom.conftest import EXAMPLE, TEMPLATE, Server
from tests.memoryctl.conftest import Laptop


def test_a_claim_becomes_a_login_by_the_template(laptop: Laptop, toy: Server) -> None:
    provider, claim = (yaml.safe_load((EXAMPLE / f"{name}.yaml").read_text()) for name in ("provider", "claim"))
    custom = provider["spec"]["custom"]
    custom |= {"endpoint": toy.endpoint, "database": toy.database}
    reference = custom["configSecret"]
    config = {path.name: path.read_bytes() for path in toy.config.iterdir()}
    secret = make_secret(secret_key(reference["namespace"], reference["name"]), config)
    manifests = str(laptop.write(provider, claim, secret))

    missing = laptop.run("up", "-f", manifests)
    assert missing.returncode == 1
    assert f"with up --image '{custom['image']}=COMMAND'" in missing.stderr
    done = laptop.run("up", "--image", f"{custom['image']}={toy.command}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "XMemoryProvider mariadb: 1 answers" in done.stdout
    tries = [sys.executable, str(TEMPLATE / "toy" / "try_login.py"), str(laptop.binding)]
    assert subprocess.run(tries, check=False).returncode == 0

    maintained = laptop.run("maintain")
    assert maintained.returncode == 0, maintained.stderr
    assert "DATA       1 row" in maintained.stdout
    status = json.loads(laptop.run("status", "notes", "-o", "json").stdout)
    assert status["drift"] == []
    assert [one["task"] for one in status["jobs"]] == ["provision", "maintain"]
    used = laptop.run("demo")
    assert used.returncode == 1
    # What an app does there is between it and the platform team.
    assert used.stderr.startswith('memoryctl: there is no client for a backend of type "custom": ')


def test_an_image_without_a_command_is_a_sentence(laptop: Laptop) -> None:
    done = laptop.run("up", "--image", "nothing")
    assert done.returncode == 1
    assert done.stderr.startswith('memoryctl: --image is "nothing": write IMAGE=COMMAND, as in ')
