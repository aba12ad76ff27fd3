"""Images in the messages of a chat request: how many there may be, and what of the bytes is their data; pure.

Invariant: nothing but the data of an image is taken for such; it is found by the quotes around its key, which no text
inside a JSON string can imitate. Where it is not certain what an image is, one more is counted.
"""

from __future__ import annotations

import re
from itertools import islice

# Data is passed over by possessive quantifiers: megabytes of it must take no memory, and no second look.
_IMAGE = re.compile(
    rb'"image_url"\s*:\s*(?:\{\s*(?:"detail"\s*:\s*"[a-z]*"\s*,\s*)?"url"\s*:\s*)?'
    rb'(?P<data>"data:image[^"\\]*+(?:\\/[^"\\]*+)*+")?'
)
_HIDDEN_LETTERS = (b"\\u004", b"\\u005", b"\\u006", b"\\u007")  # escaped: nobody needs it, and a key may hide behind it

LOOKED_AT_MAX = 1000
"""Images whose data is looked for; of further ones it counts as text, so that no body takes long to measure."""


def find_images(messages: bytes) -> tuple[int, int]:
    """How many images there may be, and how many bytes of data they take."""
    is_hiding = b"\\u00" in messages
    if not is_hiding and b"image" not in messages:
        return 0, 0
    images = data_bytes = end = 0
    for found in islice(_IMAGE.finditer(messages), LOOKED_AT_MAX):
        images += 1
        start, end = found.span("data")
        data_bytes += end - start
        end = found.end()
    if images == LOOKED_AT_MAX:
        images += messages.count(b'"image_url"', end)
    if is_hiding:
        images += sum(messages.count(each) for each in _HIDDEN_LETTERS)
    return images, data_bytes
