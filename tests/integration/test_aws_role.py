"""Keys of a role from real servers: the security token service and the agent of a container, each as AWS describes it.

What is sent is held against AWS's own model of the service. Sources:
https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html and
https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs

import botocore.session
import openai
import pytest
from botocore.validate import ParamValidator

from gateway.model.credentials import AwsKeys
from gateway.settings.aws import aws_surroundings
from gateway.upstream.aws_fetch import ANSWER_BYTES_MAX, AwsFetcher, _sts_url
from gateway.upstream.aws_role import KeysUnavailable
from tests.support.bedrock import REGION, Bedrock
from tests.support.documents import api_key, document, new_key, scenario, tenant
from tests.support.gateway import GatewayProcess
from tests.support.openai_api import Api
from tests.support.scripts import Hang, Script, json_reply, reply
from tests.support.upstream import ScriptedUpstream
from tests.support.waiting import eventually

ROLE = "arn:aws:iam::123456789012:role/gateway"
ISSUED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult>
    <SubjectFromWebIdentityToken>system:serviceaccount:llm:gateway</SubjectFromWebIdentityToken>
    <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/gateway/x</Arn></AssumedRoleUser>
    <Credentials>
      <SessionToken>FwoGZXIvYXdzEE==</SessionToken>
      <SecretAccessKey>wJalr/XUtnFEMI+K7</SecretAccessKey>
      <Expiration>2036-11-27T10:00:00Z</Expiration>
      <AccessKeyId>ASIAEXAMPLE</AccessKeyId>
    </Credentials>
  </AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""
REFUSED = """<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>
<Message>No OpenIDConnect provider found in your account 123456789012</Message></Error></ErrorResponse>"""
KEYS = AwsKeys(
    access_key_id="ASIAEXAMPLE",
    secret_access_key="wJalr/XUtnFEMI+K7",
    session_token="FwoGZXIvYXdzEE==",
    expires_at=datetime.datetime(2036, 11, 27, 10, tzinfo=datetime.UTC).timestamp(),
)
XML = [("content-type", "text/xml")]


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedUpstream]:
    """Stands for AWS."""
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
def aws(server: ScriptedUpstream) -> ScriptedUpstream:
    """The same, as new."""
    server.forget()
    return server


def fetch(environment: dict[str, str], timeout_s: float = 5.0) -> AwsKeys:
    """The keys that these surroundings give."""
    return asyncio.run(AwsFetcher(aws_surroundings(environment), timeout_s)())


def irsa(folder: Path, url: str) -> dict[str, str]:
    """What EKS puts into a pod whose service account has a role."""
    (folder / "token").write_text("eyJhbGciOi.eyJzdWIi.c2ln\n")
    return {
        "AWS_ROLE_ARN": ROLE,
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(folder / "token"),
        "AWS_REGION": REGION,
        "AWS_ENDPOINT_URL_STS": url,
    }


def test_a_web_identity_is_changed_for_keys(aws: ScriptedUpstream, tmp_path: Path) -> None:
    """The question is one that AWS's model of the service allows; nothing signs it but the token itself."""
    aws.enqueue(reply(body=ISSUED.encode(), headers=XML))
    assert fetch(irsa(tmp_path, aws.url)) == KEYS
    [request] = aws.requests
    asked = {name: value for name, [value] in parse_qs(request.body.decode(), strict_parsing=True).items()}
    assert (asked.pop("Action"), asked.pop("Version")) == ("AssumeRoleWithWebIdentity", "2011-06-15")
    model = botocore.session.Session().get_service_model("sts")
    shape = model.operation_model("AssumeRoleWithWebIdentity").input_shape
    assert not ParamValidator().validate(asked, shape).has_errors()
    assert asked["WebIdentityToken"] == "eyJhbGciOi.eyJzdWIi.c2ln"
    assert asked["RoleArn"] == ROLE
    assert request.header("authorization") is None


def test_the_service_of_each_partition_is_asked() -> None:
    """Every region that AWS's library knows has its security token service where that has it."""
    session = botocore.session.Session()
    partitions = session.get_component("data_loader").load_data("partitions")["partitions"]
    regions = {
        region: partition["outputs"]["dnsSuffix"]
        for partition in partitions
        for region in {*session.get_available_regions("sts", partition["id"]), *partition["regions"]}
        if "global" not in region
    }
    assert len(regions) > 30
    assert {"amazonaws.com", "amazonaws.com.cn", "amazonaws.eu"} <= set(regions.values())
    for region, suffix in regions.items():
        assert _sts_url(region) == f"https://sts.{region}.{suffix}/"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (reply(400, body=REFUSED.encode(), headers=XML), "answered 400 InvalidIdentityToken"),
        (reply(500, body=b"<Code>hush hush</Code>", headers=XML), "answered 500$"),
        (reply(body=b"<ok/>", headers=XML), "no credentials"),
        (reply(body=ISSUED.replace("2036-", "x").encode(), headers=XML), "no credentials"),
        (reply(body=b"x" * (ANSWER_BYTES_MAX + 1), headers=XML), "more than 65536 bytes"),
        (reply(307, headers=[("location", "http://127.0.0.1:1/")]), "answered 307"),
        (Script((Hang(),)), "127.0.0.1 could not be asked: TimeoutError"),
    ],
)
def test_why_there_are_none(aws: ScriptedUpstream, tmp_path: Path, script: Script, reason: str) -> None:
    """In words that hold nothing of what was said but the code of an error; in bounded time."""
    aws.enqueue(script)
    with pytest.raises(KeysUnavailable, match=reason) as failure:
        fetch(irsa(tmp_path, aws.url), 0.5)
    assert "123456789012" not in str(failure.value)
    assert len(aws.requests) == 1


