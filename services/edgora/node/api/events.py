"""Server-sent events (WHATWG HTML 9.2): ids are the ledger's event ids, so a reader resumes at any node."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from starlette.responses import StreamingResponse

from edgora.node.api.node import Node, NodeApi
from edgora.wire.errors import Refused

__all__ = ["EVENT_STREAM", "event_stream", "resume_from", "router"]

router = APIRouter(prefix="/v1", tags=["events"])
MEDIA = "text/event-stream"
EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "id: event id; event: its type; data: an Event in JSON",
        "content": {MEDIA: {"schema": {"type": "string"}}},
    }
}


def resume_from(last_event_id: str | None, after: int | None) -> int | None:
    """Where a reader goes on: the header that an EventSource sends wins over the query."""
    if last_event_id is None:
        return after
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 20):
        raise Refused(
            f"Last-Event-ID {last_event_id[:40]!r} is no event id", field="header.Last-Event-ID",
            fix="send the id of the last event that you saw, or leave the header out",
        )  # fmt: skip
    return min(int(last_event_id), 2**62)


def event_stream(node: NodeApi, frames: AsyncIterator[bytes]) -> Response:
    node.streams.admit()
    return StreamingResponse(frames, media_type=MEDIA, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


@router.get("/events", responses=EVENT_STREAM, response_class=Response)
async def get_events(
    node: Node,
    last_event_id: Annotated[str | None, Header()] = None, after: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:  # fmt: skip
    """Every event of the ledger, from the given id on, else from now on."""
    start = resume_from(last_event_id, after)
    return event_stream(node, node.streams.all(node.streams.newest() if start is None else start))
