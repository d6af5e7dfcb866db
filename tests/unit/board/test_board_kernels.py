"""What /board.json says of the kernels is what the client and the ledger mean by them."""

import pytest

from edgora.board.kernels import BoardKernel, shipped_kernels
from edgora.client.images import photo
from edgora.client.kernels import order_for_kernel
from edgora.wire.errors import Refused
from edgora.wire.hashing import keccak
from edgora.wire.inputs import TaskInput
from edgora.wire.kernels import load, names

FILES = {"picture": photo(), "octets": b"header", "nothing": b""}
KERNELS = {kernel.name: kernel for kernel in shipped_kernels()}


def test_all_kernels_are_told_by_the_digest_that_the_ledger_shows() -> None:
    assert list(KERNELS) == list(names())
    for name, kernel in KERNELS.items():
        assert kernel.digest == f"0x{keccak(load(name).wasm).hex()}"


@pytest.mark.parametrize("kernel", [k for k in KERNELS.values() if k.file != "json"], ids=lambda k: k.name)
def test_an_order_can_be_made_with_the_file_and_the_options_told(kernel: BoardKernel) -> None:
    order = order_for_kernel(kernel.name, FILES[kernel.file], {o.name: str(max(o.least, 1)) for o in kernel.options})
    assert len(TaskInput.unpack(order.plaintext).args) == kernel.args_octets
    for option in kernel.options:
        if option.most is not None:
            with pytest.raises(Refused) as refused:
                order_for_kernel(kernel.name, FILES[kernel.file], {option.name: str(option.most + 1)})
            assert refused.value.field == option.name


def test_a_kernel_whose_input_is_a_document_has_no_options() -> None:
    (kernel,) = [k for k in KERNELS.values() if k.file == "json"]
    assert kernel.options == []
