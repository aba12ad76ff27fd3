"""What is said of each resource: the conditions, their times, and that nothing is written that does not differ."""

from __future__ import annotations

from typing import Any

from gateway.model import Problem
from gateway.registry.credentials import ClusterSecrets
from gateway.registry.load import LoadResult, load_claims
from gateway.registry.parse import ObjectId
from gateway.registry.resources import Parsed, claims_of, parse_all
from gateway.registry.status import MESSAGE_CHARS_MAX, wanted_statuses

NOW = 1_800_000_000.0


def resource(name: str, spec: object, **metadata: Any) -> dict[str, Any]:
    """A resource as an API server gives it."""
    made = {"name": name, "namespace": "registry", "uid": name, "generation": 1, "resourceVersion": "1"}
    return {"apiVersion": "llmgateway.dev/v1alpha1", "kind": "?", "metadata": made | metadata, "spec": spec}


class Cluster:
    """Resources by kind, loaded step by step."""

    def __init__(self) -> None:
        self.objects: dict[Any, dict[tuple[str, str], dict[str, Any]]] = {
            kind: {} for kind in ("Backend", "Prompt", "Scenario", "Tenant", "ApiKey")
        }
        self.parsed: dict[ObjectId, Parsed] = {}
        self.result: LoadResult | None = None

    def put(self, kind: str, name: str, spec: object, **metadata: Any) -> None:
        self.objects[kind]["registry", name] = resource(name, spec, **metadata)

    def load(self) -> LoadResult:
        self.parsed = parse_all(self.objects, self.parsed)
        state = None if self.result is None else self.result.state
        self.result = load_claims(claims_of(self.parsed), ClusterSecrets(), state, NOW)
        return self.result

    def write(self, now: float = NOW) -> dict[str, dict[str, Any]]:
        """Write the statuses that differ, as a leader does; those that were written."""
        assert self.result is not None
        written = {str(each.id): each.status for each in wanted_statuses(self.parsed, self.result, now)}
        for kind, objects in self.objects.items():
            for (namespace, name), item in list(objects.items()):
                if f"{kind}/{name}" in written:
                    objects[namespace, name] = {**item, "status": written[f"{kind}/{name}"]}
        self.parsed = parse_all(self.objects, self.parsed)
        return written

    def conditions(self, kind: str, name: str) -> dict[str, tuple[str, str]]:
        status = self.objects[kind]["registry", name]["status"]
        return {each["type"]: (each["status"], each["reason"]) for each in status["conditions"]}


def test_every_state_has_its_words_and_nothing_is_written_twice() -> None:
    """Serving, wrong, unresolved, last good; a second look at the same writes nothing."""
    cluster = Cluster()
    cluster.put("Backend", "good", {"provider": "echo"})
    cluster.put("Backend", "wrong", {"provider": "echo", "urll": "x"})
    cluster.put("Scenario", "lost", {"targets": [{"backend": "nowhere"}]})
    cluster.load()
    assert set(cluster.write()) == {"Backend/good", "Backend/wrong", "Scenario/lost"}
    assert cluster.conditions("Backend", "good") == {"Accepted": ("True", "Accepted"), "Ready": ("True", "Serving")}
    assert cluster.conditions("Backend", "wrong") == {
        "Accepted": ("False", "Invalid"),
        "Ready": ("False", "NotServing"),
    }
    assert cluster.conditions("Scenario", "lost")["Accepted"] == ("False", "Unresolved")
    assert cluster.write() == {}
    cluster.put("Backend", "good", {"provider": "echo", "model": ""}, generation=2)
    cluster.objects["Backend"]["registry", "good"]["status"] = {"conditions": []}
    cluster.load()
    cluster.write()
    assert cluster.conditions("Backend", "good")["Ready"] == ("True", "LastGoodVersion")
    assert cluster.objects["Backend"]["registry", "good"]["status"]["observedGeneration"] == 2


def test_times_move_with_the_status_alone() -> None:
    """A new generation with the same verdict keeps the time of the last change; a new verdict has a new one."""
    cluster = Cluster()
    cluster.put("Backend", "b", {"provider": "echo"})
    cluster.load()
    first = cluster.write(NOW)["Backend/b"]["conditions"][0]["lastTransitionTime"]
    status = cluster.objects["Backend"]["registry", "b"]["status"]
    cluster.put("Backend", "b", {"provider": "echo", "model": "m"}, generation=2)
    cluster.objects["Backend"]["registry", "b"]["status"] = status
    cluster.load()
    again = cluster.write(NOW + 60)["Backend/b"]["conditions"][0]
    assert (again["lastTransitionTime"], again["observedGeneration"]) == (first, 2)


def test_conditions_of_others_stay_and_messages_are_bounded() -> None:
    """Another controller's condition is none of our business."""
    cluster = Cluster()
    cluster.put("Scenario", "s", {"targets": [{"backend": f"{number:04}" * 10} for number in range(64)]})
    other = {"type": "Theirs", "status": "True"}
    cluster.objects["Scenario"]["registry", "s"]["status"] = {"conditions": [other]}
    cluster.load()
    conditions = cluster.write()["Scenario/s"]["conditions"]
    assert conditions[2] == other
    assert 1000 < len(conditions[0]["message"]) <= MESSAGE_CHARS_MAX


def test_a_change_of_a_status_or_of_labels_parses_nothing_anew() -> None:
    """The candidate is the very same, so that nothing is loaded for it; a new object of the name is another."""
    cluster = Cluster()
    cluster.put("Backend", "b", {"provider": "echo"})
    cluster.load()
    before = cluster.parsed[ObjectId("Backend", "b")].candidate
    cluster.put("Backend", "b", {"provider": "echo"}, resourceVersion="2", labels={"team": "x"})
    cluster.load()
    assert cluster.parsed[ObjectId("Backend", "b")].candidate is before
    cluster.put("Backend", "b", {"provider": "echo"}, uid="another")
    cluster.load()
    assert cluster.parsed[ObjectId("Backend", "b")].candidate is not before


def test_an_object_that_was_made_anew_is_another_one() -> None:
    """A prompt that is deleted and made again may say something else; the old one does not go on serving."""
    cluster = Cluster()
    cluster.put("Prompt", "p.v1", {"template": "One."})
    cluster.load()
    cluster.put("Prompt", "p.v1", {"template": "Two."})
    assert [each.field for each in cluster.load().problems] == [""], "a version stays as it is"
    cluster.put("Prompt", "p.v1", {"template": "Two."}, uid="another")
    assert cluster.load().problems == ()
    cluster.put("Prompt", "p.v1", {"templates": "Two."}, uid="a third")
    result = cluster.load()
    assert result.problems
    assert ObjectId("Prompt", "p.v1") not in result.state.live


def test_what_servers_and_tools_add_is_no_reason_to_refuse() -> None:
    """Finalizers, owners, annotations of kubectl; but a key beside spec that nobody knows is."""
    cluster = Cluster()
    cluster.put("Backend", "b", {"provider": "echo"}, finalizers=["x/y"], annotations={"Not A Key": "{}"})
    cluster.put("Backend", "typo", {"provider": "echo"})
    cluster.objects["Backend"]["registry", "typo"]["specc"] = {}
    problems: tuple[Problem, ...] = cluster.load().problems
    assert [(each.object, each.field, each.source) for each in problems] == [
        ("Backend/typo", "specc", "registry/backends/typo")
    ]
