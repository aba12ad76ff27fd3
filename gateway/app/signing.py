"""Who signs the requests of which backend: one maker of signers for each kind of credential."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

from gateway.model.credentials import AwsCredential, GoogleServiceAccount, TokenFile
from gateway.settings import SecretReader
from gateway.upstream.bearer import file_tokens
from gateway.upstream.google_tokens import GoogleTokens, TokenOptions

if TYPE_CHECKING:
    from gateway.model import Backend, Credential
    from gateway.settings import Settings
    from gateway.upstream.aws_role import RoleKeys
    from gateway.upstream.signing import Signer

MakeSigner = Callable[["Backend"], "Signer"]
"""Makes the signer of a backend whose credential is of the maker's kind. Must not wait; cheap, or it remembers."""

Close = Callable[[], Awaitable[None]]


class Signers:
    """A ``SignerOf``: the maker is chosen by the type of the backend's credential."""

    def __init__(self, makers: Mapping[type[Credential], MakeSigner], closes: tuple[Close, ...] = ()) -> None:
        self._makers = makers
        self._closes = closes

    def __call__(self, backend: Backend) -> Signer | None:
        """Who signs requests to ``backend``; None where its headers hold all that is needed."""
        credential = backend.credential
        return None if credential is None else self._makers[type(credential)](backend)

    async def close(self) -> None:
        """End what makers do in the background."""
        for close in self._closes:
            await close()


class AwsSigning:
    """Makes signers for AWS. All backends without keys of their own share those of the process's role."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._make: MakeSigner | None = None
        self._role: RoleKeys | None = None

    def __call__(self, backend: Backend) -> Signer:
        """The signer of ``backend``."""
        if self._make is None:
            self._make = self._load()
        return self._make(backend)

    async def close(self) -> None:
        """End a question for keys."""
        if self._role is not None:
            await self._role.close()

    def _load(self) -> MakeSigner:
        from gateway.settings.aws import aws_surroundings  # a gateway without such a backend loads none of it
        from gateway.upstream.aws import aws_signers
        from gateway.upstream.aws_fetch import AwsFetcher
        from gateway.upstream.aws_role import RoleKeys

        settings = self._settings
        fetcher = AwsFetcher(aws_surroundings(), settings.aws_timeout_s, settings.upstream_ca_file)
        self._role = RoleKeys(fetcher)
        return aws_signers(self._role)


def signers(settings: Settings) -> Signers:
    """All kinds. A kind is a line here and one in ``gateway.registry.compile_auth``."""
    aws = AwsSigning(settings)
    google = GoogleTokens(token_options(settings))
    return Signers(
        {TokenFile: file_tokens(SecretReader(settings).file), AwsCredential: aws, GoogleServiceAccount: google},
        (aws.close, google.close),
    )


def token_options(settings: Settings) -> TokenOptions:
    """The bounds of access tokens that are asked for."""
    return TokenOptions(
        timeout_s=settings.upstream_token_timeout_s,
        renew_s=settings.upstream_token_renew_s,
        ca_file=settings.upstream_ca_file,
    )
