"""Names and aliases: what each tenant may ask for, and who wins a name that two scenarios claim."""

from __future__ import annotations

import pytest

from gateway.errors import ModelNotFound
from gateway.model import ApiKey, Principal
from gateway.registry import resolve, usable_names
from tests.unit.registry.folders import Folder, backend, scenario, tenant


def test_the_first_in_path_order_keeps_an_alias_within_one_load(folder: Folder) -> None:
    """Two claims that appear together are decided by path and name; the loser names alias, winner and file."""
    folder.write("base.yaml", backend(), tenant())
    folder.write("s2.yaml", scenario("aaa", aliases=["own", "gpt-4o"]))
    folder.write("s1.yaml", scenario("zzz", aliases=["gpt-4o"]))
    result = folder.load()
    (problem,) = result.problems
    assert (folder.below(problem), problem.object, problem.field) == ("s2.yaml", "Scenario/aaa", "spec.aliases[1]")
    assert "`gpt-4o` is an alias of Scenario/zzz" in problem.reason
    assert str(folder.path / "s1.yaml") in problem.reason
    names = {name: item.name for name, item in result.snapshot.tenants["acme"].scenarios.items()}
    assert names == {"aaa": "aaa", "zzz": "zzz", "own": "aaa", "gpt-4o": "zzz"}


def test_the_older_scenario_keeps_its_alias(folder: Folder) -> None:
    """A new scenario does not take an alias that serves, wherever its file sorts; it gets it when that is gone."""
    folder.write("base.yaml", backend(), tenant())
    folder.write("s5.yaml", scenario("old", aliases=["gpt-4o"]))
    folder.good()
    folder.write("s1.yaml", scenario("new", aliases=["gpt-4o"]))
    result = folder.load()
    assert [(problem.object, problem.field) for problem in result.problems] == [("Scenario/new", "spec.aliases[0]")]
    assert result.snapshot.tenants["acme"].scenarios["gpt-4o"].name == "old"
    folder.write("s5.yaml", scenario("old"))
    assert folder.good().tenants["acme"].scenarios["gpt-4o"].name == "new"


def test_a_name_wins_over_an_older_alias(folder: Folder) -> None:
    """A scenario is reached by its own name, whoever claimed that as an alias before."""
    folder.write("base.yaml", backend(), tenant())
    folder.write("a.yaml", scenario("first", aliases=["chat"]))
    folder.good()
    folder.write("b.yaml", scenario("chat"))
    result = folder.load()
    (problem,) = result.problems
    assert (problem.object, problem.field) == ("Scenario/first", "spec.aliases[0]")
    assert "`chat` is the name of Scenario/chat" in problem.reason
    assert result.snapshot.tenants["acme"].scenarios["chat"].name == "chat"


def test_an_alias_is_unique_among_what_one_tenant_may_use(folder: Folder) -> None:
    """Two tenants may mean different scenarios by one alias; that is no problem."""
    folder.write("base.yaml", backend(), tenant("a"), tenant("b"), tenant("c", scenarios=["two"]))
    folder.write("one.yaml", scenario("one", aliases=["gpt-4o"], access={"tenants": ["a"]}))
    folder.write("two.yaml", scenario("two", aliases=["gpt-4o"], access={"tenants": ["b", "c"]}))
    tenants = folder.good().tenants
    assert [tenants[name].scenarios["gpt-4o"].name for name in "abc"] == ["one", "two", "two"]
    folder.write("tenant.yaml", tenant("d"))
    folder.write("two.yaml", scenario("two", aliases=["gpt-4o"], access={"tenants": ["*"]}))
    assert [problem.object for problem in folder.load().problems] == ["Scenario/two"]


def test_a_conflict_is_one_problem_however_many_see_it(folder: Folder) -> None:
    """A thousand tenants with one conflict are one problem."""
    folder.write("base.yaml", backend(), *(tenant(f"t{number}") for number in range(20)))
    folder.write("s.yaml", scenario("one", aliases=["x"]), scenario("two", aliases=["x"]))
    assert len(folder.load().problems) == 1


def test_an_alias_that_is_the_own_name_is_refused(folder: Folder) -> None:
    """An alias that says nothing new is a mistake."""
    folder.write("s.yaml", backend(), scenario("chat", aliases=["a", "chat"]))
    problem = folder.problem()
    assert (problem.object, problem.field) == ("Scenario/chat", "spec.aliases[1]")


def test_tenants_with_equal_views_share_them(folder: Folder) -> None:
    """A thousand tenants with the same scenarios hold one mapping."""
    folder.write("base.yaml", backend(), scenario(), tenant("a"), tenant("b"))
    tenants = folder.good().tenants
    assert tenants["a"].scenarios is tenants["b"].scenarios


def principal(folder: Folder, scenarios: frozenset[str] | None) -> Principal:
    """Return a caller of tenant acme whose key is narrowed."""
    return Principal(tenant=folder.good().tenants["acme"], key=ApiKey(name="k", scenarios=scenarios))


def test_resolve_finds_names_and_aliases(folder: Folder) -> None:
    """A caller reaches a scenario by name and alias, within what the key allows."""
    folder.write("x.yaml", backend(), tenant(), scenario("chat", aliases=["gpt-4o"]), scenario("other"))
    caller = principal(folder, None)
    assert resolve(caller, "gpt-4o") is resolve(caller, "chat")
    assert list(usable_names(caller)) == ["chat", "gpt-4o", "other"]
    narrowed = principal(folder, frozenset({"chat"}))
    assert resolve(narrowed, "gpt-4o").name == "chat"
    assert list(usable_names(narrowed)) == ["chat", "gpt-4o"]
    with pytest.raises(ModelNotFound):
        resolve(narrowed, "other")


@pytest.mark.parametrize("name", ["nope", "off", "closed", ""])
def test_resolve_refuses_alike(folder: Folder, name: str) -> None:
    """What does not exist, is disabled, or is for others gets one answer."""
    folder.write("x.yaml", backend(), tenant(), tenant("other"))
    folder.write("s.yaml", scenario("off", disabled=True), scenario("closed", access={"tenants": ["other"]}))
    caller = principal(folder, None)
    with pytest.raises(ModelNotFound) as caught:
        resolve(caller, name)
    assert caught.value.message == f"The model `{name}` does not exist or you do not have access to it."
    assert name not in usable_names(caller)
