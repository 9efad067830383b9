"""Opens the image store that the settings name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from api.errors import SettingsError
from api.settings import Settings
from api.settings.home import describe_installation
from storage.images.archive import ImageArchive
from storage.images.opening import open_blobs
from storage.images.sealing import ImageSeal, parse_keys


def open_image_archive(settings: Settings) -> ImageArchive | None:
    """Return the image store without connecting to it, or None if there is none. Raises SettingsError."""
    images = settings.images
    if images.url is None:
        return None
    if images.key is None:
        raise SettingsError("IMAGES__KEY is not set. IMAGES__URL needs it to encrypt the images.")
    if not settings.ledger.enabled:
        raise SettingsError("IMAGES__URL needs LEDGER__ENABLED=true: the ledger records the prediction of each image.")
    try:
        blobs = open_blobs(images.url)
    except ImportError:
        how = describe_installation("secrets/aws.txt")
        raise SettingsError(f"IMAGES__URL needs boto3, which is not installed. {how}") from None
    return ImageArchive(blobs, ImageSeal(parse_keys(images.key.get_secret_value())))


def compute_retention_cutoff(settings: Settings) -> datetime:
    """Return the time before which images are too old to be kept."""
    return datetime.now(UTC) - timedelta(days=settings.images.keep_days)


def erase_images(archive: ImageArchive | None, subject: str) -> int | None:
    """Erase the kept images of a user. Returns their number, or None without a store. Raises ImageStoreUnavailable."""
    return None if archive is None else archive.erase(subject)
