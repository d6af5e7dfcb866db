"""A campaign over several processes that is stopped: it ends at once, with no traceback of any worker."""

import os
import signal
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("whom", "interrupt"), [("group", "default_int_handler"), ("verb", "default_int_handler"), ("verb", "SIG_IGN")]
)
def test_a_stopped_campaign_ends_without_a_traceback(whom, interrupt):
    """Ctrl-C reaches the verb and its workers; SIGTERM reaches the verb alone, which then ends its workers.

    In the background of a script Ctrl-C is ignored (SIG_IGN, as the shell set it); SIGTERM is not.
    """
    program = f"import signal; signal.signal(signal.SIGINT, signal.{interrupt}); from edgora.cli import main; main()"
    verb = subprocess.Popen(
        [sys.executable, "-c", program, "sim", "--seeds", "0..199", "--jobs", "2"],
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
