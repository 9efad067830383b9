"""The key that encrypts users' one-time-code secrets."""

from __future__ import annotations

from cryptography.fernet import Fernet


def new_data_key() -> str:
    """Generate a key: 32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


def is_data_key(text: str) -> bool:
    """Whether `text` is 32 bytes in URL-safe base64."""
    try:
        Fernet(text)
    except ValueError:
        return False
    return True
