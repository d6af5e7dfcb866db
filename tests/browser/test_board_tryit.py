"""Try it: the command that the page hands over is run by a shell and returns the filtered photo; the page follows it."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from board_platform import BoardPlatform
from edgora.client.checks import verify_output
from edgora.client.images import Raster, photo
from edgora.client.kernels import order_for_kernel, to_kernel_input
from edgora.wire.inputs import TaskInput

pytestmark = pytest.mark.browser
NAME = 'it\'s "mine" $HOME `id`; & *.png'
"""As a shell would love to have it."""
DONE_MS = 90_000


def picture(folder: Path, name: str = NAME) -> Path:
    """A photo of 120 x 90 under an awkward name."""
    path = folder / name
    path.write_bytes(Raster.from_file(photo()).crop(200, 100, 120, 90).to_png())
    return path


def command_of(page: Page) -> str:
    shown = page.locator("#try-command code")
    expect(shown).to_be_visible()
    return shown.inner_text()


def shell(command: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """What a terminal does with it, in the photo's folder, with a UE of its own."""
    binaries = str(Path(sys.executable).parent)
    environment = {
        **os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "EDGORA_HOME": str(folder / "home"), "HOME": "/nonexistent",
    }  # fmt: skip
    return subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=180
    )


def test_a_photo_is_filtered_by_the_command_and_followed_on_the_page(
    own_platform: BoardPlatform, page: Page, tmp_path: Path, shot: Callable[[str], Path]
) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method))
    page.goto(f"{own_platform.url}/#/try")
    source = picture(tmp_path)
    expect(page.locator("main")).to_contain_text("Nothing that you choose leaves this page.")
    page.get_by_label("Photo").set_input_files(source)
    preview = page.get_by_alt_text("the photo that you chose")
    expect(preview).to_be_visible()
    expect(page.locator("figcaption").first).to_have_text(f"{NAME}: 120 x 90")
    command = command_of(page)
    page.get_by_role("button", name="I have run it").click()
    expect(page.locator("main")).to_contain_text("None on the ledger yet.")
    shot("tryit")

    done = shell(command, tmp_path)
    assert done.returncode == 0, done.stderr
    named = re.search(r"\btask\s+(0x[0-9a-f]{64})", done.stderr)
    assert named is not None, done.stderr
    task = named[1]
    followed = page.locator(f'.try-task[data-task="{task}"]')
    expect(followed).to_have_attribute("data-state", "SETTLED", timeout=DONE_MS)
    truth = own_platform.json(f"/v1/tasks/{task}")
    expect(followed.locator(".why")).to_have_text(truth["why"])
    expect(followed.get_by_role("link", name="All about this task")).to_have_attribute("href", f"#/task/{task}")

    words = shlex.split(command)
    result = tmp_path / words[words.index("--out") + 1]
    output = Raster.from_file(result.read_bytes())
    assert verify_output("sobel", to_kernel_input("sobel", source.read_bytes(), {}), output.to_octets())
    page.get_by_label("Result", exact=True).set_input_files(result)
    shown = page.get_by_alt_text("the result that you chose")
    expect(shown).to_be_visible()
    assert shown.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [120, 90]
    shown.scroll_into_view_if_needed()
    shot("tryit-result")
    assert set(sent) == {"GET"}, "the page uploads nothing"


def test_the_page_follows_a_task_from_its_first_moment(own_platform: BoardPlatform, page: Page, tmp_path: Path) -> None:
    """By the UE's address, and by the task's id; what fits neither is not shown."""
    page.goto(f"{own_platform.url}/#/try")
    keys = own_platform.funded()
    page.get_by_label("Photo").set_input_files(picture(tmp_path))
    page.get_by_label("Your UE's address").fill(f"0x{keys.address.hex()}")
    expect(page.locator("main")).to_contain_text("of this UE that were ordered after")
    with own_platform.client(keys) as ue:
        other = ue.submit(order_for_kernel("sobel", photo(), {}))
        mine = ue.submit(order_for_kernel("sobel", (tmp_path / NAME).read_bytes(), {}))
        first = page.locator(".try-task")
        expect(first).to_have_count(1)
        expect(first).to_have_attribute("data-task", f"0x{mine.task.hex()}")
        ue.finish(mine.task)
        expect(first).to_have_attribute("data-state", "SETTLED", timeout=DONE_MS)
        page.get_by_label("Your UE's address").fill(f"0x{other.task.hex()}")
        expect(page.locator(".try-task")).to_have_attribute("data-task", f"0x{other.task.hex()}")
        ue.finish(other.task)
    page.get_by_label("Your UE's address").fill("0x12")
    expect(page.locator("main")).to_contain_text("That is neither an address")


