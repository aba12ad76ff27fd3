"""What the operator decides: typed settings, and the secrets that backends refer to.

This package alone reads the environment. ``Settings.load`` makes the one value that the rest of the gateway is
handed; ``SecretReader`` gives the bytes of a named secret, ``rotated_secret`` a setting that changes with its file.
"""

from gateway.settings.rotated import rotated_secret
from gateway.settings.schema import Settings
from gateway.settings.secrets import SecretReader, SecretUnavailable

__all__ = ["SecretReader", "SecretUnavailable", "Settings", "rotated_secret"]
