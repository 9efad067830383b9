"""Send images to an Atalaya gateway: python client.py URL USER IMAGE...   (asks for the password)"""

import getpass
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any


def post(url: str, body: bytes, headers: dict[str, str]) -> Any:
    """Return the JSON of the response. Raises OSError with the gateway's error message."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        raise OSError(problem.get("detail") or problem["error_description"]) from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise OSError(f"{url} cannot be reached: {reason}") from None


def main(url: str, user: str, *images: str) -> None:
    form = {"grant_type": "password", "username": user, "password": getpass.getpass()}
    try:
        token = post(f"{url}/auth/token", urllib.parse.urlencode(form).encode(), {})["access_token"]
    except OSError as error:
        sys.exit(f"error: {error}")
    for image in map(Path, images):
        # The gateway detects the format from the content, so the body needs no type of its own.
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/octet-stream"}
        try:
            prediction = post(f"{url}/v1/predictions", image.read_bytes(), headers)
        except OSError as error:
            print(f"{image}: {error}", file=sys.stderr)
        else:
            print(f"{image}: {prediction['label']} ({prediction['confidence']:.3f})")


if len(sys.argv) < 4:
    sys.exit(__doc__)
try:
    main(*sys.argv[1:])
except KeyboardInterrupt:
    sys.exit(130)
