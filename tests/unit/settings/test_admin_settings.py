"""The settings of the admin API: what a token is, and that no text shows one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import SettingsInvalid
from gateway.settings import Settings

GOOD = "0123456789abcdef"


def refusal(**given: object) -> str:
    """The text of the refusal of these settings."""
    with pytest.raises(SettingsInvalid) as caught:
        Settings.load(**given)
    return str(caught.value)


@pytest.mark.parametrize(
    "token", ["short", "x" * 15, "x" * 513, "with a space in it", "tab\tseparated-token", "é" * 20]
)
@pytest.mark.parametrize("name", ["admin_token", "admin_read_token"])
def test_a_token_is_long_and_visible_and_never_shown(name: str, token: str) -> None:
    """At least 16 characters that fit a header; the text names the setting and not the value."""
    text = refusal(**{name: token})
    assert text.startswith(f"LLM_GATEWAY_{name.upper()}")
    assert token not in text


def test_the_tokens_differ_and_are_no_part_of_a_representation() -> None:
    """A read-only token that opens everything would be none."""
    assert "expected another token" in refusal(admin_token=GOOD, admin_read_token=GOOD)
    settings = Settings.load(admin_token=GOOD, admin_read_token=GOOD[::-1])
    assert GOOD not in repr(settings)
    assert GOOD[::-1] not in repr(settings)


def test_a_token_may_be_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As any secret."""
    (tmp_path / "token").write_text(GOOD + "\n")
    monkeypatch.setenv("LLM_GATEWAY_ADMIN_TOKEN_FILE", str(tmp_path / "token"))
    assert Settings.load().admin_token == GOOD


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8081", "ftp://host", "http://user:pass@host", "http://host/?x=1", "http://"]
)
def test_an_address_without_scheme_or_with_credentials_is_refused(url: str) -> None:
    """It is shown in messages."""
    assert "LLM_GATEWAY_ADMIN_URL" in refusal(admin_url=url)


def test_the_cache_file_needs_its_folder(tmp_path: Path) -> None:
    """A typo in the path is found at the start, not at the first outage."""
    assert Settings.load(keys_cache_file=tmp_path / "keys.json").keys_cache_file == tmp_path / "keys.json"
    for wrong in (tmp_path, tmp_path / "none" / "keys.json"):
        assert "LLM_GATEWAY_KEYS_CACHE_FILE" in refusal(keys_cache_file=wrong)
