"""One load after another: what goes live, what stays, what heals, what goes."""

from __future__ import annotations

import json

import pytest

from gateway.model import Snapshot
from tests.unit.registry.folders import (
    DIGEST,
    Folder,
    api_key,
    backend,
    backend_names,
    prompt,
    scenario,
    tenant,
)

KEY = bytes.fromhex(DIGEST)


def start(folder: Folder) -> Snapshot:
    """Write one good object of each kind, a file each, and load them."""
    folder.write("backend.yaml", backend())
    folder.write("prompt.yaml", prompt())
    folder.write("scenario.yaml", scenario(prompt="support.v2", aliases=["gpt-4o"]))
    folder.write("tenant.yaml", tenant())
    folder.write("key.yaml", api_key())
    return folder.good()


def test_nothing_changed_is_the_same_snapshot(folder: Folder) -> None:
    """Loading again what was loaded gives the very same snapshot."""
    first = start(folder)
    assert first.generation == 1
    assert folder.good() is first
    folder.write("backend.yaml", "# the same in other words\n", backend())
    assert folder.good() is first


def test_a_change_is_a_new_generation_that_reuses_the_rest(folder: Folder) -> None:
    """What did not change, and refers to nothing that did, is the same object after a reload."""
    folder.write("other.yaml", backend("gpt"), scenario("other", "gpt"))
    first = start(folder)
    folder.write("other.yaml", backend("gpt", model="new"), scenario("other", "gpt"))
    second = folder.good()
    assert (second.generation, second.loaded_at) == (first.generation + 1, folder.now)
    assert second.hash != first.hash
    assert second.backends["qwen"] is first.backends["qwen"]
    assert second.scenarios["chat"] is first.scenarios["chat"]
    assert second.backends["gpt"] is not first.backends["gpt"]
    assert second.scenarios["other"].targets[0].backend is second.backends["gpt"]
    assert second.tenants["acme"].scenarios["other"] is second.scenarios["other"]
    assert second.keys[KEY].principal.tenant is second.tenants["acme"]
    assert first.scenarios["other"].targets[0].backend.model == "qwen-7b", "an old snapshot stays as it was"


def test_the_hash_is_of_the_content(folder: Folder) -> None:
    """Equal registries have equal hashes, however they are laid out; any difference makes another."""
    first = start(folder)
    for name in ("backend", "prompt", "scenario", "tenant", "key"):
        folder.remove(f"{name}.yaml")
    folder.write(
        "all/in-one.yml",
        api_key(),
        tenant(),
        scenario(prompt="support.v2", aliases=["gpt-4o"]),
        prompt(),
        backend(),
    )
    assert folder.good().hash == first.hash
    folder.write("more.yaml", backend("gpt"))
    assert folder.good().hash != first.hash


def test_a_bad_change_keeps_the_last_good_version_of_that_object_alone(folder: Folder) -> None:
    """A refused document serves as it last was good, and the others go live."""
    folder.write("gpt.yaml", backend("gpt"))
    first = start(folder)
    folder.write("backend.yaml", backend(url="nonsense", model="new"))
    folder.write("gpt.yaml", backend("gpt", model="newer"))
    result = folder.load()
    assert [(problem.object, problem.field) for problem in result.problems] == [("Backend/qwen", "spec.url")]
    assert result.snapshot.backends["qwen"] is first.backends["qwen"]
    assert result.snapshot.backends["gpt"].model == "newer"
    assert result.snapshot.scenarios["chat"] is first.scenarios["chat"]
    assert result.snapshot.object_counts["Backend", "stale"] == 1
    assert result.snapshot.object_counts["Backend", "live"] == 1
    again = folder.load()
    assert again.problems == result.problems, "a problem stays until it is solved"
    folder.write("backend.yaml", backend(model="new"))
    assert folder.good().backends["qwen"].model == "new"


@pytest.mark.parametrize("name", ["backend", "prompt", "scenario", "tenant", "key"])
@pytest.mark.parametrize("content", ["a: [", "kind: Nothing", "\ufffd: *x"])
def test_a_file_that_cannot_be_taken_apart_keeps_all_it_held(folder: Folder, name: str, content: str) -> None:
    """Bad YAML, or a document that is no object, never makes an object disappear."""
    first = start(folder)
    folder.write(f"{name}.yaml", content)
    for _ in range(2):
        result = folder.load()
        assert {problem.source for problem in result.problems} == {str(folder.path / f"{name}.yaml")}
        assert result.snapshot.keys[KEY].principal is first.keys[KEY].principal
        assert result.snapshot.tenants["acme"].scenarios["gpt-4o"] is first.scenarios["chat"]
        assert sum(count for (_, state), count in result.snapshot.object_counts.items() if state == "stale") == 1
    folder.remove(f"{name}.yaml")
    assert folder.load().snapshot.hash != first.hash, "a file that is gone holds nothing any more"


