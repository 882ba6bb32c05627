"""Client of a hotpair: sessions and calls that live through every switch.

    client = Client(["10.0.0.1:7000", "10.0.0.2:7000"])
    with client.log_in("ann", "correct horse") as session:
        session.call(1006, {"table": "t", "key": "k", "by": 1})
"""

from .client import Client
from .errors import (
    ConfigurationError,
    HotpairError,
    OutcomeUnknown,
    Refused,
    SessionOver,
    TimedOut,
    UnknownTicket,
)
from .session import Pushed, Session, Ticket

__all__ = [
    "Client",
    "ConfigurationError",
    "HotpairError",
    "OutcomeUnknown",
    "Pushed",
    "Refused",
    "Session",
    "SessionOver",
    "Ticket",
    "TimedOut",
    "UnknownTicket",
]
