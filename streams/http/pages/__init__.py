"""The pages behind links, and the language that they are in. Nothing on them comes from elsewhere or runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from schemas.base import WHOLE_ORG
from streams.domain.orgs import Org
from streams.links import Link

_HERE = Path(__file__).parent
#: Every text of every page, by language. A channel that is not named in a language goes by its own name.
TEXTS: dict[str, dict[str, Any]] = orjson.loads((_HERE / "texts.json").read_bytes())
_BRANDS = {"WECHAT": "WeChat", "WHATSAPP": "WhatsApp", "LINE": "LINE"}
_RIGHT_TO_LEFT = {"ar"}
#: Domain section 8: what is left when nobody names a language that we have.
LAST_RESORT = "en"
_LONGEST_HEADER = 500

_STYLE = (_HERE / "link.css").read_text("utf-8")
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
#: On every answer under a link: neither stored, nor found, nor framed, nor told to others; nothing is loaded or run.
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
}
_TEMPLATE = Environment(
    loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
).get_template("link.html")


def language_of(wishes: Iterable[str | None]) -> str:
    """The first wish for which there is a translation, else English (domain section 8). `de-AT`, `de_AT`: `de`."""
    for wish in wishes:
        primary = (wish or "").replace("_", "-").partition("-")[0].lower()
        if primary in TEXTS:
            return primary
    return LAST_RESORT


def accepted(header: str) -> list[str]:
    """The tags of an Accept-Language header, the most wanted first; what cannot be read is left out."""
    found = []
    for part in header[:_LONGEST_HEADER].split(","):
        tag, _, quality = part.partition(";")
        try:
            weight = float(quality.strip().removeprefix("q=") or 1)
        except ValueError:
            continue
        if weight > 0:
            found.append((tag.strip(), weight))
    return [tag for tag, _ in sorted(found, key=lambda one: -one[1])]


def action_page(link: Link, org: Org | None, language: str, *, done: bool) -> HTMLResponse:
    """What a link will do, with its button; or, `done`, what it did. `org`: the settings, where they are known."""
    texts = TEXTS[language]
    own = texts[link.action]
    labels = texts["labels"]
    details = [
        (labels["priority"], texts["priority"].get(link.priority, link.priority)),
        (labels["channel"], texts["channel"].get(link.channel) or _BRANDS.get(link.channel, link.channel)),
        (labels["scope"], _scope(link.org_unit_id, org) or texts["whole"]),
    ]
    return _page(
        language,
        200,
        title=own["done"] if done else own["title"],
        text=own["after"] if done else own["ask"],
        org_name=org.settings.name if org else "",
        details=details,
        button="" if done else own["button"],
        close=texts["close"] if done else "",
    )


def fault_page(
    fault: Literal["expired", "invalid", "later"], language: str, status: int, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Why a link does nothing, or nothing now."""
    answer = _page(language, status, **TEXTS[language][fault], org_name="", details=[], button="", close="")
    answer.headers.update(headers or {})
    return answer


def _scope(org_unit_id: int, org: Org | None) -> str:
    """The org unit's name, its number if it has none; nothing for the whole org."""
    if org_unit_id == WHOLE_ORG:
        return ""
    units = org.settings.org_units if org else []
    return next((unit.name for unit in units if unit.id == org_unit_id and unit.name), str(org_unit_id))


def _page(language: str, status: int, **parts: Any) -> HTMLResponse:
    direction = "rtl" if language in _RIGHT_TO_LEFT else "ltr"
    # The style is our own file, and must stay byte for byte what the policy names.
    html = _TEMPLATE.render(language=language, direction=direction, style=Markup(_STYLE), **parts)  # noqa: S704
    return HTMLResponse(html, status, headers={**HEADERS, "Content-Language": language})
