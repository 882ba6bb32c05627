"""Carries requests: a connection for each thread and address, and a look whether who does not answer
is still alive."""

import http.client
import json
import random
import select
import socket
import threading
import time

from .errors import OutcomeUnknown, TimedOut
from .targets import Again, Answer, BothDown, Course, Nothing, NOT_SERVING, Take, Targets

PROBE_AFTER_S = 0.5
PROBE_LIMIT_S = 1.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024
#: From the first byte of an answer to its end.
READ_LIMIT_S = 10.0


class Wire:
    """The way to the pair; shared by everything of one client."""

    def __init__(self, addresses, connect_limit, context=None):
        self._targets = Targets(addresses)
        self._lock = threading.Lock()
        self._connect_limit = connect_limit
        self._context = context
        self._kept = threading.local()
        self._heard_at = {}

    def choose(self):
        with self._lock:
            return self._targets.choose(time.monotonic())

    def handle(self, address, heard):
        """Takes note of what was heard; whether it is an answer of an epoch that is over."""
        with self._lock:
            stale = self._targets.is_stale(heard)
            self._targets.handle(time.monotonic(), address, heard)
            return stale

    def ask(self, path, body, repeatable, limit, deadline):
        """Asks until there is an answer, or time is over: the envelope, and whether an earlier sending
        may have been executed unanswered."""
        course, last = Course(repeatable), "nothing was sent"
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(limit, course.may_be_done, last)
            address = self.choose()
            heard = self._send_once(address, path, body, repeatable, deadline)
            last = f"{address}: {_describe(heard)}"
            stale = self.handle(address, heard)
            step = course.next(heard, stale, random.random())
            if isinstance(step, Take):
                return step.envelope, course.may_be_done
            if not isinstance(step, Again):
                raise OutcomeUnknown(f"it is not known whether it was executed: {step.why}")
            time.sleep(max(0.0, min(step.wait, deadline - time.monotonic())))

    def _send_once(self, address, path, body, repeatable, deadline):
        kept = self._kept.__dict__.setdefault("connections", {})
        # One that was kept may just have been closed: none for what must not be sent twice.
        connection = kept.pop(address, None) if repeatable else None
        try:
            if connection is None:
                connection = self.connect(address)
        except OSError as error:
            return Nothing(False, f"cannot connect: {error}")
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body).encode(), headers)
            while not select.select([connection.sock], [], [], self._turn(deadline))[0]:
                if time.monotonic() >= deadline:
                    connection.close()
                    return Nothing(True, "the call's time is over")
                # Who must not be asked twice is waited for to the end.
                if repeatable and not self._is_alive(address):
                    connection.close()
                    return Nothing(True, "does not answer, nor to a second question")
            limit = READ_LIMIT_S
            if self._context is not None:
                # What has come under TLS need not be the answer's beginning.
                limit = max(limit, deadline - time.monotonic())
            connection.sock.settimeout(limit)
            response = connection.getresponse()
            heard = read(response)
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            return Nothing(True, f"the connection broke: {error!r}")
        self._heard_at[address] = time.monotonic()
        if response.will_close:
            connection.close()
        else:
            kept[address] = connection
        return heard

    @staticmethod
    def _turn(deadline):
        return max(0.0, min(PROBE_AFTER_S, deadline - time.monotonic()))

    def connect(self, address):
        host, _, port = address.rpartition(":")
        host, limit = host.strip("[]"), self._connect_limit
        if self._context is None:
            connection = http.client.HTTPConnection(host, int(port), timeout=limit)
        else:
            connection = http.client.HTTPSConnection(
                host, int(port), timeout=limit, context=self._context
            )
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _is_alive(self, address):
        if time.monotonic() - self._heard_at.get(address, -1e9) < PROBE_AFTER_S:
            return True
        try:
            connection = self.connect(address)
            connection.sock.settimeout(PROBE_LIMIT_S)
            try:
                connection.request("GET", "/v1/functions")
                heard = read(connection.getresponse())
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError):
            return False
        alive = isinstance(heard, Answer) and heard.envelope.get("error_no") != NOT_SERVING
        if alive:
            self._heard_at[address] = time.monotonic()
        return alive


def read(response):
    """What an answer says."""
    body = response.read(ANSWER_BYTES_MAX)
    if response.status == 503 and not body:
        return BothDown()
    envelope = json.loads(body)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("error_no"), int):
        return Nothing(True, f"status {response.status} and no envelope")
    return Answer(envelope)


def _describe(heard):
    if isinstance(heard, Answer):
        return f"answered {heard.envelope.get('error_no')}"
    if isinstance(heard, BothDown):
        return "says that both nodes are down"
    return heard.why
