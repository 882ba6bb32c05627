"""A session: logged in once, kept alive, its requests numbered, so that each is done once whatever
becomes of nodes, routers and connections."""

import json
import random
import threading
import time
from dataclasses import dataclass
from typing import Any, Optional

from .errors import ConfigurationError, HotpairError, OutcomeUnknown, SessionOver, TimedOut
from .errors import UnknownTicket, data_of
from .targets import Answer, Nothing, Numbers
from .wire import read

SESSION_UNKNOWN = 308000001
#: The pair says something, if only that it is there, every four seconds.
SILENCE_S_MAX = 10.0


@dataclass
class Pushed:
    """One thing that was pushed: ``name`` is "reply", "role" or, after a cut, "cut"."""

    name: str
    data: Any = None
    ticket: Optional[str] = None
    error: Optional[HotpairError] = None


class Session:
    """Made by ``Client.log_in``. May be used by many threads."""

    def __init__(self, wire, user, password, call_limit, log_in_again):
        self._wire = wire
        self._user = user
        self._password = password if log_in_again else None
        self._call_limit = call_limit
        self._room = threading.Condition()
        self._logging_in = threading.Lock()
        self._ended = threading.Event()
        self.logins = 0
        self._log_in(password)
        self._beating = threading.Thread(target=self._keep_alive, daemon=True)
        self._beating.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.log_out()
        except HotpairError:
            pass  # It ends by itself.

    def call(self, function, arguments=None, limit=None):
        """Calls a function and waits for its answer: a number, or "group/service/version:name"."""
        return data_of(self._call(named(function), arguments, limit, False))

    def start(self, function, arguments=None, limit=None):
        """Begins a call: its ticket, once the pair has it for certain."""
        data = data_of(self._call(named(function), arguments, limit, True))
        return Ticket(self, data["ticket"])

    def push(self):
        """What is pushed to this session, over all connections that it takes: an endless iterator.

        Coming back after a cut it says which replies it has, and the pair lets them go: follow either
        this, or wait for tickets.
        """
        last_id = ""
        while True:
            connection, response = self._follow(last_id)
            try:
                for name, data, event_id in _events(response):
                    last_id = event_id or last_id
                    yield _pushed(name, data)
            except (OSError, ValueError):
                pass
            finally:
                connection.close()
            yield Pushed("cut")

    def heartbeat(self):
        """Says that the session goes on. Done by itself, at a quarter of the idle time."""
        token, generation = self.token, self.logins
        envelope, _ = self._ask("/v1/heartbeat", {"session": token}, self._call_limit)
        if envelope["error_no"] == SESSION_UNKNOWN:
            self._log_in_again(generation)
        else:
            data_of(envelope)

    def log_out(self):
        """Ends the session."""
        self._ended.set()
        envelope, _ = self._ask("/v1/logout", {"session": self.token}, self._call_limit)
        if envelope["error_no"] != SESSION_UNKNOWN:  # An earlier sending ended it.
            data_of(envelope)

    # --- within

    def _call(self, function, arguments, limit, is_async):
        limit = self._call_limit if limit is None else limit
        deadline = time.monotonic() + limit
        while True:
            token, generation, number, done_up_to = self._reserve(limit, deadline)
            body = {
                "session": token, "request": number, "done_up_to": done_up_to,
                "arguments": arguments, "timeout_ms": int(limit * 1000), **function,
            }
            if is_async:
                body["async"] = True
            try:
                envelope, may_be_done = self._ask("/v1/call", body, limit, deadline)
            finally:
                self._give_back(generation, number)
            if envelope["error_no"] != SESSION_UNKNOWN:
                return envelope
            if may_be_done:
                raise OutcomeUnknown("the session ended before the request was answered")
            self._log_in_again(generation)

    def _fetch(self, ticket, limit, deadline):
        token, generation, number, done_up_to = self._reserve(limit, deadline)
        body = {
            "session": token, "ticket": ticket, "request": number, "done_up_to": done_up_to,
        }
        try:
            return self._ask("/v1/result", body, limit, deadline)[0]
        finally:
            self._give_back(generation, number)

    def _reserve(self, limit, deadline):
        with self._room:
            while True:
                number = self._numbers.take()
                if number is not None:
                    return self.token, self.logins, number, self._numbers.done_up_to()
                if not self._room.wait(max(0.0, deadline - time.monotonic())):
                    raise TimedOut(limit, False, "64 requests of the session are outstanding")

    def _give_back(self, generation, number):
        with self._room:
            if generation == self.logins:
                self._numbers.give_back(number)
            self._room.notify_all()

    def _ask(self, path, body, limit, deadline=None):
        deadline = time.monotonic() + limit if deadline is None else deadline
        return self._wire.ask(path, body, True, limit, deadline)

    def _log_in(self, password):
        # Logging in twice makes a session that nobody uses, and that ends by itself.
        body = {"user": self._user, "password": password}
        data = data_of(self._ask("/v1/login", body, self._call_limit)[0])
        with self._room:
            self.token = data["session"]
            self._idle_timeout = data["idle_timeout_ms"] / 1000
            self._numbers = Numbers()
            self.logins += 1

    def _log_in_again(self, generation):
        if self._password is None:
            self._ended.set()
            raise SessionOver()
        with self._logging_in:
            if self.logins == generation:
                self._log_in(self._password)

    def _keep_alive(self):
        while True:
            pause = max(0.05, self._idle_timeout / 4 * random.uniform(0.75, 1.0))
            if self._ended.wait(pause):
                return
            try:
                self.heartbeat()
            except SessionOver:
                return
            except HotpairError:
                pass  # The next one may be answered.

    def _follow(self, last_id):
        pause = 0.02
        while True:
            address = self._wire.choose()
            headers = {"Authorization": f"Bearer {self.token}", "Accept": "text/event-stream"}
            if last_id:
                headers["Last-Event-ID"] = last_id
            connection = None
            try:
                connection = self._wire.connect(address)
                connection.sock.settimeout(SILENCE_S_MAX)
                connection.request("GET", "/v1/push", headers=headers)
                response = connection.getresponse()
                if response.getheader("Content-Type", "").startswith("text/event-stream"):
                    return connection, response
                heard = read(response)
            except (OSError, ValueError) as error:
                heard = Nothing(True, str(error))
            if connection is not None:
                connection.close()
            self._wire.handle(address, heard)
            if isinstance(heard, Answer) and heard.envelope["error_no"] == SESSION_UNKNOWN:
                raise SessionOver()
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 0.5)


