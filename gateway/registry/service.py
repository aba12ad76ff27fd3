"""The part of a Backend that names a Service of the cluster, whose pods are called one by one."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from gateway.model import Origin, Service
from gateway.registry.base import Label, Node, text_type

PORT_MAX: Final = 65_535
PORT_NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$"
"""A service name (RFC 6335, section 5.1), as Kubernetes has it for ports; one without a letter would be a number."""

PATH_PATTERN: Final = r"^(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*$"
PATH_CHARS_MAX: Final = 512


def _port(value: object) -> int | str:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= PORT_MAX:
        return value
    if isinstance(value, str) and re.fullmatch(PORT_NAME_PATTERN[1:-1], value) and not value.isdecimal():
        return value
    raise ValueError(f"must be a number from 1 to {PORT_MAX} or the name of a port of the Service")


def _path(value: str) -> str:
    if len(value) > PATH_CHARS_MAX or not re.fullmatch(PATH_PATTERN[1:-1], value):
        raise ValueError("must be a path such as /v1, without a slash at its end, or empty")
    return value


Port = Annotated[
    int | str,
    PlainValidator(_port),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": PORT_MAX},
                {"type": "string", "pattern": PORT_NAME_PATTERN, "maxLength": 15},
            ]
        }
    ),
]
Path = Annotated[str, AfterValidator(_path), text_type(PATH_PATTERN, maxLength=PATH_CHARS_MAX)]


class ServiceReference(Node):
    """A Service of the cluster."""

    name: Label = Field(description="Name of the Service.")
    namespace: Label = Field(description="Its namespace, one of LLM_GATEWAY_DISCOVERY_NAMESPACES.")
    port: Port = Field(
        description="A port's name, or the number that its pods have; where the Service has one port, any number."
    )
    scheme: Literal["http", "https"] = Field(default="http", description="https verifies the name NAME.NAMESPACE.svc.")
    path: Path = Field(default="/v1", description="What comes before /chat/completions.")

    @property
    def origin(self) -> Origin:
        """Where calls go: to the endpoints, under the name that the Service has in the cluster."""
        number = self.port if isinstance(self.port, int) else 443 if self.scheme == "https" else 80
        service = Service(namespace=self.namespace, name=self.name, port=self.port)
        return Origin(scheme=self.scheme, host=f"{self.name}.{self.namespace}.svc", port=number, service=service)
