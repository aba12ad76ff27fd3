"""Which limits bind a call."""

from __future__ import annotations

from gateway.limits.binding import Bindings, key_limits, tenant_limits
from gateway.model import ApiKey, Principal, Scenario, Tenant
from tests.unit.limits.values import CHAT, Counts, a_limit, principal

OTHER = Scenario(name="other")


def test_nothing_limits_a_caller_without_limits() -> None:
    """And no call looks any further."""
    assert Bindings(Counts()).find(principal(), CHAT) is None


def test_limits_of_tenant_and_key_with_different_names_in_the_levels() -> None:
    """The same name may be used by both, and by several keys."""
    limit = a_limit("requests", "minute", 5)
    tenant, key = Tenant(name="acme", scenarios={}, limits=(limit,)), ApiKey(name="ci", limits=(limit,))
    assert [each.id for each in tenant_limits(tenant)] == ["t:requests-minute"]
    assert [each.id for each in key_limits(key)] == ["k:ci:requests-minute"]
    bound = Bindings(Counts()).find(Principal(tenant=tenant, key=key), CHAT)
    assert bound is not None
    assert [each.id for each in bound.limits] == ["t:requests-minute", "k:ci:requests-minute"]
    assert bound.seen_keys[1] == ("acme", "k:ci:requests-minute")


def test_a_limit_that_names_a_scenario_binds_its_calls_only() -> None:
    """Where nothing else is there, other calls are free."""
    caller = principal(a_limit("requests", "minute", 5, scenario="chat"))
    bindings = Bindings(Counts())
    assert bindings.find(caller, CHAT) is not None
    assert bindings.find(caller, OTHER) is None


def test_it_is_found_once_and_again_after_a_reload() -> None:
    """The same limits are the same object; others, even equal ones of a new load, are not taken from before."""
    caller, bindings = principal(("requests", "minute", 5)), Bindings(Counts())
    first = bindings.find(caller, CHAT)
    assert bindings.find(caller, CHAT) is first
    reloaded = bindings.find(principal(("requests", "minute", 6)), CHAT)
    assert reloaded is not first
    assert reloaded is not None
    assert reloaded.limits[0].limit.amount == 6


def test_what_follows_from_the_limits() -> None:
    """Shadow limits neither drop backends nor lower output nor show in headers."""
    bindings = Bindings(Counts())
    shadow = bindings.find(principal(("cost", "month", 5, "shadow"), ("requests", "day", 5, "shadow")), CHAT)
    assert shadow is not None
    assert (shadow.needs_price, shadow.bounds_output, shadow.shown) == (False, False, ())
    real = bindings.find(principal(("cost", "month", 5), ("concurrency", None, 2), ("requests", "day", 5)), CHAT)
    assert real is not None
    assert (real.needs_price, real.bounds_output, real.shown) == (True, True, (("requests", (2,)),))
    assert [each.limit.unit for each in real.slots] == ["concurrency"]


def test_those_of_one_unit() -> None:
    """For a call that only asks something; they are found beside all of them, not instead."""
    caller, bindings = principal(("cost", "month", 5), ("requests", "minute", 5)), Bindings(Counts())
    everything, requests = bindings.find(caller, CHAT), bindings.find(caller, CHAT, "requests")
    assert everything is not None
    assert requests is not None
    assert [each.limit.unit for each in everything.limits] == ["cost", "requests"]
    assert [each.limit.unit for each in requests.limits] == ["requests"]
    assert bindings.find(caller, CHAT) is everything
    assert bindings.find(principal(("cost", "month", 5)), CHAT, "requests") is None