class Ticket:
    """A call that was begun, and whose answer waits to be taken."""

    def __init__(self, session, name):
        self._session = session
        self.name = name

    def result(self, limit=30.0):
        """Waits for the answer and takes it. If time is over first, it may be waited for again."""
        deadline = time.monotonic() + limit
        while True:
            envelope = self._session._fetch(self.name, limit, deadline)
            if "ticket" in envelope:
                return data_of(envelope)
            data = envelope.get("data") or {}
            if data.get("ticket") == "unknown":
                raise UnknownTicket(f"nothing is known of ticket {self.name}: it was taken")
            if "retry_after_ms" not in envelope:
                data_of(envelope)
                raise OutcomeUnknown("an answer that is neither final nor running")
            wait = envelope["retry_after_ms"] / 1000
            time.sleep(max(0.0, min(wait, deadline - time.monotonic())))


def named(function):
    """How a function is named in a call."""
    if isinstance(function, bool):
        raise ConfigurationError("a function is a number or a name, not a truth value")
    if isinstance(function, int):
        return {"function": function}
    gsv, colon, name = str(function).rpartition(":")
    if not colon or gsv.count("/") != 2 or not name:
        raise ConfigurationError(f"{function!r}: a number, or group/service/version:name")
    return {"gsv": gsv, "name": name}


def _events(response):
    """Server-sent events: name, data and id of each."""
    name, data, event_id = "", [], ""
    while True:
        line = response.readline()
        if not line:
            return
        line = line.rstrip(b"\r\n").decode()
        if not line:
            if data:
                yield name, "\n".join(data), event_id
            name, data, event_id = "", [], ""
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            event_id = value


def _pushed(name, data):
    data = json.loads(data)
    if name != "reply":
        return Pushed(name, data)
    try:
        return Pushed(name, data_of(data), data.get("ticket"))
    except HotpairError as error:
        return Pushed(name, None, data.get("ticket"), error)
