"""The packages' sources, and what `make packages` says when it cannot. What the CLI builds: tests/render."""

import subprocess
import sys
import tomllib
from typing import Any

import pytest

from scripts import packages, publish
from scripts.project import ROOT, TAG, UserError, dependency_name, registry
from tests import schemas

WHERE = "registry.example.org/proompteng"
IMAGE = f"{WHERE}/memory-migrations@sha256:{'0' * 64}"
SHOWN = {f"meta.crossplane.io/{name}" for name in ("maintainer", "source", "license", "description", "readme")}


def _metadata(name: str) -> dict[str, Any]:
    (found,) = schemas.objects(ROOT / "package" / name / "crossplane.yaml")
    return found


# What crossplane-runtime 2.3.3's xpkg.ToDNSLabel gives for the repository; Crossplane calls a dependency by that.
@pytest.mark.parametrize(
    ("repository", "name"),
    [
        pytest.param("registry.example.org/function-memory", "function-memory", id="nothing before it"),
        pytest.param(f"{WHERE}/function-memory", "proompteng-function-memory", id="an organisation"),
        pytest.param("10.0.0.1:5000/a/function-memory", "a-function-memory", id="a port"),
        pytest.param("r.io/plat/team.one/function-memory", "plat-team-one-function-memory", id="dots and levels"),
        pytest.param("r.io/team_one/function-memory", "teamone-function-memory", id="an underscore"),
        pytest.param("r.io/a--b/function-memory", "a--b-function-memory", id="two hyphens"),
        pytest.param(
            "r.io/a-very-long-organisation-name/with-a-long-path/that-goes-on/function-memory",
            "a-very-long-organisation-name-with-a-long-path-that-goes-on-fun",
            id="more than 63 letters",
        ),
        pytest.param(
            "r.io/abcdefghijklmnopqrstuvwxyz0123456789/abcdefghijklmnopqrstuvwxy/function-memory",
            "abcdefghijklmnopqrstuvwxyz0123456789-abcdefghijklmnopqrstuvwxy",
            id="a slash at the end",
        ),
    ],
)
def test_a_dependency_is_called_as_crossplane_calls_it(repository: str, name: str) -> None:
    assert dependency_name(repository) == name


BOTH = pytest.mark.parametrize("package", packages.CONFIGURATIONS)
OURS = {
    "apiVersion": "pkg.crossplane.io/v1",
    "kind": "Function",
    "package": f"{WHERE}/function-memory",
    "version": f">={TAG}",
}


@BOTH
def test_the_configuration_is_what_crossplane_takes_of_one(package: str) -> None:
    """XRDs and Compositions; whatever else is refused when it is installed."""
    files = packages.configuration(WHERE, IMAGE, package)
    kinds = sorted(body["kind"] for body in files.values())
    assert kinds == [*["CompositeResourceDefinition"] * 2, *["Composition"] * 8, "Configuration"]
    assert files["crossplane.yaml"]["metadata"]["name"] == package
    assert files["crossplane.yaml"]["spec"]["dependsOn"][0] == OURS


def test_the_configurations_differ_in_their_metadata_and_their_defaults() -> None:
    """A control plane that goes from one to the other has every Composition that its composites name."""
    two, one = (packages.configuration(WHERE, IMAGE, name) for name in packages.CONFIGURATIONS)
    assert set(one) == set(two)
    definitions = [name for name, body in two.items() if body["kind"] == "CompositeResourceDefinition"]
    for name in definitions:
        default = two[name]["spec"].pop("defaultCompositionRef")["name"]
        assert one[name]["spec"].pop("defaultCompositionRef") == {"name": f"{default}-object"}
        assert one[f"compositions/{default}-object.yaml"]["spec"]["pipeline"][0]["input"]["delivery"] == "Object"
    del one["crossplane.yaml"], two["crossplane.yaml"]
    assert one == two


