"""The documents of the registry as typed models: what each kind may hold, checked on its own.

One model per kind; ``base`` says how they behave. Nothing is defined here: this is where the others find them.
"""

from gateway.registry.backend import BackendDocument, BackendSpec, Echo, Price, Queue, Timeouts
from gateway.registry.backend_anthropic import Anthropic
from gateway.registry.backend_auth import Auth, Secret
from gateway.registry.backend_bedrock import Bedrock
from gateway.registry.base import API_VERSION, Document, FieldErrors, Kind, Metadata, Node
from gateway.registry.conditions import Target, When
from gateway.registry.scenario import Access, Answer, Cache, Override, Parameters, ScenarioDocument, ScenarioSpec

__all__ = [
    "API_VERSION",
    "Access",
    "Answer",
    "Anthropic",
    "Auth",
    "BackendDocument",
    "BackendSpec",
    "Bedrock",
    "Cache",
    "Document",
    "Echo",
    "FieldErrors",
    "Kind",
    "Metadata",
    "Node",
    "Override",
    "Parameters",
    "Price",
    "Queue",
    "ScenarioDocument",
    "ScenarioSpec",
    "Secret",
    "Target",
    "Timeouts",
    "When",
]
