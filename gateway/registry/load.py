"""One load of the registry: from a folder, and the load before, to a snapshot and everything that is wrong.

Each object stands alone: a bad one is refused with file, field and reason while its last good version keeps serving
(``stale``), brought up to date with the objects that it refers to. A deleted object is gone. Whatever is the same as
in the load before is the same Python object, so that pools and metrics keyed by it live on. Nothing here is mutated
after it is returned; nothing here watches (see ``folder``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from msgspec.structs import replace

from gateway.model import Backend, Frozen, Issuer, KeyEntry, Problem, Prompt, Scenario, Snapshot, Tenant
from gateway.registry.accounts import ApiKeyDocument, PromptDocument, TenantDocument
from gateway.registry.claims import Claims, claims, parse_folder
from gateway.registry.compile import CompiledKey, compile_backend, compile_key, compile_prompt, compile_tenant
from gateway.registry.compile_auth import SecretSource
from gateway.registry.compile_scenario import compile_scenario, refresh_scenario
from gateway.registry.documents import BackendDocument, FieldErrors, Kind, ScenarioDocument
from gateway.registry.files import list_folder
from gateway.registry.issuers import Claim, index_issuers
from gateway.registry.parse import KINDS, AnyDocument, Candidate, ObjectId, ParsedFile
from gateway.registry.scope import Scope, suggestion
from gateway.registry.visibility import Offer, Visibility
from gateway.registry.warnings import warnings_of

Compiled = Backend | Prompt | Scenario | Tenant | CompiledKey

STATES = ("live", "stale", "refused")


class Live(Frozen, frozen=True):
    """An object that serves: the candidate that it was compiled from, and whether that is an older one (stale)."""

    candidate: Candidate
    value: Compiled
    created: int  # Unix seconds of the first load that saw it good
    stale: bool


class LoadState(Frozen, frozen=True):
    """What the next load needs to know of this one."""

    files: Mapping[str, ParsedFile]
    live: Mapping[ObjectId, Live]
    snapshot: Snapshot
    resources: frozenset[ObjectId] = frozenset()  # of the cluster

    def prompts(self) -> dict[str, PromptDocument]:
        """Return the prompts that serve, by name."""
        documents = [item.candidate.document for item in self.live.values()]
        return {one.metadata.name: one for one in documents if isinstance(one, PromptDocument)}

    def holds(self, kind: Kind, name: str) -> bool:
        """Tell whether some file or resource claims to be this object, right or wrong."""
        return ObjectId(kind, name) in self.resources or any(
            ObjectId(kind, name) in file.held for file in self.files.values()
        )


class LoadResult(Frozen, frozen=True):
    """A load: what serves from now on, what is wrong, and what an operator should know although it is not wrong."""

    snapshot: Snapshot
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    state: LoadState


EMPTY_SNAPSHOT = Snapshot(
    generation=0,
    hash="",
    loaded_at=0.0,
    keys=MappingProxyType({}),
    tenants=MappingProxyType({}),
    scenarios=MappingProxyType({}),
    backends=MappingProxyType({}),
    object_counts=MappingProxyType({}),
)
NOTHING_LOADED = LoadState(files={}, live={}, snapshot=EMPTY_SNAPSHOT)


def load_folder(
    folder: Path,
    secrets: SecretSource,
    previous: LoadState | None,
    now: float,
    routing_headers: frozenset[str] | None = None,
) -> LoadResult:
    """Load the registry from a folder; ``now`` is Unix seconds. Never raises for what the folder holds.

    ``routing_headers`` are those that conditions of targets may look at; None lets any pass, for a look from afar.

    ``previous`` is the state of the load before, None for the first. When nothing changed the snapshot is the very
    same object; otherwise its generation is one higher.
    """
    before = previous or NOTHING_LOADED
    listing = list_folder(folder)
    files = parse_folder(folder, listing, before.files, now)
    return _loaded(_Load(claims(folder, listing, files), before, secrets, int(now), routing_headers), files, now)


def load_claims(
    claimed: Claims,
    secrets: SecretSource,
    previous: LoadState | None,
    now: float,
    routing_headers: frozenset[str] | None = None,
) -> LoadResult:
    """Load what another source than a folder claims to hold; otherwise as ``load_folder``."""
    result = _loaded(_Load(claimed, previous or NOTHING_LOADED, secrets, int(now), routing_headers), {}, now)
    return replace(result, state=replace(result.state, resources=frozenset(claimed.winners)))


def _loaded(load: _Load, files: Mapping[str, ParsedFile], now: float) -> LoadResult:
    load.run()
    snapshot = load.snapshot(now)
    return LoadResult(
        snapshot=snapshot,
        problems=tuple(sorted(load.problems, key=lambda problem: (problem.source, problem.object, problem.field))),
        warnings=tuple(warnings_of(_served(load.live))),
        state=LoadState(files=files, live=load.live, snapshot=snapshot),
    )


def _served(live: Mapping[ObjectId, Live]) -> dict[ObjectId, Candidate]:
    return {object_id: item.candidate for object_id, item in live.items()}


class _Load:
    """The work of one load, kind by kind in the order of reference."""

    def __init__(
        self,
        claimed: Claims,
        before: LoadState,
        secrets: SecretSource,
        now: int,
        routing_headers: frozenset[str] | None,
    ) -> None:
        self._claimed = claimed
        self._before = before
        self._secrets = secrets
        self._now = now
        self._backends: dict[str, Backend] = {}
        self._prompts: dict[str, Prompt] = {}
        self._scenarios: dict[str, Scenario] = {}
        self._tenants: dict[str, Tenant] = {}
        self._scope = Scope(
            backends=self._backends,
            prompts=self._prompts,
            scenarios=self._scenarios,
            tenants=self._tenants,
            tenant_names=self._tenant_names(),
            why_missing=self._why_missing,
            visible=self._visible,
            asks_for=self._asks_for,
            routing_headers=routing_headers,
        )
        self._visibility = Visibility(())
        self.problems: list[Problem] = list(claimed.problems)
        self.live: dict[ObjectId, Live] = {}

    def run(self) -> None:
        """Compile everything; afterwards ``live`` and ``problems`` are complete."""
        present = sorted({*self._claimed.winners, *self._claimed.retained}, key=lambda object_id: object_id.name)
        for kind in KINDS:
            if kind == "Tenant":
                self._visibility = Visibility(list(self._offers()))
            for object_id in present:
                if object_id.kind == kind:
                    self._settle(object_id)
        self.problems += self._visibility.problems.values()

    def snapshot(self, now: float) -> Snapshot:
        """Return the snapshot of what is live, or the one before when that is the same."""
        before = self._before.snapshot
        fresh = Snapshot(
            generation=before.generation + 1,
            hash=_content_hash(self.live),
            loaded_at=now,
            keys=MappingProxyType(self._keys(before.keys)),
            tenants=MappingProxyType(self._tenants),
            scenarios=MappingProxyType(self._scenarios),
            backends=MappingProxyType(self._backends),
            object_counts=MappingProxyType(self._counts()),
            issuers=MappingProxyType(self._issuers(before.issuers)),
        )
        unchanged = all(
            getattr(fresh, field) == getattr(before, field)
            for field in Snapshot.__struct_fields__
            if field not in ("generation", "loaded_at")
        )
        return before if unchanged else fresh

    def _settle(self, object_id: ObjectId) -> None:
        """Decide what serves for one object: its candidate, its last good version, or nothing."""
        candidate = self._claimed.winners.get(object_id)
        before = self._before.live.get(object_id)
        if candidate is not None and before is not None and candidate.uid != before.candidate.uid:
            before = None  # deleted and made anew: nothing of the one before is left
        if candidate is not None:
            self.problems += candidate.problems
            if candidate.document is not None:
                created = self._created(candidate, before)
                try:
                    value = self._compile(candidate.document, created)
                    _refuse_change(before, value)
                except FieldErrors as error:
                    self._refuse(candidate, error)
                else:
                    self._keep(object_id, Live(candidate=candidate, value=value, created=created, stale=False))
                    return
            else:
                self._refuse(candidate, FieldErrors(*self._missing(candidate)))
        if before is not None:
            value_now = self._last_good(before)
            if value_now is not None:
                kept = Live(candidate=before.candidate, value=value_now, created=before.created, stale=True)
                self._keep(object_id, kept)

    def _created(self, candidate: Candidate, before: Live | None) -> int:
        """Return the age by which claims are decided: as the source says, else the first load that saw it good."""
        if candidate.created is not None:
            return candidate.created
        return before.created if before else self._now

    def _missing(self, candidate: Candidate) -> Iterator[tuple[str, str]]:
        """Yield the references of a document that is wrong on its own that would not resolve either."""
        wrong = {problem.field for problem in candidate.problems}
        known: Mapping[Kind, Container[str]] = {
            "Backend": self._backends,
            "Prompt": self._prompts,
            "Scenario": self._scenarios,
            "Tenant": self._scope.tenant_names if candidate.id.kind == "Scenario" else self._tenants,
        }
        for field, kind, name in candidate.references:
            if name not in known[kind] and field not in wrong:
                yield field, self._why_missing(kind, name)

    def _refuse(self, candidate: Candidate, error: FieldErrors) -> None:
        for field, reason in error.errors:
            self.problems.append(Problem(source=candidate.source, object=str(candidate.id), field=field, reason=reason))

    def _last_good(self, before: Live) -> Compiled | None:
        """Return the last good version as of now; None for a key whose tenant is gone."""
        document = before.candidate.document
        assert document is not None
        try:
            return self._compile(document, before.created)
        except FieldErrors:
            pass
        if isinstance(before.value, Scenario):
            return refresh_scenario(before.value, self._scope)
        if isinstance(document, TenantDocument):
            return compile_tenant(document, self._scope, lenient=True)
        if isinstance(document, ApiKeyDocument):
            try:
                return compile_key(document, self._scope, lenient=True)
            except FieldErrors:
                return None
        return before.value

    def _compile(self, document: AnyDocument, created: int) -> Compiled:
        match document:
            case BackendDocument():
                return compile_backend(document, self._secrets)
            case PromptDocument():
                return compile_prompt(document)
            case ScenarioDocument():
                return compile_scenario(document, self._scope, created)
            case TenantDocument():
                return compile_tenant(document, self._scope)
            case ApiKeyDocument():
                return compile_key(document, self._scope)

    def _keep(self, object_id: ObjectId, item: Live) -> None:
        """Put an object to service; a value equal to the one before is the one before."""
        before = self._before.live.get(object_id)
        value = before.value if before is not None and before.value == item.value else item.value
        self.live[object_id] = Live(candidate=item.candidate, value=value, created=item.created, stale=item.stale)
        match value:
            case Backend():
                self._backends[object_id.name] = value
            case Prompt():
                self._prompts[object_id.name] = value
            case Scenario():
                self._scenarios[object_id.name] = value
            case Tenant():
                self._tenants[object_id.name] = value
            case CompiledKey():
                pass

    def _visible(self, tenant: str, asked: Iterable[str]) -> Mapping[str, Scenario]:
        return self._visibility.names(tenant, asked)

    def _offers(self) -> Iterator[Offer]:
        """Yield the scenarios that serve, oldest first; in one load, in the order of their files."""
        for item in self._oldest_first("Scenario"):
            document = item.candidate.document
            if isinstance(item.value, Scenario) and isinstance(document, ScenarioDocument):
                tenants = frozenset(document.spec.access.tenants)
                yield Offer(scenario=item.value, tenants=tenants, source=item.candidate.source)

    def _oldest_first(self, kind: Kind) -> list[Live]:
        items = (item for object_id, item in self.live.items() if object_id.kind == kind)
        return sorted(items, key=lambda item: (item.created, item.candidate.position))

    def _keys(self, before: Mapping[bytes, KeyEntry]) -> dict[bytes, KeyEntry]:
        """Return what each digest opens; of two keys with one digest the older has it."""
        keys: dict[bytes, KeyEntry] = {}
        owners: dict[bytes, Candidate] = {}
        for item in self._oldest_first("ApiKey"):
            if not isinstance(item.value, CompiledKey):
                continue
            for index, (digest, expires_at) in enumerate(item.value.expiries):
                owner = owners.setdefault(digest, item.candidate)
                if owner is not item.candidate:
                    reason = f"is also a digest of {owner.id} ({owner.source}), and stays with it"
                    self._refuse(item.candidate, FieldErrors((f"spec.digests[{index}].sha256", reason)))
                    continue
                entry = KeyEntry(principal=item.value.principal, expires_at=expires_at)
                last = before.get(digest)
                keys[digest] = last if last is not None and last == entry else entry
        return keys

    def _issuers(self, before: Mapping[str, Issuer]) -> dict[str, Issuer]:
        """Return whom tokens speak for; what names two tenants stays with the older."""
        claimed = [
            Claim(tenant=item.value, owner=item.candidate)
            for item in self._oldest_first("Tenant")
            if isinstance(item.value, Tenant)
        ]
        issuers, clashes = index_issuers(claimed)
        for clash, owner in clashes:
            reason = f"is also how a JWT names {owner.id} ({owner.source}), and stays with it"
            self._refuse(clash, FieldErrors(("spec.oidc.value", reason)))
        return {name: before[name] if before.get(name) == issuer else issuer for name, issuer in issuers.items()}

    def _counts(self) -> dict[tuple[str, str], int]:
        counts = {(kind, state): 0 for kind in KINDS for state in STATES}
        for object_id, item in self.live.items():
            counts[object_id.kind, "stale" if item.stale else "live"] += 1
        for object_id in self._claimed.winners.keys() - self.live.keys():
            counts[object_id.kind, "refused"] += 1
        for duplicate in self._claimed.duplicates:
            counts[duplicate.id.kind, "refused"] += 1
        return {(str(kind), state): count for (kind, state), count in counts.items()}

    def _tenant_names(self) -> frozenset[str]:
        """Return the tenants that are there and right on their own, or served before."""
        winners = self._claimed.winners
        served = self._before.live
        present = {key for key, candidate in winners.items() if candidate.document is not None or key in served}
        present |= self._claimed.retained & served.keys()
        return frozenset(object_id.name for object_id in present if object_id.kind == "Tenant")

    def _asks_for(self, tenant: str, scenario: str) -> bool:
        """Tell whether a tenant's own list allows a scenario; what is not known of it is no objection."""
        object_id = ObjectId("Tenant", tenant)
        candidate, before = self._claimed.winners.get(object_id), self._before.live.get(object_id)
        if candidate is None or candidate.document is None:
            candidate = None if before is None else before.candidate
        document = None if candidate is None else candidate.document
        return not isinstance(document, TenantDocument) or not {"*", scenario}.isdisjoint(document.spec.scenarios)

    def _why_missing(self, kind: Kind, name: str) -> str:
        if ObjectId(kind, name) in self._claimed.winners:
            return f"{kind} `{name}` is itself refused"
        for scenario in self._scenarios.values():
            if kind == "Scenario" and name in scenario.aliases:
                return f"`{name}` is an alias; write the name, `{scenario.name}`"
        known = [object_id.name for object_id in self._claimed.winners if object_id.kind == kind]
        return f"there is no {kind} `{name}`" + suggestion(name, known)


def _refuse_change(before: Live | None, value: Compiled) -> None:
    """Raises FieldErrors for a prompt that says something else than the version of this name that serves."""
    last = before.value if before is not None else None
    if isinstance(value, Prompt) and isinstance(last, Prompt) and value.parts != last.parts:
        raise FieldErrors(("", "a version of a prompt never changes, and another text of it serves: add a version"))


def _content_hash(live: Mapping[ObjectId, Live]) -> str:
    digest = hashlib.sha256()
    for object_id in sorted(live):
        digest.update(f"{object_id}\n".encode())
        digest.update(live[object_id].candidate.content)
    return digest.hexdigest()
