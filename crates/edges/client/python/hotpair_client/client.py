"""The client: the addresses, and what is done without a session."""

import ssl
import time

from .errors import ConfigurationError, data_of
from .session import Session, named
from .wire import Wire

TARGETS_MAX = 4


class Client:
    """A client of a pair: both routers' client addresses, or both nodes', the first tried first.

    ``authority`` is a file (PEM) with the authorities that sign the pair's certificates: TLS is spoken,
    and nobody else is trusted. Without it an ``https://`` target must be signed by somebody whom this
    machine trusts."""

    def __init__(
        self, targets, call_limit=30.0, connect_limit=1.0, log_in_again=False, authority=None
    ):
        scheme = "https" if authority else "http"
        found = [_address(target, scheme) for target in targets]
        if not 1 <= len(found) <= TARGETS_MAX:
            raise ConfigurationError(f"a client needs 1 to {TARGETS_MAX} targets")
        # Nodes name each other without a scheme: there is one for all.
        if len({scheme for scheme, _ in found}) > 1:
            raise ConfigurationError("all targets speak TLS (https), or none does")
        if authority and found[0][0] != "https":
            raise ConfigurationError("with an authority given, targets must be https://")
        context = _context(authority) if found[0][0] == "https" else None
        self._wire = Wire([address for _, address in found], connect_limit, context)
        self._call_limit = call_limit
        self._log_in_again = log_in_again

    def log_in(self, user, password):
        """Logs in."""
        return Session(self._wire, user, password, self._call_limit, self._log_in_again)

    def call(self, function, arguments=None, limit=None):
        """Calls a function without a session, and so without a number: it is sent again only where
        it was surely not executed, and may end in ``OutcomeUnknown``."""
        limit = self._call_limit if limit is None else limit
        body = {"arguments": arguments, "timeout_ms": int(limit * 1000), **named(function)}
        deadline = time.monotonic() + limit
        return data_of(self._wire.ask("/v1/call", body, False, limit, deadline)[0])


def _address(target, scheme):
    if "://" in target:
        scheme, _, address = target.partition("://")
    else:
        address = target
    host, colon, port = address.rstrip("/").rpartition(":")
    good = colon and host and "/" not in host and port.isdigit()
    if not good or scheme not in ("http", "https"):
        raise ConfigurationError(f"{target!r}: give https://HOST:PORT, and no more")
    return scheme, f"{host}:{port}"


def _context(authority):
    try:
        return ssl.create_default_context(cafile=authority)
    except OSError as error:
        raise ConfigurationError(f"authority {authority!r}: {error}") from error
