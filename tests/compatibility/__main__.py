"""Append a line for each sample that has none yet; the lines that are there stay as they are."""

from __future__ import annotations

import json
from typing import get_args

from schemas.examples import EXAMPLES
from streams.http.documents.examples import LEGACY, SUBSCRIPTIONS
from tests.compatibility.reading import FILE, WORDS, WORDS_FILE, needs, read
from tests.schemas import samples

_UNKNOWN = dict.fromkeys(samples.DECISION, None) | {
    "request_id": "r-2", "decision_id": "r-2/3/5", "org_unit_id": -1, "eligible": False, "reason": "invalid_request",
    "as_of": {"partition": 3, "offset": 18},
}  # fmt: skip
SAMPLES = [
    *EXAMPLES.items(), ("settings", {"org_id": 100, "version": 1}), ("consent.changed", samples.CHANGED_IN_FULL),
    ("eligibility.request", samples.SHORTEST_REQUEST), ("eligibility.decision", _UNKNOWN),
    ("consent.notification", samples.CONFIRMATION), ("v2 request", SUBSCRIPTIONS), ("v1.1 request", LEGACY),
]  # fmt: skip


def main() -> None:
    """Write both files."""
    lines = FILE.read_text("utf-8").splitlines() if FILE.exists() else []
    there = [(line["schema"], line["record"]) for line in map(json.loads, lines)]
    for name, record in SAMPLES:
        if (name, record) not in there:
            line = {"schema": name, "record": record, "read": read(name, record), "needs": needs(name, record)}
            lines.append(json.dumps(line, ensure_ascii=False))
    FILE.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    words = json.loads(WORDS_FILE.read_text("utf-8")) if WORDS_FILE.exists() else {}
    for name, kind in WORDS.items():
        words[name] = list(dict.fromkeys([*words.get(name, []), *get_args(kind)]))
    WORDS_FILE.write_text(json.dumps(words, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
