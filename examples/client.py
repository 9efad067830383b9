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
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as response:
        return json.load(response)


url, user, *images = sys.argv[1:]
form = {"grant_type": "password", "username": user, "password": getpass.getpass()}
token = post(f"{url}/auth/token", urllib.parse.urlencode(form).encode(), {})["access_token"]
for image in map(Path, images):
    # The gateway detects the format from the content, so every image can be sent as image/jpeg.
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
    try:
        prediction = post(f"{url}/v1/predictions", image.read_bytes(), headers)
    except urllib.error.HTTPError as error:
        print(f"{image}: {json.load(error)['detail']}", file=sys.stderr)
    else:
        print(f"{image}: {prediction['label']} ({prediction['confidence']:.3f})")
