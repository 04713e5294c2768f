"""`python -m schemas.export [FOLDER]`: the JSON Schema files of every record, the same bytes from the same models."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from schemas.audit import ChangeAudit, DecisionAudit, InboundAudit
from schemas.eligibility import Decision, EligibilityRequest
from schemas.events import (
    BatchReverted,
    ConsentChanged,
    ConsentVerified,
    CustomerErased,
    CustomerRegistered,
    Event,
    SettingsChanged,
)
from schemas.inbound import CallMissed, Inbound, SmsReceived
from schemas.notifications import Notification
from schemas.settings import OrgSettings

Schema = dict[str, Any]

#: Where the published files stand, beside the models.
FOLDER = Path(__file__).parent / "json"

#: What each file describes. Names are fixed: other systems refer to them.
RECORDS: dict[str, tuple[str, Any]] = {
    "consent.changes": ("Any record of consent.changes", Annotated[Event, Field(discriminator="event")]),
    "consent.changed": ("An opt-in or opt-out on one cell", ConsentChanged),
    "consent.verified": ("The verification of a pending double opt-in", ConsentVerified),
    "consent.batch_reverted": ("A batch of imported changes is taken out again", BatchReverted),
    "customer.registered": ("A customer becomes known", CustomerRegistered),
    "customer.erased": ("A customer's state is removed for good", CustomerErased),
    "settings.changed": ("An org's settings change", SettingsChanged),
    "settings": ("The settings document of an org", OrgSettings),
    "consent.inbound": ("Any record of consent.inbound", Annotated[Inbound, Field(discriminator="event")]),
    "sms.received": ("A text message from a customer's phone", SmsReceived),
    "call.missed": ("A call from a customer's phone", CallMissed),
    "eligibility.request": ("A record of eligibility.requests", EligibilityRequest),
    "eligibility.decision": ("A record of eligibility.decisions", Decision),
    "consent.audit": (
        "Any record of consent.audit",
        Annotated[ChangeAudit | DecisionAudit | InboundAudit, Field(discriminator="record")],
    ),
    "consent.audit.change": ("What became of a record of consent.changes", ChangeAudit),
    "consent.audit.inbound": ("What became of a record of consent.inbound", InboundAudit),
    "consent.audit.decision": ("A decision with everything it was made from", DecisionAudit),
    "consent.notification": ("A record of consent.notifications", Notification),
}


def documents() -> dict[str, str]:
    """File name to content: JSON Schema 2020-12, two spaces, a newline at the end."""
    return {f"{name}.json": _document(name, title, record) for name, (title, record) in RECORDS.items()}


def _document(name: str, title: str, record: Any) -> str:
    schema = TypeAdapter(record).json_schema(mode="validation", ref_template="#/$defs/{model}")
    head = {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:consent-streams:{name}",
        "title": title,
    }
    return json.dumps(head | {key: part for key, part in schema.items() if key not in head}, indent=2) + "\n"


class _Untitled(GenerateJsonSchema):
    """Fields go by their names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic's signature
        """No field needs a title made of its name."""
        return False


def components(records: Mapping[str, Any]) -> tuple[dict[str, Schema], dict[str, Schema]]:
    """The schema of each record by its name, and the definitions that they refer to, at `#/components/schemas`."""
    named = [(name, "validation", TypeAdapter(record)) for name, record in records.items()]
    found, definitions = TypeAdapter.json_schemas(
        named,  # type: ignore[arg-type]
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    return {name: schema for (name, _), schema in found.items()}, definitions.get("$defs", {})


def export(folder: Path) -> None:
    """Write every file, and remove those of records that are no more."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = documents()
    for old in folder.glob("*.json"):
        if old.name not in wanted:
            old.unlink()
    for name, content in wanted.items():
        (folder / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    export(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