@pytest.mark.parametrize(
    "path",
    ["plain.png", "two words.png", "-rf.png", "a'b'c.png", "$(touch owned).png", "..\\back`tick`.png", "päpstlich 写真.png", "!history!.png"],
)  # fmt: skip
def test_whatever_a_file_is_called_the_shell_reads_one_word(platform: BoardPlatform, page: Page, path: str) -> None:
    page.goto(f"{platform.url}/#/try")
    page.get_by_label("Kernel").select_option("blur")
    page.get_by_label("Its path on your machine").fill(path)
    page.get_by_label("radius").fill("7")
    words = shlex.split(command_of(page))
    safe = f"./{path}" if path.startswith("-") else path
    assert words[:3] == ["edgora", "submit", safe]
    assert words[3:7] == ["--kernel", "blur", "--arg", "radius=7"]
    assert [words[i + 1] for i, word in enumerate(words) if word == "--node"] == platform.urls
    assert words[words.index("--out") + 1] == f"{safe.removesuffix('.png')}-blur.png"
    echoed = subprocess.run(["sh", "-c", f"printf '%s\\0' {command_of(page)}"], capture_output=True, check=True)
    assert echoed.stdout.decode().split("\0")[:-1] == words, "sh reads it as POSIX says"


def test_options_out_of_range_are_named_before_anything_is_run(platform: BoardPlatform, page: Page) -> None:
    page.goto(f"{platform.url}/#/try")
    alert = page.get_by_role("alert")
    expect(alert).to_have_text("Choose a photo, or write its path.")
    page.get_by_label("Kernel").select_option("blur")
    page.get_by_label("Its path on your machine").fill("a.png")
    for text, words in (
        ("65", "radius: 1 to 64 may be"),
        ("0", "radius: 1 to 64 may be"),
        ("$(id)", "radius: a whole number is needed"),
    ):
        page.get_by_label("radius").fill(text)
        expect(alert).to_have_text(words)
        expect(page.locator("#try-command code")).to_have_count(0)
        expect(page.get_by_role("button", name="I have run it")).to_be_disabled()
    page.get_by_label("radius").fill("")
    expect(alert).to_have_text("")
    assert "--arg" not in command_of(page)
    page.get_by_label("Its path on your machine").evaluate(
        "field => { field.value = 'a\\u0007b.png'; field.dispatchEvent(new Event('input')); }"
    )
    expect(alert).to_have_text("the name holds a control character: rename the file")


def test_lengths_on_the_ledger_are_told_beforehand(platform: BoardPlatform, page: Page) -> None:
    """The page's arithmetic against the client's own packing, at the edges of MessagePack's lengths."""
    page.goto(f"{platform.url}/#/try")
    for args in (0, 12, 84):
        for data in (0, 1, 255, 256, 65_535, 65_536, 1_000_000):
            told = page.evaluate(
                "async ([args, data]) => (await import('/static/js/tryit/command.js')).sealedOctets(args, data)",
                [args, data],
            )
            assert told == len(TaskInput(bytes(args), bytes(data)).pack())


def test_the_copy_button_puts_the_command_on_the_clipboard(platform: BoardPlatform, page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=platform.url)
    page.goto(f"{platform.url}/#/try")
    page.get_by_label("Kernel").select_option("spin")
    page.get_by_label("rounds").fill("1000")
    command = command_of(page)
    page.get_by_role("button", name="copy command").click()
    expect(page.get_by_role("button", name="copy command")).to_have_text("copied")
    assert page.evaluate("navigator.clipboard.readText()") == command
    assert shlex.split(command)[:6] == ["edgora", "submit", "--kernel", "spin", "--arg", "rounds=1000"]
