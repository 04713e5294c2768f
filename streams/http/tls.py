"""HTTPS: the worker's own certificate, and whose certificate is believed when a worker is asked."""

from __future__ import annotations

import ssl

from streams.certificates import check_readable, load_pair
from streams.config import Config, ConfigError


def check_certificate(config: Config) -> None:
    """Whether HTTPS can be served with these options. Raises ConfigError that names the option and the file."""
    if config.ssl_keyfile and not config.ssl_certfile:
        raise ConfigError("CONSENT_SSL_KEYFILE is set, but CONSENT_SSL_CERTFILE is not")
    check_readable(config, "ssl_certfile", "ssl_keyfile")
    if config.ssl_certfile:
        load_pair(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), config, "ssl_certfile", "ssl_keyfile")


def trusted(config: Config) -> ssl.SSLContext | bool:
    """What httpx takes as `verify`: the system's authorities, and the worker's own certificate where one is set.

    Raises ConfigError if that cannot be read.
    """
    if not config.ssl_certfile:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(config.ssl_certfile)
    except OSError as error:  # an SSLError too
        raise ConfigError(f"CONSENT_SSL_CERTFILE: {config.ssl_certfile}: {error.strerror or error}") from None
    # A certificate that was given is trusted by itself, whoever signed it and whatever its extensions leave out.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
