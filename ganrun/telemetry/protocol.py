"""HTTP protocol between the driver of a run and a sidecar.

    POST /push/v1                                        a `RunReport` (run_report.py); answered {"want": [parts]}
    PUT  /push/v1/part?run=&trial=&part=&digest=         a part that the sidecar lacks
    DELETE /                                             end the sidecar

The report has a digest of each part (curve, first and latest picture). A part is sent only if the sidecar lacks that
digest. Each side ignores unknown fields. Another PROTOCOL_VERSION in the path is refused. If GANRUN_SIDECAR_TOKEN is
set, requests that change something carry it as a bearer token.
"""

import os
from typing import NamedTuple
from urllib.parse import urlsplit

from ganrun.errors import UserError
from ganrun.telemetry.run_report import PROTOCOL_VERSION

PUSH = f"/push/v{PROTOCOL_VERSION}"
SERVICE = "ganrun sidecar"
"""Value of `service` in the answer of /healthz."""
PARTS = {"curve": "application/json", "first": "image/png", "latest": "image/png"}
STATE_BYTES, PART_BYTES = 256 * 2**10, 2**20
"""Size limits of a report and of a part; larger ones are neither sent nor accepted."""
HOST, PORT = "127.0.0.1", 9108
VARIABLE, TOKEN_VARIABLE, OFF = "GANRUN_SIDECAR", "GANRUN_SIDECAR_TOKEN", "off"


class Address(NamedTuple):
    """Listening address of a sidecar."""

    host: str = HOST
    port: int = PORT

    @property
    def url(self) -> str:
        """URL of the page."""
        return f"http://[{self.host}]:{self.port}" if ":" in self.host else f"http://{self.host}:{self.port}"


def address() -> Address | None:
    """Return the sidecar that GANRUN_SIDECAR names, by default one on this machine; None if it is `off`.

    Raises:
        UserError: GANRUN_SIDECAR is neither an address nor `off`.
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
    """Return True if GANRUN_SIDECAR is unset: the driver then starts the sidecar on its own machine."""
    return not os.environ.get(VARIABLE)


def token() -> str:
    """Return the bearer token of requests that change something; empty if none is needed."""
    return os.environ.get(TOKEN_VARIABLE, "")
