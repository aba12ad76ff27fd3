"""Answers kept for the same request of the same tenant, and calls in flight that several callers share."""

from gateway.cache.cache import Cache, CacheOptions, Shared
from gateway.cache.conversations import ConversationBounds, Conversations
from gateway.cache.entry import pack
from gateway.cache.flight import Flight, Follower, Head, Lost, Refusal
from gateway.cache.key import Way, Ways, writing_of
from gateway.cache.scripts import CacheScripts, load_scripts
from gateway.cache.similar import IndexBounds
from gateway.cache.store import Kept, Store, purge

__all__ = [
    "Cache",
    "CacheOptions",
    "CacheScripts",
    "ConversationBounds",
    "Conversations",
    "Flight",
    "Follower",
    "Head",
    "IndexBounds",
    "Kept",
    "Lost",
    "Refusal",
    "Shared",
    "Store",
    "Way",
    "Ways",
    "load_scripts",
    "pack",
    "purge",
    "writing_of",
]
