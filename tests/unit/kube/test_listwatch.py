"""The loop that keeps a list of Kubernetes objects current, driven step by step with scripted answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from gateway.errors import KubernetesFailure
from gateway.kube.listwatch import ListWatch, Objects, Resource, WatchOptions

PATH = "/apis/llmgateway.dev/v1alpha1/namespaces/registry/backends"


def item(name: str, version: int = 1, **spec: object) -> dict[str, Any]:
    """One object."""
    metadata = {"namespace": "registry", "name": name, "resourceVersion": str(version), "managedFields": [{}]}
    return {"metadata": metadata, "spec": spec}


def page(*items: dict[str, Any], version: int = 10, following: str = "") -> dict[str, Any]:
    """One page of a list."""
    metadata = {"resourceVersion": str(version)} | ({"continue": following} if following else {})
    return {"kind": "BackendList", "apiVersion": "llmgateway.dev/v1alpha1", "metadata": metadata, "items": list(items)}


def event(kind: str, what: dict[str, Any]) -> bytes:
    """One line of a watch."""
    return msgspec.json.encode({"type": kind, "object": what})


def gone() -> KubernetesFailure:
    """What an API server says of a version that it has forgotten."""
    return KubernetesFailure("410", status=410, reason="Expired")


class Stream:
    """The scripted lines of a watch; an exception among them is raised."""

    def __init__(self, *pieces: Sequence[bytes] | Exception) -> None:
        self._pieces = pieces
        self.closed = False

    def __iter__(self) -> Iterator[Sequence[bytes]]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def close(self) -> None:
        self.closed = True


class Script:
    """A client that answers as scripted, and remembers what it was asked."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.asked: list[dict[str, str]] = []

    def _next(self, path: str, query: Mapping[str, str] | None) -> Any:
        assert path == PATH
        self.asked.append(dict(query or {}))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return self._next(path, query)

    def watch(self, path: str, query: Mapping[str, str], idle_s: float) -> Stream:
        stream = self._next(path, query)
        assert isinstance(stream, Stream)
        return stream


class Loop:
    """A loop over a script, with every state that it published."""

    def __init__(self, *answers: object, **options: Any) -> None:
        self.script = Script(*answers)
        self.seen: list[Objects] = []
        self.loop = ListWatch(self.script, Resource(path=PATH), self.seen.append, WatchOptions(**options))

    def names(self) -> list[str]:
        return sorted(name for _, name in self.loop.objects or {})


def test_a_list_in_pages_is_published_once_and_watched_from_its_version() -> None:
    """Pages follow each other; the watch begins where the list was, with bookmarks, and ends in bounded time."""
    run = Loop(page(item("a"), following="next"), page(item("b"), version=12), Stream())
    run.loop.step()
    assert [sorted(seen) for seen in run.seen] == [[("registry", "a"), ("registry", "b")]]
    assert [query.get("continue") for query in run.script.asked[:2]] == [None, "next"]
    watch = run.script.asked[2]
    assert (watch["resourceVersion"], watch["allowWatchBookmarks"]) == ("12", "true")
    assert 300 <= int(watch["timeoutSeconds"]) <= 450


def test_changes_are_applied_and_a_handed_out_state_stays_as_it_was() -> None:
    """Added, modified, deleted; who holds an earlier state sees nothing of later ones."""
    stream = Stream(
        [event("ADDED", item("b", 11))],
        [event("MODIFIED", item("a", 12, url="x")), event("DELETED", item("b", 13))],
    )
    run = Loop(page(item("a")), stream)
    run.loop.step()
    assert [sorted(name for _, name in seen) for seen in run.seen] == [["a"], ["a", "b"], ["a"]]
    assert run.seen[2]["registry", "a"]["spec"] == {"url": "x"}
    assert run.seen[0]["registry", "a"]["spec"] == {}
    assert "managedFields" not in run.seen[2]["registry", "a"]["metadata"]
    assert stream.closed


def test_a_bookmark_moves_the_version_on_and_changes_nothing() -> None:
    """The next watch begins at the bookmark, so that a quiet collection never falls out of the server's memory."""
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "99"}})
    run = Loop(page(item("a")), Stream([bookmark]), Stream())
    run.loop.step()
    run.loop.step()
    assert len(run.seen) == 1
    assert run.script.asked[2]["resourceVersion"] == "99"


@pytest.mark.parametrize(
    "end", [gone(), Stream([event("ERROR", {"code": 410, "message": "too old"})])], ids=["refused", "in the stream"]
)
def test_an_expired_version_leads_to_a_fresh_list(end: object) -> None:
    """What happened meanwhile is in the list; what was deleted is gone."""
    run = Loop(page(item("a")), end, page(item("b"), version=50), Stream())
    assert run.loop.step() == 0.0
    assert run.names() == ["a"]
    run.loop.step()
    assert run.names() == ["b"]
    assert run.script.asked[3]["resourceVersion"] == "50"


def test_a_server_whose_versions_are_always_expired_is_not_hammered() -> None:
    """Only the first fresh list comes without a pause."""
    run = Loop(page(), gone(), page(), gone(), page(), gone())
    assert run.loop.step() == 0.0
    assert run.loop.step() > 0
    assert run.loop.step() > 0


