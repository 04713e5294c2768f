"""Which Maven repository to ask: the user's own Maven settings decide, Maven Central is the default.

jgo knows no `settings.xml`, so the part of it that matters here is read by hand: a mirror that stands in
for Maven Central, and plain-text credentials of that mirror.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from .errors import BrokerError

REPOSITORY_VARIABLE = "CONSENT_MAVEN_REPOSITORY"


def central_repositories() -> dict[str, str]:
    """Name and URL of the repository that serves Maven Central's artifacts on this machine.

    `CONSENT_MAVEN_REPOSITORY` wins, then the first fitting mirror of the user's `~/.m2/settings.xml`, then one of
    the installation's own settings (`MAVEN_HOME` or `M2_HOME`). Empty when none of them says anything.

    Raises BrokerError when a settings file cannot be read.
    """
    given = os.environ.get(REPOSITORY_VARIABLE)
    if given:
        return {"central": given.rstrip("/")}
    for file in _settings_files():
        mirror = _mirror_of_central(file)
        if mirror:
            return {"central": mirror}
    return {}


def without_credentials(url: str) -> str:
    """The URL as it may be shown: no user, no password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _settings_files() -> list[Path]:
    homes = [os.environ.get("MAVEN_HOME"), os.environ.get("M2_HOME")]
    files = [Path.home() / ".m2" / "settings.xml"]
    files += [Path(home) / "conf" / "settings.xml" for home in homes if home]
    return [file for file in files if file.is_file()]


def _mirror_of_central(file: Path) -> str | None:
    try:
        root = ElementTree.fromstring(file.read_bytes())  # noqa: S314  the user's own file
    except (OSError, ElementTree.ParseError) as error:
        raise BrokerError(f"the Maven settings {file} cannot be read: {error}") from error
    for mirror in root.iterfind("{*}mirrors/{*}mirror"):
        url = _text(mirror, "url").rstrip("/")
        if url and _text(mirror, "blocked") != "true" and _covers_central(_text(mirror, "mirrorOf")):
            return _with_credentials(url, _text(mirror, "id"), root)
    return None


def _covers_central(mirror_of: str) -> bool:
    names = [name.strip() for name in mirror_of.split(",")]
    return "!central" not in names and not {"*", "external:*", "central"}.isdisjoint(names)


def _with_credentials(url: str, mirror_id: str, root: ElementTree.Element) -> str:
    for server in root.iterfind("{*}servers/{*}server"):
        user, password = _text(server, "username"), _text(server, "password")
        # A password in braces is encrypted with Maven's own master password: only Maven can read it.
        if _text(server, "id") == mirror_id and user and not password.startswith("{"):
            parts = urlsplit(url)
            return parts._replace(netloc=f"{quote(user, safe='')}:{quote(password, safe='')}@{parts.netloc}").geturl()
    return url


def _text(element: ElementTree.Element, tag: str) -> str:
    text = element.findtext(f"{{*}}{tag}") or ""
    return re.sub(r"\$\{env\.(\w+)\}", lambda found: os.environ.get(found[1], ""), text).strip()