def test_a_misspelt_kind_beside_good_documents(folder: Folder) -> None:
    """One document of a file loses its kind: its object stays, its neighbours go live."""
    folder.write("b.yaml", backend("one"), backend("two"))
    folder.good()
    folder.write("b.yaml", backend("one", model="new"), {**backend("two"), "kind": "Backnd"})
    result = folder.load()
    assert len(result.problems) == 1
    assert result.snapshot.backends["one"].model == "new"
    assert result.snapshot.backends["two"].model == "qwen-7b"
    folder.write("b.yaml", backend("one", model="new"))
    assert set(folder.good().backends) == {"one"}


def test_deleted_objects_are_gone(folder: Folder) -> None:
    """A deletion is no accident: a key, a tenant and what nobody refers to disappear at once."""
    start(folder)
    folder.write("spare.yaml", backend("spare"))
    assert "spare" in folder.good().backends
    folder.remove("spare.yaml")
    assert "spare" not in folder.good().backends
    folder.remove("key.yaml")
    assert folder.good().keys == {}
    folder.remove("tenant.yaml")
    assert folder.good().tenants == {}


def test_a_key_never_outlives_its_tenant(folder: Folder) -> None:
    """A key whose tenant is deleted opens nothing, although its own document is as it was."""
    start(folder)
    folder.remove("tenant.yaml")
    result = folder.load()
    assert [(problem.object, problem.field) for problem in result.problems] == [("ApiKey/acme-ci", "spec.tenant")]
    assert result.snapshot.keys == {}
    folder.write("tenant.yaml", tenant())
    assert KEY in folder.good().keys


def test_a_scenario_outlives_its_backend_as_it_last_was(folder: Folder) -> None:
    """A scenario whose backend is deleted is refused and keeps serving with what it had; it heals when that is back."""
    folder.write("gpt.yaml", backend("gpt"))
    start(folder)
    folder.write("scenario.yaml", scenario(targets=[{"backend": "qwen"}, {"backend": "gpt"}], prompt="support.v2"))
    folder.good()
    folder.remove("gpt.yaml")
    folder.write("backend.yaml", backend(model="new"))
    for _ in range(2):
        result = folder.load()
        assert [(problem.object, problem.field) for problem in result.problems] == [
            ("Scenario/chat", "spec.targets[1].backend")
        ]
        assert set(result.snapshot.backends) == {"qwen"}
        chat = result.snapshot.tenants["acme"].scenarios["chat"]
        assert backend_names(chat) == ["qwen", "gpt"]
        assert chat.targets[0].backend.model == "new", "what is still there is up to date"
    folder.write("gpt.yaml", backend("gpt", model="back"))
    assert folder.good().scenarios["chat"].targets[1].backend.model == "back"


def test_an_unresolved_reference_heals_when_its_target_appears(folder: Folder) -> None:
    """Objects may appear in any order: each is refused until what it needs is there."""
    folder.write("key.yaml", api_key(scenarios=["chat"]))
    folder.write("tenant.yaml", tenant(scenarios=["chat"]))
    folder.write("scenario.yaml", scenario(prompt="support.v2", fallbacks=["qwen"], access={"tenants": ["acme"]}))
    assert folder.problems() == [
        ("key.yaml", "ApiKey/acme-ci", "spec.scenarios[0]"),
        ("key.yaml", "ApiKey/acme-ci", "spec.tenant"),
        ("scenario.yaml", "Scenario/chat", "spec.fallbacks[0]"),
        ("scenario.yaml", "Scenario/chat", "spec.prompt"),
        ("scenario.yaml", "Scenario/chat", "spec.targets[0].backend"),
        ("tenant.yaml", "Tenant/acme", "spec.scenarios[0]"),
    ]
    folder.write("backend.yaml", backend())
    assert ("scenario.yaml", "Scenario/chat", "spec.prompt") in folder.problems()
    folder.write("prompt.yaml", prompt())
    assert folder.good().keys[KEY].principal.tenant.scenarios["chat"].name == "chat"


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("spec.access.tenants[1]", "there is no Tenant `acne`; did you mean `acme`?"),
        ("spec.targets[0].backend", "there is no Backend `qwem`; did you mean `qwen`?"),
        ("spec.prompt", "Prompt `support.v3` is itself refused"),
    ],
)
def test_a_missing_reference_says_why(folder: Folder, field: str, reason: str) -> None:
    """A name that is nearly right is suggested; a target that is itself refused is said to be so."""
    start(folder)
    folder.write("bad.yaml", prompt("support.v3", template="{"))
    folder.write("s.yaml", scenario("other", "qwem", prompt="support.v3", access={"tenants": ["acme", "acne"]}))
    reasons = {
        problem.field: problem.reason for problem in folder.load().problems if problem.object == "Scenario/other"
    }
    assert reasons[field] == reason


