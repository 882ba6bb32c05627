"""Where to send next, how long to wait first, and whether to send again at all.

Decided here, done elsewhere: nothing in this file sends, waits or looks at a clock. The rules are those
of the Rust library's ``targets.rs``: whoever answered last is asked again; when it is lost, the first
in the given order that is not known to be dead; one that does not serve says who does, or the next
one is asked. A request is sent again only if it surely was not executed, or may be executed twice
without harm.
"""

import re

SWITCHING = 308000000
NOT_SERVING = 308000005
OVERLOADED = 308000006
LOADING = 308000008

DEAD_S = 0.25
DEAD_S_MAX = 2.0
BACKOFF_S = 0.01
DOWN_S = 0.2
TARGETS_MAX = 8


class Answer:
    """An envelope."""

    def __init__(self, envelope):
        self.envelope = envelope


class BothDown:
    """Empty, status 503: a router's word that both nodes are down."""


class Nothing:
    """No answer; whether the request may have arrived, and why for people."""

    def __init__(self, was_sent, why):
        self.was_sent = was_sent
        self.why = why


class Take:
    """The envelope is the answer."""

    def __init__(self, envelope):
        self.envelope = envelope


class Again:
    """Send again after so many seconds."""

    def __init__(self, wait):
        self.wait = wait


class Unknown:
    """Sending again might do it twice."""

    def __init__(self, why):
        self.why = why


class Targets:
    """The addresses a client knows, as all its requests found them."""

    def __init__(self, addresses):
        self._all = [[address, 0.0, 0] for address in addresses]
        self._preferred = 0
        self._epoch = 0

    def choose(self, now):
        """The address to ask now."""
        if self._all[self._preferred][1] <= now:
            return self._all[self._preferred][0]
        for address, dead_until, _ in self._all:
            if dead_until <= now:
                return address
        return min(self._all, key=lambda target: target[1])[0]

    def handle(self, now, address, heard):
        """What an address answered, or that it did not."""
        index = self._place(address)
        if index is None:
            return
        if not isinstance(heard, Answer):
            self._lose(now, index)
            return
        self._all[index][1:] = [0.0, 0]
        epoch = heard.envelope.get("epoch", 0)
        if heard.envelope.get("error_no") == NOT_SERVING:
            self._follow(now, index, heard.envelope)
        elif epoch >= self._epoch:
            self._epoch = epoch
            self._preferred = index

    def is_stale(self, heard):
        """Whether an answer is of an epoch that is over."""
        return (
            isinstance(heard, Answer)
            and heard.envelope.get("error_no") != NOT_SERVING
            and heard.envelope.get("epoch", 0) < self._epoch
        )

    def _place(self, address):
        for index, target in enumerate(self._all):
            if target[0] == address:
                return index
        return None

    def _lose(self, now, index):
        target = self._all[index]
        target[1] = now + min(DEAD_S * 2 ** min(target[2], 8), DEAD_S_MAX)
        target[2] += 1
        if self._preferred == index:
            alive = [i for i, other in enumerate(self._all) if other[1] <= now]
            self._preferred = alive[0] if alive else (index + 1) % len(self._all)

    def _follow(self, now, index, envelope):
        if self._preferred != index:
            return  # somebody has been led on since
        named = (envelope.get("data") or {}).get("master")
        if isinstance(named, str) and re.fullmatch(r"(https?://)?[\w.\-\[\]:]+:\d{1,5}", named):
            named = named.rpartition("://")[2]
            place = self._place(named)
            if place is None:
                del self._all[TARGETS_MAX - 1:]
                self._all.append([named, 0.0, 0])
                place = len(self._all) - 1
            self._preferred = place
        if self._preferred == index or self._all[self._preferred][1] > now:
            self._preferred = (index + 1) % len(self._all)


class Course:
    """One request on its way."""

    def __init__(self, repeatable):
        self._repeatable = repeatable
        self._tries = 0
        self.may_be_done = False

    def next(self, heard, stale, chance):
        """What to do about what was heard; ``chance`` is random, from 0 to 1."""
        self._tries += 1
        backoff = BACKOFF_S * 2 ** min(self._tries, 4)
        spread = 0.5 + chance
        at_once = self._tries <= 2
        if isinstance(heard, BothDown):
            return Again(DOWN_S * spread)
        if isinstance(heard, Nothing):
            if heard.was_sent:
                return self._unheard(heard.why, 0 if at_once else backoff * spread)
            return Again(0 if at_once else backoff * spread)
        envelope = heard.envelope
        if stale:
            return self._unheard("answered in an epoch that is over", backoff * spread)
        number = envelope.get("error_no")
        asked = envelope.get("retry_after_ms")
        wait = (asked / 1000 if asked is not None else backoff) * spread
        if number in (SWITCHING, NOT_SERVING):
            if (envelope.get("data") or {}).get("executed") == "unknown":
                self.may_be_done = True
                if not self._repeatable:
                    return Unknown(envelope.get("error_info", ""))
            return Again(0 if number == NOT_SERVING and at_once else wait)
        if number in (OVERLOADED, LOADING) and "ticket" not in envelope:
            return Again(wait)
        return Take(envelope)

    def _unheard(self, why, wait):
        self.may_be_done = True
        return Again(wait) if self._repeatable else Unknown(why)


class Numbers:
    """The numbers of a session's requests: counting up, at most 64 apart."""

    def __init__(self):
        self._next = 1
        self._open = set()

    def take(self):
        """The next number; none if it would be too far from the oldest that is open."""
        oldest = min(self._open, default=self._next)
        if self._next >= oldest + 64:
            return None
        number = self._next
        self._next += 1
        self._open.add(number)
        return number

    def give_back(self, number):
        """The answer to this one is there, or not wanted any more."""
        self._open.discard(number)

    def done_up_to(self):
        """Answers up to this number are not needed any more."""
        return min(self._open, default=self._next) - 1
