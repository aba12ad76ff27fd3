"""LLM Gateway: a stateless, multi-tenant gateway in front of large language models."""

__version__ = "0.1.0"
