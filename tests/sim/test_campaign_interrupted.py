"""A campaign over several processes that is stopped: it ends at once, with no traceback of any worker."""

import os
import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize("whom", ["group", "verb"])
def test_a_stopped_campaign_ends_without_a_traceback(whom):
    """Ctrl-C reaches the verb and its workers; SIGTERM reaches the verb alone, which then ends its workers."""
    verb = subprocess.Popen(
        [sys.executable, "-c", "from edgora.cli import main; main()", "sim", "--seeds", "0..31", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert verb.stderr is not None
    try:
        assert "schedules" in verb.stderr.readline()  # workers are at it
        if whom == "group":
            os.killpg(verb.pid, signal.SIGINT)
        else:
            verb.send_signal(signal.SIGTERM)
        _, said = verb.communicate(timeout=60)
    finally:
        if verb.poll() is None:
            os.killpg(verb.pid, signal.SIGKILL)
    assert verb.returncode == 130  # as after any Ctrl-C
    assert "Traceback" not in said
