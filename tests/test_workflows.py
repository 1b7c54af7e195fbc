"""CI and the release cannot run here, so their files are held to rules: what runs, by whose code, with which rights.

actionlint checks them too: ACTIONLINT, the one on the PATH, or one that Go fetches.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from scripts import packages
from tests.schemas import ROOT
from tests.servers import require

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
PINNED = re.compile(r"uses: ([\w-]+/[\w/.-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)")
# Whoever writes, and what: nobody else.
WRITES = {
    ("release", "publish"): {"packages"},
    ("release", "sign"): {"packages", "id-token", "attestations"},
}
# What is no work of the project: handing values on, logging in, saving what a failure left.
GLUE = {
    'docker login --username "$USERNAME" --password-stdin "${REGISTRY%%/*}" <<< "$PASSWORD"',
    'echo "references=$(jq --compact-output . build/published.json)" >> "$GITHUB_OUTPUT"',
    'grep -qxF "version = \\"${GITHUB_REF_NAME#v}\\"" pyproject.toml',
    'kubectl --kubeconfig "$MEMORY_KUBECONFIG" cluster-info dump --all-namespaces --output-directory build/cluster',
    'printf \'name=%s\\ndigest=%s\\n\' "${REFERENCE%@*}" "${REFERENCE#*@}" >> "$GITHUB_OUTPUT"',
}
every_workflow = pytest.mark.parametrize("name", [path.stem for path in WORKFLOWS])


def text(name: str) -> str:
    return (ROOT / ".github" / "workflows" / f"{name}.yml").read_text()


def workflow(name: str) -> dict[str, Any]:
    """A workflow with every value as it is written: `on` is no boolean here."""
    body: dict[str, Any] = yaml.load(text(name), Loader=yaml.BaseLoader)
    return body


def jobs(name: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = workflow(name)["jobs"]
    return found


def steps(name: str) -> Iterator[dict[str, Any]]:
    for job in jobs(name).values():
        yield from job.get("steps", [])


def commands(name: str) -> list[str]:
    return [line for step in steps(name) for line in step.get("run", "").strip().splitlines()]


def made(name: str) -> set[str]:
    """The make targets that a workflow runs."""
    return {command.split()[1] for command in commands(name) if command.startswith("make ")}


def test_there_are_two() -> None:
    assert [path.stem for path in WORKFLOWS] == ["ci", "release"]


@every_workflow
def test_actionlint_has_nothing_to_say(name: str) -> None:
    command = require(actionlint(), "no actionlint: set ACTIONLINT, or install Go, which fetches it")
    done = ran(*command, "-no-color", f".github/workflows/{name}.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def actionlint() -> list[str] | None:
    """The command, if it can be had."""
    if found := os.environ.get("ACTIONLINT") or shutil.which("actionlint"):
        return [found]
    go = shutil.which("go")
    command = [str(go), "run", ACTIONLINT]
    return command if go and ran(*command, "-version").returncode == 0 else None


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


@every_workflow
def test_others_code_is_pinned_by_commit_and_says_its_version(name: str) -> None:
    for line in text(name).splitlines():
        if "uses:" in line and "uses: ./" not in line:
            assert PINNED.fullmatch(line.strip().removeprefix("- ")), line


def test_an_action_has_one_version() -> None:
    found: dict[str, set[tuple[str, str]]] = {}
    for path in WORKFLOWS:
        for action, commit, version in PINNED.findall(path.read_text()):
            found.setdefault(action, set()).add((commit, version))
    assert found
    assert {action: versions for action, versions in found.items() if len(versions) > 1} == {}


@every_workflow
def test_nobody_has_more_rights_than_needed(name: str) -> None:
    assert workflow(name)["permissions"] == {}
    for key, job in jobs(name).items():
        rights = job["permissions"]
        assert rights.pop("contents") == "read"
        assert set(rights.values()) <= {"write"}
        assert set(rights) == WRITES.get((name, key), set()), key


@every_workflow
def test_a_checkout_leaves_no_token_behind(name: str) -> None:
    for step in steps(name):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"] == {"persist-credentials": "false"}


@every_workflow
def test_nothing_runs_for_ever_or_beside_itself(name: str) -> None:
    assert workflow(name)["concurrency"]["group"]
    for key, job in jobs(name).items():
        assert "uses" in job or int(job["timeout-minutes"]) <= 90, key


@every_workflow
def test_every_step_is_a_make_target_of_this_repository(name: str) -> None:
    targets = re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert made(name) <= set(targets)
    for command in commands(name):
        assert command.split()[0] in {"make", ".ci/provide"} or command in GLUE, command


@every_workflow
def test_no_expression_becomes_part_of_a_command(name: str) -> None:
    """A branch's name could be one; values go through the environment."""
    assert [command for command in commands(name) if "${{" in command] == []


