"""What a difference is: a sentence, and what would mend it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from migrations.postgres.drift import mending
from migrations.postgres.drift.catalog import Item
from migrations.postgres.drift.mending import Fix
from migrations.postgres.sqlfile import File

LONGEST = 300

# The order of mending: owners before what only an owner can mend, columns before what stands on them, rights when all
# is there.
OWNERS, FUNCTIONS, COLUMNS, SETTINGS, CONSTRAINTS, INDEXES, TRIGGERS, MARKS, TAKEN, GIVEN = range(10)


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be; as text it is its sentence.

    Attributes:
        home: The key of the one home that it is about, "" when it is about all homes of the place.
        fixes: What would mend it; nothing where a person must.
        why: Why it was not mended, and what a person does; "" when nobody tried.
    """

    sentence: str
    home: str = ""
    fixes: tuple[Fix, ...] = field(default=(), compare=False, repr=False)
    why: str = field(default="", compare=False)

    def __str__(self) -> str:
        text = f"{self.sentence}: {self.why}" if self.why else self.sentence
        return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@dataclass(frozen=True)
class Files:
    """Files that may say what a thing is which should not be there.

    Attributes:
        later: Of the image, and not in the home's history.
        unknown: Applied, and impossible to try out here: nothing is said about what they make.
    """

    later: Sequence[File]
    unknown: Sequence[File]


def unexpected(title: str, name: str, files: Files, fixes: tuple[Fix, ...] = ()) -> Iterator[Difference]:
    """Says that something is there that should not be, unless a file says what it is."""
    word = re.compile(rf"\b{re.escape(name)}\b")
    if any(word.search(file.text) for file in files.unknown):
        return
    file = next((file for file in files.later if word.search(file.text)), None)
    if file:
        yield Difference(f"{title} is of {file.title}, which the history of this Memory lacks")
    else:
        yield Difference(f"{title} is not of this version", fixes=fixes)


def owned_by(title: str, actual: Item, owner: str) -> Difference:
    """Says that something is not the owner's."""
    change = f'ALTER {actual.facts["statement"]} OWNER TO "{owner}"'
    sentence = f'{title} belongs to "{actual.facts["owner"]}" instead of "{owner}"'
    return Difference(sentence, fixes=(Fix(OWNERS, mending.execute_as_admin, (change,)),))
