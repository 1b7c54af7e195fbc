"""The harness for S3: what it starts is a server that means it."""

from pathlib import Path

import pytest
from botocore.exceptions import ClientError, SSLError

from tests.rgw import Rgw, tls

pytestmark = pytest.mark.xdist_group("rgw")


def test_a_fresh_user_sees_nothing_of_a_fresh_bucket(rgw: Rgw) -> None:
    bucket = rgw.bucket()
    with rgw.client(rgw.user()) as client, pytest.raises(ClientError, match="AccessDenied"):
        client.list_objects_v2(Bucket=bucket)


def test_through_tls_the_server_is_reached_by_who_trusts_its_authority_only(rgw: Rgw, tmp_path: Path) -> None:
    bucket = rgw.bucket(versioning=True)
    with tls(rgw, tmp_path) as front:
        with rgw.client(endpoint=front.endpoint, verify=str(front.ca)) as client:
            client.put_object(Bucket=bucket, Key="a", Body=b"b" * 100_000)
            assert client.get_object(Bucket=bucket, Key="a")["Body"].read() == b"b" * 100_000
        with rgw.client(endpoint=front.endpoint) as client, pytest.raises(SSLError):
            client.list_buckets()
