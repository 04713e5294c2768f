"""What `up` shows at the end: the decisions as a table, and what to type next."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from streams.config import Config, default_datadir

from . import sample
from .reasons import sentence

NEXT = """
Up, until Ctrl-C. Next, in a second terminal:
{exports}
  {me} ask 100 565039505 --channel EMAIL --priority BULK --org-unit 200031782
  echo '{event}' | {me} publish
  {me} ask 100 565039505 --channel EMAIL --priority BULK --org-unit 200031782
  {me} state 100 565039505
  {me} audit --follow
  {me} settings show 100
"""
EVENT = (
    '{"event":"consent.changed","event_id":"my-\'$(date +%s)\'","org_id":100,"customer_id":"565039505",'
    '"source":"WEB_ENGAGE","account_id":"01","channel":"EMAIL","priority":"BULK","type":"OPTIN",'
    '"org_unit_id":200031782,"occurred_at":"\'$(date -u +%Y-%m-%dT%H:%M:%SZ)\'"}'
)


def decisions_table(decisions: list[dict[str, Any]]) -> Table:
    """One row for each decision, with a sentence for its reason."""
    names = sample.unit_names()
    table = Table("customer", "channel", "priority", "org unit", "policy", "send?", "reason", "because")
    for decision in decisions:
        unit = decision["org_unit_id"]
        answer = Text("yes", "green") if decision["eligible"] else Text("no", "red")
        cells = [decision["customer_id"], decision["channel"], decision["priority"], names.get(unit, str(unit))]
        policy = decision.get("policy") or "-"
        table.add_row(*cells, policy, answer, decision["reason"], sentence(decision["reason"]))
    return table


def hints(config: Config, broker_kind: str) -> str:
    """Commands to copy into a second terminal, with the variables that they need there."""
    needed = {
        "CONSENT_DATADIR": "" if config.datadir == default_datadir() else str(config.datadir),
        "CONSENT_BOOTSTRAP_SERVERS": config.bootstrap_servers if broker_kind in {"given", "docker"} else "",
        "CONSENT_TOPIC_PREFIX": config.topic_prefix,
        "CONSENT_HTTP_HOST": config.http_host if config.http_host != Config().http_host else "",
        "CONSENT_HTTP_PORT": str(config.http_port) if config.http_port != Config().http_port else "",
        "CONSENT_SSL_CERTFILE": str(Path(config.ssl_certfile).absolute()) if config.ssl_certfile else "",
    }
    exports = "".join(f"\n  export {name}={value}" for name, value in needed.items() if value)
    return NEXT.format(exports=exports, me=_me(), event=EVENT).rstrip()


def _me() -> str:
    """How this command can be called again."""
    if shutil.which("consent-streams"):
        return "consent-streams"
    called = Path(sys.argv[0])
    return str(called) if called.name == "consent-streams" else "python -m streams"
