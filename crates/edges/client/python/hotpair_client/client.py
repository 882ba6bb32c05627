"""The client: the addresses, and what is done without a session."""

import time

from .errors import ConfigurationError, data_of
from .session import Session, named
from .wire import Wire

TARGETS_MAX = 4


class Client:
    """A client of a pair: both routers' client addresses, or both nodes', the first tried first."""

    def __init__(self, targets, call_limit=30.0, connect_limit=1.0, log_in_again=False):
        addresses = [_address(target) for target in targets]
        if not 1 <= len(addresses) <= TARGETS_MAX:
            raise ConfigurationError(f"a client needs 1 to {TARGETS_MAX} targets")
        self._wire = Wire(addresses, connect_limit)
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


def _address(target):
    address = target[len("http://"):] if target.startswith("http://") else target
    host, colon, port = address.rstrip("/").rpartition(":")
    if not colon or not host or "/" in host or not port.isdigit():
        raise ConfigurationError(f"{target!r}: give http://HOST:PORT, and no more")
    return f"{host}:{port}"
