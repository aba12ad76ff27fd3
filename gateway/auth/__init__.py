"""Who calls: from the presented credential to a Principal."""

from gateway.auth.address import ClientAddress
from gateway.auth.discovery import FetchOptions, KeySetFetcher
from gateway.auth.jwks import IssuerKeys, KeyOptions
from gateway.auth.keys import authenticate, read_credentials
from gateway.auth.tokens import TokenAuthenticator, TokenOptions

__all__ = [
    "ClientAddress",
    "FetchOptions",
    "IssuerKeys",
    "KeyOptions",
    "KeySetFetcher",
    "TokenAuthenticator",
    "TokenOptions",
    "authenticate",
    "read_credentials",
]
