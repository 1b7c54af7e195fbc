"""A Memory on S3 becomes what its request says."""

import json

import pytest

from tests.migrations.s3.memories import Memory, Runner

pytestmark = pytest.mark.xdist_group("rgw")


def test_a_memory_on_an_empty_server_serves_its_writer_and_its_reader(memory: Memory, runner: Runner) -> None:
    answer = runner.provision(memory)
    assert answer.code == 0, answer.message
    assert answer.message == f"s3://{memory.bucket}/{memory.prefix} is ready"
    assert answer.report["server"] == {"version": "Ceph RGW", "capabilities": ["admin-api", "conditional-put", "rgw"]}
    assert answer.report["modules"] == [{"name": "core", "version": "1"}]
    assert (answer.report["warnings"], answer.report["verify"]) == ([], [])
    with memory.client() as writer, memory.client("ro_a") as reader:
        writer.put_object(Bucket=memory.home, Key=f"{memory.prefix}kv/a.json", Body=b"1")
        assert reader.get_object(Bucket=memory.home, Key=f"{memory.prefix}kv/a.json")["Body"].read() == b"1"
        meta = json.loads(reader.get_object(Bucket=memory.home, Key=f"{memory.prefix}meta.json")["Body"].read())
    assert meta == {
        "contract": 1,
        "dataset": "notes",
        "dimension": 3,
        "metric": "cosine",
        "ttlDays": 0,
        "legalHold": False,
        "versioning": False,
        "objectLock": False,
        "conditionalPut": True,
    }


def test_run_with_nothing_to_do_changes_nothing(memory: Memory, runner: Runner) -> None:
    runner.ready(memory)
    answer = runner.provision(memory)
    assert answer.code == 0
    assert [line for line in answer.log if "what" in line] == []
