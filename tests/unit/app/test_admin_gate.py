"""Who passes the door of the admin API."""

from __future__ import annotations

import pytest

from gateway.app.admin_gate import AdminTokens
from gateway.app.admin_schemas import usd
from gateway.errors import AdminTokenRefused, ReadOnlyToken

FULL, READING = "full-token-0123456789", "read-token-0123456789"


@pytest.mark.parametrize(
    ("token", "read_token", "presented", "method", "refusal"),
    [
        (FULL, READING, FULL, "POST", None),
        (FULL, READING, READING, "GET", None),
        (FULL, READING, READING, "HEAD", None),
        (FULL, READING, READING, "POST", ReadOnlyToken),
        (FULL, READING, READING, "DELETE", ReadOnlyToken),
        (FULL, None, READING, "GET", AdminTokenRefused),
        (None, READING, READING, "GET", None),
        (None, READING, READING, "POST", ReadOnlyToken),
        (None, READING, FULL, "GET", AdminTokenRefused),
        (FULL, None, "", "GET", AdminTokenRefused),
        (FULL, None, FULL[:-1], "GET", AdminTokenRefused),
        (FULL, None, FULL + "\xff", "GET", AdminTokenRefused),
    ],
)
def test_each_token_opens_what_it_is_for(
    token: str | None, read_token: str | None, presented: str, method: str, refusal: type[Exception] | None
) -> None:
    """The full one everything, the read-only one what changes nothing, any other nothing."""
    tokens = AdminTokens(lambda: token, lambda: read_token)
    authorization = f"Bearer {presented}".encode("latin-1")
    if refusal is None:
        tokens.check(authorization, method)
    else:
        with pytest.raises(refusal):
            tokens.check(authorization, method)


@pytest.mark.parametrize("authorization", [b"", b"Bearer", FULL.encode(), b"Basic " + FULL.encode()])
def test_only_a_bearer_token_counts(authorization: bytes) -> None:
    """RFC 6750, section 2.1; its name in any case."""
    tokens = AdminTokens(lambda: FULL, lambda: None)
    with pytest.raises(AdminTokenRefused):
        tokens.check(authorization, "GET")
    tokens.check(b"bearer " + FULL.encode(), "POST")


@pytest.mark.parametrize(("nano", "text"), [(0, "0"), (400 * 10**9, "400"), (1, "0.000000001"), (1_500_000_000, "1.5")])
def test_money_is_shown_exactly(nano: int, text: str) -> None:
    """As a document would write it."""
    assert usd(nano) == text
