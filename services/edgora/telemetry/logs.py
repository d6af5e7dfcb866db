"""Structured logs: one JSON object a line on stderr, no payloads.

A record's `extra` fields become members. What never goes into a log: plaintexts, content keys, sealed octets,
signatures, request bodies. Values are cut at 200 characters, so a slip stays small.
"""

import json
import logging
import sys
import time

__all__ = ["JsonFormatter", "configure"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_LONGEST = 200


def _short(value: object) -> object:
    if isinstance(value, (bytes, bytearray)):
        value = "0x" + bytes(value).hex()
    if isinstance(value, str) and len(value) > _LONGEST:
        return value[:_LONGEST] + "..."
    return value if isinstance(value, (str, int, float, bool, type(None))) else _short(str(value))


class JsonFormatter(logging.Formatter):
    """Members: time (UTC, ms), level, logger, event (the message), then the record's extra fields, then error."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "event": _short(record.getMessage()),
        }
        line.update({name: _short(value) for name, value in vars(record).items() if name not in _STANDARD})
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = _short(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def configure(level: str = "INFO") -> None:
    """Send every logger of this process to stderr as JSON; for composition roots."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
