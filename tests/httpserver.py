"""HTTP servers of a test's own, each in a thread."""

import functools
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme

# How long a server may take to see that it is to end, in seconds; the library's own half a second is most of a test.
POLL = 0.01


@functools.cache
def authority() -> trustme.CA:
    """Gives the authority behind every certificate that `listening` shows in this process."""
    return trustme.CA()


@functools.cache
def _context(host: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host).configure_cert(context)
    return context


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler], *, tls: str | None = None) -> Iterator[int]:
    """Serves on 127.0.0.1 until the block ends, and gives the port.

    Args:
        handler: What answers.
        tls: The name or the address that the certificate is for; without it the server speaks plain HTTP.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = _context(tls).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=[POLL])
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