@pytest.mark.parametrize("token", [b"", b"two\nlines", b"\xff", None])
def test_a_token_that_cannot_be_sent(tmp_path: Path, token: bytes | None) -> None:
    """Nothing is asked with it."""
    environment = irsa(tmp_path, "http://127.0.0.1:1")
    (tmp_path / "token").unlink() if token is None else (tmp_path / "token").write_bytes(token)
    with pytest.raises(KeysUnavailable, match="token"):
        fetch(environment)


def test_nobody_is_there(tmp_path: Path) -> None:
    """A port that nobody listens at, a region that is not said, and no role at all."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        environment = irsa(tmp_path, f"http://127.0.0.1:{unused.getsockname()[1]}")
        with pytest.raises(KeysUnavailable, match="could not be asked: ConnectError"):
            fetch(environment)
    del environment["AWS_REGION"], environment["AWS_ENDPOINT_URL_STS"]
    with pytest.raises(KeysUnavailable, match="AWS_REGION"):
        fetch(environment)
    with pytest.raises(KeysUnavailable, match="neither auth.accessKeyId nor a role"):
        fetch({})


def test_keys_of_the_environment_come_first(tmp_path: Path) -> None:
    """As with AWS's own libraries."""
    environment = irsa(tmp_path, "http://127.0.0.1:1") | {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s"}
    assert fetch(environment) == AwsKeys(access_key_id="AKIA", secret_access_key="s")


def test_the_agent_of_a_container_gives_keys(aws: ScriptedUpstream, tmp_path: Path) -> None:
    """Of EKS Pod Identity, which wants to see the pod's token, renewed in its file; of ECS with one that is given."""
    answer = {
        "AccessKeyId": KEYS.access_key_id,
        "SecretAccessKey": KEYS.secret_access_key,
        "Token": KEYS.session_token,
        "Expiration": "2036-11-27T10:00:00Z",
        "AccountId": "123456789012",
    }
    url = f"http://127.0.0.1:{aws.port}/v1/credentials"
    (tmp_path / "token").write_text("pod-token")
    for environment, token in (
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token")}, "pod-token"),
        ({"AWS_CONTAINER_AUTHORIZATION_TOKEN": "Basic abc"}, "Basic abc"),
        ({}, None),
    ):
        aws.enqueue(json_reply(answer))
        assert fetch({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url} | environment) == KEYS
        assert aws.requests[-1].header("authorization") == token
    aws.enqueue(json_reply({"message": "hush"}, 403))
    with pytest.raises(KeysUnavailable, match="agent answered 403$"):
        fetch({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url})
    aws.enqueue(json_reply({"AccessKeyId": "a"}))
    with pytest.raises(KeysUnavailable, match="no credentials"):
        fetch({"AWS_CONTAINER_CREDENTIALS_FULL_URI": url})


@pytest.mark.parametrize(
    "url", ["http://example.com/", "http://10.0.0.1/", "ftp://127.0.0.1/", "http://[", "file:///x"]
)
def test_a_token_is_shown_to_no_stranger(url: str) -> None:
    """Without TLS only to addresses that nobody else can answer at."""
    environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "t"}
    with pytest.raises(KeysUnavailable, match="neither https nor"):
        fetch(environment)


def test_the_gateway_signs_with_the_role_of_its_pod(aws: ScriptedUpstream, tmp_path: Path) -> None:
    """It asks with the first call and once for all; where there is no role, the call fails and the log says why."""
    bedrock = Bedrock({KEYS.access_key_id: (KEYS.secret_access_key, KEYS.session_token)})
    key = new_key()
    auth = {"type": "aws", "region": REGION}
    documents = [
        document("Backend", "claude", {"provider": "bedrock", "url": aws.url, "model": "a.b-v1:0", "auth": auth}),
        scenario("claude", "claude"),
        tenant("acme"),
        api_key("acme-key", key),
    ]
    with ScriptedUpstream() as sts, GatewayProcess(documents, key=key, env=irsa(tmp_path, sts.url)) as gateway:
        api = Api("sync", gateway, default_headers={"x-request-id": "aws-no-role-0001"})
        sts.enqueue(reply(400, body=REFUSED.encode(), headers=XML))
        hello = [{"role": "user", "content": "Hello"}]
        with pytest.raises(Exception, match="failed to answer") as refused:
            api.complete(model="claude", messages=hello)
        assert "InvalidIdentityToken" not in str(refused.value)
        line = gateway.wait_for_log(lambda line: line.get("request_id") == "aws-no-role-0001")
        assert line["attempts"][0]["outcome"] == "unauthorized"
        assert "InvalidIdentityToken" in json.dumps(line)
        sts.behaviour = reply(body=ISSUED.encode(), headers=XML)
        aws.behaviour = bedrock.answers([{"text": "Hi"}])

        def is_answered() -> bool:
            return api.complete(model="claude", messages=hello).choices[0].message.content == "Hi"

        eventually(lambda: _quietly(is_answered), 5.0, what="an answer", every_s=0.2)
        assert is_answered()
        assert len(sts.requests) == 2
        assert bedrock.faults == []
        assert set(bedrock.signed_by) == {KEYS.access_key_id}


def _quietly(call: Callable[[], bool]) -> bool:
    try:
        return call()
    except openai.APIError:
        return False
