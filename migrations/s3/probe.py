"""`probe` on S3: one look at the server, as the admin, with scratch objects that are gone afterwards."""

from migrations.deadline import Deadline
from migrations.errors import CommandError
from migrations.s3 import buckets, server, users
from migrations.s3.connection import Admin, Connection, explaining
from migrations.s3.names import ledger_bucket
from migrations.s3.request import ProbeRequest
from migrations.s3.server import Facts


def probe(request: ProbeRequest, admin: Admin, deadline: Deadline) -> tuple[Facts | None, CommandError | None]:
    """Asks the server what it is and lets us do.

    Returns:
        What was found, as far as one came, and what stands in the way of Memories.
    """
    found: list[Facts] = []
    try:
        with admin.connect(deadline) as connection, explaining(admin):
            _look(request, connection, found)
    except CommandError as error:
        return (found[-1] if found else None), error
    return found[-1], None


def _look(request: ProbeRequest, connection: Connection, found: list[Facts]) -> None:
    provider = request.provider
    name = ledger_bucket(provider)
    admin_api = provider.users == "RGW" and bool(users.owner(connection))
    bucket = buckets.read(connection, name, provider)
    if bucket is None:
        # It is made with the first Memory. That the keys are known is sure by then; what the server can do is not.
        connection.s3.list_buckets()
        made = buckets.Bucket(name)
        found.append(Facts("Ceph RGW" if admin_api else "S3", made, conditional_put=False, admin_api=admin_api))
        return
    version = server.version_of(connection, name)
    found.append(Facts(version, bucket, conditional_put=False, admin_api=admin_api))
    works = server.try_conditions(connection, name, locked=bucket.object_lock)
    found.append(Facts(version, bucket, works, admin_api))
    server.try_encryption(connection, name, provider, locked=bucket.object_lock)
    if provider.bucket:
        buckets.check(bucket, provider)
