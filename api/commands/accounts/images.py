"""`atalaya users images`: allow a user's images to be kept, or withdraw the permission and erase them."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from api.commands.database import CommandEvent, recording, run_with_accounts
from api.commands.output import JsonFlag, format_erased_images, print_json
from api.services.personal_data.archive import open_image_archive
from api.services.personal_data.erasure import IN_FLIGHT_S
from api.settings import load_settings
from auth.accounts.service import AccountService
from auth.accounts.store import User, UserChange
from storage.transactions import Record


def set_images(
    name: str,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Allow it, or withdraw the permission and erase the kept images.")
    ],
    as_json: JsonFlag = False,
) -> None:
    """Allow a user's images to be kept for training, if the gateway has an image store, or withdraw the permission."""
    settings = load_settings()
    archive = open_image_archive(settings)  # first: an invalid store must fail before the change

    outcome = "allowed" if keep else "withdrawn"
    record: Record[User] = recording(lambda user: CommandEvent("images", outcome, f"user:{user.id}"))

    async def change(accounts: AccountService) -> User:
        user = await accounts.get_by_name(name)
        return await accounts.change(user.id, UserChange(keep_images=keep), record=record)

    user = run_with_accounts(settings, change)
    erased = None
    if not keep and archive is not None:
        time.sleep(IN_FLIGHT_S)
        erased = archive.erase(user.id)
    if as_json:
        print_json({"id": user.id, "name": user.name, "keep_images": user.keep_images, "erased_images": erased})
    else:
        withdrawn = f"images are no longer kept; erased {format_erased_images(erased)}"
        typer.echo(f"{user.name}: {'images may be kept' if keep else withdrawn}.")
