"""From EndpointSlices, as the API server gives them, to the endpoints that take new calls."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model import Endpoint, Service
from gateway.routing.endpoints import ENDPOINTS_MAX, Slice, pruned, ready_endpoints, service_name
from tests.unit.routing.slices import piece, pod, pod_with, service_of

SERVICE = service_of("models", "qwen", 8000)


def addresses(*slices: Slice, service: Service = SERVICE) -> list[str]:
    """The first addresses of those that are ready."""
    return [endpoint.addresses[0] for endpoint in ready_endpoints(slices, service)]


@pytest.mark.parametrize(
    ("conditions", "is_ready"),
    [
        ({}, True),
        ({"ready": True}, True),
        ({"ready": True, "serving": True, "terminating": False}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "serving": True, "terminating": True}, False),
        ({"serving": False}, True),
    ],
)
def test_conditions(conditions: dict[str, bool], is_ready: bool) -> None:
    """An absent condition is read as the API says; a pod that terminates takes no call, also where all are listed."""
    assert bool(addresses(piece(pod_with("10.0.0.1", conditions, "one")))) is is_ready


def test_a_pod_of_two_families_is_one_endpoint() -> None:
    """With the addresses of both, IPv4 first; a pod of one family stays what it is."""
    four = piece(pod("10.0.0.1", "one"), pod("10.0.0.2", "two"))
    six = piece(pod("fd00::1", "one"), name="qwen-b", addressType="IPv6")
    for slices in itertools.permutations([four, six]):
        assert ready_endpoints(slices, SERVICE) == (
            Endpoint(name="one", addresses=("10.0.0.1", "fd00::1"), port=8000),
            Endpoint(name="two", addresses=("10.0.0.2",), port=8000),
        )
    assert addresses(six) == ["fd00::1"]


def test_a_pod_that_moves_between_slices_is_not_called_twice() -> None:
    """It may be in both for a moment; where they disagree it gets nothing."""
    both = [piece(pod("10.0.0.1")), piece(pod("10.0.0.1"), name="qwen-b")]
    assert addresses(*both) == ["10.0.0.1"]
    leaving = [piece(pod("10.0.0.1")), piece(pod("10.0.0.1", ready=False), name="qwen-b")]
    assert addresses(*leaving) == addresses(*reversed(leaving)) == []


def test_an_endpoint_without_a_pod_is_known_by_its_address() -> None:
    """As in slices that people write."""
    bare = {"addresses": ["192.0.2.1", "192.0.2.9"]}
    assert ready_endpoints([piece(bare)], SERVICE) == (Endpoint(name="192.0.2.1", addresses=("192.0.2.1",), port=8000),)


@pytest.mark.parametrize(
    ("ports", "wanted", "found"),
    [
        ([("http", 8000)], 8000, 8000),
        ([("http", 8000)], "http", 8000),
        ([("http", 8000)], "https", None),
        ([("http", 8080)], 80, 8080),
        ([(None, 8080)], 80, 8080),
        ([("http", 8080), ("metrics", 9090)], 80, None),
        ([("http", 8080), ("metrics", 9090)], 9090, 9090),
        ([("http", 8080), ("metrics", 9090)], "http", 8080),
        ([], 80, None),
    ],
)
def test_ports(ports: list[tuple[str | None, int]], wanted: int | str, found: int | None) -> None:
    """By name, by the pods' number, or the only one there is whatever the Service calls it."""
    listed = [{"name": name, "port": number} for name, number in ports]
    endpoints = ready_endpoints([piece(pod("10.0.0.1"), ports=listed)], service_of("models", "qwen", wanted))
    assert [endpoint.port for endpoint in endpoints] == ([] if found is None else [found])


def test_only_tcp_counts() -> None:
    """A port of another protocol is no choice."""
    ports = [{"name": "quic", "port": 8000, "protocol": "UDP"}, {"name": "http", "port": 8001, "protocol": "TCP"}]
    assert [each.port for each in ready_endpoints([piece(pod("10.0.0.1"), ports=ports)], SERVICE)] == [8001]


def test_pods_of_several_ports_keep_theirs() -> None:
    """A named target port may differ between the pods of a rollout; each slice has its own."""
    old, new = piece(pod("10.0.0.1")), piece(pod("10.0.0.2"), name="qwen-b", ports=[{"name": "http", "port": 9000}])
    service = service_of("models", "qwen", "http")
    assert {(each.addresses[0], each.port) for each in ready_endpoints([old, new], service)} == {
        ("10.0.0.1", 8000),
        ("10.0.0.2", 9000),
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"addresses": []},
        {"addresses": [None]},
        {"addresses": "10.0.0.9"},
        {},
    ],
)
def test_what_is_malformed_takes_nothing_else_along(wrong: dict[str, Any]) -> None:
    """Nor does a slice of names, or one without ports or endpoints."""
    names = piece({"addresses": ["qwen.example"]}, name="n", addressType="FQDN")
    empty = [piece(name="e", endpoints=None), piece(pod("10.0.0.8"), name="p", ports=None)]
    assert addresses(piece(wrong, pod("10.0.0.1")), names, *empty) == ["10.0.0.1"]


def test_the_number_of_endpoints_is_bounded() -> None:
    """The same ones are left out every time."""
    many = [pod(f"10.0.{n // 250}.{n % 250}") for n in range(ENDPOINTS_MAX + 50)]
    assert addresses(piece(*many)) == addresses(piece(*reversed(many)))
    assert len(addresses(piece(*many))) == ENDPOINTS_MAX


def test_pruning_keeps_all_that_is_read() -> None:
    """And nothing of what changes without meaning anything here."""
    whole = piece(pod("10.0.0.1") | {"nodeName": "n1", "zone": "z"}, kind="EndpointSlice")
    whole["metadata"]["resourceVersion"] = "7"
    whole["metadata"]["annotations"] = {"x": "y"}
    kept = pruned(whole)
    assert "7" not in str(kept)
    assert "nodeName" not in str(kept)
    assert (ready_endpoints([kept], SERVICE), service_name(kept)) == (ready_endpoints([whole], SERVICE), "qwen")
    assert service_name({"metadata": {"name": "x"}}) == ""


_CONDITIONS = st.fixed_dictionaries({}, optional={"ready": st.booleans(), "terminating": st.booleans()})
_PODS = st.lists(st.tuples(st.integers(1, 6), _CONDITIONS), max_size=6)


@given(st.lists(_PODS, max_size=4), st.randoms())
def test_the_order_of_slices_means_nothing(content: list[list[tuple[int, dict[str, bool]]]], random: Any) -> None:
    """The API server gives them in any order; an endpoint that is ready anywhere and leaves nowhere is found, once."""
    slices = [
        piece(
            *(pod_with(f"10.0.0.{number}", conditions, f"uid-{number}") for number, conditions in pods),
            name=f"s{index}",
        )
        for index, pods in enumerate(content)
    ]
    seen = [(number, conditions) for pods in content for number, conditions in pods]
    leaving = {number for number, each in seen if each.get("ready") is False or each.get("terminating") is True}
    expected = sorted({f"10.0.0.{number}" for number, _ in seen if number not in leaving})
    assert addresses(*slices) == expected
    shuffled = list(slices)
    random.shuffle(shuffled)
    assert ready_endpoints(shuffled, SERVICE) == ready_endpoints(slices, SERVICE)
