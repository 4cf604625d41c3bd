"""Refuse, before anything is written, settings that no host could make right.

`weft.config` parses each setting alone; here is what only this program knows: what a Node may be called and which
autodetection methods there are. A method that merely finds nothing now is no mistake: it is tried again."""

from weft.config import AgentConfig, ConfigError
from weft.model.validation.checks import SUBDOMAIN_WORDS, is_subdomain
from weft.node.autodetect import DetectionError, check_method


def check_settings(config: AgentConfig) -> None:
    """Raises `ConfigError`."""
    if not is_subdomain(config.node_name):
        raise ConfigError("NODENAME", config.node_name, f"{SUBDOMAIN_WORDS} (unset, it is the name of the host)")
    methods = (
        ("IP_AUTODETECTION_METHOD", config.ip_autodetection_method),
        ("IP6_AUTODETECTION_METHOD", config.ip6_autodetection_method),
    )
    for name, method in methods:
        try:
            check_method(method)
        except DetectionError as error:
            raise ConfigError(name, method, f"an autodetection method: {error}") from error
