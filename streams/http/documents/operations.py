"""What the worker's HTTP offers: each operation with its parameters, its body, and every answer that it can give."""

from __future__ import annotations

from typing import Any

from schemas.answers import CustomersFound, CustomerState, Previewed, Problem, SettingsInForce, Taken
from schemas.eligibility import Decision, EligibilityRequest
from schemas.events import BatchReverted, ConsentChanged, ConsentVerified, CustomerErased, CustomerRegistered
from schemas.examples import EXAMPLES
from schemas.inbound import CallMissed, SmsReceived
from schemas.subscriptions import (
    LegacyAnswer,
    LegacyRequest,
    SubscriptionAnswer,
    SubscriptionRefusal,
    SubscriptionRequest,
    SubscriptionStatuses,
)
from streams.http.documents import examples
from streams.http.documents.parts import (
    ACCEPTED,
    CUSTOMER,
    FOREIGN,
    HTML,
    IDENTIFIER,
    KINDS,
    LANGUAGE,
    LARGE,
    MISUSED,
    NO_ORG,
    ONCE,
    ORG,
    SOURCE,
    TEXT,
    TOKEN,
    UNREADABLE,
    WHICH_ORG,
    Answer,
    Operation,
    Parameter,
    problem,
    refused,
)

_EVENTS = (ConsentChanged, ConsentVerified, BatchReverted, CustomerRegistered, CustomerErased)
_BATCH = Answer("Opt-ins and opt-outs", examples.SUBSCRIPTIONS, (SubscriptionRequest,))
_BATCH_ANSWERS = {
    200: Answer("At least one entry is in the log; `errors` name the others", examples.ACCEPTED, (SubscriptionAnswer,)),
    400: refused("The request is malformed, or does not say for which org it is", 400,
                  "org_id: name the org, as org_id in the query or in the header X-Org-Id"),
    403: refused("The user may not act for this org", 403, "this user may not act for org 100"),
    404: refused("The customer is not registered (1012), or the org has no settings (404)", 1012,
                  "customer not found: '565039505' is not registered"),
    413: LARGE,
    503: Answer("Not now: the state is behind the log, or the partition is being moved",
                examples.refusal(503, "the state is behind the log: try again in a second"),
                (SubscriptionRefusal, Problem)),
    422: refused("The Idempotency-Key came with another request before", 422,
                  "Idempotency-Key: it came with another request before"),
    500: refused("All entries failed (1000)", 1000,
                  "subscriptions[0].priority: Input should be 'BULK' or 'TRANS', not 'TANS'"),
}  # fmt: skip
_BATCH_TEXT = """\
Each entry is accepted or refused by itself; what is accepted is in the log, in one batch, before it is answered.
`positions` say where: a `min_position` of an eligibility request that names one is decided with it. An opt-in of type
DOUBLE waits for its verification, and `warnings` say so."""


def _hook(what: str, name: str, model: Any) -> Operation:
    answers = {
        202: Answer("Written to `consent.inbound`", {"position": {"partition": 1, "offset": 5}}, (Taken,)),
        403: FOREIGN, 404: NO_ORG, 413: LARGE, 422: UNREADABLE,
    }  # fmt: skip
    text = "Written to `consent.inbound` as it came; what it means is the stream's business. `event` may be left out."
    event = "sms.received" if model is SmsReceived else "call.missed"
    return Operation(name, "gateways", what, text, answers, body=Answer(what, EXAMPLES[event], (model,)))


_SHOWN = {
    200: Answer("A page with what the link does, and a button", examples.PAGE, media=HTML),
    404: Answer("The token is not ours", examples.FAULT_PAGE, media=HTML),
    410: Answer("The token has expired", examples.FAULT_PAGE, media=HTML),
}

