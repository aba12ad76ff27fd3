"""``spec.auth`` of a Backend: the credential sent to it. See ``base`` for how these models behave.

A kind that a static header can hold becomes one of the backend's headers; of any other ``compile_auth`` makes a value
of ``gateway.model.credentials``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

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


KEY_HEADERS: Final[Mapping[str, str]] = MappingProxyType({"anthropic": "x-api-key", "azure": "api-key"})
"""The header that holds a key, by the provider, where its document does not say."""


class Auth(Node):
    """The credential sent upstream."""

    type: Literal["bearer", "bearerFile", "header", "none"] = Field(
        description="bearer: `Authorization: Bearer SECRET`; bearerFile: the same with a secret file that is read again"
        " while it is used, such as an Entra token; header: the secret alone in a header of your choice; none."
    )
    name: HeaderName | None = Field(
        default=None,
        description="The header, for type header. Default: x-api-key for provider anthropic, api-key for azure.",
    )
    secret: Secret | None = Field(default=None, description="Where the credential is; required but for type none.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        errors = []
        if self.type != "header" and self.name is not None:
            errors.append(("name", "is for type header only"))
        if self.type != "none" and self.secret is None:
            errors.append(("secret", f"is required with type {self.type}"))
        if self.type == "bearerFile" and self.secret is not None and self.secret.file is None:
            errors.append(("secret", "has to be a file with type bearerFile"))
        if self.type == "none" and self.secret is not None:
            errors.append(("secret", "is not for type none"))
        if errors:
            raise FieldErrors(*errors)
        return self
