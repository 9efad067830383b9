"""Opening the store of images that the settings name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from api.errors import SettingsError
from api.settings import Settings
from storage.images.archive import ImageArchive
from storage.images.opening import open_blobs
from storage.images.sealing import ImageSeal, parse_keys


def open_image_archive(settings: Settings) -> ImageArchive | None:
    """Return the store of images without connecting to it, or None if there is none. Raises SettingsError."""
    images = settings.images
    if images.url is None:
        return None
    if images.key is None:
        raise SettingsError("IMAGES__KEY is not set. IMAGES__URL needs it, to encrypt the images.")
    if not settings.ledger.enabled:
        raise SettingsError("IMAGES__URL needs LEDGER__ENABLED=true, which records what an image is of.")
    try:
        blobs = open_blobs(images.url)
    except ImportError:
        raise SettingsError(
            "IMAGES__URL needs boto3, which is not installed. Run `pip install --require-hashes -r "
            "requirements/secrets/aws.txt`."
        ) from None
    return ImageArchive(blobs, ImageSeal(parse_keys(images.key.get_secret_value())))


def find_end_of_retention(settings: Settings) -> datetime:
    """Return the time before which predictions are too old for their images to be kept."""
    return datetime.now(UTC) - timedelta(days=settings.images.keep_days)


def erase_images(archive: ImageArchive | None, subject: str) -> int | None:
    """Erase the kept images of a user; returns how many, or None without a store. Raises ImageStoreUnavailable."""
    return None if archive is None else archive.erase(subject)


def describe_erased_images(count: int | None) -> str:
    """Return what `erase_images` has erased. A gateway elsewhere may have a store that this machine does not know."""
    return "no images (IMAGES__URL is not set)" if count is None else f"{count} images"
