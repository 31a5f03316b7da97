#!/usr/bin/env python3
"""Receives the web hooks of a Testbox server (Standard Webhooks 1.0), and keeps each job in a file.

    receive.py --secret-file /etc/testbox/hook.secret --inbox /var/spool/testbox-jobs --listen 127.0.0.1:8080

A request counts only if its signature is right and it is not older than five minutes. A message that
comes again is known by its id, and is answered as if it were new. A message is answered when its file
is on the disk, so none is lost: the server tries again what was not answered. With --run a command is run
for each new message, with its file as the last argument, before the answer; if it fails, the server tries
again. Put a web server with TLS before this one if it is reached over a network.
"""

import argparse
import base64
import hashlib
import hmac
import http.server
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time

LIMIT = 4 << 20  # bytes of a message
OLDEST = 300  # seconds


class Refused(Exception):
    """The status that a request is answered with, and why."""


def keys_of(path):
    """The keys of a file with one or more secrets, each in a line of its own."""
    keys = []
    with open(path, encoding="ascii") as file:
        for line in file.read().split():
            if not line.startswith("whsec_"):
                sys.exit(f"{path} has no secret of a web hook")
            keys.append(base64.b64decode(line[len("whsec_"):], validate=True))
    if not keys or any(len(key) < 24 for key in keys):
        sys.exit(f"{path} has no secret of a web hook")
    return keys


def check(headers, body, keys, now):
    """Returns the id of a message, or refuses it."""
    name, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", name) or not re.fullmatch(r"[0-9]{1,12}", at):
        raise Refused(400, "no id or no time")
    if abs(now - int(at)) > OLDEST:
        raise Refused(400, "too old, or a clock is wrong")
    signed = b".".join([name.encode(), at.encode(), body])
    wanted = [base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys]
    for word in headers.get("webhook-signature", "").split():
        version, _, signature = word.partition(",")
        if version == "v1" and any(hmac.compare_digest(signature.encode(), w.encode()) for w in wanted):
            return name
    raise Refused(401, "the signature is wrong")


def keep(inbox, name, body, command):
    """Stores a message, and runs the command. Returns whether it is new."""
    path = os.path.join(inbox, name + ".json")
    if os.path.exists(path):
        return False
    part = path + ".part"
    with open(part, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    if command:
        subprocess.run([*command, part], check=True, stdin=subprocess.DEVNULL, timeout=15)
    os.rename(part, path)
    folder = os.open(inbox, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return True


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 30
    options = None
    turn = threading.Lock()  # so that a message that comes twice at once is one

    def do_POST(self):
        try:
            size = self.headers.get("Content-Length", "")
            if not re.fullmatch(r"[0-9]{1,9}", size) or int(size) > LIMIT:
                raise Refused(413, "no length, or too long")
            body = self.rfile.read(int(size))
            if len(body) != int(size):
                raise Refused(400, "cut off")
            name = check(self.headers, body, self.options.keys, time.time())
            message = json.loads(body)
            with self.turn:
                new = keep(self.options.inbox, name, body, self.options.command)
            if new and message.get("type") == "job.ended":
                job = message["data"]
                print(f"{job['box']}: {job['action']} {job['outcome']}", flush=True)
        except Refused as refusal:
            self.answer(*refusal.args)
        except Exception as error:  # pylint: disable=broad-except
            self.answer(500, f"it could not be kept: {error}")
        else:
            self.answer(204, "")

    def answer(self, status, why):
        if why:
            print(f"{self.client_address[0]}: {status} {why}", file=sys.stderr, flush=True)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--secret-file", required=True, help="the same as in server.toml")
    parser.add_argument("--inbox", required=True, help="folder for the messages")
    parser.add_argument("--listen", default="127.0.0.1:8080", metavar="ADDRESS:PORT")
    parser.add_argument("--run", default="", metavar="COMMAND", help="run it for each new message")
    options = parser.parse_args()
    options.keys, options.command = keys_of(options.secret_file), shlex.split(options.run)
    os.makedirs(options.inbox, mode=0o700, exist_ok=True)
    Handler.options = options
    address, _, port = options.listen.rpartition(":")
    http.server.ThreadingHTTPServer((address, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main()
