"""The object store behaves as an API server where rendering could trip over it."""

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoryctl.cluster import Cluster, Conflict, locked
from memoryctl.errors import UserError
from memoryctl.objects import Key, Object, key_of, with_conditions


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path / "objects")


def configmap(**fields: object) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "report", "namespace": "db"}, **fields}


def job(image: str = "one") -> Object:
    template = {"metadata": {"labels": {"app": "memory"}}, "spec": {"containers": [{"name": "c", "image": image}]}}
    metadata = {"name": "mem-1", "namespace": "db"}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"template": template}}


def test_the_server_stamps_what_it_stores(cluster: Cluster) -> None:
    created = cluster.apply(job())["metadata"]
    assert set(created) == {"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation"}
    changed = cluster.patch(key_of(job()), {"spec": {"suspend": True}})["metadata"]
    assert (changed["resourceVersion"], changed["generation"], changed["uid"]) == ("2", 2, created["uid"])


def test_a_status_is_a_new_version_but_no_new_generation(cluster: Cluster) -> None:
    cluster.apply(job())
    changed = cluster.replace_status(key_of(job()), {"active": 1})["metadata"]
    assert (changed["resourceVersion"], changed["generation"]) == ("2", 1)


def test_what_somebody_else_wrote_survives_an_apply(cluster: Cluster) -> None:
    cluster.apply(configmap())
    cluster.patch(key_of(configmap()), {"data": {"probe": "{}"}})
    assert cluster.apply(configmap())["data"] == {"probe": "{}"}


def test_a_field_that_is_not_applied_any_more_goes(cluster: Cluster) -> None:
    cluster.apply(configmap(data={"mine": "1", "gone": "2"}))
    cluster.patch(key_of(configmap()), {"data": {"theirs": "3"}})
    assert cluster.apply(configmap(data={"mine": "1"}))["data"] == {"mine": "1", "theirs": "3"}
    assert cluster.apply(configmap())["data"] == {"theirs": "3"}


@given(
    st.recursive(
        st.integers() | st.text(max_size=3),
        lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        max_leaves=6,
    ).filter(lambda value: isinstance(value, dict))
)
def test_applying_twice_changes_nothing(tmp_path_factory: pytest.TempPathFactory, data: Object) -> None:
    cluster = Cluster(tmp_path_factory.mktemp("objects"))
    first = cluster.apply(configmap(data=data))
    revision = cluster.revision
    assert cluster.apply(configmap(data=data)) == first
    assert (cluster.revision, cluster.get(key_of(first))) == (revision, first)


def test_the_template_of_a_job_is_immutable(cluster: Cluster) -> None:
    cluster.apply(job())
    cluster.apply(job())
    with pytest.raises(Conflict, match=r"Job db/mem-1 is invalid: spec\.template: field is immutable"):
        cluster.apply(job("another"))


def test_a_job_is_given_the_selector_that_no_later_apply_may_carry(cluster: Cluster) -> None:
    stored = cluster.apply(job())
    uid = stored["metadata"]["uid"]
    assert stored["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
    assert stored["spec"]["template"]["metadata"]["labels"]["job-name"] == "mem-1"


def test_the_type_of_a_secret_is_immutable(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"}}
    cluster.apply(secret | {"type": "Opaque"})
    with pytest.raises(Conflict, match="type: field is immutable"):
        cluster.apply(secret | {"type": "servicebinding.io/memory"})


def test_string_data_is_stored_encoded(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "a"}}
    stored = cluster.apply(secret | {"stringData": {"password": "hunter2"}})
    assert base64.b64decode(stored["data"]["password"]) == b"hunter2"
    assert "stringData" not in stored


def test_objects_are_found_by_their_labels(cluster: Cluster) -> None:
    for name, labels in (("one", {"a": "1", "b": "2"}), ("two", {"a": "1"}), ("three", {})):
        cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "x", "labels": labels}}
        )
    found = cluster.list("v1", "ConfigMap", {"a": "1"})
    assert [one["metadata"]["name"] for one in found] == ["one", "two"]


def test_everything_is_private(tmp_path: Path, cluster: Cluster) -> None:
    cluster.apply(configmap())
    modes = {path.is_dir(): stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "objects").rglob("*")}
    assert modes == {True: 0o700, False: 0o600}


def test_an_object_that_is_not_there_is_a_sentence(cluster: Cluster) -> None:
    with pytest.raises(UserError, match="there is no Secret a/b"):
        cluster.require(Key("v1", "Secret", "a", "b"))


def test_only_one_memoryctl_works_in_a_directory(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "state"),
        pytest.raises(UserError, match="another memoryctl is at work in"),
        locked(tmp_path / "state"),
    ):
        pass


def test_a_state_directory_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="name another one with --state"), locked(tmp_path / "file" / "state"):
        pass


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    old = {"type": "Ready", "status": "False", "reason": "Creating", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    obj = {"status": {"conditions": [old]}}
    [same] = with_conditions(obj, [{"type": "Ready", "status": "False", "reason": "Other"}])
    [other] = with_conditions(obj, [{"type": "Ready", "status": "True", "reason": "Available"}])
    assert same == {**old, "reason": "Other"}
    assert other["lastTransitionTime"] > old["lastTransitionTime"]
