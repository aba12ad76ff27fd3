"""Asks for the keys of a role: the security token service with a web identity, or the agent of a container.

Invariants: one request per question, within one time limit and one size limit, no redirect followed, no proxy of the
environment; the agent of a container is asked without TLS only where nobody else can answer. Of what is received
nothing is told but the code of an error. The HTTP client is imported with the first question.

Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html and
https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from gateway.model.credentials import AwsKeys
from gateway.settings.aws import AwsSurroundings
from gateway.settings.sources import read_secret_file
from gateway.upstream.aws_role import KeysUnavailable

if TYPE_CHECKING:
    import httpx

ANSWER_BYTES_MAX: Final = 65_536
SESSION_NAME: Final = "llm-gateway"

_AGENTS = frozenset({"169.254.170.2", "169.254.170.23", "fd00:ec2::23"})  # of ECS, of EKS over IPv4 and IPv6
_DOMAINS: Final[Mapping[str, str]] = {
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "us-isof-": "csp.hci.ic.gov",
}
"""Of the partitions beside amazonaws.com, by how the names of their regions begin."""

_is_region = re.compile(r"[a-z0-9-]{1,64}").fullmatch
_is_header_value = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?").fullmatch
_is_code = re.compile(r"[A-Za-z.]{1,64}").fullmatch
_find_element = re.compile(r"<(AccessKeyId|SecretAccessKey|SessionToken|Expiration|Code)>\s*([^<>&]+?)\s*</\1>").findall
"""Texts of elements that hold neither marks nor other elements, which is all that is needed of the XML."""


class _FromAgent(msgspec.Struct, rename="pascal"):
    access_key_id: str
    secret_access_key: str
    token: str
    expiration: datetime


_decode_agent = msgspec.json.Decoder(_FromAgent).decode


class AwsFetcher:
    """Asks where the process's surroundings say. ``timeout_s`` bounds each question as a whole."""

    def __init__(self, surroundings: AwsSurroundings, timeout_s: float, ca_file: Path | None = None) -> None:
        self._surroundings = surroundings
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None

    async def __call__(self) -> AwsKeys:
        """The keys as they are now. Raises KeysUnavailable."""
        given = self._surroundings
        if given.keys is not None:
            return given.keys
        if given.web_identity_token_file and given.role_arn:
            return await self._from_web_identity()
        if given.container_url:
            return await self._from_agent()
        raise KeysUnavailable(
            "neither auth.accessKeyId nor a role: AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN,"
            " AWS_CONTAINER_CREDENTIALS_FULL_URI and AWS_ACCESS_KEY_ID are not set"
        )

    async def _from_web_identity(self) -> AwsKeys:
        given = self._surroundings
        url = given.sts_url or _sts_url(given.region)
        token = await asyncio.to_thread(_read, given.web_identity_token_file)  # which is renewed while we run
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": given.role_arn,
            "RoleSessionName": given.role_session_name or SESSION_NAME,
            "WebIdentityToken": token,
        }
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "text/xml"}
        status, answer = await self._ask("POST", url, headers, urlencode(form).encode())
        found = dict(_find_element(answer.decode("utf-8", "replace")))
        if status != 200:
            code = found.get("Code", "")
            reason = f"{status} {code}" if _is_code(code) else str(status)
            raise KeysUnavailable(f"the security token service answered {reason}")
        try:
            return AwsKeys(
                access_key_id=found["AccessKeyId"],
                secret_access_key=found["SecretAccessKey"],
                session_token=found["SessionToken"],
                expires_at=datetime.fromisoformat(found["Expiration"]).timestamp(),
            )
        except (KeyError, ValueError):
            raise KeysUnavailable("the security token service answered with no credentials") from None

    async def _from_agent(self) -> AwsKeys:
        given = self._surroundings
        if not _may_be_asked(given.container_url):
            raise KeysUnavailable("the address of the container's agent is neither https nor one of AWS's own")
        headers = {"accept": "application/json"}
        token = given.container_token
        if given.container_token_file:
            token = await asyncio.to_thread(_read, given.container_token_file)
        if token:
            headers["authorization"] = token
        status, answer = await self._ask("GET", given.container_url, headers)
        if status != 200:
            raise KeysUnavailable(f"the container's agent answered {status}")
        try:
            told = _decode_agent(answer)
        except (msgspec.DecodeError, RecursionError):
            raise KeysUnavailable("the container's agent answered with no credentials") from None
        return AwsKeys(
            access_key_id=told.access_key_id,
            secret_access_key=told.secret_access_key,
            session_token=told.token,
            expires_at=told.expiration.timestamp(),
        )

    async def _ask(self, method: str, url: str, headers: dict[str, str], body: bytes = b"") -> tuple[int, bytes]:
        """Status and body of an answer. Raises KeysUnavailable."""
        try:
            client = await asyncio.to_thread(self._client)  # imports it, the first time: not on the event loop
        except OSError as error:
            raise KeysUnavailable(f"certificate authorities cannot be read: {error}") from None
        import httpx

        host = urlsplit(url).hostname
        try:
            async with asyncio.timeout(self._timeout_s), client:
                return await _exchange(client, client.build_request(method, url, headers=headers, content=body))
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:  # TimeoutError is an OSError
            raise KeysUnavailable(f"{host} could not be asked: {type(error).__name__}") from None

    def _client(self) -> httpx.AsyncClient:
        import httpx

        logging.getLogger("httpx").setLevel(logging.WARNING)  # what matters is told with the failed attempt
        if self._tls is None:
            self._tls = ssl.create_default_context(cafile=self._ca_file)
            self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        return httpx.AsyncClient(verify=self._tls, timeout=self._timeout_s, follow_redirects=False, trust_env=False)


async def _exchange(client: httpx.AsyncClient, request: httpx.Request) -> tuple[int, bytes]:
    response = await client.send(request, stream=True)
    try:
        body = b""
        async for piece in response.aiter_bytes():
            body += piece
            if len(body) > ANSWER_BYTES_MAX:
                raise KeysUnavailable(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        return response.status_code, body
    finally:
        await response.aclose()


def _sts_url(region: str) -> str:
    """The service of one region: the global one is slower, and sessions of it are no good everywhere."""
    if not _is_region(region):
        raise KeysUnavailable("AWS_REGION does not say whose security token service to ask")
    domain = next((each for start, each in _DOMAINS.items() if region.startswith(start)), "amazonaws.com")
    return f"https://sts.{region}.{domain}/"


def _read(path: str) -> str:
    """A token that something else renews in a file."""
    try:
        token = read_secret_file(Path(path)).decode("ascii").strip()
    except (OSError, ValueError) as error:
        raise KeysUnavailable(f"{path} cannot be read: {type(error).__name__}") from None
    if not _is_header_value(token):
        raise KeysUnavailable(f"{path} holds no token")
    return token


def _may_be_asked(url: str) -> bool:
    """Whether a token may be sent there: over TLS, to this machine, or to an address that only AWS answers at."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https" and host:
            return True
        return parts.scheme == "http" and (host in _AGENTS or host == "localhost" or ip_address(host).is_loopback)
    except ValueError:
        return False
