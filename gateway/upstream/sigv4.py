"""Signature Version 4 of AWS for POST requests without a query; pure.

Invariant: what is signed is what is sent: the request's host, time, token, path and every byte of its body.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import quote

from gateway.model.credentials import AwsKeys

_ALGORITHM = "AWS4-HMAC-SHA256"
_NOT_ESCAPED = "/~"  # beside letters, digits, - . _


class RequestSigner:
    """Signs requests to one host with one set of keys. The key of a day is derived once."""

    __slots__ = ("_day", "_day_key", "_host", "_keys", "_region", "_service")

    def __init__(self, keys: AwsKeys, region: str, service: str, host: str) -> None:
        self._keys = keys
        self._region = region
        self._service = service
        self._host = host  # as the header field has it: with its port, where that is not the default
        self._day = ""
        self._day_key = b""

    def lines(self, path: str, body_digest: str, now: float) -> bytes:
        """The header lines, each with CRLF, that sign a POST to ``path`` at ``now`` (Unix seconds).

        ``body_digest`` is the SHA-256 of the body in hexadecimal.
        ``path`` is as it is sent: escaped, without empty and dot segments. Services other than S3 escape it once more
        before they compare.
        """
        keys = self._keys
        time = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
        day = time[:8]
        signed = f"host:{self._host}\nx-amz-date:{time}\n"
        names = "host;x-amz-date"
        lines = f"x-amz-date: {time}\r\n"
        if keys.session_token:
            signed += f"x-amz-security-token:{keys.session_token}\n"
            names += ";x-amz-security-token"
            lines += f"x-amz-security-token: {keys.session_token}\r\n"
        request = f"POST\n{quote(path, safe=_NOT_ESCAPED)}\n\n{signed}\n{names}\n{body_digest}"
        scope = f"{day}/{self._region}/{self._service}/aws4_request"
        text = f"{_ALGORITHM}\n{time}\n{scope}\n{sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key_of(day), text.encode(), "sha256").hex()
        return (
            f"{lines}authorization: {_ALGORITHM} Credential={keys.access_key_id}/{scope},"
            f" SignedHeaders={names}, Signature={signature}\r\n"
        ).encode()

    def _key_of(self, day: str) -> bytes:
        if day != self._day:
            key = b"AWS4" + self._keys.secret_access_key.encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day, self._day_key = day, key
        return self._day_key