def test_references_of_tenants_and_limits(folder: Folder) -> None:
    """A tenant's scenarios and the scenarios of its limits must exist, by name and not by alias."""
    start(folder)
    limits = [{"unit": "tokens", "per": "day", "amount": 1, "scenario": "nope"}]
    folder.write("tenant.yaml", tenant(scenarios=["gpt-4o"], limits=limits))
    result = folder.load()
    assert [(problem.field, problem.reason) for problem in result.problems] == [
        ("spec.limits[0].scenario", "there is no Scenario `nope`"),
        ("spec.scenarios[0]", "`gpt-4o` is an alias; write the name, `chat`"),
    ]
    assert "chat" in result.snapshot.tenants["acme"].scenarios, "the last good version serves"


def test_a_stale_tenant_loses_a_scenario_that_is_deleted(folder: Folder) -> None:
    """A tenant's last good version does not bring back what is gone."""
    start(folder)
    folder.write("extra.yaml", scenario("extra"))
    folder.write("tenant.yaml", tenant(scenarios=["chat", "extra"]))
    folder.good()
    folder.remove("extra.yaml")
    result = folder.load()
    assert [(problem.object, problem.field) for problem in result.problems] == [("Tenant/acme", "spec.scenarios[1]")]
    assert set(result.snapshot.tenants["acme"].scenarios) == {"chat", "gpt-4o"}


def test_a_stale_key_follows_its_tenant(folder: Folder) -> None:
    """The last good version of a key belongs to the tenant as it is now, disabled too."""
    start(folder)
    folder.write("key.yaml", api_key(digests=[]))
    folder.write("tenant.yaml", tenant(disabled=True))
    principal = folder.load().snapshot.keys[KEY].principal
    assert principal.key.name == "acme-ci"
    assert principal.tenant.disabled


def test_two_objects_of_one_name(folder: Folder) -> None:
    """The first in path order serves, the other is a problem that names both files."""
    folder.write("b.yaml", backend(model="second"))
    folder.write("a.yaml", backend(model="first"))
    result = folder.load()
    (problem,) = result.problems
    assert (folder.below(problem), problem.object, problem.field) == ("b.yaml", "Backend/qwen", "metadata.name")
    assert str(folder.path / "a.yaml") in problem.reason
    assert result.snapshot.backends["qwen"].model == "first"
    assert result.snapshot.object_counts["Backend", "refused"] == 1
    folder.write("b.yaml", scenario("qwen"))
    assert folder.good().backends["qwen"].model == "first", "names are unique within a kind"


def test_two_objects_of_one_name_in_one_file(folder: Folder) -> None:
    """Within a file the first wins too."""
    folder.write("a.yaml", backend(model="first"), backend(model="second"))
    problem = folder.problem()
    assert "earlier in the file" in problem.reason


def test_an_object_may_move_between_files(folder: Folder) -> None:
    """An object that is in another file now is the same object."""
    first = start(folder)
    folder.remove("backend.yaml")
    folder.write("zz/moved.yaml", backend())
    assert folder.good().backends["qwen"] is first.backends["qwen"]


def test_an_object_that_moves_out_of_a_broken_file(folder: Folder) -> None:
    """A file that cannot be read keeps what it held only until that is somewhere else."""
    folder.write("old.yaml", backend(model="old"))
    folder.good()
    folder.write("old.yaml", "a: [")
    folder.write("new.yaml", backend(model="new"))
    assert folder.load().snapshot.backends["qwen"].model == "new"


