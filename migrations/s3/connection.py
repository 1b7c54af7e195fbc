"""The server as its admin reaches it: Amazon's protocol by boto3, Ceph's admin API beside it, and what errors mean.

Keys, endpoint and CA come from the request's folder alone: nothing of ~/.aws, of AWS_… variables, of a metadata service
or of a proxy's is looked at.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import boto3
import botocore.session
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError, SSLError
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParserError

from migrations.deadline import Deadline
from migrations.errors import Code, CommandError
from migrations.request import read_file
from migrations.s3.request import Provider

CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
ATTEMPTS = 3
OK, NOT_FOUND, CONFLICT, FORBIDDEN = 200, 404, 409, 403
SERVER_ERROR = 500
THROTTLED = frozenset({"SlowDown", "RequestTimeout", "Throttling", "TooManyRequests", "RequestLimitExceeded"})
# A bucket's document that somebody else writes at this moment.
RACES = frozenset({"OperationAborted", "ConcurrentModification"})
NO_FILE = (None, None, os.devnull, None)


@dataclass(frozen=True)
class Keys:
    """An access key and its secret key."""

    access: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Admin:
    """How a server is reached, and by whom."""

    endpoint: str
    region: str
    path_style: bool
    keys: Keys
    ca: Path | None

    @classmethod
    def load(cls, provider: Provider, directory: Path) -> "Admin":
        """Reads the admin's files.

        Raises:
            CommandError: BAD_REQUEST when one is missing.
        """
        access = read_file(directory / "admin" / "username").strip()
        secret = read_file(directory / "admin" / "password").strip()
        ca = directory / "tls" / "ca.crt"
        found = ca if ca.exists() else None
        return cls(provider.endpoint, provider.region, provider.force_path_style, Keys(access, secret), found)

    @property
    def server(self) -> str:
        """What sentences call it."""
        return f"S3 at {self.endpoint}"

    @contextmanager
    def connect(self, deadline: Deadline) -> Iterator["Connection"]:
        """Gives the server. No request has been made by then; each may raise CommandError (see `explained`)."""
        connection = Connection(self, deadline)
        try:
            with explaining(self):
                yield connection
        finally:
            connection.close()


class Connection:
    """A server in use."""

    def __init__(self, admin: Admin, deadline: Deadline) -> None:
        self.admin = admin
        self._read_seconds = max(1.0, min(READ_SECONDS, deadline.remaining / ATTEMPTS))
        self._clients: list[Any] = []

    @cached_property
    def s3(self) -> Any:
        """The client for buckets and objects."""
        return self._client("s3")

    @cached_property
    def iam(self) -> Any:
        """The client for users' policies; Ceph answers it at the same address."""
        return self._client("iam")

    def call(
        self, method: str, path: str, parameters: Mapping[str, str], keys: Keys | None = None
    ) -> tuple[int, Any, str]:
        """Asks once, signed, in path style: what no client of boto3's knows.

        Args:
            method: GET, PUT, POST or DELETE.
            path: From the root.
            parameters: The query; a value of "" stands without a value.
            keys: Who signs, the admin unless told otherwise.

        Returns:
            Status, body (JSON as what it says, anything else as text), and the error's code, "" when there is none.
        """
        who = keys or self.admin.keys
        request = AWSRequest(method, f"{self.admin.endpoint}{path}?{urlencode(parameters)}")
        S3SigV4Auth(Credentials(who.access, who.secret), "s3", self.admin.region).add_auth(request)
        answer = self._http.send(request.prepare())
        text = answer.content.decode(errors="replace")
        try:
            said = json.loads(text)
        except ValueError:
            said = text
        code = str(said.get("Code", "")) if isinstance(said, dict) else ""
        if answer.status_code >= SERVER_ERROR:
            msg = f"{self.admin.server} answers {answer.status_code} {code} to {method} {path}"
            raise CommandError(Code.UNREACHABLE, msg)
        return answer.status_code, said, code

    def close(self) -> None:
        """Closes what is open."""
        for client in self._clients:
            client.close()

    @cached_property
    def _http(self) -> Any:
        session = URLLib3Session(
            verify=self._verify, timeout=(CONNECT_SECONDS, self._read_seconds), proxies={}, max_pool_connections=4
        )
        self._clients.append(session)
        return session

    @cached_property
    def _session(self) -> Any:
        # Environment and files are named nowhere, so that they are looked at nowhere.
        core = botocore.session.Session(
            {"config_file": NO_FILE, "credentials_file": NO_FILE, "profile": (None, None, None, None)}
        )
        return boto3.session.Session(botocore_session=core)

    @property
    def _verify(self) -> str | bool:
        return str(self.admin.ca) if self.admin.ca else True

    def _client(self, service: str) -> Any:
        client = self._session.client(
            service,
            endpoint_url=self.admin.endpoint,
            region_name=self.admin.region,
            aws_access_key_id=self.admin.keys.access,
            aws_secret_access_key=self.admin.keys.secret,
            aws_session_token=None,
            verify=self._verify,
            config=Config(
                signature_version="s3v4" if service == "s3" else "v4",
                s3={"addressing_style": "path" if self.admin.path_style else "virtual"},
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                connect_timeout=CONNECT_SECONDS,
                read_timeout=self._read_seconds,
                # Ceph before 19 knows no checksums in trailers; where one is needed we send Content-MD5.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                ignore_configured_endpoint_urls=True,
                proxies={},
            ),
        )
        self._clients.append(client)
        return client


