"""From ``spec.auth`` to a header of the backend, or to what its requests are signed with.

Invariant: a secret appears in what is compiled and nowhere else: in no reason, no repr, no log. Pure but for reading
it through the given source.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Protocol

from gateway import model
from gateway.model.credentials import AwsCredential, AwsKeys, GoogleServiceAccount, TokenFile
from gateway.registry.backend_auth import KEY_HEADERS, Auth, Secret
from gateway.registry.base import FieldErrors
from gateway.registry.google_account import google_account

NOT_READ: Final = b"not-read"
"""What stands for a secret where a registry is looked at far from its secrets."""

_BEARER_TOKEN = re.compile(rb"[\x21-\x7e]{1,16384}")
_AWS_SECRET = re.compile(rb"[\x21-\x7e]{1,8192}")
_HEADER_SECRET = re.compile(rb"[\x21-\x7e]([\x20-\x7e]{0,8190}[\x21-\x7e])?")


class SecretSource(Protocol):
    """Where the secrets that documents name are read; raises any exception, whose text must not hold the secret.

    ``in_cluster``: the documents are custom resources, which may name Services of the cluster.
    """

    @property
    def in_cluster(self) -> bool:
        """Whether it is one of the cluster."""

    def env(self, name: str) -> bytes:
        """Return the value of an environment variable."""

    def file(self, name: str) -> bytes:
        """Return the content of a file below the secrets folder."""

    def ref(self, name: str, key: str) -> bytes:
        """Return the value of a key of a Secret in the cluster."""


CompileCredential = Callable[[Auth, SecretSource], model.Credential]
"""Makes the credential of one kind of ``spec.auth``. Raises FieldErrors; a secret that is NOT_READ is a good one."""


def _token_file(auth: Auth, secrets: SecretSource) -> model.Credential:
    """The file is read once here, so that one that is not there is told of."""
    assert auth.secret is not None, "the document was checked"
    field, token = read_secret(auth.secret, secrets)
    if not _BEARER_TOKEN.fullmatch(token):
        raise FieldErrors((field, "names a file that holds no token"))
    return TokenFile(name=auth.secret.file or "")


def _aws(auth: Auth, secrets: SecretSource) -> AwsCredential:
    def read(name: str, spec: Secret | None) -> str:
        if spec is None:
            return ""
        given, secret = read_secret(spec, secrets, name)
        if not _AWS_SECRET.fullmatch(secret):
            raise FieldErrors((given, "names a secret that is empty or no part of a key of AWS"))
        return secret.decode()

    keys: AwsKeys | None = None
    if auth.access_key_id is not None:
        keys = AwsKeys(
            access_key_id=read("accessKeyId", auth.access_key_id),
            secret_access_key=read("secretAccessKey", auth.secret_access_key),
            session_token=read("sessionToken", auth.session_token),
        )
    return AwsCredential(region=auth.region or "", service=auth.service or "bedrock", keys=keys)


def _google_service_account(auth: Auth, secrets: SecretSource) -> model.Credential:
    assert auth.secret is not None, "the document was checked"
    field, content = read_secret(auth.secret, secrets)
    if content == NOT_READ:
        return GoogleServiceAccount(email="", key_id="", private_key="", token_uri="")
    try:
        return google_account(content)
    except ValueError as error:
        raise FieldErrors((field, str(error))) from None


CREDENTIALS: Final[Mapping[str, CompileCredential]] = MappingProxyType(
    {"bearerFile": _token_file, "aws": _aws, "googleServiceAccount": _google_service_account}
)
"""By ``spec.auth.type``: the kinds that no static header can hold."""


def auth_headers(auth: Auth | None, provider: str, secrets: SecretSource) -> Iterator[tuple[bytes, bytes]]:
    """The header that holds the credential, where one can."""
    if auth is None or auth.secret is None or auth.type in CREDENTIALS:
        return
    given, secret = read_secret(auth.secret, secrets)
    if not _HEADER_SECRET.fullmatch(secret):
        raise FieldErrors((given, "names a secret that is empty or cannot be sent in a header"))
    if auth.type == "bearer":
        yield b"authorization", b"Bearer " + secret
    else:
        yield (auth.name or KEY_HEADERS[provider]).encode(), secret


def credential_of(auth: Auth | None, secrets: SecretSource) -> model.Credential | None:
    """What requests are signed with; None where headers hold all that is needed."""
    compile_credential = None if auth is None else CREDENTIALS.get(auth.type)
    return None if auth is None or compile_credential is None else compile_credential(auth, secrets)


def read_secret(spec: Secret, secrets: SecretSource, name: str = "secret") -> tuple[str, bytes]:
    """The field that names the secret, for reasons, and what it holds. ``name`` is its place."""
    given = "env" if spec.env is not None else "file" if spec.file is not None else "secretRef"
    field = f"spec.auth.{name}.{given}"
    try:
        if spec.secret_ref is not None:
            return field, secrets.ref(spec.secret_ref.name, spec.secret_ref.key)
        return field, secrets.env(spec.env) if spec.env is not None else secrets.file(spec.file or "")
    except Exception as error:  # noqa: BLE001  # whatever a source raises, this backend alone cannot be compiled
        raise FieldErrors((field, str(error) or type(error).__name__)) from None
