"""What AWS puts into the environment of a process that has a role, or that somebody gave a key.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html
"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.model import Frozen
from gateway.model.credentials import AwsKeys
from gateway.settings.sources import variables_of


class AwsSurroundings(Frozen, frozen=True):
    """Empty texts are what is not there. ``keys`` are in the environment themselves.

    ``role_arn`` and ``web_identity_token_file`` are those of a service account (IRSA); ``container_*`` name the agent
    of EKS Pod Identity or of ECS, and what it wants to be shown.
    """

    keys: AwsKeys | None = None
    region: str = ""
    role_arn: str = ""
    role_session_name: str = ""
    web_identity_token_file: str = ""
    sts_url: str = ""
    container_url: str = ""
    container_token: str = ""
    container_token_file: str = ""


def aws_surroundings(environment: Mapping[str, str] | None = None) -> AwsSurroundings:
    """What ``environment`` says; without one, that of the process, to be read once."""
    given = variables_of("AWS_") if environment is None else environment

    def value(name: str) -> str:
        return given.get(name, "").strip()

    keys: AwsKeys | None = None
    if value("AWS_ACCESS_KEY_ID") and value("AWS_SECRET_ACCESS_KEY"):
        keys = AwsKeys(
            access_key_id=value("AWS_ACCESS_KEY_ID"),
            secret_access_key=value("AWS_SECRET_ACCESS_KEY"),
            session_token=value("AWS_SESSION_TOKEN"),
        )
    relative = value("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    return AwsSurroundings(
        keys=keys,
        region=value("AWS_REGION") or value("AWS_DEFAULT_REGION"),
        role_arn=value("AWS_ROLE_ARN"),
        role_session_name=value("AWS_ROLE_SESSION_NAME"),
        web_identity_token_file=value("AWS_WEB_IDENTITY_TOKEN_FILE"),
        sts_url=value("AWS_ENDPOINT_URL_STS"),
        container_url=f"http://169.254.170.2{relative}" if relative else value("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        container_token=value("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        container_token_file=value("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    )
