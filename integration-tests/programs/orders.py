"""A program beside a pair: places orders, counts its effects in a file, and falls where it is told.

    orders.py PORT FOLDER

FOLDER/effects   one line an effect: the key that it was for, in the file before anything is answered
FOLDER/act       WHEN WHAT, taken away by the call that does it
                 WHEN: before, after (the effect)   WHAT: die, cut, wait (until FOLDER/waiting is gone)

POST /place does it each time it is asked. POST /place-once does it once for each key, and gives the first
answer again: that is what `idempotent = true` promises. POST /later is not to be had just now.
"""

import json
import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
EFFECTS, ACT, WAITING = (os.path.join(FOLDER, name) for name in ("effects", "act", "waiting"))
LOCK = threading.Lock()


def effects():
    try:
        with open(EFFECTS, encoding="ascii") as file:
            return [line.strip() for line in file]
    except FileNotFoundError:
        return []


def count_effect(key):
    with open(EFFECTS, "a", encoding="ascii") as file:
        file.write(key + "\n")
        file.flush()


class Orders(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        arguments = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["Idempotency-Key"]
        if self.path == "/later":
            return self.answer(503, {})
        if not self.goes_on("before"):
            return None
        with LOCK:
            known = effects()
            if self.path == "/place" or key not in known:
                count_effect(key)
                known.append(key)
            order = known.index(key) + 1
        if not self.goes_on("after"):
            return None
        if arguments.get("amount", 0) < 0:
            return self.answer(422, {"error": "less than nothing", "data": {"order": order}})
        row = {"order": order, "by": self.headers["Hotpair-User"], **arguments}
        changes = [
            {"table": "orders", "key": key, "put": row},
            {"table": "counts", "key": "orders", "add": 1},
        ]
        return self.answer(200, {"data": {"order": order}, "changes": changes})

    def goes_on(self, when):
        """Does what is to be done here; whether the call goes on."""
        try:
            with open(ACT, encoding="ascii") as file:
                wanted, what = file.read().split()
            if wanted != when:
                return True
            os.remove(ACT)
        except (FileNotFoundError, ValueError):
            return True
        if what == "die":
            os._exit(1)
        if what == "cut":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return False
        with open(WAITING, "w", encoding="ascii"):
            pass
        while os.path.exists(WAITING):
            time.sleep(0.002)
        return True

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer.allow_reuse_address = True
ThreadingHTTPServer(("127.0.0.1", PORT), Orders).serve_forever()