def test_a_secret_that_goes_missing_keeps_the_last_one(folder: Folder) -> None:
    """A backend whose secret cannot be read any more keeps serving with the one it had; a new one goes live."""
    folder.secrets.files["qwen"] = b"one"
    folder.write("b.yaml", backend(auth={"type": "bearer", "secret": {"file": "qwen"}}))
    first = folder.good()
    del folder.secrets.files["qwen"]
    result = folder.load()
    assert [problem.field for problem in result.problems] == ["spec.auth.secret.file"]
    assert result.snapshot.backends["qwen"] is first.backends["qwen"]
    folder.secrets.files["qwen"] = b"two"
    second = folder.good()
    assert second.backends["qwen"].headers == ((b"authorization", b"Bearer two"),)
    assert (second.hash, second.generation > first.generation) == (first.hash, True)


def test_a_prompt_that_changes_in_place_is_refused(folder: Folder) -> None:
    """A version is immutable: another text of it is refused while the one that serves goes on; put right it is live."""
    start(folder)
    folder.write("prompt.yaml", prompt(template="Be brief."))
    for _ in range(2):
        result = folder.load()
        (problem,) = result.problems
        assert (problem.object, problem.field) == ("Prompt/support.v2", "")
        assert "never changes" in problem.reason
        assert result.snapshot.scenarios["chat"].prompt is not None
        assert result.snapshot.scenarios["chat"].prompt.parts == ("Be kind.",)
        assert result.snapshot.object_counts["Prompt", "stale"] == 1
    folder.write("prompt.yaml", "# the same in another hand\n" + json.dumps(prompt()))
    assert folder.good().object_counts["Prompt", "live"] == 1


def test_a_changed_prompt_goes_live_as_a_new_version(folder: Folder) -> None:
    """Another version beside the first is a prompt of its own, in the bare form as well; a deleted name is free."""
    start(folder)
    folder.write("prompts/support/v3.yaml", "version: v3\ninput_vars: []\ntemplate: Be brief.\n")
    folder.write("scenario.yaml", scenario(prompt="support.v3"))
    value = folder.good().scenarios["chat"].prompt
    assert value is not None
    assert value.parts == ("Be brief.",)
    folder.write("prompts/support/v3.yaml", "version: v3\ninput_vars: []\ntemplate: Be rude.\n")
    assert [problem[1:] for problem in folder.problems()] == [("Prompt/support.v3", "")]
    folder.remove("prompts/support/v3.yaml")
    folder.write("scenario.yaml", scenario())
    folder.good()
    folder.write("prompts/support/v3.yaml", "version: v3\ninput_vars: []\ntemplate: Be rude.\n")
    folder.good()


def test_created_is_the_first_load_that_saw_it(folder: Folder) -> None:
    """A scenario's age survives its changes, and not its deletion."""
    start(folder)
    born = int(folder.now)
    folder.write("scenario.yaml", scenario(description="new"))
    assert folder.good().scenarios["chat"].created == born
    folder.remove("scenario.yaml")
    folder.good()
    folder.write("scenario.yaml", scenario())
    assert folder.good().scenarios["chat"].created == int(folder.now)


def test_an_empty_folder_is_an_empty_registry_with_a_warning(folder: Folder) -> None:
    """Nothing is nothing wrong, but somebody should know."""
    result = folder.load()
    assert result.problems == ()
    assert result.warnings == ("the registry is empty: nobody can call anything",)
    assert result.snapshot.object_counts["Backend", "live"] == 0


def test_one_digest_in_two_keys(folder: Folder) -> None:
    """The older key keeps a digest; the other is a problem that names both, and keeps its other digests."""
    folder.write("a.yaml", tenant(), tenant("evil"))
    folder.write("k1.yaml", api_key())
    folder.good()
    folder.write("a-key.yaml", api_key("thief", tenant="evil", digests=[{"sha256": "cd" * 32}, {"sha256": DIGEST}]))
    result = folder.load()
    (problem,) = result.problems
    assert (folder.below(problem), problem.object, problem.field) == (
        "a-key.yaml",
        "ApiKey/thief",
        "spec.digests[1].sha256",
    )
    assert "ApiKey/acme-ci" in problem.reason
    assert DIGEST not in problem.reason
    assert result.snapshot.keys[KEY].principal.tenant.name == "acme"
    assert result.snapshot.keys[b"\xcd" * 32].principal.tenant.name == "evil"
