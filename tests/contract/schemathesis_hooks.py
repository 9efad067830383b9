"""Tell schemathesis how to generate valid requests, and which requests to leave out."""

from __future__ import annotations

import io
import os
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from model.classes import UC_MERCED_CLASSES


def encoded(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "green").save(buffer, name)
    return buffer.getvalue()


for name in ("JPEG", "PNG", "WEBP", "TIFF"):
    schemathesis.openapi.media_type(f"image/{name.lower()}", st.just(encoded(name)))
schemathesis.openapi.format("ip-network", st.ip_addresses().map(str))
schemathesis.openapi.format("password", st.uuids().map(str))
PRINTABLE = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=64)
schemathesis.openapi.format("printable", PRINTABLE)
schemathesis.openapi.format("class", st.sampled_from(UC_MERCED_CLASSES))


@schemathesis.hook
def filter_case(_: Any, case: Any) -> bool:
    """Leave out changes of the caller's own user, which end the login, and cases with an unknown header.

    HTTP permits unknown headers, but schemathesis expects an error for them beside a header that it knows.
    """
    is_own = (case.path_parameters or {}).get("user_id") == os.environ["ATALAYA_TEST_SUBJECT"]
    return not is_own and "x-schemathesis-unknown-property" not in (case.headers or {})
