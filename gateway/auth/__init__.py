"""Who calls: from the presented credential to a Principal."""

from gateway.auth.address import ClientAddress
from gateway.auth.keys import authenticate, read_credentials

__all__ = ["ClientAddress", "authenticate", "read_credentials"]