@pytest.mark.parametrize(
    "failure",
    [
        KubernetesFailure("403 forbidden", status=403),
        KubernetesFailure("500", status=500),
        KubernetesFailure("no answer", silent=True),
        {"kind": "Status"},
        {"items": [{"no": "metadata"}], "metadata": {}},
    ],
    ids=["403", "500", "silent", "no list", "nonsense"],
)
def test_a_list_that_fails_is_never_an_empty_collection(failure: object) -> None:
    """Nothing is known before the first whole list; afterwards a failed one changes nothing, and says so."""
    run = Loop(failure, page(item("a")), gone(), failure)
    assert run.loop.step() > 0
    assert run.loop.objects is None
    assert run.loop.failure is not None
    run.loop.step()
    assert run.loop.failure is None
    run.loop.step()
    assert run.names() == ["a"]
    assert run.loop.failure is not None
    assert len(run.seen) == 1


def test_a_list_cut_between_its_pages_begins_anew() -> None:
    """A page whose version has expired is no reason to adopt half a list."""
    run = Loop(page(item("a"), following="next"), gone(), page(item("b")), Stream())
    run.loop.step()
    assert run.names() == ["b"]


def test_pauses_double_up_to_the_bound_and_begin_anew_after_success() -> None:
    """An outage costs the API server ever less; half of each pause is random, so that replicas part."""
    refused = KubernetesFailure("503", status=503)
    run = Loop(*[refused] * 12, page(item("a")), Stream([event("ADDED", item("b"))], refused), backoff_max_s=8.0)
    pauses = [run.loop.step() for _ in range(12)]
    for number, pause in enumerate(pauses):
        longest = min(8.0, 0.5 * 2**number)
        assert longest / 2 <= pause <= longest
    assert run.loop.step() <= 0.5


def test_the_server_may_ask_for_a_longer_pause() -> None:
    """retry-after of a 429 is waited for."""
    run = Loop(KubernetesFailure("429", status=429, retry_after_s=7.0))
    assert run.loop.step() == 7.0


def test_a_broken_watch_goes_on_from_where_it_was() -> None:
    """A reset or a 5xx loses nothing, and costs no list."""
    broken = Stream([event("ADDED", item("b", 11))], KubernetesFailure("reset"))
    run = Loop(page(item("a")), broken, KubernetesFailure("500", status=500), Stream([event("ADDED", item("c", 12))]))
    for _ in range(3):
        run.loop.step()
    assert [query.get("resourceVersion") for query in run.script.asked] == [None, "10", "11", "11"]
    assert run.names() == ["a", "b", "c"]


def test_a_watch_that_is_forbidden_falls_back_to_lists() -> None:
    """Whoever may list and not watch still sees changes, later."""
    forbidden = KubernetesFailure("403", status=403)
    run = Loop(page(item("a")), forbidden, page(item("b")), forbidden)
    run.loop.step()
    run.loop.step()
    assert run.names() == ["b"]


def test_silence_opens_the_watch_again_without_a_pause_or_a_complaint() -> None:
    """A server that sends no bookmarks is quiet, not broken."""
    run = Loop(
        page(item("a")), Stream([event("ADDED", item("b", 11))], KubernetesFailure("idle", silent=True)), Stream()
    )
    pause = run.loop.step()
    assert (pause, run.loop.failure) == (0.0, None) or run.loop.failure is not None
    run.loop.step()
    assert run.script.asked[2]["resourceVersion"] == "11"


def test_a_stop_while_a_watch_is_opened_ends_that_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read of it: its first piece may be a minute away."""
    stream = Stream([event("ADDED", item("late"))])
    one = Loop(page(item("a")), stream)
    opened = one.script.watch

    def stopped_meanwhile(path: str, query: Mapping[str, str], idle_s: float) -> Stream:
        one.loop.stop()
        return opened(path, query, idle_s)

    monkeypatch.setattr(one.script, "watch", stopped_meanwhile)
    assert one.loop.step() == 0
    assert stream.closed
    assert one.names() == ["a"]


def test_more_objects_than_the_bound_keep_what_was_known() -> None:
    """Neither a list nor a watch may fill the memory."""
    run = Loop(page(item("a")), Stream([event("ADDED", item("b", 11)), event("ADDED", item("c", 12))]), objects_max=2)
    run.loop.step()
    assert run.loop.failure is not None
    assert "more than 2" in run.loop.failure.text
    full = Loop(page(item("a"), item("b")), objects_max=1)
    full.loop.step()
    assert full.loop.objects is None


def test_a_fault_of_the_receiver_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a change sets off, the loop lives and lists anew."""
    script = Script(page(item("a")), page(item("a")), Stream())
    calls: list[int] = []

    def broken(objects: Objects) -> None:
        calls.append(len(objects))
        if len(calls) == 1:
            raise RuntimeError("a fault")

    loop = ListWatch(script, Resource(path=PATH), broken, WatchOptions())
    assert loop.step() > 0
    assert "a fault" in caplog.text
    loop.step()
    assert len(script.asked) == 3


def test_pruning_drops_what_is_not_wanted() -> None:
    """An object that is pruned away is not there, and leaves when it is no longer wanted."""
    script = Script(page(item("a"), item("b", url="x")), Stream([event("MODIFIED", item("b", 11))]))
    seen: list[list[str]] = []
    loop = ListWatch(
        script,
        Resource(path=PATH, label_selector="llmgateway.dev/credential"),
        lambda objects: seen.append(sorted(name for _, name in objects)),
        WatchOptions(),
        prune=lambda each: each if each["spec"] else None,
    )
    loop.step()
    assert seen == [["b"], []]
    assert all(query["labelSelector"] == "llmgateway.dev/credential" for query in script.asked)
