"""The index of token issuers: whom a token may speak for, across loads."""

from __future__ import annotations

from typing import Any

from tests.unit.registry.folders import Document, Folder, backend, scenario, tenant

FIRST, SECOND = "https://idp.example", "https://login.example/acme/"


def of(name: str, *, issuer: str = FIRST, value: str = "", **more: Any) -> Document:
    """A tenant that tokens may speak for; ``more`` goes into its oidc."""
    oidc = {"issuer": issuer, "audience": "llm", "claim": "tenant", "value": value or name} | more
    return tenant(name, oidc=oidc)


def test_tenants_are_found_by_issuer_audience_claim_and_value(folder: Folder) -> None:
    """Exactly as written, the slash at an issuer's end included; the caller is the very tenant of the snapshot."""
    folder.write("x.yaml", backend(), scenario(), tenant("keyed"))
    folder.write("t.yaml", of("acme"), of("beta"), of("ops", claim="groups", value="llm-ops"), of("far", issuer=SECOND))
    snapshot = folder.good()
    assert set(snapshot.issuers) == {FIRST, SECOND}
    first = snapshot.issuers[FIRST]
    assert set(first.grants) == {("llm", "tenant"), ("llm", "groups")}
    assert len(first.grants) == 2
    found = {grant: principal.tenant.name for grant, principal in first.principals.items()}
    assert found == {
        ("llm", "tenant", "acme"): "acme",
        ("llm", "tenant", "beta"): "beta",
        ("llm", "groups", "llm-ops"): "ops",
    }
    principal = first.principals["llm", "tenant", "acme"]
    assert principal.tenant is snapshot.tenants["acme"]
    assert (principal.key.name, principal.key.scenarios, principal.key.limits) == ("oidc", None, ())


def test_what_names_two_tenants_stays_with_the_older(folder: Folder) -> None:
    """The newer one serves, by its keys, and is told of; it takes over when the older one lets go."""
    folder.write("x.yaml", backend(), scenario(), of("zulu", value="same"))
    folder.good()
    folder.write("a.yaml", of("alpha", value="same"))
    result = folder.load()
    (problem,) = result.problems
    assert problem.object == "Tenant/alpha"
    assert problem.field == "spec.oidc.value"
    assert problem.reason.startswith("is also how a JWT names Tenant/zulu (")
    assert problem.reason.endswith("x.yaml), and stays with it")
    grant = ("llm", "tenant", "same")
    assert result.snapshot.issuers[FIRST].principals[grant].tenant.name == "zulu"
    assert set(result.snapshot.tenants) == {"alpha", "zulu"}
    folder.write("x.yaml", backend(), scenario(), of("zulu"))
    assert folder.good().issuers[FIRST].principals[grant].tenant.name == "alpha"


def test_the_same_value_elsewhere_is_another(folder: Folder) -> None:
    """Of another issuer, for another audience or in another claim."""
    folder.write("x.yaml", backend(), scenario())
    same = {"value": "same"}
    folder.write(
        "t.yaml",
        of("a", **same),
        of("b", **same, issuer=SECOND),
        of("c", **same, audience="other"),
        of("d", **same, claim="org"),
    )
    issuers = folder.good().issuers
    assert [len(issuers[name].principals) for name in (FIRST, SECOND)] == [3, 1]


def test_an_unchanged_issuer_stays_the_same_object(folder: Folder) -> None:
    """And a tenant that goes, or loses its oidc, takes its part of the index with it."""
    folder.write("x.yaml", backend(), scenario())
    folder.write("a.yaml", of("acme"))
    folder.write("b.yaml", of("beta", issuer=SECOND))
    before = folder.good()
    folder.write("b.yaml", tenant("beta"))
    after = folder.good()
    assert after.issuers[FIRST] is before.issuers[FIRST]
    assert set(after.issuers) == {FIRST}
    folder.remove("a.yaml")
    assert folder.good().issuers == {}


def test_a_tenant_that_went_bad_keeps_its_tokens(folder: Folder) -> None:
    """Its last good version serves, as with everything else; a disabled one is found, and refused at the door."""
    folder.write("x.yaml", backend(), scenario())
    folder.write("a.yaml", of("acme"))
    folder.good()
    folder.write("a.yaml", tenant("acme", oidc={"issuer": FIRST}))
    result = folder.load()
    assert result.problems
    assert result.snapshot.issuers[FIRST].principals["llm", "tenant", "acme"].tenant.name == "acme"
    folder.write("a.yaml", tenant("acme", disabled=True, oidc=of("acme")["spec"]["oidc"]))
    assert folder.good().issuers[FIRST].principals["llm", "tenant", "acme"].tenant.disabled
