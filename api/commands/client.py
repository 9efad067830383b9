"""`atalaya classify` and `atalaya label`: a client of a running gateway."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer

from api.commands.gateway.failures import check_url, explain_failure
from api.commands.models.predict import describe_os_error, print_results
from api.commands.output import JsonFlag, format_count, print_json, progress_bar
from api.errors import CommandFailed
from model.errors import ImageTooManyBytes
from model.imaging.bounds import read_image_file

# Long enough for a rate limit or an overload. The command does not wait for a quota, which may be exhausted for weeks.
MAX_WAIT_S = 120
_MAX_ATTEMPTS = 10
_STOP = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST)


UrlOption = Annotated[str, typer.Option("--url", help="URL of the gateway, for example http://127.0.0.1:8000.")]
TokenOption = Annotated[str, typer.Option("--token", help="An access token.", envvar="ATALAYA_TOKEN")]
KeyOption = Annotated[str, typer.Option("--key", help="An API key, instead of a token.", envvar="ATALAYA_KEY")]


def classify(
    images: list[Path], url: UrlOption, token: TokenOption = "", key: KeyOption = "", as_json: JsonFlag = False
) -> None:
    """Send images to a gateway and print its predictions.

    The command waits when the gateway limits the rate, continues when an image is rejected, and stops when the gateway
    cannot be reached or rejects the credential. The results so far, if there are any, are always printed.
    """
    results: list[dict[str, Any]] = []
    stopped: BaseException | None = None
    with _make_client(url, token, key) as client:
        try:
            with progress_bar("Classifying", len(images)) as advance:
                for done, path in enumerate(images, 1):
                    results.append({"image": str(path), **_classify_one(client, path)})
                    advance(done)
        except CommandFailed as error:
            left, total = len(images) - len(results), format_count(len(images), "image")
            stopped = CommandFailed(f"{error} {left} of {total} {'was' if left == 1 else 'were'} not classified.")
        except BaseException as error:  # Ctrl-C and bugs, too: the results so far were charged
            stopped = error
    print_results(results, as_json, stopped)


def label(
    prediction_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the prediction.")],
    true_label: Annotated[str, typer.Argument(metavar="LABEL", help="The true label of the image.")],
    url: UrlOption,
    token: TokenOption = "",
    key: KeyOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Send the true label of a past prediction to a gateway."""
    with _make_client(url, token, key) as client:
        path = f"/v1/predictions/{quote(prediction_id, safe='')}/label"
        response = _send_with_retries(lambda: client.post(path, json={"label": true_label}))
        try:
            body = response.json()
            if response.is_error:
                raise CommandFailed(body["detail"])
            verdict = "correct" if body["correct"] else f"wrong: it was {body['predicted']}"
        except (ValueError, KeyError, TypeError):
            raise CommandFailed(
                f"{client.base_url} is not an Atalaya gateway: it sent HTTP {response.status_code} without a label."
            ) from None
    if as_json:
        print_json(body)
    else:
        typer.echo(f"{body['prediction']} is labelled {body['label']}. The prediction was {verdict}.")


def _make_client(url: str, token: str, key: str) -> httpx.Client:
    """Raises BadParameter for a malformed address or credential, and for two credentials."""
    if not token and not key:
        raise typer.BadParameter("Give --token or --key.")
    if token and key:
        raise typer.BadParameter(
            "Give either --token or --key. If ATALAYA_TOKEN or ATALAYA_KEY is set, unset it, because it counts as well."
        )
    credential = (key or token).strip()
    if not credential.isascii() or not credential.isprintable():
        raise typer.BadParameter("The token or key contains invalid characters. Copy it again.")
    check_url(url)
    headers = {"X-API-Key": credential} if key else {"Authorization": f"Bearer {credential}"}
    return httpx.Client(base_url=url, headers=headers, timeout=60)


def _classify_one(client: httpx.Client, path: Path) -> dict[str, Any]:
    """Return the prediction, or an error of this image. Raises CommandFailed for an error that affects all images."""
    try:
        data = read_image_file(path)
    except ImageTooManyBytes as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": describe_os_error(error)}
    name = os.fsencode(path.name).decode("utf-8", "replace")  # the bytes of a file name need not be UTF-8
    response = _send_with_retries(lambda: client.post("/v1/predictions", files={"file": (name, data)}))
    try:
        body = response.json()
        if not response.is_error:
            return {
                "label": body["label"],
                "probability": body["confidence"],
                "abstained": body.get("abstained", False),  # gateways of release 0.1.0 never abstain
                "reason": body.get("reason"),
                "warnings": body.get("warnings", []),
                "id": body["id"],
                "model": _name_model(body["model"]),
            }
        detail = body["detail"]
    except (ValueError, KeyError, TypeError):
        raise CommandFailed(
            f"{client.base_url} is not an Atalaya gateway: it sent HTTP {response.status_code} without a prediction."
        ) from None
    if response.status_code in _STOP:
        raise CommandFailed(detail)
    return {"error": detail}


def _name_model(model: dict[str, str]) -> str:
    """Return the name and version in one word, as ModelInfo.full_name does."""
    return f"{model['name']}-v{model['version']}"


def _send_with_retries(send: Callable[[], httpx.Response]) -> httpx.Response:
    """Send a request, and repeat it as Retry-After says. Raises CommandFailed if the gateway cannot be reached."""
    for _ in range(_MAX_ATTEMPTS):
        response = _send(send)
        wait = response.headers.get("retry-after", "")
        if response.status_code not in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            return response
        if not wait.isdecimal() or int(wait) > MAX_WAIT_S:
            return response
        time.sleep(int(wait))
    return response


def _send(send: Callable[[], httpx.Response]) -> httpx.Response:
    try:
        return send()
    except httpx.TimeoutException as error:
        raise CommandFailed(f"{_name_host(error)} did not respond in time. Try again later.") from None
    except httpx.RequestError as error:
        raise CommandFailed(f"{_name_host(error)} cannot be reached: {explain_failure(error)}.") from None


def _name_host(error: httpx.RequestError) -> str:
    return f"{error.request.url.scheme}://{error.request.url.netloc.decode()}"
