"""What the schema of the chart's values refers to and Kubernetes does not define: names, settings, the registry."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from gateway.registry import json_schemas
from gateway.settings import Settings
from gateway.settings.sources import environment_name, is_secret

KINDS: Final = {
    "backends": "backend",
    "scenarios": "scenario",
    "prompts": "prompt",
    "tenants": "tenant",
    "apiKeys": "apikey",
}
"""The values that hold objects of the registry, and the schemas of their kinds."""

MADE_FROM_VALUES: Final = frozenset(
    {
        "registry",
        "registry_source",
        "registry_namespace",
        "registry_write_keys",
        "discovery_namespaces",
        "pod_name",
        "secrets_dir",
        "listen",
        "management_listen",
        "redis_url",
        "redis_credentials_file",
        "redis_ca_file",
        "cache_redis_url",
        "cache_redis_credentials_file",
        "cache_redis_ca_file",
        "admin_token",
        "admin_read_token",
        "admin_url",
        "drain_s",
        "drain_propagation_delay_s",
    }
)
"""Settings that the chart makes from other values, and that nobody sets a second time."""

_LABEL: Final = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_OBJECT: Final = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_VALUE: Final = "^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
_LABEL_KEY: Final = "^([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
_RESOURCE: Final = "^(cpu|memory|ephemeral-storage|hugepages-[0-9A-Za-z]+|[a-z0-9.-]+/[A-Za-z0-9_.-]+)$"
_QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
_V6: Final = r"[0-9a-fA-F:]*:[0-9a-fA-F:]*/[0-9]{1,3}"
_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_REST: Final = rf"(\.{_OCTET}){{3}}"
_NOT_169: Final = "(25[0-5]|2[0-4][0-9]|1[0-57-9][0-9]|16[0-8]|[1-9]?[0-9])"


def definitions() -> dict[str, Any]:
    """The definitions by name."""
    return _names() | _networks() | _pods() | _monitoring() | _settings() | _registry()


def _object(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


def _text(pattern: str, most: int = 253) -> dict[str, Any]:
    return {"type": "string", "pattern": f"^{pattern}$", "maxLength": most}


def _map(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "patternProperties": {key: value}, "additionalProperties": False}


def _names() -> dict[str, Any]:
    return {
        "labels": _map(_LABEL_KEY, {"type": "string", "pattern": _LABEL_VALUE}),
        "annotations": _map(_LABEL_KEY, {"type": "string"}),
        "namespace": _text(_LABEL, 63),
        "optionalNamespace": _text(f"({_LABEL})?", 63),
        "objectName": _text(_OBJECT),
        "nameReference": _object({"name": _text(_OBJECT)}, "name"),
        "secretKey": _object({"name": _text(f"({_OBJECT})?"), "key": _text("[-._a-zA-Z0-9]+")}),
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "quantity": {"type": ["string", "integer"], "pattern": _QUANTITY},
        "extraObject": {
            "type": ["object", "string"],
            "required": ["apiVersion", "kind", "metadata"],
        },
    }


def _networks() -> dict[str, Any]:
    """Networks that never reach a cloud's metadata server, 169.254.169.254.

    The chart leaves link-local addresses out of 0.0.0.0/0 itself. Every other network has at least 8 fixed bits and
    does not begin with 169, so that it cannot hold one.
    """
    outside = rf"({_NOT_169}{_REST}/([89]|[12][0-9]|3[0-2])|0\.0\.0\.0/0|{_V6})"
    return {"cidr": _text(outside, 64), "dnsCidr": _text(rf"({outside[1:-1]}|169\.254\.20\.10/32)", 64)}


def _pods() -> dict[str, Any]:
    quantities = _map(_RESOURCE, {"$ref": "#/$defs/quantity"})
    return {
        "resources": _object({"requests": quantities, "limits": quantities}),
        "podSecurityContext": {"$ref": "#/$defs/io.k8s.api.core.v1.PodSecurityContext"},
        "securityContext": {"$ref": "#/$defs/io.k8s.api.core.v1.SecurityContext"},
        "topologySpread": _object(
            {
                "topologyKey": {"type": "string", "minLength": 1},
                "maxSkew": {"type": "integer", "minimum": 1},
                "whenUnsatisfiable": {"enum": ["DoNotSchedule", "ScheduleAnyway"]},
                "minDomains": {"type": "integer", "minimum": 1},
                "nodeAffinityPolicy": {"enum": ["Honor", "Ignore"]},
                "nodeTaintsPolicy": {"enum": ["Honor", "Ignore"]},
            },
            "topologyKey",
            "maxSkew",
            "whenUnsatisfiable",
        ),
    }


def _monitoring() -> dict[str, Any]:
    label = {"type": "string"}
    return {
        "prometheusDuration": _text("[1-9][0-9]*(ms|s|m|h)", 16),
        "relabeling": _object(
            {
                "action": label,
                "modulus": {"type": "integer"},
                "regex": label,
                "replacement": label,
                "separator": label,
                "sourceLabels": {"type": "array", "items": label},
                "targetLabel": label,
            }
        ),
        "parentReference": _object(
            {
                "group": label,
                "kind": label,
                "name": _text(_OBJECT),
                "namespace": {"$ref": "#/$defs/namespace"},
                "port": {"$ref": "#/$defs/port"},
                "sectionName": label,
            },
            "name",
        ),
    }


def _settings() -> dict[str, Any]:
    """Those that have no value of their own. Each that holds a credential has one, which becomes a file."""
    secret = {name for name, info in Settings.model_fields.items() if is_secret(info)}
    if without := secret - MADE_FROM_VALUES:
        raise ValueError(f"settings that hold credentials and have no value of the chart: {', '.join(sorted(without))}")
    plain = {
        environment_name(name): {"type": ["string", "number", "boolean"]}
        for name in Settings.model_fields
        if name not in MADE_FROM_VALUES
    }
    return {"settings": _object(plain)}


def _registry() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for value, kind in KINDS.items():
        schema = json_schemas()[kind]
        for name, definition in schema["$defs"].items():
            found[f"{kind}.{name}"] = _renamed(definition, kind)
        spec = _renamed(schema["properties"]["spec"], kind)
        found[value] = _map(f"^{_OBJECT}$", spec)
    return found


def _renamed(schema: Any, kind: str) -> Any:
    """With references to the definitions of this kind's schema, since two kinds may use one name.

    Helm's expressions (RE2) count to 1000 at most; beyond that the gateway counts itself.
    """
    text = json.dumps(schema).replace('"#/$defs/', f'"#/$defs/{kind}.')
    return json.loads(re.sub(r"\{(\d+),\d{4,}\}", r"{\1,}", text))