def test_delivery_by_objects_brings_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies of one provider, from two registries, would fight: so it may be said which one is there."""
    monkeypatch.delenv("PROVIDER_KUBERNETES", raising=False)

    def dependencies(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = packages.configuration(WHERE, IMAGE, name)["crossplane.yaml"]["spec"]["dependsOn"]
        return found

    assert dependencies(packages.CONFIGURATION) == [OURS]
    ours, theirs = dependencies(packages.CONFIGURATION_V1)
    assert ours == OURS
    assert (theirs["kind"], theirs["version"]) == ("Provider", ">=v1.2.1")
    assert theirs["package"].endswith("/crossplane-contrib/provider-kubernetes")
    monkeypatch.setenv("PROVIDER_KUBERNETES", f"{WHERE}/provider-kubernetes")
    assert dependencies(packages.CONFIGURATION_V1)[1] == theirs | {"package": f"{WHERE}/provider-kubernetes"}


@BOTH
def test_compositions_get_what_is_known_then(package: str) -> None:
    for name, body in packages.configuration(WHERE, IMAGE, package).items():
        if body["kind"] != "Composition":
            continue
        (source,) = schemas.objects(ROOT / name)
        (step,), (ours,) = body["spec"]["pipeline"], source["spec"]["pipeline"]
        assert step["functionRef"].pop("name") == "proompteng-function-memory"
        assert step["input"]["migrations"].pop("image") == IMAGE
        del ours["functionRef"]["name"], ours["input"]["migrations"]["image"]
        assert body == source


@pytest.mark.parametrize("name", ["function", "configuration", "configuration-v1"])
def test_a_marketplace_finds_what_it_shows(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    metadata = _metadata(name)["metadata"]
    shown = metadata["annotations"]
    assert set(shown) == SHOWN
    assert all(shown.values())
    assert shown["meta.crossplane.io/license"] == project["license"]
    assert shown["meta.crossplane.io/source"] == project["urls"]["Source"]
    kind, _, version = name.partition("-")
    assert metadata["name"] == "-".join(filter(None, (kind, "memory", version)))


def test_the_function_composes() -> None:
    """Without the capability Crossplane calls it for nothing; the package's name begins as it wants it."""
    assert _metadata("function")["spec"]["capabilities"] == ["composition"]
    assert "dependsOn" not in _metadata("function")["spec"]


@pytest.mark.parametrize("value", ["registry.example.org", "172.16.0.2:5000/a", "localhost/a/b", "localhost:5000"])
def test_a_registry_is_a_host_and_perhaps_a_path(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("REGISTRY", f"{value}/")
    assert registry() == value


@pytest.mark.parametrize("value", ["proompteng", "https://registry.example.org", "r.io/Team", "r.io/a//b", "/a"])
def test_what_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("REGISTRY", value)
    with pytest.raises(UserError, match=f'REGISTRY is "{value}": write a host'):
        registry()


# What go-containerregistry 0.21.9's Registry.Scheme gives.
@pytest.mark.parametrize("host", ["localhost:5000", "a.localhost", "127.0.0.1:5000", "10.1.2.3", "172.16.0.2:5000"])
def test_local_registries_may_lack_tls(host: str) -> None:
    assert publish.may_lack_tls(host)


@pytest.mark.parametrize("host", ["registry.example.org", "localhost", "172.32.0.1:5000", "8.8.8.8", "a.local:5000"])
def test_all_others_have_it(host: str) -> None:
    assert not publish.may_lack_tls(host)


@pytest.mark.parametrize(
    ("program", "settings", "sentence"),
    [
        pytest.param("images", {}, "images: nothing here builds images: start docker", id="nothing builds"),
        pytest.param("packages", {}, "packages: REGISTRY is not set: write where", id="no registry"),
        pytest.param("publish", {}, "publish: REGISTRY is not set: write where", id="no registry to publish to"),
        pytest.param(
            "publish",
            {"REGISTRY": WHERE},
            'publish: there is no program "crossplane": install the crossplane CLI',
            id="no CLI",
        ),
        pytest.param(
            "publish",
            {"REGISTRY": WHERE, "CROSSPLANE_CLI": sys.executable, "PLATFORMS": "linux/none"},
            "publish: build/images/function-none.tar is not there: run make images",
            id="no image",
        ),
        pytest.param(
            "images",
            {"IMAGE_BUILDER": sys.executable, "PLATFORMS": "linux/none"},
            'images: PLATFORMS is "linux/none": IMAGE_BUILDER packs for this machine only',
            id="another platform",
        ),
        pytest.param(
            "images",
            {"IMAGE_BUILDER": "no-such-program"},
            'images: IMAGE_BUILDER is "no-such-program": there is no such program',
            id="no such builder",
        ),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(program: str, settings: dict[str, str], sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{program}"],
        cwd=ROOT,
        env={"PATH": "/nowhere", "REVISION": "none", **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1
