"""Print the alerts that Alertmanager posts to port 9099 of this machine: `python3 examples/alert_receiver.py`.

It needs no installation. In the Compose stack, Alertmanager connects from another address: pass 0.0.0.0 as argument.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 9099


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        notification = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in notification["alerts"]:
            since = alert["endsAt" if alert["status"] == "resolved" else "startsAt"][:19]
            print(alert["status"].upper(), alert["labels"]["alertname"], "since", since)
            for name, text in alert["annotations"].items():
                print(f"  {name}: {text}")
        sys.stdout.flush()
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Print alerts only."""


if __name__ == "__main__":
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    try:
        ThreadingHTTPServer((address, PORT), Receiver).serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)
