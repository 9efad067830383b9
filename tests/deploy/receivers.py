"""Servers on loopback that receive alerts: a webhook, which is also used as Slack's, and a mail server."""

from __future__ import annotations

import base64
import email
import email.policy
import json
import socketserver
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook(ThreadingHTTPServer):
    """Stores every JSON document that is posted to it, with its path."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _WebhookHandler)
        self.received: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def documents(self, path: str) -> list[dict[str, Any]]:
        return [document for posted_to, document in self.received if posted_to == path]

    def alerts(self, status: str) -> dict[str, dict[str, Any]]:
        """Return the alerts that Alertmanager has posted to /alerts with this status, by name."""
        alerts = [alert for document in self.documents("/alerts") for alert in document["alerts"]]
        return {alert["labels"]["alertname"]: alert for alert in alerts if alert["status"] == status}


class MailServer(socketserver.ThreadingTCPServer):
    """Stores every message and the passwords of clients. Supports only the SMTP commands that Alertmanager needs."""

    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.messages: list[EmailMessage] = []
        self.passwords: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def subjects(self) -> list[str]:
        return [str(message["Subject"]) for message in self.messages]


class _WebhookHandler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.received.append((self.path, document))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Write no access log."""


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailServer

    def handle(self) -> None:
        self._reply("220 ready")
        for line in self.rfile:
            command, _, argument = line.decode().strip().partition(" ")
            match command.upper():
                case "EHLO":
                    self._reply("250-loopback", "250 AUTH PLAIN")
                case "AUTH":
                    self.server.passwords.append(base64.b64decode(argument.split()[1]).decode().split("\0")[2])
                    self._reply("235 accepted")
                case "DATA":
                    self._reply("354 go on")
                    self.server.messages.append(self._read_message())
                    self._reply("250 kept")
                case "QUIT":
                    self._reply("221 bye")
                    return
                case _:
                    self._reply("250 ok")

    def _read_message(self) -> EmailMessage:
        lines = iter(self.rfile.readline, b".\r\n")
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        return message

    def _reply(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())
