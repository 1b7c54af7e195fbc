"""What differs between a schema as it is and as it should be, said in sentences, with what would mend it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from migrations.postgres.drift import mending
from migrations.postgres.drift.catalog import Item
from migrations.postgres.drift.differences import (
    FUNCTIONS,
    MARKS,
    Difference,
    Files,
    owned_by,
    unexpected,
)
from migrations.postgres.drift.mending import Fix
from migrations.postgres.drift.rights import Rights, Target
from migrations.postgres.drift.tables import KINDS, Table
from migrations.postgres.grants import READ_MARK
from migrations.postgres.maintenance.places import Place


@dataclass(frozen=True)
class Schema:
    """Items of one schema, by what they belong to: a table, a function for its rights, or "" for the schema itself."""

    items: Mapping[str, Mapping[tuple[str, str], Item]]

    @classmethod
    def of(cls, items: Iterable[Item]) -> "Schema":
        """Sorts them."""
        found: dict[str, dict[tuple[str, str], Item]] = {}
        for item in sorted(items, key=lambda item: item.key):
            found.setdefault(item.relation, {})[item.kind, item.name] = item
        return cls(found)

    def table(self, name: str) -> Item | None:
        """Gives a table, or another relation."""
        return self.items.get(name, {}).get(("table", ""))

    def tables(self) -> Iterator[Item]:
        """Gives all of them."""
        return (found for name in self.items if (found := self.table(name)))

    def of_kind(self, kind: str, relation: str = "") -> dict[str, Item]:
        """Gives what belongs to something, by name."""
        return {name: item for (found, name), item in self.items.get(relation, {}).items() if found == kind}


@dataclass(frozen=True)
class Comparison:
    """One place, as it is and as it should be."""

    place: Place
    wanted: Schema
    actual: Schema
    rights: Rights
    files: Files

    def differences(self) -> Iterator[Difference]:
        """Gives them in no order."""
        yield from self._schema()
        yield from self._functions()
        for table in self.wanted.tables():
            if self.actual.table(table.relation) is None:
                yield Difference(f"table {table.relation} is missing: restore it from a backup")
        parents = {table.facts["parent"] for table in self.actual.tables()}
        differing = {
            name: [(kind, part) for kind, part, *_ in self._table(name, self.wanted.items[name]).differing()]
            for name in parents
            if name and self.wanted.table(name) and self.actual.table(name)
        }
        for table in self.actual.tables():
            yield from self._relation(table, differing.get(table.facts["parent"], []))
        for item in self.actual.of_kind("object").values():
            yield Difference(f"{item.name} is not of this version")

    def _schema(self) -> Iterator[Difference]:
        title, owner = f"schema {self.place.schema}", self.place.owner
        [actual] = self.actual.of_kind("schema").values()
        if actual.facts["owner"] != owner:
            yield owned_by(title, actual, self.place.owner)
        stamp = self.place.homes[0].names.stamp
        if actual.facts["comment"] != stamp:
            fix = Fix(MARKS, mending.execute, (f"COMMENT ON {actual.facts['statement']} IS '{stamp}'",))
            yield Difference(f"{title} does not carry its mark", fixes=(fix,))
        yield from self._rights(Target(title, actual.facts["statement"]), "")
        for what in (each for each in {**self.wanted.items, **self.actual.items} if each.startswith("new ")):
            inside = f"IN {actual.facts['statement']} " if what.endswith(" in the schema") else ""
            begin = f"ALTER DEFAULT PRIVILEGES {inside}"
            yield from self._rights(Target(what, what.split()[1].upper(), begin), what)

    def _rights(self, target: Target, relation: str) -> Iterator[Difference]:
        wanted, actual = self.wanted.of_kind("right", relation), self.actual.of_kind("right", relation)
        return self.rights.differences(target, wanted.values(), actual.values())

    def _functions(self) -> Iterator[Difference]:
        wanted, actual = self.wanted.of_kind("function"), self.actual.of_kind("function")
        for name, item in wanted.items():
            if name in actual:
                yield from self._function(item, actual[name])
            else:
                fix = Fix(FUNCTIONS, mending.execute, (item.facts["definition"],))
                yield Difference(f"function {name} is missing", fixes=(fix,))
        for name in actual.keys() - wanted.keys():
            drop = Fix(FUNCTIONS, mending.execute, (f"DROP {actual[name].facts['statement']}",))
            yield from self._extra(f"function {name}", name.split("(")[0], actual[name], drop)

    def _function(self, wanted: Item, actual: Item) -> Iterator[Difference]:
        title, statement = f"function {actual.name}", actual.facts["statement"]
        if actual.facts["owner"] != self.place.owner:
            yield owned_by(title, actual, self.place.owner)
        if actual.facts["definition"] != wanted.facts["definition"]:
            fix = Fix(FUNCTIONS, mending.replace_function, (statement, wanted.facts["definition"]))
            yield Difference(f"{title} was edited", fixes=(fix,))
        if actual.facts["mark"] != wanted.facts["mark"]:
            comment = f"'{READ_MARK}'" if wanted.facts["mark"] else "NULL"
            fix = Fix(MARKS, mending.execute, (f"COMMENT ON {statement} IS {comment}",))
            verb = "lost the" if wanted.facts["mark"] else "has the"
            yield Difference(f'{title} {verb} mark "{READ_MARK}"', fixes=(fix,))
        yield from self._rights(Target(actual.name, statement), actual.name)

    def _relation(self, actual: Item, of_its_parent: Sequence[tuple[str, str]]) -> Iterator[Difference]:
        name, parent = actual.relation, actual.facts["parent"]
        template = f"{parent}_default"
        expected = self.wanted.items.get(name)
        if parent and self.wanted.table(template):
            expected = _renamed(self.wanted.items[template], template, name)
        if expected is None:
            yield from self._extra(f"{KINDS[actual.facts['kind']]} {name}", name, actual)
            return
        # What a part of the parent is called its partitions' parts are, or it is called after each of them.
        its_parents = frozenset(
            (kind, called) for kind, each in of_its_parent for called in (each, each.replace(parent, name))
        )
        yield from self._table(name, expected, its_parents).differences()

    def _table(
        self, name: str, expected: Mapping[tuple[str, str], Item], its_parents: frozenset[tuple[str, str]] = frozenset()
    ) -> Table:
        return Table(self.place, self.rights, self.files, name, expected, self.actual.items[name], its_parents)

    def _extra(self, title: str, name: str, actual: Item, *drop: Fix) -> Iterator[Difference]:
        if actual.facts["owner"] == self.place.owner:
            yield from unexpected(title, name, self.files, drop)
        else:
            yield Difference(f'{title} is not of this version and belongs to "{actual.facts["owner"]}"')


def _renamed(items: Mapping[tuple[str, str], Item], old: str, new: str) -> dict[tuple[str, str], Item]:
    """Gives what a partition of another name should have of its own.

    What it gets from its parent cannot be taken from it, and is called as PostgreSQL likes.
    """

    def put(value: Any) -> Any:
        return value.replace(old, new) if isinstance(value, str) else value

    renamed = {}
    for (kind, name), item in items.items():
        if kind in ("constraint", "index") and item.facts["inherited"]:
            continue
        facts = {fact: put(value) for fact, value in item.facts.items()}
        renamed[kind, put(name)] = Item(kind, new, put(name), facts)
    return renamed
