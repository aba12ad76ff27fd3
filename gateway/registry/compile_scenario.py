"""From the document of a scenario to its values: the base, and the canary and shadow that its overrides make of it.

Pure. Each variant is a whole ``model.Scenario`` of the same name, so that whatever comes after the choice of one just
sees a scenario.
"""

from __future__ import annotations

import hashlib

import msgspec

from gateway import model
from gateway.registry.compile import compile_answer, compile_cache, compile_parameters
from gateway.registry.documents import Override, ScenarioDocument, ScenarioSpec, When
from gateway.registry.scope import References, Scope


def compile_scenario(document: ScenarioDocument, scope: Scope, created: int) -> model.Scenario:
    """Compile a scenario with its backends and prompt; raises FieldErrors naming every reference that is missing."""
    spec, errors = document.spec, References(scope)
    errors.need_parts("spec", spec, document)
    for name, variant in (("canary", spec.canary), ("shadow", spec.shadow)):
        if variant is not None:
            errors.need_parts(f"spec.{name}.override", variant.override, document)
    if spec.cache.embeddings is not None:
        _check_embeddings(spec.cache.embeddings.backend, scope, errors)
    for index, name in enumerate(spec.access.tenants):
        errors.need(name == "*" or name in scope.tenant_names, f"spec.access.tenants[{index}]", "Tenant", name)
    if document.metadata.name in spec.aliases:
        errors.add(f"spec.aliases[{spec.aliases.index(document.metadata.name)}]", "is the scenario's own name")
    errors.finish()
    base = model.Scenario(
        name=document.metadata.name,
        description=spec.description,
        aliases=tuple(spec.aliases),
        prompt_placement=spec.prompt_placement,
        answer=compile_answer(spec.answer, document.metadata.name),
        cache=compile_cache(spec.cache, scope),
        disabled=spec.disabled,
        created=created,
        unmatched=spec.unmatched,
        lenient=spec.lenient,
    )
    return _with_variants(_with_parts(base, spec, scope), document, scope)


def _check_embeddings(name: str, scope: Scope, errors: References) -> None:
    field = "spec.cache.embeddings.backend"
    errors.need(name in scope.backends, field, "Backend", name)
    if name in scope.backends and scope.backends[name].provider != "openai":
        errors.add(field, f"the Backend {name} has no embeddings: its provider must be openai")
    elif name in scope.backends and scope.backends[name].credential is not None:
        errors.add(field, f"the Backend {name} cannot be asked for embeddings: its auth has to be a header")


def _with_parts(scenario: model.Scenario, parts: ScenarioSpec | Override, scope: Scope) -> model.Scenario:
    """The scenario with what ``parts`` gives of prompt, parameters, targets and fallbacks, each whole."""
    given: dict[str, object] = {}
    if parts.prompt is not None:
        given["prompt"] = scope.prompts[parts.prompt]
    if parts.parameters is not None:
        given["parameters"] = compile_parameters(parts.parameters)
    if parts.targets is not None:
        given["targets"] = tuple(
            model.Target(backend=scope.backends[each.backend], weight=each.weight, when=_condition(each.when))
            for each in parts.targets
        )
        given["conditional"] = any(each.when is not None for each in parts.targets)
    if parts.fallbacks is not None:
        given["fallbacks"] = tuple(scope.backends[name] for name in parts.fallbacks)
    return msgspec.structs.replace(scenario, **given)


def _with_variants(base: model.Scenario, document: ScenarioDocument, scope: Scope) -> model.Scenario:
    """The base with its variants; a canary has the shadow, too."""
    canary, shadow = document.spec.canary, document.spec.shadow
    if shadow is not None:
        variant = msgspec.structs.replace(_with_parts(base, shadow.override, scope), variant="shadow")
        base = msgspec.structs.replace(base, shadow=model.Shadow(scenario=variant, percent=shadow.percent))
    if canary is None:
        return base
    abort = canary.abort
    compiled = model.Canary(
        scenario=msgspec.structs.replace(_with_parts(base, canary.override, scope), variant="canary"),
        percent=canary.percent,
        rollout=_rollout_id(document),
        sticky=canary.sticky,
        abort=None
        if abort is None
        else model.Abort(
            error_ratio=abort.error_ratio,
            first_token_p95_s=abort.first_token_p95,
            min_requests=abort.min_requests,
        ),
    )
    return msgspec.structs.replace(base, canary=compiled)


def _rollout_id(document: ScenarioDocument) -> str:
    """A name for what the spec says: the same in every process, another one after any change."""
    spec = document.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
    content = msgspec.json.encode([document.metadata.name, spec], order="sorted")
    return hashlib.sha256(content).hexdigest()[:16]


def _condition(when: When | None) -> model.Condition | None:
    if when is None:
        return None
    size = when.request_bytes
    return model.Condition(
        tenants=None if when.tenants is None else frozenset(when.tenants),
        keys=None if when.keys is None else frozenset(when.keys),
        min_bytes=0 if size is None else size.min,
        max_bytes=None if size is None else size.max,
        tools=when.tools,
        images=when.images,
        headers=tuple((name, frozenset(allowed)) for name, allowed in sorted(when.headers.items())),
    )


def refresh_scenario(scenario: model.Scenario, scope: Scope) -> model.Scenario:
    """Return the last good scenario with those of its parts that still serve brought up to date.

    For a scenario whose own document no longer resolves: what is gone stays as it was when the scenario was good.
    """
    canary, shadow, replace = scenario.canary, scenario.shadow, msgspec.structs.replace
    return replace(
        scenario,
        prompt=scope.prompts.get(scenario.prompt.name, scenario.prompt) if scenario.prompt else None,
        targets=tuple(
            replace(target, backend=scope.backends.get(target.backend.name, target.backend))
            for target in scenario.targets
        ),
        fallbacks=tuple(scope.backends.get(backend.name, backend) for backend in scenario.fallbacks),
        canary=canary and replace(canary, scenario=refresh_scenario(canary.scenario, scope)),
        shadow=shadow and replace(shadow, scenario=refresh_scenario(shadow.scenario, scope)),
        cache=_refreshed(scenario.cache, scope),
    )


def _refreshed(cache: model.CachePolicy | None, scope: Scope) -> model.CachePolicy | None:
    if cache is None or cache.similar is None:
        return cache
    backend = scope.backends.get(cache.similar.backend.name, cache.similar.backend)
    return msgspec.structs.replace(cache, similar=msgspec.structs.replace(cache.similar, backend=backend))
