from collections.abc import Iterator

import pytest

from tests.migrations.documents import Command
from tests.migrations.s3.memories import Memory, Runner
from tests.rgw import Rgw


@pytest.fixture
def runner(command: Command) -> Runner:
    return Runner(command)


@pytest.fixture
def memory(rgw: Rgw) -> Iterator[Memory]:
    """A Memory in a bucket that is not there yet, and that it shares with others."""
    before = policies(rgw)
    yield Memory(rgw, rgw.name("shared"))
    # One for each provider; each test has its own, and Ceph takes a hundred.
    with rgw.client(service="iam") as iam:
        for name in policies(rgw) - before:
            iam.delete_user_policy(UserName="admin", PolicyName=name)


def policies(rgw: Rgw) -> set[str]:
    with rgw.client(service="iam") as iam:
        try:
            return set(iam.list_user_policies(UserName="admin")["PolicyNames"])
        except iam.exceptions.ClientError:
            return set()  # Ceph's word for a user without any
