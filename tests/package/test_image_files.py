"""What is in the images, and what is not."""

import re
import ssl
import stat
import struct
from pathlib import PurePosixPath

import pytest

from scripts.project import ROOT
from tests.package.image import SITE, Image

# Of PEP 552: bit 0, the pyc goes by the source's hash; bit 1, somebody checks it.
UNCHECKED_HASH = 0b01


def test_nobody_can_be_asked_to_run_a_command(image: Image) -> None:
    """No shell, and nothing that installs or fetches: an attacker in the container has Python and no tools."""
    programs = {path for path, member in image.members.items() if PurePosixPath(path).parent.name in {"bin", "sbin"}}
    assert programs == {"usr/bin/python", "usr/bin/python3", "usr/bin/python3.11"}
    runnable = {path for path in image.files() if image.members[path].mode & 0o111 and ".so" not in path}
    assert {path for path in runnable if image.read(path).startswith(b"\x7fELF")} == {"usr/bin/python3.11"}


def test_everybody_can_read_and_nobody_but_root_can_write(image: Image) -> None:
    """Crossplane runs the function as user 2000, our manifests run it as 65532."""
    for path, member in image.members.items():
        if member.issym() or path == "tmp":
            continue
        readable = 0o555 if member.isdir() else 0o444
        assert member.mode & readable == readable, path
        assert not member.mode & 0o022, path
    assert {(member.uid, member.gid) for member in image.members.values()} == {(0, 0)}


def test_nothing_gives_rights(image: Image) -> None:
    assert not [path for path, member in image.members.items() if member.mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [
        path for path, member in image.members.items() if not (member.isreg() or member.isdir() or member.issym())
    ]


def test_links_lead_somewhere(image: Image) -> None:
    for path, member in image.members.items():
        if member.issym():
            target = PurePosixPath("/", path).parent / member.linkname
            resolved = str(PurePosixPath(*_resolved(target.parts))).lstrip("/")
            assert resolved in image.members, f"{path} → {member.linkname}"


def _resolved(parts: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for part in parts:
        if part == "..":
            found.pop()
        else:
            found.append(part)
    return found


def test_what_is_installed_is_what_the_lock_says(image: Image) -> None:
    lock = (ROOT / "requirements" / f"{image.target}.txt").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock, re.MULTILINE))
    folders = {PurePosixPath(path).parent.name for path in image.files(SITE, ".dist-info/METADATA")}
    found = dict(folder.removesuffix(".dist-info").rsplit("-", 1) for folder in folders)
    assert {name.lower().replace("_", "-").replace(".", "-"): version for name, version in found.items()} == locked


@pytest.mark.parametrize("package", ["pip", "setuptools", "function", "migrations", "grpc", "psycopg", "memoryctl"])
def test_an_image_holds_its_own_code_and_dependencies_only(image: Image, package: str) -> None:
    wanted = {"function": {"function", "grpc"}, "migrations": {"migrations", "psycopg"}}[image.target]
    there = any(f"{folder}/{package}" in image.members for folder in ("app", SITE, "usr/lib/python3.11"))
    assert there is (package in wanted)


def test_our_code_is_there_whole(image: Image) -> None:
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / image.target).rglob("*") if path.suffix in {".py", ".sql"}}
    theirs = {path.removeprefix("app/") for path in image.files("app/") if not path.endswith(".pyc")}
    assert theirs == ours
    assert all(image.read(f"app/{path}") == (ROOT / path).read_bytes() for path in ours)


def test_every_module_is_compiled_and_never_compiled_again(image: Image) -> None:
    """A root that is read-only takes no bytecode, and a layer's time stamps would make Python look at the source."""
    sources = [path for path, member in image.members.items() if path.endswith(".py") and not member.isdir()]
    assert len(sources) > 500
    for source in sources:
        path = PurePosixPath(source)
        compiled = f"{path.parent}/__pycache__/{path.stem}.cpython-311.pyc"
        magic, flags = struct.unpack("<4sI", image.read(compiled)[:8])
        assert (magic, flags) == (b"\xa7\x0d\x0d\x0a", UNCHECKED_HASH), source
    assert len(list(image.files(suffix=".pyc"))) == len(sources)


def test_tests_of_others_stay_out(image: Image) -> None:
    assert not [path for path in image.members if {"test", "tests"} & set(PurePosixPath(path).parts)]


def test_services_that_nobody_talks_to_stay_out(image: Image) -> None:
    """Botocore describes some four hundred, which would be a quarter of the image."""
    data = f"{SITE}/botocore/data/"
    found = {path.removeprefix(data).split("/")[0] for path in image.files(data) if path.count("/") > data.count("/")}
    assert found == ({"s3", "iam", "sts"} if image.target == "migrations" else set())


def test_no_time_of_the_build_is_in_it(image: Image) -> None:
    """The same inputs give the same layer."""
    assert {member.mtime for path, member in image.members.items() if path != "."} == {0}


def test_a_scanner_sees_what_debian_gave(image: Image) -> None:
    told = {path: image.read(path).decode() for path in image.files("var/lib/dpkg/status.d/")}
    assert {"libc6", "libssl3", "python3.11-minimal", "tzdata", "ca-certificates"} <= {
        path.split("/")[-1] for path in told
    }
    for path, control in told.items():
        name = path.split("/")[-1]
        assert re.search(rf"^Package: {re.escape(name)}$", control, re.MULTILINE)
        assert re.search(r"^Version: \S+$", control, re.MULTILINE)
    assert 'VERSION_ID="12"' in image.read("usr/lib/os-release").decode()


def test_tls_finds_authorities(image: Image) -> None:
    bundle = image.read("etc/ssl/certs/ca-certificates.crt").decode("ascii")
    context = ssl.create_default_context(cadata=bundle)
    assert context.cert_store_stats()["x509_ca"] > 100


def test_time_zones_are_known(image: Image) -> None:
    assert image.read("usr/share/zoneinfo/Europe/Berlin").startswith(b"TZif")


def test_licences_of_what_is_shipped_are_shipped(image: Image) -> None:
    for path in image.files("var/lib/dpkg/status.d/"):
        assert f"usr/share/doc/{PurePosixPath(path).name}/copyright" in image.members
