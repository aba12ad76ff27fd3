"""``spec.auth`` of a Backend: the credential sent to it. See ``base`` for how these models behave.

A kind that a static header can hold becomes one of the backend's headers; of any other ``compile_auth`` makes a value
of ``gateway.model.credentials``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from gateway.registry import values
from gateway.registry.base import FieldErrors, HeaderName, Name, Node, text_type


def _expected_secret_env(value: str) -> str:
    if not re.fullmatch(values.SECRET_ENV_PATTERN[1:-1], value):
        raise ValueError("must be the name of a variable: LLM_GATEWAY_SECRET_ and then A-Z, 0-9 or _")
    return value


SecretEnv = Annotated[str, AfterValidator(_expected_secret_env), text_type(values.SECRET_ENV_PATTERN)]


class SecretRef(Node):
    """A key of a Secret of the registry's namespace."""

    name: Name = Field(description="Name of the Secret, which must have the label llmgateway.dev/credential.")
    key: Annotated[str, StringConstraints(pattern=r"^[-._a-zA-Z0-9]{1,253}$")] = Field(description="Key in its data.")


class Secret(Node):
    """Where a secret is; exactly one of them."""

    env: SecretEnv | None = Field(default=None, description="Environment variable with the prefix LLM_GATEWAY_SECRET_.")
    file: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = Field(
        default=None, description="File below the secrets folder of the settings."
    )
    secret_ref: SecretRef | None = Field(
        default=None, description="Secret in the cluster; only there, and there only this."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(each is not None for each in (self.env, self.file, self.secret_ref)) != 1:
            raise FieldErrors(("", "must have exactly one of env, file and secretRef"))
        return self


KEY_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {"anthropic": "x-api-key", "azure": "api-key", "gemini": "x-goog-api-key", "vertex": "x-goog-api-key"}
)
"""The header that holds a key, by the provider, where its document does not say."""
AwsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,64}$")]
_WITH_SECRET = frozenset({"bearer", "bearerFile", "googleServiceAccount", "header"})
_OF_AWS = ("region", "service", "access_key_id", "secret_access_key", "session_token")


class Auth(Node):
    """The credential sent upstream."""

    type: Literal["bearer", "bearerFile", "googleServiceAccount", "header", "aws", "none"] = Field(
        description="bearer: `Authorization: Bearer SECRET`; bearerFile: the same with a secret file that is read again"
        " while it is used, such as an Entra token; googleServiceAccount: an access token, which the gateway gets with"
        " the account's JSON key that the secret holds; header: the secret alone in a header of your choice; aws:"
        " requests are signed (Signature Version 4); none."
    )
    name: HeaderName | None = Field(
        default=None,
        description="The header, for type header. Default: x-api-key for provider anthropic, api-key for azure,"
        " x-goog-api-key for gemini and vertex.",
    )
    secret: Secret | None = Field(
        default=None, description="Where the credential is; required with type bearer, bearerFile and header."
    )
    region: AwsName | None = Field(default=None, description="For type aws, and required there: such as eu-central-1.")
    service: AwsName | None = Field(default=None, description="For type aws: the service. Default bedrock.")
    access_key_id: Secret | None = Field(
        default=None,
        description="For type aws, with secretAccessKey: a key of an IAM user. Without both, the pod's role is used:"
        " docs/dialects.md.",
    )
    secret_access_key: Secret | None = Field(default=None, description="For type aws, with accessKeyId.")
    session_token: Secret | None = Field(default=None, description="For type aws: of a key that is temporary.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = []
        if self.type != "header" and self.name is not None:
            errors.append(("name", "is for type header only"))
        if self.type in _WITH_SECRET and self.secret is None:
            errors.append(("secret", f"is required with type {self.type}"))
        if self.type == "bearerFile" and self.secret is not None and self.secret.file is None:
            errors.append(("secret", "has to be a file with type bearerFile"))
        if self.type not in _WITH_SECRET and self.secret is not None:
            errors.append(("secret", f"is not for type {self.type}"))
        errors += self._aws_errors()
        if errors:
            raise FieldErrors(*errors)
        return self

    def _aws_errors(self) -> Iterator[tuple[str, str]]:
        given = [name for name in _OF_AWS if getattr(self, name) is not None]
        if self.type != "aws":
            yield from ((to_camel(name), "is for type aws only") for name in given)
            return
        if self.region is None:
            yield "region", "is required with type aws"
        if (self.access_key_id is None) != (self.secret_access_key is None):
            missing = "accessKeyId" if self.access_key_id is None else "secretAccessKey"
            yield missing, "is required: an access key has both parts"
        if self.session_token is not None and self.access_key_id is None:
            yield "sessionToken", "is for an accessKeyId"
