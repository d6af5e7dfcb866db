"""Long runs in the allocator's container: asked for by the image's own command, kept on its volume, resumed after a kill."""

import asyncio
import json
from typing import Any

import pytest

from e2e.stack import Stack, run, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def jobs(stack: Stack, *words: str) -> dict[str, Any]:
    """`edgora jobs ... --json` in the allocator's container."""
    told = stack.compose("exec", "--no-TTY", "allocator", "edgora", "jobs", *words, "--json")
    document: dict[str, Any] = json.loads(told)
    return document


async def reaches(stack: Stack, job: str, state: str, *, with_file: str | None = None) -> dict[str, Any]:
    """Wait until the job is in this state, and has left this file."""
    last: dict[str, Any] = {}

    async def look() -> bool:
        last.update(await asyncio.to_thread(jobs, stack, "show", job))
        files = {file["name"] for file in last["files"]}
        return last["state"] == state and (with_file is None or with_file in files)

    try:
        await until(f"job {state}", look)
    except AssertionError as error:
        raise AssertionError(f"{error}: {last}") from None
    return last


async def test_a_job_outlives_its_container(stack: Stack) -> None:
    await stack.all_well()
    short = jobs(stack, "submit", "train", "baas", "--algo", "pair-q", "--seed", "7", "--set", "slots=400")["id"]
    ended = await reaches(stack, short, "finished", with_file="policy.npz")
    long = jobs(stack, "submit", "train", "baas", "--algo", "pair-q", "--seed", "7", "--set", "slots=1000000")["id"]
    await reaches(stack, long, "running", with_file="log.jsonl")

    container = stack.container("allocator")
    run("docker", "kill", "--signal", "KILL", container)
    run("docker", "start", container)
    await stack.all_well()

    cut = await reaches(stack, long, "interrupted")
    assert cut["attempts"] == 1
    kept = jobs(stack, "show", short)
    assert kept["state"] == "finished"
    assert kept["files"] == ended["files"]
    judged = jobs(stack, "submit", "evaluate", "baas", "--policy", f"job:{short}", "--seeds", "2000..2001", "--set", "slots=20")["id"]  # fmt: skip
    await reaches(stack, judged, "finished", with_file="evaluation.json")

    jobs(stack, "resume", long)
    again = await reaches(stack, long, "running")
    assert again["attempts"] == 2
    jobs(stack, "cancel", long)
    await reaches(stack, long, "cancelled")
    refused = stack.composed("exec", "--no-TTY", "allocator", "edgora", "jobs", "submit", "train", "baas", "--algo", "ddqn", "--json")  # fmt: skip
    assert refused.returncode == 2
    assert "algo" in (refused.stdout + refused.stderr).decode()
