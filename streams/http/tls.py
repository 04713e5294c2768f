"""HTTPS: the worker's own certificate, and whose certificate is believed when a worker is asked."""

from __future__ import annotations

import ssl
from pathlib import Path

from streams.config import Config


class TlsError(Exception):
    """The certificate or its key cannot be used; the message is one clear line."""


def check_certificate(config: Config) -> None:
    """Whether HTTPS can be served with these options. Raises TlsError that names the option and the file."""
    if config.ssl_keyfile and not config.ssl_certfile:
        raise TlsError("CONSENT_SSL_KEYFILE is set, but CONSENT_SSL_CERTFILE is not")
    for name in ("ssl_certfile", "ssl_keyfile"):
        if path := getattr(config, name):
            try:
                Path(path).open("rb").close()
            except OSError as error:
                raise TlsError(f"CONSENT_{name.upper()}: {path}: {error.strerror}") from None
    if config.ssl_certfile:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile or None, _no_password)
        except ssl.SSLError as error:
            key = config.ssl_keyfile or "the same file"
            raise TlsError(
                f"CONSENT_SSL_CERTFILE: {config.ssl_certfile}, with the key in {key}, "
                f"is no certificate with its private key in PEM: {error.reason}"
            ) from None


def _no_password() -> str:
    raise TlsError("CONSENT_SSL_KEYFILE: the private key is encrypted; give it without a passphrase")


def trusted(config: Config) -> ssl.SSLContext | bool:
    """What httpx takes as `verify`: the system's authorities, and the worker's own certificate where one is set.

    Raises TlsError if that cannot be read.
    """
    if not config.ssl_certfile:
        return True
    context = ssl.create_default_context()
    try:
        context.load_verify_locations(config.ssl_certfile)
    except OSError as error:  # an SSLError too
        raise TlsError(f"CONSENT_SSL_CERTFILE: {config.ssl_certfile}: {error.strerror or error}") from None
    # A certificate that was given is trusted by itself, whoever signed it and whatever its extensions leave out.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