def code_of(error: ClientError) -> str:
    """Gives the server's own code of an error; an answer to HEAD has the status only, in words or as a number."""
    found = error.response.get("Error", {}).get("Code")
    return str(found or status_of(error))


def status_of(error: ClientError) -> int:
    """Gives the HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def is_missing(error: ClientError) -> bool:
    """Whether what was asked for is not there."""
    return status_of(error) == NOT_FOUND


@contextmanager
def explaining(admin: Admin) -> Iterator[None]:
    """Turns what boto3 raises into CommandErrors."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise explained(admin, error) from None


def explained(admin: Admin, error: Exception) -> CommandError:
    """Gives the sentence and the exit code for an error that no step has a sentence of its own for."""
    if isinstance(error, ClientError):
        return _refused(admin, error)
    if isinstance(error, SSLError):
        msg = f"{admin.server} cannot prove who it is ({_short(error)}): give the CA that signed for it as caBundle"
        return CommandError(Code.UNREACHABLE, msg)
    if isinstance(error, ResponseParserError):
        return CommandError(Code.JOB_FAILED, f"{admin.server} answers what is no answer of S3: is this its address?")
    return CommandError(Code.UNREACHABLE, f"{admin.server} does not answer: {_short(error)}")


def _refused(admin: Admin, error: ClientError) -> CommandError:
    code, status, what = code_of(error), status_of(error), error.operation_name
    if status >= SERVER_ERROR or code in THROTTLED | RACES:
        return CommandError(Code.UNREACHABLE, f"{admin.server} answers {status} {code} to {what}")
    if code == "RequestTimeTooSkewed":
        return CommandError(Code.PERMISSION_DENIED, f"{admin.server} has another time than we: set the clocks right")
    if code in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "UserSuspended"}:
        msg = f"{admin.server} does not know the admin's keys ({code}): put right what adminSecret holds"
        return CommandError(Code.PERMISSION_DENIED, msg)
    if status == FORBIDDEN:
        msg = f"{admin.server} refuses the admin {what} ({code}): give it the rights that docs/s3.md lists"
        return CommandError(Code.PERMISSION_DENIED, msg)
    return CommandError(Code.JOB_FAILED, f"{admin.server} answers {status} {code} to {what}")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
