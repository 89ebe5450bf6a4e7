"""Whether wandb sends what it logs, as its environment variables say. Free of torch."""

import netrc
import os
import threading
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from segzoo.errors import ConfigError
from segzoo.suggest import did_you_mean

MODES = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
    "shared": "shared",
}
"""What wandb knows; ``run`` and ``dryrun`` are its old names."""
SERVERS = ("https://api.wandb.ai", "https://api.forge.coreweave.com")
"""wandb's own, by the names that its versions know it by."""
SECONDS = 5.0
"""The server has for an answer."""


def wandb_mode() -> str:
    """``online``, ``offline``, ``disabled`` or ``shared``: that of WANDB_MODE, else offline without a key or login.

    Raises:
        ConfigError: a mode or an address that wandb does not know, or one that needs a key without one.
    """
    address = urlsplit(configured_server() or SERVERS[0])
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(f"WANDB_BASE_URL '{configured_server()}': expected an address such as {SERVERS[0]}")
    given = os.environ.get("WANDB_MODE", "").strip()
    if not given:
        return "online" if has_key() else "offline"
    if given not in MODES:
        raise ConfigError(f"unknown WANDB_MODE '{given}'{did_you_mean(given, MODES)}")
    mode = MODES[given]
    if mode in ("online", "shared") and not has_key():
        raise ConfigError(
            f"WANDB_MODE={given} needs an account: set WANDB_API_KEY, call `wandb login`, or set WANDB_MODE=offline "
            "and send the run later with `wandb sync`"
        )
    return mode


def configured_server() -> str | None:
    """The address of a server that is not wandb's own: of WANDB_BASE_URL, or of `wandb login --host`."""
    if address := os.environ.get("WANDB_BASE_URL", "").strip():
        return address
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or Path.home() / ".config" / "wandb")
    settings = ConfigParser(interpolation=None)
    with suppress(OSError, ConfigParserError, UnicodeDecodeError):
        settings.read(folder / "settings")
    return settings.get("default", "base_url", fallback=None)


def server() -> str:
    """The address that wandb will send to; imports it."""
    if address := configured_server():
        return address
    from wandb import Settings

    fields: Any = Settings.model_fields
    return str(fields["base_url"].default)


def has_key() -> bool:
    """Whether there is a key, or a login at the server."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    configured = configured_server()
    try:
        logins = netrc.netrc(os.environ.get("NETRC") or None)
    except (OSError, netrc.NetrcParseError):
        return False
    hosts = [urlsplit(address).netloc for address in ([configured] if configured else SERVERS)]
    return any(logins.authenticators(host) for host in hosts)


def answers(address: str, seconds: float = SECONDS) -> bool:
    """Whether a server says anything at all, by way of the proxy if there is one.

    wandb itself tries for minutes, and ends the training when nothing comes of it.
    """
    found: list[bool] = []
    # Looking up a name takes as long as it takes: it is not waited for.
    thread = threading.Thread(target=lambda: found.append(_answers(address, seconds)), daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(found and found[0])


def _answers(address: str, seconds: float) -> bool:
    import ssl
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=seconds).close()
    except urllib.error.HTTPError:  # an answer
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # wandb has certificates of its own
    except Exception:  # no answer, or none in HTTP
        return False
    return True