@every_workflow
def test_no_registry_is_named(name: str) -> None:
    """Only github.com's own names have a dot and a slash behind it."""
    named = re.findall(r"\b[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:io|com|dev|org|net)\b", text(name))
    assert named == []
    for key, job in jobs(name).items():
        if "REGISTRY" in job.get("env", {}):
            assert job["env"]["REGISTRY"] == "${{ vars.REGISTRY }}", key


@every_workflow
def test_secrets_are_for_the_jobs_that_write(name: str) -> None:
    for key, job in jobs(name).items():
        assert ("secrets." in str(job)) == bool(WRITES.get((name, key))), key


def test_ci_runs_what_a_laptop_runs() -> None:
    assert made("ci") == {"lint", "test", "long", "render", "images", "publish", "e2e"}
    assert workflow("ci")["env"]["MEMORY_REQUIRE"] == "all"


def test_a_release_waits_for_all_of_ci() -> None:
    order = {key: job.get("needs") for key, job in jobs("release").items()}
    assert order == {"ci": None, "images": "ci", "publish": "images", "sign": "publish"}
    assert jobs("release")["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert workflow("release")["on"] == {"push": {"tags": ["v*.*.*"]}}


def test_a_release_is_for_the_architectures_that_are_built() -> None:
    found = jobs("release")
    built = [each["architecture"] for each in found["images"]["strategy"]["matrix"]["include"]]
    assert built == ["amd64", "arm64"]
    platforms = ",".join(f"linux/{architecture}" for architecture in built)
    assert found["publish"]["env"]["PLATFORMS"] == platforms
    signed = {each["name"]: each["platforms"] for each in found["sign"]["strategy"]["matrix"]["include"]}
    # Configurations are YAML for any machine.
    assert signed == {
        packages.MIGRATIONS: platforms,
        packages.FUNCTION: platforms,
        **dict.fromkeys(packages.CONFIGURATIONS, ""),
    }


def test_what_is_published_is_signed_and_attested_by_digest() -> None:
    job = jobs("release")["sign"]
    assert job["env"]["REFERENCE"] == "${{ fromJSON(needs.publish.outputs.published)[matrix.name] }}"
    used = [step["uses"].partition("@")[0] for step in job["steps"] if "uses" in step]
    assert "sigstore/cosign-installer" in used
    (attested,) = (step for step in job["steps"] if "attest-build-provenance" in step.get("uses", ""))
    assert attested["with"]["subject-digest"] == "${{ steps.subject.outputs.digest }}"
    assert attested["with"]["push-to-registry"] == "true"
    assert "make sign" in commands("release")


def test_what_is_signed_has_a_digest() -> None:
    done = ran("scripts/sign", "registry.example.org/team/function-memory:v1")
    assert done.returncode == 1
    assert "write a reference by digest" in done.stderr


def test_provided_parts_exist() -> None:
    script = (ROOT / ".ci" / "provide").read_text()
    known = set(re.findall(r"^#   ([a-z0-9]+) ", script, flags=re.MULTILINE))
    (offered,) = re.findall(r'^    (.+)\) "\$part" ;;$', script, flags=re.MULTILINE)
    assert known == set(offered.split(" | "))
    assert known <= set(re.findall(r"^([a-z0-9]+)\(\) \{$", script, flags=re.MULTILINE))
    for path in WORKFLOWS:
        for command in commands(path.stem):
            if command.startswith(".ci/provide "):
                assert command.endswith(' >> "$GITHUB_ENV"')
                assert set(command.split(" >> ")[0].split()[1:]) <= known


def test_an_unknown_part_is_a_sentence() -> None:
    done = ran(".ci/provide", "mysql")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'there is no part "mysql": write crds, postgres, redis7' in done.stderr


def test_a_gateway_of_ceph_is_started_stopped_and_asked_and_nothing_else() -> None:
    done = ran(".ci/rgw", "dance", "folder")
    assert (done.returncode, done.stdout) == (64, "")
    assert 'there is no "dance": write start, stop or admin' in done.stderr


def test_dependabot_leaves_the_locks_alone() -> None:
    body = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    assert body["version"] == 2
    assert [each["package-ecosystem"] for each in body["updates"]] == ["github-actions"]
