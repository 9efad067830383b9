"""Send images to an Atalaya gateway: python client.py URL USER IMAGE...   (it asks for the password)"""

import getpass
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any


def call(url: str, body: bytes, headers: dict[str, str]) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
        return json.load(answer)


url, user, *images = sys.argv[1:]
form = {"grant_type": "password", "username": user, "password": getpass.getpass()}
token = call(f"{url}/auth/token", urllib.parse.urlencode(form).encode(), {})["access_token"]
for image in map(Path, images):
    # The gateway looks at the bytes: any of its image types will do as the name of the type.
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/jpeg"}
    try:
        answer = call(f"{url}/v1/predictions", image.read_bytes(), headers)
    except urllib.error.HTTPError as error:
        print(f"{image}: {json.load(error)['detail']}", file=sys.stderr)
    else:
        print(f"{image}: {answer['label']} ({answer['confidence']:.3f})")
