"""The registry: backends, scenarios, prompts, tenants and keys, from YAML documents to an immutable snapshot.

``documents`` and ``accounts`` say what a document may hold, ``yaml`` reads it, ``check`` finds what is wrong with it,
``compile`` makes values of it, ``load`` does one load with the last good version of each object kept, ``folder`` keeps
a folder live. Nothing here speaks HTTP, and nothing here writes to the folder.
"""

from gateway.registry.accounts import PromptDocument
from gateway.registry.compile import AnySecret, compile_prompt
from gateway.registry.compile_auth import SecretSource
from gateway.registry.folder import FolderRegistry
from gateway.registry.keys import KEY_PATTERN, api_key_document, checksum_ok, generate_key, key_digest
from gateway.registry.load import LoadResult, LoadState, load_folder
from gateway.registry.resolve import resolve, usable_names
from gateway.registry.schema import json_schemas

__all__ = [
    "KEY_PATTERN",
    "AnySecret",
    "FolderRegistry",
    "LoadResult",
    "LoadState",
    "PromptDocument",
    "SecretSource",
    "api_key_document",
    "checksum_ok",
    "compile_prompt",
    "generate_key",
    "json_schemas",
    "key_digest",
    "load_folder",
    "resolve",
    "usable_names",
]
