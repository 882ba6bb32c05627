"""Against a real pair, which whoever started this breaks meanwhile.

Told by its environment: HOTPAIR_TARGETS (with commas between), HOTPAIR_USER, HOTPAIR_PASSWORD, and
HOTPAIR_TLS_AUTHORITY where the pair speaks TLS. Says
"counting" once it counts, counts until a line comes in, and then says what it counted, as JSON.
"""

import json
import os
import sys
import threading

from hotpair_client import Client, Refused, SessionOver, UnknownTicket

THREADS = 4


def say(words):
    print(words, flush=True)


def check(truth, what):
    if not truth:
        raise AssertionError(what)


def main():
    authority = os.environ.get("HOTPAIR_TLS_AUTHORITY")
    targets = os.environ["HOTPAIR_TARGETS"].split(",")
    client = Client(targets, call_limit=60.0, authority=authority)
    user, password = os.environ["HOTPAIR_USER"], os.environ["HOTPAIR_PASSWORD"]
    try:
        client.log_in(user, "guess")
        raise AssertionError("a wrong password was taken")
    except Refused as refused:
        check(refused.error_no == 308000002, refused)
    session = client.log_in(user, password)
    check(session.call("hotpair/test/1.0:echo", {"a": [1]}) == {"a": [1]}, "echo")
    stop, counted, failed = threading.Event(), [0] * THREADS, []

    def count(thread):
        try:
            while not stop.is_set():
                session.call(1006, {"table": "python", "key": "n", "by": 1})
                counted[thread] += 1
        except Exception as error:  # pylint: disable=broad-except
            failed.append(repr(error))

    threads = [threading.Thread(target=count, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    begun = [session.start(1006, {"table": "python", "key": "async", "by": 1}) for _ in range(5)]
    long = session.start(1902, {"ms": 2000})
    say("counting")
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join()
    check(not failed, failed)
    sums = sorted(ticket.result(60)["value"] for ticket in begun)
    check(sums == [1, 2, 3, 4, 5], sums)
    check(long.result(60) == {}, "a sleep that was begun")
    try:
        long.result(60)
        raise AssertionError("an answer was taken twice")
    except UnknownTicket:
        pass
    pushes = session.push()
    check(next(pushes).name == "role", "who serves is said first")
    ticket = session.start(1901, "pushed")
    pushed = next(pushes)
    check((pushed.name, pushed.ticket, pushed.data) == ("reply", ticket.name, "pushed"), pushed)
    row = session.call(1001, {"table": "python", "key": "n"})["value"]
    result = {"counted": sum(counted), "row": row, "logins": session.logins}
    session.log_out()
    try:
        session.call(1901, 1)
        raise AssertionError("a session that was ended is over")
    except SessionOver:
        pass
    say(json.dumps(result))


if __name__ == "__main__":
    main()
