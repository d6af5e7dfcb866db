"""Keys and journal: what must survive, and what must be refused."""

import os

import pytest

from edgora.client import Journal, Wallet
from edgora.crypto.keys import SealingKey
from edgora.crypto.sign import SigningKey
from edgora.wire.errors import Refused


@pytest.fixture(scope="module")
def wallet() -> Wallet:
    return Wallet(SigningKey.derived("a UE"), SealingKey.generate())


def test_a_saved_wallet_is_private_and_loads_as_the_same_keys(tmp_path, wallet) -> None:
    path = tmp_path / "deep" / "ue.key"
    wallet.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Wallet.load(path)
    assert again.address == wallet.address
    assert again.sealing.public.digest == wallet.sealing.public.digest


def test_a_key_file_is_never_overwritten(tmp_path, wallet) -> None:
    path = tmp_path / "ue.key"
    wallet.save(path)
    before = path.read_bytes()
    with pytest.raises(Refused, match="not overwritten"):
        wallet.save(path)
    assert path.read_bytes() == before


def test_a_key_file_that_others_can_read_is_refused_with_the_fix(tmp_path, wallet) -> None:
    path = tmp_path / "ue.key"
    wallet.save(path)
    path.chmod(0o644)
    with pytest.raises(Refused) as refused:
        Wallet.load(path)
    assert refused.value.field == "key"
    assert refused.value.fix == f"chmod 600 {path}"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"version":1,"address":"0x","signing_key":"zz","sealing_key_pem":""}']
)
def test_a_file_that_is_no_key_file_is_refused(tmp_path, content) -> None:
    path = tmp_path / "ue.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Refused) as refused:
        Wallet.load(path)
    assert refused.value.field == "key"


def test_a_wallet_never_shows_its_secrets(wallet) -> None:
    assert wallet.signing.secret.hex() not in repr(wallet)


TASK = bytes(range(32))


def test_a_journal_remembers_across_processes_with_the_newest_fields(tmp_path) -> None:
    path = tmp_path / "ue.journal"
    journal = Journal(path)
    journal.note(TASK, "signed", {"label": "sobel", "salt": "0x01"})
    journal.note(TASK, "accepted", {"height": 7})
    journal.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Journal(path)
    assert again.task(TASK) == {"label": "sobel", "salt": "0x01", "height": 7, "stage": "accepted"}


def test_a_journal_is_cut_at_every_octet_of_its_last_line_and_reads_the_rest(tmp_path) -> None:
    path = tmp_path / "ue.journal"
    journal = Journal(path)
    journal.note(TASK, "signed", {"label": "blur"})
    first = path.stat().st_size
    journal.note(TASK, "accepted", {"height": 7})
    journal.close()
    whole = path.read_bytes()
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        cut = Journal(path)
        assert cut.task(TASK) == {"label": "blur", "stage": "signed"}
        assert path.stat().st_size == first
        cut.close()


def test_a_journal_damaged_in_the_middle_is_refused_by_line(tmp_path) -> None:
    path = tmp_path / "ue.journal"
    journal = Journal(path)
    journal.note(TASK, "signed", {})
    journal.note(TASK, "accepted", {})
    journal.close()
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    with pytest.raises(Refused, match="line 1"):
        Journal(path)


def test_a_note_is_on_disk_when_it_returns(tmp_path) -> None:
    path = tmp_path / "ue.journal"
    journal = Journal(path)
    journal.note(TASK, "signed", {"x": 1})
    handle = os.open(path, os.O_RDONLY)
    assert os.read(handle, 4096).endswith(b"\n")
    os.close(handle)
