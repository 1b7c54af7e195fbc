"""Retention: rows that are older than their Memory wants go, by whole partitions where it can be, and none on hold.

Age counts from `created_at` for events, from `updated_at` for keys and embeddings. What has expired by a time of its
own goes too; reads have not given it since.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from psycopg import sql

from migrations import log
from migrations.errors import CommandError
from migrations.postgres.connection import retrying
from migrations.postgres.maintenance import partitions
from migrations.postgres.maintenance.places import Work

BATCH = 1000
ON_HOLD = "MM002"
# An expired key's version still counts on for those who read it: time enough to have forgotten it.
GRACE = "1 day"

# What each table's rows must be to go; `{cutoff}` is -infinity where nothing goes by age.
_EXPIRED = {
    "memory_kv": "(updated_at < {cutoff} OR expires_at < now() - {grace}::interval)",
    "memory_embeddings": "NOT hold AND (updated_at < {cutoff} OR expires_at < now() - {grace}::interval)",
    # An event's id goes after the event: without it a producer's retry would append the event again.
    "memory_event_ids": (
        "created_at < {cutoff} AND NOT EXISTS (SELECT FROM {events} e WHERE e.dataset = {table}.dataset"
        " AND e.created_at = {table}.created_at AND e.id = {table}.id)"
    ),
}
_EXPIRED_EVENTS = "NOT hold AND created_at < {cutoff}"


@dataclass(frozen=True)
class Dataset:
    """A dataset whose rows may be deleted: `cutoff` is a literal, -infinity where none goes by age."""

    name: str
    cutoff: str


def look_after(work: Work) -> dict[str, int]:
    """Removes what has expired, as the owner, each step committed.

    Returns:
        How many rows of each dataset were removed; a dataset on hold is not among them.

    Raises:
        CommandError: A lock was busy for too long, or the server refuses; what was removed stays so.
    """
    removed: Counter[str] = Counter()
    with work.as_owner():
        run = _Run(work, removed)
        run.whole_partitions()
        for dataset in run.datasets():
            for table, expired in run.tables():
                run.rows(table, expired, dataset)
    return dict(removed)


@dataclass(frozen=True)
class _Run:
    work: Work
    removed: Counter[str]

    def datasets(self, *, locked: bool = False) -> list[Dataset]:
        """Reads the registry, which provisioning writes: the datasets that are not on hold, by either account.

        With `locked` nobody sets a hold before the transaction ends.
        """
        query = sql.SQL(
            """
            SELECT dataset, CASE ttl_days WHEN 0 THEN '-infinity' ELSE now() - make_interval(days => ttl_days) END::text
            FROM {} WHERE NOT legal_hold AND NOT dataset = ANY(%s) ORDER BY dataset
            """
        ).format(self.work.table("memory_datasets"))
        held = [each.dataset for each in self.work.place.homes if each.legal_hold]
        statement = query + sql.SQL(" FOR SHARE") if locked else query
        return [Dataset(*row) for row in self.work.connection.execute(statement, [held]).fetchall()]

    def whole_partitions(self) -> None:
        """Drops the partitions in which every row has expired, and none is on hold."""
        for each in partitions.read(self.work.connection, self.work.place.schema):
            if self._expired_by(self.datasets(), each):
                counts = retrying(self.work.connection, self.work.deadline, partial(self._drop, each))
                self.removed.update(counts)

    def _expired_by(self, datasets: Sequence[Dataset], partition: partitions.Partition) -> set[str]:
        """Gives the datasets of which all rows in a partition have expired."""
        query = "SELECT dataset FROM unnest(%s::text[], %s::timestamptz[]) d (dataset, cutoff) WHERE cutoff >= %s"
        values = [[each.name for each in datasets], [each.cutoff for each in datasets], partition.range.end]
        return {name for (name,) in self.work.connection.execute(query, values).fetchall()}

    def _drop(self, partition: partitions.Partition) -> Mapping[str, int]:
        """Drops one in the transaction that it runs in, after a look under a lock that lets readers pass.

        Dropping needs the parent's lock too, for a moment: it is not waited for long, and the step is tried again.
        """
        connection, table = self.work.connection, self.work.table(partition.name)
        timeout = sql.Literal(partitions.LOCK_TIMEOUT)
        connection.execute(
            sql.SQL("SET LOCAL lock_timeout = {}; LOCK TABLE {} IN EXCLUSIVE MODE").format(timeout, table)
        )
        expired = self._expired_by(self.datasets(locked=True), partition)
        query = sql.SQL("SELECT dataset, count(*), bool_or(hold) FROM {} GROUP BY dataset").format(table)
        found = connection.execute(query).fetchall()
        if any(held or dataset not in expired for dataset, _, held in found):
            return {}
        connection.execute(sql.SQL("DROP TABLE {}").format(table))
        log.write("dropped a partition", schema=self.work.place.schema, partition=partition.name)
        return {dataset: count for dataset, count, _ in found}

    def tables(self) -> Iterator[tuple[str, str]]:
        """Gives the tables that rows are deleted from one by one, with what they must be; events before their ids."""
        events = [each.name for each in partitions.read(self.work.connection, self.work.place.schema)]
        yield from ((name, _EXPIRED_EVENTS) for name in (*events, partitions.DEFAULT))
        yield from ((name, expired) for name, expired in _EXPIRED.items() if self.work.has(name))

    def rows(self, table: str, expired: str, dataset: Dataset) -> None:
        """Deletes a dataset's expired rows of one table, in batches.

        They are looked for once: what a batch deletes is looked at again then, so a row that was written since stays.
        """
        connection = self.work.connection
        condition = sql.SQL("dataset = {dataset} AND " + expired).format(
            dataset=sql.Literal(dataset.name),
            cutoff=sql.SQL("{}::timestamptz").format(sql.Literal(dataset.cutoff)),
            grace=sql.Literal(GRACE),
            table=sql.Identifier(table),
            events=self.work.table(partitions.TABLE),
        )
        values = {"table": self.work.table(table), "condition": condition}
        search = sql.SQL("SELECT ctid::text FROM {table} WHERE {condition}").format(**values)
        delete = sql.SQL(
            "DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT ctid FROM {table} WHERE ctid = ANY(%s::tid[])"
            " AND {condition} FOR UPDATE SKIP LOCKED))"
        ).format(**values)
        with connection.cursor("expired", withhold=True) as found:
            found.execute(search)
            while (rows := found.fetchmany(BATCH)) and not self.work.deadline.passed:
                batch = partial(connection.execute, delete, [[ctid for (ctid,) in rows]])
                try:
                    self.removed[dataset.name] += retrying(connection, self.work.deadline, batch).rowcount
                except CommandError as error:
                    if error.sqlstate != ON_HOLD:
                        raise
                    return  # The hold came between the look and the batch.
