"""A token issuer: keys, tokens in every shape, and the https server that publishes the keys.

with IssuerServer() as issuer:
    key = SigningKey("RS256", "key-1")
    issuer.publish(key)
    token = key.token(claims(issuer.url))
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk

from gateway.auth.discovery import WELL_KNOWN

AUDIENCE = "llm-gateway"
KEYS_PATH = "/keys"

Sign = Callable[[bytes], bytes]
_CURVES: dict[str, ec.EllipticCurve] = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


@cache
def rsa_private_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key that every test shares under its name: making one takes long."""
    return rsa.generate_private_key(65537, bits)


def claims(issuer: str, **more: Any) -> dict[str, Any]:
    """The claims of a good token for tenant ``acme``; a claim that is None is left out."""
    good = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": "build-robot",
        "tenant": "acme",
        "nbf": int(time.time()) - 60,
        "exp": int(time.time()) + 600,
    }
    return {name: value for name, value in (good | more).items() if value is not None}


def encoded(part: bytes) -> bytes:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(part).rstrip(b"=")


def forge(header: Mapping[str, Any] | bytes, payload: Mapping[str, Any] | bytes, sign: Sign) -> str:
    """A token of whatever header and payload, signed by whatever function."""
    parts = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in (header, payload)]
    signed = b".".join(map(encoded, parts))
    return (signed + b"." + encoded(sign(signed))).decode()


class SigningKey:
    """A private key of an issuer. ``private`` is made for the algorithm unless it is given."""

    def __init__(self, algorithm: str, kid: str | None = "key-1", private: Any = None) -> None:
        self.algorithm, self.kid = algorithm, kid
        if private is None:
            curve = _CURVES.get(algorithm)
            private = rsa_private_key(kid or "") if curve is None else ec.generate_private_key(curve)
        self.private = private
        self._key = jwk.construct(private, algorithm)

    def sign(self, data: bytes) -> bytes:
        """The signature of ``data``."""
        return self._key.sign(data)

    def token(self, payload: Mapping[str, Any] | bytes, **header: Any) -> str:
        """A token; ``header`` replaces or adds members, None leaves one out."""
        members = {"alg": self.algorithm, "typ": "JWT", "kid": self.kid} | header
        return forge({name: value for name, value in members.items() if value is not None}, payload, self.sign)

    def jwk(self, **more: Any) -> dict[str, Any]:
        """The public key as a JWK; ``more`` replaces or adds members, None leaves one out."""
        public: dict[str, Any] = self._key.public_key().to_dict()
        members = public | {"use": "sig", "kid": self.kid} | more
        return {name: value for name, value in members.items() if value is not None}


@dataclass
class Answer:
    """What the server answers on a path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None  # the answer waits for it


class IssuerServer:
    """An https server with a certificate of an authority of its own, ``ca_pem``; a context manager.

    ``answers`` by path may be changed at any time; ``requests`` are the paths that were asked for, in order.
    """

    def __init__(self) -> None:
        authority = trustme.CA()
        self.ca_pem: bytes = authority.cert_pem.bytes()
        self.requests: list[str] = []
        self.answers: dict[str, Answer] = {}
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self._tls)
        self._port = 0

    def __enter__(self) -> Self:
        self.start()
        self.answers[WELL_KNOWN] = self.discovery()
        self.publish()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """The issuer, as its tokens name it."""
        return f"https://localhost:{self._port}"

    def discovery(self, **more: Any) -> Answer:
        """A discovery document."""
        described = {"issuer": self.url, "jwks_uri": self.url + KEYS_PATH} | more
        return Answer(json.dumps(described).encode())

    def publish(self, *keys: SigningKey | dict[str, Any]) -> None:
        """Let the key set be these."""
        entries = [key.jwk() if isinstance(key, SigningKey) else key for key in keys]
        self.answers[KEYS_PATH] = Answer(json.dumps({"keys": entries}).encode())

    def fetches(self) -> int:
        """How often the keys were asked for."""
        return self.requests.count(KEYS_PATH)

    def start(self) -> None:
        """Listen; after ``stop`` on the same port."""
        self._server = _Server(("127.0.0.1", self._port), self._handler())
        self._port = self._server.server_address[1]
        self._server.tls = self._tls
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        for answer in self.answers.values():
            if answer.hold is not None:
                answer.hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                server.requests.append(self.path)
                answer = server.answers.get(self.path, Answer(status=404))
                if answer.hold is not None and not answer.hold.wait(30):
                    return
                self.send_response(answer.status)
                for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # as the base class names it
                """Say nothing."""

        return Handler


class _Server(ThreadingHTTPServer):
    tls: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        """TLS in the thread of the connection, so that a client that hangs holds up nobody."""
        request.settimeout(10)
        with self.tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left or did not trust the certificate is part of the tests."""
