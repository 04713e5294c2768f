"""Records of `consent.inbound`: what gateways receive from customers' phones (domain section 7)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from schemas.base import RECORD, Id, Instant, Int64, Text

#: As gateways write it: E.164, national, or a short code.
Number = Annotated[str, Field(min_length=1, max_length=64, examples=["+4915112345678", "1234"])]

SmsReceived = TypedDict(
    "SmsReceived",
    {
        "event": Literal["sms.received"],
        "org_id": Int64,
        "to": Number,
        "from": Number,
        "text": Text,
        "received_at": Instant,
        "message_id": Id,
    },
)
SmsReceived.__doc__ = "A text message; the same `message_id` again is the same message."
SmsReceived.__pydantic_config__ = RECORD  # type: ignore[attr-defined]

CallMissed = TypedDict(
    "CallMissed",
    {
        "event": Literal["call.missed"],
        "org_id": Int64,
        "to": Number,
        "from": Number,
        "received_at": Instant,
        "call_id": Id,
    },
)
CallMissed.__doc__ = "A call that was not answered; the same `call_id` again is the same call."
CallMissed.__pydantic_config__ = RECORD  # type: ignore[attr-defined]

Inbound = SmsReceived | CallMissed

#: The validator of each kind of record, by the value of its field `event`.
INBOUND: dict[str, TypeAdapter[Any]] = {
    "sms.received": TypeAdapter(SmsReceived),
    "call.missed": TypeAdapter(CallMissed),
}
