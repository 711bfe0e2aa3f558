"""HTTP between a run's driver and a sidecar.

    POST /push/v1                                        a `RunReport` (run_report.py); answered {"want": [parts]}
    PUT  /push/v1/part?run=&trial=&part=&digest=         a part that the sidecar lacks
    DELETE /                                             end

The state names each part (curve, first and latest picture) by a digest, so that it is sent when it is new, or when
the sidecar is. Either side ignores fields that it does not know. Another PROTOCOL_VERSION in the path is refused.
Where GANRUN_SIDECAR_TOKEN is set, a request that changes something carries it as a bearer token.
"""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from ganrun.errors import UserError
from ganrun.telemetry.run_report import PROTOCOL_VERSION

PUSH = f"/push/v{PROTOCOL_VERSION}"
SERVICE = "ganrun sidecar"
"""As /healthz names it."""
PARTS = {"curve": "application/json", "first": "image/png", "latest": "image/png"}
STATE_BYTES, PART_BYTES = 256 * 2**10, 2**20
"""The largest that are sent and taken."""
HOST, PORT = "127.0.0.1", 9108
VARIABLE, TOKEN_VARIABLE, OFF = "GANRUN_SIDECAR", "GANRUN_SIDECAR_TOKEN", "off"


class Address(NamedTuple):
    """Where a sidecar listens."""

    host: str = HOST
    port: int = PORT

    @property
    def url(self) -> str:
        """For people."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def address() -> Address | None:
    """Where the environment has a run push its state; None: nowhere.

    Raises:
        UserError: GANRUN_SIDECAR is no such address.
    """
    value = os.environ.get(VARIABLE, "")
    if value == OFF:
        return None
    if not value:
        return Address()
    try:
        parts = urlsplit(value)
        if parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/") and not parts.query:
            return Address(parts.hostname, parts.port)
    except ValueError:
        pass
    raise UserError(f"{VARIABLE}: {value!r} is not http://HOST:PORT, nor {OFF!r}")


def is_default() -> bool:
    """Whether the sidecar is the one beside the driver, which the driver starts."""
    return not os.environ.get(VARIABLE)


def token() -> str:
    """What shows that a request may change something; empty: nothing needs to."""
    return os.environ.get(TOKEN_VARIABLE, "")
