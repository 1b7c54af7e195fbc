"""`make packages`: build/packages/{function,configuration}-memory*-v<version>.xpkg, with the crossplane CLI.

The function's package embeds its runtime image. The Compositions in a Configuration get what is not known before: the
name that Crossplane gives the function there, and the reference of the migrations image. There are two Configurations
of the same sources, which differ in what a claim gets that names no Composition: on Crossplane v1.20, which composes
nothing that has a namespace, delivery by Objects.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from scripts import images
from scripts.project import BUILD, ROOT, TAG, UserError, dependency_name, program, registry, run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PACKAGES = BUILD / "packages"
FUNCTION, CONFIGURATION, MIGRATIONS = "function-memory", "configuration-memory", images.TARGETS["migrations"]
CONFIGURATION_V1 = f"{CONFIGURATION}-v1"


@dataclass(frozen=True)
class Kind:
    """What tells one Configuration from the other.

    Attributes:
        metadata: Folder of its metadata.
        example: The example that a marketplace shows.
        suffix: What the names of its default Compositions end with.
    """

    metadata: Path
    example: Path
    suffix: str = ""


CONFIGURATIONS = {
    CONFIGURATION: Kind(ROOT / "package/configuration", ROOT / "examples/quickstart"),
    CONFIGURATION_V1: Kind(ROOT / "package/configuration-v1", ROOT / "examples/object-delivery", "-object"),
}


def cli() -> str:
    """Give the crossplane CLI: CROSSPLANE_CLI, or the one on PATH.

    Raises:
        UserError: There is none.
    """
    wanted = os.environ.get("CROSSPLANE_CLI") or "crossplane"
    found = shutil.which(wanted)
    if not found:
        msg = f'there is no program "{wanted}": install the crossplane CLI, or name it in CROSSPLANE_CLI'
        raise UserError(msg)
    return found


def build(where: str, migrations: str, runtimes: Sequence[Path], folder: Path = PACKAGES) -> dict[str, list[Path]]:
    """Build the packages, and give the files of each: the function has one for each platform.

    Args:
        where: The registry (and path) that they will be installed from.
        migrations: Reference of the migrations image that Jobs will run.
        runtimes: Archives of the function's image.
        folder: Where to write them.
    """
    shutil.rmtree(folder, ignore_errors=True)
    functions = []
    for runtime in runtimes:
        out = folder / f"{FUNCTION}-{TAG}{runtime.stem.removeprefix('function')}.xpkg"
        _pack(ROOT / "package/function", folder / FUNCTION, out, f"--embed-runtime-image-tarball={runtime}")
        functions.append(out)
    built = {FUNCTION: functions}
    for name, kind in CONFIGURATIONS.items():
        out, root = folder / f"{name}-{TAG}.xpkg", folder / name
        _write(root / "package", configuration(where, migrations, name))
        _write(root / "examples", {part: _load(kind.example / part) for part in ("provider.yaml", "claim.yaml")})
        _pack(root / "package", root / "examples", out)
        built[name] = [out]
    return built


def configuration(where: str, migrations: str, name: str = CONFIGURATION) -> dict[str, dict[str, Any]]:
    """Give the files of a Configuration: its metadata, the XRDs and the Compositions, and nothing else."""
    kind, function = CONFIGURATIONS[name], f"{where}/{FUNCTION}"
    metadata = _load(kind.metadata / "crossplane.yaml")
    for dependency in metadata["spec"]["dependsOn"]:
        if dependency["kind"] == "Function":
            dependency |= {"package": function, "version": f">={TAG}"}
        else:
            dependency["package"] = os.environ.get("PROVIDER_KUBERNETES") or dependency["package"]
    files = {"crossplane.yaml": metadata}
    for path in sorted((ROOT / "apis").glob("*/definition.yaml")):
        definition = _load(path)
        definition["spec"]["defaultCompositionRef"]["name"] += kind.suffix
        files[f"apis/{path.parent.name}.yaml"] = definition
    for path in sorted((ROOT / "compositions").glob("*.yaml")):
        composition = _load(path)
        for step in composition["spec"]["pipeline"]:
            step["functionRef"]["name"] = dependency_name(function)
            step["input"]["migrations"]["image"] = migrations
        files[f"compositions/{path.name}"] = composition
    return files


def _load(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load(path.read_text())
    return body


def _write(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(body, sort_keys=False, width=120))


def _pack(root: Path, shown: Path, out: Path, *options: str) -> None:
    # Without a folder of examples it would take ours, with everything that the tests keep there.
    shown.mkdir(parents=True, exist_ok=True)
    run(cli(), "xpkg", "build", f"--package-root={root}", f"--examples-root={shown}", f"--package-file={out}", *options)
    print(f"{out.name}: {out.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Build the packages for REGISTRY, with MIGRATIONS_IMAGE."""
    where = registry()
    migrations = os.environ.get("MIGRATIONS_IMAGE") or f"{where}/{MIGRATIONS}:{TAG}"
    build(where, migrations, images.built("function"))


if __name__ == "__main__":
    program(main)
