"""Who may do what in a place: what is missing and what is too much, party by party."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from migrations.postgres.drift import mending
from migrations.postgres.drift.catalog import Item
from migrations.postgres.drift.differences import GIVEN, TAKEN, Difference
from migrations.postgres.drift.expected import OWNER, PUBLIC, READER, WRITER
from migrations.postgres.drift.mending import Fix
from migrations.postgres.maintenance.places import Place

_MEMORYS_GROUP = re.compile(r"mem_[0-9a-f]{12}_(writer|reader)")


@dataclass(frozen=True)
class Party:
    """Somebody who may have rights.

    Attributes:
        role: As SQL names it.
        who: As sentences name it.
        shares: Whose rights it should have: OWNER, WRITER, READER or PUBLIC; of none, none.
        home: The key of the home that it is of, "" for none or all.
        give: What gives it all its rights, None for those that should have none.
    """

    role: str
    who: str
    shares: tuple[str, ...] = ()
    home: str = ""
    give: Fix | None = None


@dataclass(frozen=True)
class Target:
    """What rights are on, as sentences and as GRANT name it; of default privileges `prefix` is how a change begins."""

    title: str
    statement: str
    prefix: str = ""


@dataclass(frozen=True)
class Rights:
    """The parties of a place, by the names of their roles, "" is PUBLIC."""

    known: Mapping[str, Party]
    shared: bool

    @classmethod
    def of(cls, place: Place, *, managed: bool) -> "Rights":
        """Gives them; where roles are `managed` by CloudNativePG, roles of others have rights of their own."""
        known = {place.owner: Party(_role(place.owner), "owner", (OWNER,))}
        for home in place.homes:
            names, give = home.names, Fix(GIVEN, mending.grant, (home,))
            known.setdefault("", Party("PUBLIC", "PUBLIC", (PUBLIC,), give=give))
            known[names.writer] = Party(_role(names.writer), "writer group", (WRITER,), home.key, give)
            known[names.reader] = Party(_role(names.reader), "reader group", (READER,), home.key, give)
            for login in names.logins:
                known[login] = Party(_role(login), f"login {login}", (), home.key, give)
            guests = {home.access.reader_role: (READER,)} if managed and home.access.reader_role else {}
            if managed and home.access.writer_role:
                guests[home.access.writer_role] = (*guests.get(home.access.writer_role, ()), WRITER)
            for role, shares in guests.items():
                fix = Fix(GIVEN, mending.share, (home, role, WRITER in shares))
                known[role or ""] = Party(_role(role or ""), f'role "{role}"', shares, home.key, fix)
        return cls(known, place.isolation == "Dataset")

    def differences(self, target: Target, wanted: Iterable[Item], actual: Iterable[Item]) -> Iterator[Difference]:
        """Compares the rights on one thing; a right on a single column is always too much."""
        expected = {item.facts["grantee"]: frozenset(item.facts["privileges"]) for item in wanted}
        items = list(actual)
        found = {i.facts["grantee"]: frozenset(i.facts["privileges"]) for i in items if not i.facts["column"]}
        for name, party in self._parties(found):
            want = frozenset[str]().union(*(expected.get(share, frozenset()) for share in party.shares))
            have = found.get(name, frozenset())
            if want - have:
                yield _difference(party, "lacks", want - have, target, _missing(party, target))
            if have - want:
                yield _difference(party, "has", have - want, target, _surplus(party, target))
        for item in items:
            if item.facts["column"]:
                party = self._party(item.facts["grantee"])
                column = Target(f"{target.title}.{item.facts['column']}", target.statement)
                take = f"REVOKE ALL ({item.facts['column']}) ON {target.statement} FROM {party.role} CASCADE"
                yield _difference(party, "has", item.facts["privileges"], column, [take])

    def _parties(self, found: Mapping[str, object]) -> Iterator[tuple[str, Party]]:
        yield from ((name, party) for name, party in self.known.items() if party.shares or name in found)
        for name in found:
            # Another provider's Memory in the same shared schema is that one's to look after.
            if name not in self.known and not (self.shared and _MEMORYS_GROUP.fullmatch(name)):
                yield name, self._party(name)

    def _party(self, name: str) -> Party:
        return self.known.get(name) or Party(_role(name), f'role "{name}"')


def _missing(party: Party, target: Target) -> Sequence[str]:
    return [] if party.give else [f"{target.prefix}GRANT ALL ON {target.statement} TO {party.role}"]


def _surplus(party: Party, target: Target) -> Sequence[str]:
    if party.give and party.give.way is mending.grant and not target.prefix:
        # What was handed on first: it would keep the right from being taken. The rest at once, so nobody misses any.
        return [f"REVOKE GRANT OPTION FOR ALL ON {target.statement} FROM {party.role} CASCADE"]
    return [
        f"{target.prefix}REVOKE ALL ON {target.statement} FROM {party.role}" + ("" if target.prefix else " CASCADE")
    ]


def _difference(
    party: Party, verb: str, privileges: Iterable[str], target: Target, statements: Sequence[str]
) -> Difference:
    fixes = [Fix(TAKEN, mending.execute, (statement,)) for statement in statements]
    fixes += [party.give] if party.give else []
    sentence = f"{party.who} {verb} {', '.join(sorted(privileges))} on {target.title}"
    return Difference(sentence, party.home, tuple(fixes))


def _role(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
