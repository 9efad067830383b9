"""Send images to an Atalaya gateway: python client.py URL USER IMAGE...   (the password is asked for)"""

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


def main() -> None:
    url, user, *images = sys.argv[1:]
    form = {"grant_type": "password", "username": user, "password": getpass.getpass()}
    token = call(f"{url}/auth/token", urllib.parse.urlencode(form).encode(), {})["access_token"]
    kinds = {".png": "image/png", ".webp": "image/webp", ".tif": "image/tiff", ".tiff": "image/tiff"}
    for image in map(Path, images):
        kind = kinds.get(image.suffix.lower(), "image/jpeg")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        try:
            answer = call(f"{url}/v1/predictions", image.read_bytes(), headers)
            print(f"{image}: {answer['label']} ({answer['confidence']:.3f})")
        except urllib.error.HTTPError as error:
            print(f"{image}: {json.load(error)['detail']}", file=sys.stderr)


main()
