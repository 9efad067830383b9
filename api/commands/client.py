"""`atalaya classify`: a client of a running gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from api.commands.local import print_results
from api.commands.output import JsonFlag, progress_bar


def classify(
    images: list[Path],
    url: Annotated[str, typer.Option(help="The gateway, for example http://127.0.0.1:8000.")],
    token: Annotated[str, typer.Option(help="An access token.", envvar="ATALAYA_TOKEN")] = "",
    key: Annotated[str, typer.Option(help="An API key, instead of a token.", envvar="ATALAYA_KEY")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Send images to a gateway and print its predictions."""
    if not token and not key:
        raise typer.BadParameter("Give --token or --key.")
    headers = {"X-API-Key": key} if key else {"Authorization": f"Bearer {token}"}
    results = []
    with (
        httpx.Client(base_url=url, headers=headers, timeout=30) as client,
        progress_bar("Classifying", len(images)) as advance,
    ):
        for done, path in enumerate(images, 1):
            results.append({"image": str(path), **_classify_one(client, path)})
            advance(done)
    print_results(results, as_json)


def _classify_one(client: httpx.Client, path: Path) -> dict[str, Any]:
    try:
        response = client.post("/v1/predictions", files={"file": (path.name, path.read_bytes())})
    except (httpx.HTTPError, OSError) as error:
        return {"error": str(error) or type(error).__name__}
    try:
        body = response.json()
    except ValueError:
        return {"error": f"HTTP {response.status_code} without JSON: is this an Atalaya gateway?"}
    if response.is_error:
        return {"error": body.get("detail", f"HTTP {response.status_code}")}
    return {"label": body["label"], "probability": body["confidence"], "id": body["id"], "model": body["model"]["name"]}
