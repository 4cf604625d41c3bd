"""Find out what a plan of sessions needs and the datastore does not say: passwords and source addresses.

Passwords are files, DIRECTORY/NAMESPACE/NAME/KEY, as Kubernetes mounts a secret or an administrator writes them; their
text goes nowhere but into the speaker's configuration. It decides nothing."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Final

from bird_agent.session_config import Needs, Password, SecretKey, Surroundings
from weft.model.address import IPAddress, parse_address

log = logging.getLogger(__name__)

MAX_PASSWORD_BYTES: Final = 4096
_ANY_PORT: Final = 179  # a datagram socket that is connected sends nothing


class SecretFiles:
    """The secrets below one directory, of one namespace. Complains of a file that cannot be used once."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self._directory = directory / namespace
        self._complained: dict[SecretKey, str] = {}

    def read(self, wanted: SecretKey) -> Password | None:
        """None: there is no such file, or none that can be used."""
        try:
            text = self._text(wanted)
        except FileNotFoundError:
            text = None
        except (OSError, ValueError) as error:
            if self._complained.get(wanted) != str(error):
                log.warning("the secret %s cannot be used: %s", wanted, error)
                self._complained[wanted] = str(error)
            return None
        self._complained.pop(wanted, None)
        return None if text is None else Password(text)

    def _text(self, wanted: SecretKey) -> str:
        for part in wanted:
            if part in ("", ".", "..") or "/" in part or "\0" in part:
                raise ValueError("its name or key cannot be the name of a file")
        raw = (self._directory / wanted.name / wanted.key).read_bytes()
        if len(raw) > MAX_PASSWORD_BYTES:
            raise ValueError(f"it is longer than {MAX_PASSWORD_BYTES} bytes")
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise ValueError("it is not text") from None
        if not text:
            raise ValueError("it is empty")
        return text


def look_around(needs: Needs, secrets: SecretFiles) -> Surroundings:
    """The answer to `needs`, as things are now."""
    passwords = {key: secrets.read(key) for key in needs.secrets}
    sources = {peer: source_towards(peer) for peer in needs.sources}
    return Surroundings(
        {key: password for key, password in passwords.items() if password is not None},
        {peer: source for peer, source in sources.items() if source is not None},
    )


def source_towards(peer: IPAddress) -> IPAddress | None:
    """The address the kernel would send to `peer` from; None if there is no way there."""
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(peer), _ANY_PORT))
        except OSError:
            return None
        return parse_address(os.fsdecode(probe.getsockname()[0]).partition("%")[0])