#: By method and path.
OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/eligibility"): Operation(
        "decide", "decisions", "One eligibility request, answered when it is decided",
        "A record of `eligibility.requests`, whose `request_id` may be left out. It goes through the log like any "
        "other, waits at most `max_wait_ms` for the state, and leaves its decision and audit in their topics.",
        {
            200: Answer("The decision", EXAMPLES["eligibility.decision"], (Decision,)),
            403: FOREIGN, 413: LARGE, 422: UNREADABLE,
            504: problem("Not decided in time", "not decided in time; the decision will be in eligibility.decisions"),
        },
        body=Answer("The request", EXAMPLES["eligibility.request"], (EligibilityRequest,)),
    ),
    ("GET", "/v1/customers/{org_id}/{customer_id}"): Operation(
        "getCustomer", "state", "A customer's cells",
        "The customer at the log's end: registration, identifiers, and every cell with its status.",
        {
            200: Answer("The state", examples.STATE, (CustomerState,)),
            403: FOREIGN,
            404: problem("The customer is unknown, or the org", "customer '565039505' of org 100 is unknown"),
            422: MISUSED,
        },
        (ORG, CUSTOMER),
    ),
    ("GET", "/v1/orgs/{org_id}/settings"): Operation(
        "getSettings", "state", "An org's settings in force", "The newest that a partition of the worker has.",
        {
            200: Answer("The settings", examples.IN_FORCE, (SettingsInForce,)),
            403: FOREIGN, 404: NO_ORG, 422: MISUSED,
        },
        (ORG,),
    ),
    ("GET", "/v1/orgs/{org_id}/customers"): Operation(
        "findCustomers", "state", "The customers who have an identifier",
        "Several customers can share a mobile number or an address. Nobody has it: an empty list.",
        {
            200: Answer("Their ids", {"customers": ["565039505"]}, (CustomersFound,)),
            403: FOREIGN, 404: NO_ORG, 422: MISUSED,
        },
        (
            ORG,
            Parameter("name", "query", "Kind of the identifier, in any case", {"type": "string", "enum": KINDS},
                      "mobile", required=True),
            Parameter("value", "query", "The identifier", {"type": "string"}, "+15550100505", required=True),
        ),
    ),
    ("POST", "/v1/orgs/{org_id}/preview"): Operation(
        "preview", "state", "What events of customers of one partition would do",
        "For a dry run: nothing is written. Each event is weighed after those before it.",
        {
            200: Answer("One outcome for each event", examples.PREVIEWED, (Previewed,)),
            403: FOREIGN, 413: LARGE,
            422: problem("The list cannot be weighed", "the customers 100:1 and 100:2 are of different partitions: "
                         "ask for each apart"),
        },
        (ORG,),
        Answer("Events of customers", [EXAMPLES["consent.changed"]], _EVENTS, schema={
            "type": "array", "maxItems": 1_000,
            "items": {"oneOf": [{"$ref": f"#/components/schemas/{event.__name__}"} for event in _EVENTS]},
        }),
    ),
    ("POST", "/v2/customers/{customer_id}/subscriptions"): Operation(
        "subscribe", "subscriptions", "Opt-ins and opt-outs of one customer", _BATCH_TEXT, _BATCH_ANSWERS,
        (CUSTOMER, *WHICH_ORG, SOURCE, ONCE), _BATCH,
    ),
    ("POST", "/v2/customers/lookup/subscriptions"): Operation(
        "subscribeByIdentifier", "subscriptions", "Opt-ins and opt-outs of whoever has an identifier",
        f"{_BATCH_TEXT}\nAn identifier that several customers share applies to all of them.", _BATCH_ANSWERS,
        (*IDENTIFIER, *WHICH_ORG, SOURCE, ONCE), _BATCH,
    ),
    ("GET", "/v2/customers/{customer_id}/subscriptions"): Operation(
        "getSubscriptions", "subscriptions", "A customer's statuses", "Every place that anything was said of.",
        {
            200: Answer("The statuses", examples.STATUSES, (SubscriptionStatuses,)),
            **{status: _BATCH_ANSWERS[status] for status in (400, 403, 404, 503)},
        },
        (CUSTOMER, *WHICH_ORG),
    ),
    ("POST", "/v1.1/customer/subscriptions"): Operation(
        "subscribeLegacy", "subscriptions", "Opt-ins and opt-outs on the default profile",
        "Each item names a customer by exactly one identifier and applies to the org's default profile, for the whole "
        "org; `sms` is MOBILE. Each is accepted or refused by itself, with a status of its own.",
        {
            200: Answer("All items were accepted", examples.legacy(200), (LegacyAnswer,)),
            201: Answer("Some items were accepted", examples.legacy(201), (LegacyAnswer,)),
            400: Answer("The request is malformed, or does not say for which org it is",
                        examples.legacy(400, "the body is not JSON"), (LegacyAnswer,)),
            403: Answer("The user may not act for this org",
                        examples.legacy(403, "this user may not act for org 100"), (LegacyAnswer,)),
            404: Answer("The org has no settings",
                        examples.legacy(404, "no settings are in force for org 100"), (LegacyAnswer,)),
            413: LARGE,
            500: Answer("All items failed", examples.legacy(500), (LegacyAnswer,)),
            503: Answer("Not now: the worker has no partition yet, or too many logins wait",
                        {"detail": "too many logins at once: try again"}, (Problem, LegacyAnswer)),
        },
        WHICH_ORG, Answer("The items", examples.LEGACY, (LegacyRequest,)),
    ),
    ("POST", "/v1/inbound/sms"): _hook("An SMS was received", "smsReceived", SmsReceived),
    ("POST", "/v1/inbound/call"): _hook("A call was missed", "callMissed", CallMissed),
    ("GET", "/u/{token}"): Operation(
        "showLink", "links", "What a link will do", "Changes nothing: mail scanners open links too.", _SHOWN,
        (TOKEN, LANGUAGE, ACCEPTED), open=True,
    ),
    ("POST", "/u/{token}"): Operation(
        "useLink", "links", "Use a link",
        "The page's button, or a mail program's one click (RFC 8058): `List-Unsubscribe=One-Click` in the form. The "
        "same token twice is harmless.",
        {
            **_SHOWN,
            200: Answer("Done: a page, or one line for a mail program", examples.PAGE, media=HTML + TEXT),
            400: Answer("One-Click for a link that does not opt out",
                        "This link does not unsubscribe; open it instead.\n", media=TEXT),
            413: LARGE,
            429: Answer("This link is used too often", examples.FAULT_PAGE, media=HTML),
            503: Answer("Kafka does not take the event now", examples.FAULT_PAGE, media=HTML),
        },
        (TOKEN, LANGUAGE, ACCEPTED),
        Answer("A form; anything else is the button", {"List-Unsubscribe": "One-Click"},
               media=("application/x-www-form-urlencoded", "multipart/form-data"), required=False,
               schema={"type": "object", "properties": {"List-Unsubscribe": {"const": "One-Click"}}}),
        open=True,
    ),
    ("GET", "/livez"): Operation(
        "isAlive", "operations", "The process answers", "Says nothing of Kafka or of partitions.",
        {200: Answer("It does", "ok\n", media=TEXT)}, open=True,
    ),
    ("GET", "/readyz"): Operation(
        "isReady", "operations", "Whether every partition of this worker is restored and none is stuck",
        "For a balancer: a worker that is not ready passes questions on, but not as fast.",
        {
            200: Answer("Ready", "ready\n", media=TEXT),
            503: Answer("Why not", "partitions [3] are not restored yet\n", media=TEXT),
        },
        open=True,
    ),
    ("GET", "/metrics"): Operation(
        "getMetrics", "operations", "Prometheus metrics", "They name every org: users of single orgs get none.",
        {
            200: Answer("The metrics", 'consent_decisions_total{reason="opted_in"} 17.0\n', media=TEXT),
            403: problem("Only for the token's owner", "metrics name every org: they are for the token's owner"),
        },
    ),
}  # fmt: skip
