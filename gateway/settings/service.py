"""The settings of what is served, of the process, and of the state that replicas share: the first part of ``Settings``.

Declarations only; ``schema`` checks them and adds the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings

from gateway.settings.fields import Duration, Size, TextList
from gateway.settings.fields import count as _count
from gateway.settings.fields import seconds as _seconds
from gateway.settings.fields import size as _bytes
from gateway.settings.fields import value as _value


class ServiceSettings(BaseSettings):
    """What is served, how the process behaves, and what it shares."""

    # What is served
    registry: Path = _value(Path("registry"), "a folder", "Folder of the registry's YAML documents.")
    registry_source: Literal["folder", "kubernetes"] = _value(
        "folder",
        "folder or kubernetes",
        "Where the registry is read from: a folder, or the custom resources of a namespace.",
    )
    registry_namespace: str | None = _value(
        None,
        "the name of a namespace",
        "Namespace of the custom resources and of the Secrets that they name; another one than the gateway's own.",
    )
    registry_write_keys: bool = Field(
        False,
        description="Whether the admin API makes and changes keys as ApiKey resources, where the registry is in the"
        " cluster; in folder mode keys of the API are kept in Redis.",
    )
    registry_status_writes: int = _count(
        20, 1, 1000, "writes", "Most writes of a resource's status in a second, by the one process that writes them."
    )
    pod_name: str | None = _value(
        None, "a name", "Name of this pod, by which the process that writes statuses is told. Default: the host's name."
    )
    registry_poll_s: Duration = _seconds(1, 0.1, 1.5, "How often the registry's folder is looked at for changes.")
    secrets_dir: Path | None = _value(
        None, "an existing folder", "Folder below which backends may name files with secrets."
    )
    default_scenario: str | None = _value(
        None,
        "a name of 1 to 253 characters",
        "Scenario of `/generate` and `/chat/completion` when the request names no model.",
    )

    # The process
    listen: str = _value(
        "127.0.0.1:8080",
        "HOST:PORT such as 127.0.0.1:8080 or [::1]:8080",
        "Address of the data port, which tenants call; port 0 takes a free one.",
    )
    management_listen: str = _value(
        "127.0.0.1:8081",
        "HOST:PORT such as 127.0.0.1:8081 or [::1]:8081",
        "Address of the management port with health and metrics, which tenants must not reach.",
    )
    workers: int = _count(
        1,
        1,
        64,
        "processes",
        "Worker processes that share the data port. Each may make its"
        " even share, at least 1, of the calls that a backend's maxConcurrentRequests allows.",
    )
    redis_url: str | None = _value(
        None,
        "redis://, rediss://, unix:// with an address, the first two also with +sentinel or +cluster, or the word"
        " embedded",
        "Redis for the state that replicas share: limits, usage, keys. `embedded` starts a Valkey on loopback that ends"
        " with this process.",
        secret=True,
    )
    redis_credentials_file: Path | None = _value(
        None,
        "an existing file",
        "File with the password of Redis, or with an ACL user and a password on two lines; it wins over the address"
        " and is read again when it changes and at every connection.",
    )
    redis_ca_file: Path | None = _value(
        None,
        "an existing file",
        "PEM file with the certificate authorities of Redis, instead of the system's; read again when it changes.",
    )
    redis_deadline_s: Duration = _seconds(
        0.05, 0.005, 5, "Time for Redis to answer a command; a later answer is not waited for."
    )
    redis_connect_timeout_s: Duration = _seconds(
        1, 0.05, 30, "Time for a connection to Redis, from its beginning until the server is ready for commands."
    )
    redis_failures_max: int = _count(
        5, 1, 1000, "deadlines", "Deadlines in a row without an answer after which Redis is not used for a while."
    )
    redis_probe_s: Duration = _seconds(
        1, 0.05, 4, "While Redis is not used, the longest time between two attempts to use it again."
    )
    redis_pending_max: int = _count(
        10000, 100, 1000000, "commands", "Commands per connection to Redis that may wait; a further one fails at once."
    )
    redis_check_s: Duration = _seconds(
        2, 0.1, 60, "How often the server is asked for its role and memory, and the file of credentials looked at."
    )
    environment: Literal["development", "staging", "production"] = Field(
        "development", description="Name in the log lines, and which `.env.<environment>` file is read as well."
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lambda v: str(v).lower())] = (
        Field("info", description="Least severe level of the process log; the line per request is always written.")
    )
    log_queue_lines: int = _count(
        10000, 100, 1000000, "lines", "Log lines that may wait for a slow reader of stdout before lines are dropped."
    )
    metrics_max_tenants: int = _count(
        1000, 1, 100000, "tenants", "Tenants with label values of their own; further ones are counted as `other`."
    )
    docs: bool = Field(True, description="Whether the data port serves `/docs` and `/openapi.json`.")

    # Limits
    limit_tokens_per_message: int = _count(
        10, 0, 10000, "tokens", "Input tokens that a budget reserves for each message beside one for every byte."
    )
    limit_tokens_per_image: int = _count(
        2000,
        0,
        1000000,
        "tokens",
        "Input tokens that a budget reserves for an image, in place of the bytes of its data.",
    )
    limit_first_output_tokens: int = _count(
        256,
        1,
        1000000,
        "tokens",
        "Output tokens that rates expect of a call without a limit of its own while nothing is known of its scenario.",
    )
    limit_queue_entries: int = _count(
        20000,
        100,
        10000000,
        "calls",
        "Ended calls per worker that wait for Redis to be back, 2 kB each; the oldest go first.",
    )
    limit_queue_s: Duration = _seconds(
        600, 1, 86400, "How long an ended call waits for Redis to be back before its end is given up as lost."
    )

    limit_refusal_memory_s: Duration = _seconds(
        0.05,
        0,
        1,
        "How long a refusal may stand: so long, and not beyond its own wait, a call that asks for no less is refused"
        " without asking Redis. 0: never. A limit that is reset or given back meanwhile admits so much later.",
    )
    limit_slot_s: Duration = _seconds(
        30,
        3,
        600,
        "How long a place under a concurrency limit is kept for a gateway that died; renewed three times meanwhile.",
    )

    # Conditions, canaries and shadows
    routing_headers: TextList = _value(
        (),
        "names of headers in lower case, separated by commas, none of which holds a credential",
        "Request headers that conditions of targets (`when.headers`) may look at.",
    )
    rollout_sync_s: Duration = _seconds(
        1, 0.1, 2, "How often processes tell each other through Redis what calls of canaries showed."
    )
    rollout_window_s: Duration = _seconds(
        60,
        6,
        3600,
        "How far back a canary's calls are judged; further where there are too few, see minRequests of its abort.",
    )
    shadow_max_concurrent: int = _count(
        16, 0, 10000, "calls", "Copies of requests per worker that are at shadows at once. 0 sends none."
    )
    shadow_queue: int = _count(64, 0, 100000, "calls", "Copies of requests per worker that wait to be sent.")
    shadow_queue_bytes: Size = _bytes(
        32 * 2**20, 2**20, 2**32, "Request bodies of all copies per worker that wait or are under way."
    )

    # The usage ledger
    usage_retention_days: int = _count(
        400,
        1,
        3660,
        "days",
        "How long the usage of a day, and a tenant's events after its last call, are kept in Redis.",
    )
    usage_events_max: int = _count(
        10000,
        0,
        10000000,
        "events",
        "Usage events kept per tenant for exporters, some 100 bytes each; older ones are given up. 0 keeps none.",
    )
    usage_watch_s: Duration = _seconds(10, 0.1, 300, "How often it is measured how far the export of usage is behind.")
    usage_max_rows: int = _count(
        20000, 100, 1000000, "rows", "Most rows of usage, one per day, key, scenario and backend, read for one answer."
    )

    # Conversations of callers who speak Responses
    responses_ttl_s: Duration = _seconds(
        86400, 1, 2592000, "How long a response can be gone on from by `previous_response_id`, from the last time on."
    )
    responses_max_turns: int = _count(256, 1, 10000, "turns", "Most turns of one such conversation.")
    responses_max_bytes: Size = _bytes(
        4 * 2**20, 1024, 2**28, "Largest such conversation, before it is compressed, and largest response of a stream."
    )

    # The cache
    cache_redis_url: str | None = _value(
        None,
        "redis://, rediss://, unix:// with an address, the first two also with +sentinel or +cluster",
        "Redis for kept answers and shared calls, so that what it evicts is no limit. Default: the same as for limits.",
        secret=True,
    )
    cache_redis_credentials_file: Path | None = _value(
        None,
        "an existing file",
        "Like `LLM_GATEWAY_REDIS_CREDENTIALS_FILE`, for the Redis of `LLM_GATEWAY_CACHE_REDIS_URL`.",
    )
    cache_redis_ca_file: Path | None = _value(
        None,
        "an existing file",
        "PEM file with the certificate authorities of that Redis. Default: those of the Redis for limits.",
    )
    cache_redis_deadline_s: Duration = _seconds(
        0.05, 0.005, 5, "Time for the Redis of the cache to answer; after it a call is made as if nothing was kept."
    )
    cache_local_s: Duration = _seconds(
        1,
        0,
        60,
        "How long a worker answers with what it found in Redis without looking again; also how long a purge, or a newer"
        " answer of another worker, may go unnoticed. 0: it always looks.",
    )
    cache_max_local_bytes: Size = _bytes(
        32 * 2**20,
        65536,
        2**34,
        "What a worker holds of kept answers that it found a moment ago, and of the requests that found them.",
    )
    cache_max_entry_bytes: Size = _bytes(
        4 * 2**20, 1024, 2**26, "Largest answer that is kept, before it is compressed, whatever a scenario says."
    )
    cache_max_flight_bytes: Size = _bytes(
        8 * 2**20,
        65536,
        2**28,
        "Largest answer that is shared while it comes: beyond it nobody joins, and other processes are cut off.",
    )
    cache_max_flights_bytes: Size = _bytes(
        256 * 2**20, 2**20, 2**36, "What a worker holds of all shared answers; beyond it further calls are not shared."
    )
    cache_max_followed: int = _count(
        500, 0, 100000, "calls", "Calls of other processes that a worker follows at once; beyond it it makes its own."
    )
    cache_max_bucket_vectors: int = _count(
        1000,
        10,
        100000,
        "vectors",
        "Questions that differ in nothing but their text and are compared with a new one; older ones are given up.",
    )
    cache_max_tenant_vectors: int = _count(
        10000, 10, 10000000, "vectors", "What a worker holds of all questions of a tenant, 4 bytes per dimension each."
    )
    cache_lease_s: Duration = _seconds(
        3, 0.5, 60, "How long a shared call outlives the process that made it, before another one is made."
    )
    cache_poll_s: Duration = _seconds(
        0.02, 0.005, 1, "Longest time between two looks at what another process says of a shared call."
    )

    # Files and batches
    max_upload_bytes: Size = _bytes(
        100 * 2**20,
        1024,
        2**34,
        "Largest form with a file, such as audio; it is passed on as it comes, each piece within the body's timeout.",
    )
    upload_held_bytes: Size = _bytes(
        2**20,
        4096,
        2**26,
        "How much of such a form is held at most: its field `model` has to be within it, and until it is exceeded"
        " another backend may be tried.",
    )
    max_batch_items: int = _count(
        10_000,
        1,
        1_000_000,
        "items",
        "Most inputs of embeddings, or documents of rerank, in a request to a backend with a `batch`, which is split.",
    )
