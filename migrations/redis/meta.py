"""What apps may know of their Memory: the hash `meta`; and whether its vectors can be what is wanted."""

from dataclasses import dataclass

from migrations.errors import Code, CommandError
from migrations.homes.entry import Entry
from migrations.redis.names import Home
from migrations.redis.server import Server
from migrations.request import Embeddings

CONTRACT = "1"
# Redis' own words for how a vector set keeps its vectors, and ours.
_STORAGES = {"f32": "full", "fp32": "full", "int8": "half", "q8": "half"}


@dataclass(frozen=True)
class Vectors:
    """The vector set of a home; all of it empty where there is none."""

    rows: int = 0
    dimension: int = 0
    storage: str = ""


def look(server: Server, home: Home) -> Vectors:
    """Reads what the vector set of a home is like."""
    node = server.at(home.vectors)
    if not server.has_vectors or not (rows := int(node.call("VCARD", home.vectors))):
        return Vectors()
    pairs = node.call("VINFO", home.vectors)
    info = dict(zip(pairs[::2], pairs[1::2], strict=True))
    quantization = str(info.get("quant-type", ""))
    return Vectors(rows, int(node.call("VDIM", home.vectors)), _STORAGES.get(quantization, quantization))


def check_supported(server: Server, embeddings: Embeddings) -> None:
    """Refuses vectors that this server cannot have.

    Raises:
        CommandError: MODULE_UNSUPPORTED.
    """
    if not embeddings.enabled:
        return
    if embeddings.metric != "cosine":
        msg = (
            f'embeddings.metric: "{embeddings.metric}" is not what Redis can do, whose vector sets compare by cosine '
            "only: write cosine, set embeddings.enabled to false, or choose another provider"
        )
        raise CommandError(Code.MODULE_UNSUPPORTED, msg)
    if not server.has_vectors:
        kind = "Valkey" if "valkey" in server.capabilities else "Redis"
        msg = (
            f"embeddings.enabled: {kind} {server.version} has no vector sets, which are in Redis 8 or newer: set "
            "embeddings.enabled to false, or choose another provider"
        )
        raise CommandError(Code.MODULE_UNSUPPORTED, msg)


def check_dimension(found: Vectors, embeddings: Embeddings) -> None:
    """Refuses another dimension than the stored vectors have.

    Raises:
        CommandError: DIMENSION_CONFLICT.
    """
    if embeddings.enabled and found.rows and found.dimension != embeddings.dimension:
        msg = (
            f"{found.rows} embeddings of dimension {found.dimension} are stored, and dimension {embeddings.dimension} "
            f"is wanted: set embeddings.dimension to {found.dimension}, or delete them first"
        )
        raise CommandError(Code.DIMENSION_CONFLICT, msg)


def wanted(entry: Entry, found: Vectors) -> dict[str, str]:
    """Gives the hash as it should be. A vector set keeps the storage that it began with until it is empty."""
    embeddings = entry.embeddings
    storage = "half" if embeddings.storage == "half" else "full"
    return {
        "contract": CONTRACT,
        "dataset": entry.dataset,
        "dimension": str(embeddings.dimension) if embeddings.enabled else "",
        "metric": embeddings.metric,
        "storage": found.storage or storage,
        "ttl_days": str(entry.ttl_days),
        "legal_hold": "1" if entry.legal_hold else "0",
    }


def warnings(entry: Entry, found: Vectors) -> list[str]:
    """Says what was asked for and cannot be had with the vectors that are there."""
    asked = "half" if entry.embeddings.storage == "half" else "full"
    if not entry.embeddings.enabled or found.storage in {"", asked}:
        return []
    sentence = (
        f'embeddings.storage: {found.rows} embeddings are stored as "{found.storage}" and stay so: Redis converts no '
        f'vector set; delete them to have "{asked}"'
    )
    return [sentence]


def read(server: Server, home: Home) -> dict[str, str]:
    """Reads the hash."""
    pairs = server.at(home.meta).call("HGETALL", home.meta)
    return dict(zip(pairs[::2], pairs[1::2], strict=True))


def write(server: Server, home: Home, values: dict[str, str]) -> None:
    """Writes the hash whole: what does not belong there goes."""
    with server.at(home.meta).client.pipeline() as pipe:
        pipe.execute_command("DEL", home.meta)
        pipe.execute_command("HSET", home.meta, *(word for pair in values.items() for word in pair))
        pipe.execute()
