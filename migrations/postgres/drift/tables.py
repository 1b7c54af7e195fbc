"""What differs between a table as it is and as it should be."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from migrations.postgres.drift import mending
from migrations.postgres.drift.catalog import Item
from migrations.postgres.drift.differences import (
    COLUMNS,
    CONSTRAINTS,
    INDEXES,
    SETTINGS,
    TRIGGERS,
    Difference,
    Files,
    owned_by,
    unexpected,
)
from migrations.postgres.drift.mending import Fix, Retyping
from migrations.postgres.drift.rights import Rights, Target
from migrations.postgres.maintenance.places import Place

# It comes when the data has earned it; its own step watches it.
EARNED_INDEX = "memory_embeddings_vector_idx"
KINDS = {
    "r": "table",
    "p": "partitioned table",
    "v": "view",
    "m": "materialized view",
    "f": "foreign table",
    "S": "sequence",
    "c": "type",
}
_FIRES = {"O": "ENABLE", "D": "DISABLE", "R": "ENABLE REPLICA", "A": "ENABLE ALWAYS"}
_PARTS = ("column", "constraint", "index", "trigger", "rule", "policy")

Items = Mapping[tuple[str, str], Item]


@dataclass(frozen=True)
class Table:
    """A table that should be there, or the partition of one.

    Attributes:
        its_parents: Kind and name of what its parent differs in already, under the names that this one would give.
    """

    place: Place
    rights: Rights
    files: Files
    name: str
    expected: Items
    actual: Items
    its_parents: frozenset[tuple[str, str]]

    @property
    def shared(self) -> bool:
        """Whether Memories share it: then its row-level security and its policies are looked at Memory by Memory."""
        return self.place.isolation == "Dataset"

    @property
    def alter(self) -> str:
        """How a change of it begins."""
        return f"ALTER {self.actual['table', ''].facts['statement']}"

    @property
    def statement(self) -> str:
        """Its name in SQL."""
        return self.alter.removeprefix("ALTER TABLE ")

    def differences(self) -> Iterator[Difference]:
        """Gives them in no order."""
        wanted, actual = self.expected["table", ""].facts, self.actual["table", ""].facts
        if actual["owner"] != self.place.owner:
            yield owned_by(f"table {self.name}", self.actual["table", ""], self.place.owner)
        if actual["kind"] != wanted["kind"]:
            yield Difference(f"{self.name} is a {KINDS[actual['kind']]} instead of a {KINDS[wanted['kind']]}")
            return
        if actual["parent"] != wanted["parent"]:
            # What it lacks since then it gets back with its parent.
            yield Difference(f"table {self.name} is no partition of {wanted['parent']}: attach it again by hand")
            return
        yield from self._itself()
        for kind, name, expected, found in self.differing():
            if (kind, name) in self.its_parents or (expected is None and found and found.facts.get("inherited")):
                continue
            if expected and found:
                yield from self._changed(kind, expected, found)
            elif expected:
                yield Difference(f"{self._title(kind, expected)} is missing", fixes=self._made(kind, expected))
            elif found:
                yield from unexpected(self._title(kind, found), name, self.files, self._dropped(kind, found))
        target = Target(self.name, f"TABLE {self.statement}")
        rights = [
            [each for (kind, _), each in items.items() if kind == "right"] for items in (self.expected, self.actual)
        ]
        yield from self.rights.differences(target, *rights)

    def differing(self) -> Iterator[tuple[str, str, Item | None, Item | None]]:
        """Gives kind and name of each part that is missing, too much or different, with how it should be and is."""
        for kind, name in {**self.expected, **self.actual}:
            expected, actual = self.expected.get((kind, name)), self.actual.get((kind, name))
            if kind not in _PARTS or (kind == "policy" and self.shared) or name.startswith(EARNED_INDEX):
                continue
            # An index that comes and goes with its constraint is that one's matter.
            backing = [bool(item and item.facts.get("constraint")) for item in (expected, actual)]
            if _facts(expected) != _facts(actual) and backing in ([False, False], [True, True]):
                yield kind, name, expected, actual

    def _itself(self) -> Iterator[Difference]:
        wanted, actual = self.expected["table", ""].facts, self.actual["table", ""].facts
        if actual["persistence"] != wanted["persistence"]:
            yield Difference(f"table {self.name} is unlogged", fixes=self._change(SETTINGS, "SET LOGGED"))
        # What else is set is the platform team's tuning.
        for option in sorted(set(wanted["options"]) - set(actual["options"])):
            fixes = self._change(SETTINGS, f"SET ({option})")
            yield Difference(f"table {self.name} lacks the setting {option}", fixes=fixes)
        if actual["secured"] and not self.shared:
            fixes = self._change(SETTINGS, "DISABLE ROW LEVEL SECURITY")
            yield Difference(f"row-level security is on for {self.name}", fixes=fixes)
        if actual["forced"] and not self.shared:
            fixes = self._change(SETTINGS, "NO FORCE ROW LEVEL SECURITY")
            yield Difference(f"row-level security is forced for {self.name}", fixes=fixes)

    def _change(self, order: int, *changes: str) -> tuple[Fix, ...]:
        """Gives the fix that is ALTER TABLE."""
        return (Fix(order, mending.execute, (f"{self.alter} {', '.join(changes)}",)),)

    def _made(self, kind: str, item: Item) -> tuple[Fix, ...]:
        """Gives what makes a part as it should be; of an index nothing that bears its name is left before."""
        facts = item.facts
        if kind == "column":
            derived = facts["generated"] != ""
            return (Fix(COLUMNS, mending.add_column, (self.statement, _definition(item), derived)),)
        if kind == "constraint":
            return self._change(CONSTRAINTS, f"ADD CONSTRAINT {facts['statement']} {facts['definition']}")
        if kind == "index" and self.actual["table", ""].facts["kind"] == "p":
            return (Fix(INDEXES, mending.index_partitions, (self.statement, facts["definition"])),)
        if kind == "index":
            create = facts["definition"].replace(" INDEX ", " INDEX CONCURRENTLY ", 1)
            return (Fix(INDEXES, mending.execute_alone, (_without(item), create)),)
        return (Fix(TRIGGERS, mending.execute, (facts["definition"], *self._fires(item))),)

    def _fires(self, trigger: Item) -> tuple[str, ...]:
        """Gives what makes a trigger fire as it should, nothing where that is the rule."""
        fires = trigger.facts["enabled"]
        return () if fires == "O" else (f"{self.alter} {_FIRES[fires]} TRIGGER {trigger.facts['statement']}",)

    def _dropped(self, kind: str, item: Item) -> tuple[Fix, ...]:
        """Gives what takes a part away."""
        statement = item.facts["statement"]
        if kind == "column":
            return (Fix(COLUMNS, mending.drop_column, (self.statement, statement)),)
        if kind == "constraint":
            return self._change(CONSTRAINTS, f"DROP CONSTRAINT {statement}")
        if kind == "index" and self.actual["table", ""].facts["kind"] == "p":
            return (Fix(INDEXES, mending.execute, (f"DROP INDEX {statement}",)),)
        if kind == "index":
            return (Fix(INDEXES, mending.execute_alone, (_without(item),)),)
        return (Fix(TRIGGERS, mending.execute, (f"DROP {kind} {statement} ON {self.statement}",)),)

    def _title(self, kind: str, item: Item) -> str:
        """Gives a part as sentences name it."""
        if kind == "index":
            return f"index {item.name}"
        return f"column {self.name}.{item.name}" if kind == "column" else f"{kind} {item.name} on {self.name}"

    def _changed(self, kind: str, wanted: Item, actual: Item) -> Iterator[Difference]:
        differences = {
            "column": self._column,
            "constraint": self._constraint,
            "index": self._index,
            "trigger": self._trigger,
        }
        return differences[kind](self._title(kind, actual), wanted, actual)

    def _column(self, title: str, wanted: Item, actual: Item) -> Iterator[Difference]:
        want, have = wanted.facts, actual.facts
        alter, name = f"ALTER COLUMN {want['statement']}", want["statement"]
        if have["generated"] != want["generated"]:
            fixes = () if want["generated"] else self._change(COLUMNS, f"{alter} DROP EXPRESSION")
            yield Difference(f"{title} is {'not ' if want['generated'] else ''}computed from others", fixes=fixes)
        elif have["generated"] and (have["default"], have["type"]) != (want["default"], want["type"]):
            # What is computed can be computed again.
            fixes = self._change(COLUMNS, f"DROP COLUMN {name}", f"ADD COLUMN {_definition(wanted)}")
            yield Difference(f"{title} is computed in another way", fixes=fixes)
        elif have["type"] != want["type"]:
            retyping = Retyping(self.statement, name, have["type"], want["type"], want["default"] or "")
            fix = Fix(COLUMNS, mending.change_type, (retyping,))
            yield Difference(f"{title} is {have['type']} instead of {want['type']}", fixes=(fix,))
        elif have["default"] != want["default"]:
            change = f"SET DEFAULT {want['default']}" if want["default"] is not None else "DROP DEFAULT"
            yield Difference(f"{title} has another default", fixes=self._change(SETTINGS, f"{alter} {change}"))
        if have["identity"] != want["identity"]:
            fixes = self._change(COLUMNS, f"{alter} DROP IDENTITY") if not want["identity"] else ()
            yield Difference(f"{title} is {'no' if want['identity'] else 'an'} identity column", fixes=fixes)
        if have["required"] != want["required"]:
            fixes = self._change(COLUMNS, f"{alter} {'SET' if want['required'] else 'DROP'} NOT NULL")
            yield Difference(f"{title} {'may' if want['required'] else 'may not'} be null", fixes=fixes)

    def _constraint(self, title: str, wanted: Item, actual: Item) -> Iterator[Difference]:
        name = actual.facts["statement"]
        if actual.facts["definition"] != f"{wanted.facts['definition']} NOT VALID":
            add = f"ADD CONSTRAINT {name} {wanted.facts['definition']}"
            fixes = self._change(CONSTRAINTS, f"DROP CONSTRAINT {name}", add)
            yield Difference(f"{title} was changed", fixes=fixes)
        else:
            fixes = self._change(CONSTRAINTS, f"VALIDATE CONSTRAINT {name}")
            yield Difference(f"{title} is not validated", fixes=fixes)

    def _index(self, title: str, wanted: Item, actual: Item) -> Iterator[Difference]:
        if wanted.facts["constraint"]:
            rebuild = Fix(INDEXES, mending.execute_alone, (f"REINDEX INDEX CONCURRENTLY {actual.facts['statement']}",))
            yield Difference(f"{title} is invalid", fixes=(rebuild,))
            return
        what = "was changed" if actual.facts["valid"] else "is invalid"
        yield Difference(f"{title} {what}", fixes=self._made("index", wanted))

    def _trigger(self, title: str, wanted: Item, actual: Item) -> Iterator[Difference]:
        name = actual.facts["statement"]
        if actual.facts["definition"] != wanted.facts["definition"]:
            drop = f"DROP TRIGGER {name} ON {self.statement}"
            fix = Fix(TRIGGERS, mending.execute, (drop, wanted.facts["definition"], *self._fires(wanted)))
            yield Difference(f"{title} was changed", fixes=(fix,))
        elif actual.facts["enabled"] == "D":
            fixes = self._change(TRIGGERS, f"{_FIRES[wanted.facts['enabled']]} TRIGGER {name}")
            yield Difference(f"{title} is disabled", fixes=fixes)
        else:
            fixes = self._change(TRIGGERS, f"{_FIRES[wanted.facts['enabled']]} TRIGGER {name}")
            yield Difference(f"{title} does not fire as it should", fixes=fixes)


def _facts(item: Item | None) -> dict[str, object] | None:
    """Gives what counts of a part: not how it came there, and of a constraint's index not what the constraint says."""
    if item is None:
        return None
    left_out = {"inherited", "statement", *(["definition"] if item.facts.get("constraint") else [])}
    return {name: value for name, value in item.facts.items() if name not in left_out}


def _definition(column: Item) -> str:
    facts = column.facts
    text = f"{facts['statement']} {facts['type']}"
    if facts["generated"]:
        text += f" GENERATED ALWAYS AS ({facts['default']}) STORED"
    elif facts["default"] is not None:
        text += f" DEFAULT {facts['default']}"
    return text + (" NOT NULL" if facts["required"] else "")


def _without(index: Item) -> str:
    return f"DROP INDEX CONCURRENTLY IF EXISTS {index.facts['statement']}"
