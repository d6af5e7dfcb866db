"""Verbs of a UE: submit, quote, tasks list|show|cancel|fetch, verify."""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from edgora.cli.output import console, fail, missing_extra, progress, show, table
from edgora.client import Client, Delivery, Journal, Order, Quote, Tell, Ticket, Wallet
from edgora.client.flow import ticket_of
from edgora.client.images import Raster
from edgora.client.kernels import from_kernel_output, order_for_kernel, order_for_module
from edgora.client.proofs import check_document, document_of, read_document
from edgora.client.trust import hex0x, unhex
from edgora.telemetry.tracing import client_span, from_environment, open_tracing
from edgora.wire import rest
from edgora.wire.errors import EdgoraError, Refused
from edgora.wire.kernels import names

__all__ = ["app_commands"]

T = TypeVar("T")

Node = Annotated[
    list[str] | None, typer.Option("--node", help="Base URL of a node; repeat for more. The first is the nearby one.")
]
Key = Annotated[Path | None, typer.Option("--key", help="Key file of the UE (made with mode 0600 if missing).")]
Pin = Annotated[
    str | None, typer.Option("--genesis-id", help="Consortium to insist on, 0x-hex. Default: trust on first use.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Kernel = Annotated[str | None, typer.Option("--kernel", help=f"Shipped kernel: {', '.join(names())}.")]
Module = Annotated[Path | None, typer.Option("--module", help="Your own .wasm or .wat instead of a kernel.")]
Arg = Annotated[list[str] | None, typer.Option("--arg", help="Argument of the kernel, name=value; repeat for more.")]
FuelLimit = Annotated[
    int | None, typer.Option("--fuel-limit", help="Most fuel to pay for. Default: the kernel's bound.")
]
MaxPrice = Annotated[int | None, typer.Option("--max-price", help="Highest price to offer, gwei per Mfuel.")]
Deadline = Annotated[
    float | None, typer.Option("--deadline", help="Seconds from now until the result is worth nothing.")
]
Raw = Annotated[
    bool, typer.Option("--raw", help="Write the output's octets as the module gave them, not as PNG or JSON.")
]
OutputOctets = Annotated[int, typer.Option("--output-octets", help="Own modules: most octets of output.")]
Pages = Annotated[int, typer.Option("--memory-pages", help="Own modules: most pages of 64 KiB.")]

_PNG = b"\x89PNG"
_DEFAULT_NODES = ["http://127.0.0.1:8100", "http://127.0.0.1:8110", "http://127.0.0.1:8120", "http://127.0.0.1:8130"]


def _home() -> Path:
    return Path(os.environ.get("EDGORA_HOME", "~/.edgora")).expanduser()


@contextlib.contextmanager
def _client(
    node: list[str] | None, key: Path | None, pin: str | None, told: Callable[[Tell], None]
) -> Iterator[Client]:
    path = key or _home() / "ue.key"
    wallet, fresh = Wallet.open(path)
    if fresh:
        progress.print(
            f"made a key for 0x{wallet.address.hex()} in {path} (mode 0600): who has it spends your deposit",
            markup=False,
        )
    nodes = node or _DEFAULT_NODES
    pins = _Pins(_home() / "consortia.json")
    journal = Journal(path.with_suffix(".journal"))
    with (
        contextlib.closing(open_tracing("client", "cli", from_environment(os.environ))) as spans,
        Client(
            nodes, wallet, genesis_id=pin or pins.known(nodes[0]), journal=journal, on_progress=told,
            on_done=partial(client_span, spans),
        ) as client,
    ):  # fmt: skip
        client.connect()
        assert client.session.pinned is not None
        pins.keep(nodes[0], hex0x(client.session.pinned))
        yield client


class _Pins:
    """Consortia that were trusted on first use, by the node that was asked first."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._pins = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            self._pins = {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(
                f"{path}: {error}", field="genesis-id", fix="remove the file to trust on first use again"
            ) from None

    def known(self, node: str) -> str | None:
        return self._pins.get(node)

    def keep(self, node: str, genesis_id: str) -> None:
        if self._pins.get(node) != genesis_id:
            self._pins[node] = genesis_id
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path.write_bytes(msgspec.json.format(msgspec.json.encode(self._pins)))


def _guard(verb: Callable[[], T], *, as_json: bool) -> T:
    try:
        return verb()
    except EdgoraError as error:
        fail(error, as_json=as_json)


def _timeline(tell: Tell) -> None:
    """One line a stage, as it happens."""
    if tell.sentence:
        progress.print(f"[cyan]{tell.stage:>12}[/cyan]  ", end="")
        progress.print(tell.sentence, markup=False, highlight=False)


def _order(
    file: Path | None, kernel: str | None, module: Path | None, arg: list[str] | None, fuel_limit: int | None,
    max_price: int | None, deadline: float | None, output_octets: int, memory_pages: int,
) -> Order:  # fmt: skip
    try:
        data = b"" if file is None else file.read_bytes()
    except OSError as error:
        raise Refused(f"{file}: {error.strerror}", field="FILE") from None
    options: dict[str, str] = {}
    for item in arg or []:
        name, equals, value = item.partition("=")
        if not equals:
            raise Refused(f"--arg {item}: expected name=value", field="arg")
        options[name] = value
    patience = None if deadline is None else int(1000 * deadline)
    if (kernel is None) == (module is None):
        raise Refused("give either --kernel or --module", field="kernel", fix=f"kernels: {', '.join(names())}")
    if kernel is not None:
        order = order_for_kernel(kernel, data, options)
    else:
        assert module is not None
        if fuel_limit is None:
            raise Refused("an own module needs --fuel-limit: nobody knows what it costs", field="fuel-limit")
        try:
            binary = module.read_bytes()
        except OSError as error:
            raise Refused(f"{module}: {error.strerror}", field="module") from None
        if module.suffix == ".wat":
            binary = _assembled(binary)
        order = order_for_module(
            binary, data, options, fuel_limit=fuel_limit, output_octets=output_octets, memory_pages=memory_pages
        )
    changes: dict[str, int] = {}
    if fuel_limit is not None:
        changes["fuel_limit"] = fuel_limit
    if max_price is not None:
        changes["max_price"] = max_price
    if patience is not None:
        changes["patience_ms"] = patience
    from dataclasses import replace

    return replace(order, **changes)  # type: ignore[arg-type]


def _assembled(text: bytes) -> bytes:
    """WebAssembly text to binary; the assembler comes with the sandbox, which a bare client does not have."""
    try:
        from edgora.compute.engine import assemble
    except ImportError as error:
        missing_extra("submit --module FILE.wat", "node", error)
    return assemble(text.decode(errors="replace"))


def _quote_document(order: Order, quote: Quote) -> Mapping[str, object]:
    return {
        "label": order.label, "source": quote.source, "fuel_limit": quote.fuel_limit, "price_gwei_per_mfuel": quote.price,
        "maximum_wei": str(quote.maximum), "expected_ms": quote.expected_ms, "desired_ms": quote.desired_ms,
        "deadline_ms": quote.deadline_ms, "servers": quote.servers, "refusals": list(quote.refusals),
    }  # fmt: skip


def _print_quote(order: Order, quote: Quote) -> None:
    table(f"quote for {order.label}", ["what", "value"], [
        ("fuel limit", f"{quote.fuel_limit:,}"), ("price", f"{quote.price} gwei/Mfuel"),
        ("maximum cost", f"{quote.maximum / 1e18:.9f} token ({quote.maximum} wei)"),
        ("expected time", f"{quote.expected_ms / 1000:.2f} s on the quickest of {quote.servers} servers"),
        ("input goes to", f"server {quote.source} at {quote.source_url}"),
        *(("not", refusal) for refusal in quote.refusals),
    ])  # fmt: skip


def quote(
    file: Annotated[Path | None, typer.Argument(help="Input file (a PNG for sobel and blur).")] = None,
    kernel: Kernel = None, module: Module = None, arg: Arg = None, node: Node = None, key: Key = None, genesis_id: Pin = None,
    fuel_limit: FuelLimit = None, max_price: MaxPrice = None, deadline: Deadline = None,
    output_octets: OutputOctets = 1_048_576, memory_pages: Pages = 256, as_json: Json = False,
) -> None:  # fmt: skip
    """Show fuel limit, price, expected time and maximum cost. Nothing is signed or sent."""

    def run() -> None:
        order = _order(file, kernel, module, arg, fuel_limit, max_price, deadline, output_octets, memory_pages)
        with _client(node, key, genesis_id, _timeline) as client:
            terms = client.quote(order)
        if as_json:
            show(_quote_document(order, terms))
        else:
            _print_quote(order, terms)

    _guard(run, as_json=as_json)


def submit(
    file: Annotated[Path | None, typer.Argument(help="Input file (a PNG for sobel and blur).")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the opened result goes.")] = None,
    proof: Annotated[Path | None, typer.Option("--proof", help="Save an offline proof (`edgora verify`).")] = None,
    raw: Raw = False, kernel: Kernel = None, module: Module = None, arg: Arg = None, node: Node = None, key: Key = None, genesis_id: Pin = None,
    fuel_limit: FuelLimit = None, max_price: MaxPrice = None, deadline: Deadline = None,
    output_octets: OutputOctets = 1_048_576, memory_pages: Pages = 256,
    wait_settled: Annotated[bool, typer.Option("--settled", help="Wait until the payment is on the chain.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before signing.")] = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Seal an input, have it computed, verify and open the result."""

    def run() -> None:
        order = _order(file, kernel, module, arg, fuel_limit, max_price, deadline, output_octets, memory_pages)
        if out is not None and not out.parent.is_dir():
            raise Refused(f"{out.parent} is no folder", field="out")
        with _client(node, key, genesis_id, _timeline) as client:
            terms = client.quote(order)
            if not as_json:
                _print_quote(order, terms)
            if not yes and not as_json and not typer.confirm("sign and submit?", err=True):
                raise typer.Exit(1)
            ticket = client.submit(order, terms, None if out is None else {"out": str(out.resolve())})
            progress.print(f"[cyan]{'task':>12}[/cyan]  {hex0x(ticket.task)}")
            delivery = client.deliver(ticket)
            document = _keep(client, ticket, delivery, out, proof, raw=raw)
            if wait_settled:
                task = client.finish(ticket.task)
                document["state"], document["amount_wei"] = task.state, task.amount
        if as_json:
            show(document)
        else:
            console.print(_story(document), markup=False, soft_wrap=True)
        if delivery.code != 0:
            raise typer.Exit(1)

    _guard(run, as_json=as_json)


def _keep(
    client: Client, ticket: Ticket, delivery: Delivery, out: Path | None, proof: Path | None, *, raw: bool
) -> dict[str, object]:
    """Write result and proof; what there is to say about them."""
    document: dict[str, object] = {
        "task": hex0x(ticket.task), "code": delivery.code.name, "executor": delivery.executor,
        "fuel_used": delivery.fuel_used, "cost_wei": str(delivery.cost), "certified_height": delivery.certified.height,
        "output_octets": len(delivery.output), "out": None, "proof": None,
    }  # fmt: skip
    if out is not None and delivery.code == 0:
        out.write_bytes(delivery.output if raw else from_kernel_output(ticket.label, delivery.output)[0])
        document["out"] = str(out)
    if proof is not None:
        trust, _ = client.session.known()
        proof.write_bytes(
            msgspec.json.format(msgspec.json.encode(document_of(trust, ticket, delivery, with_salt=True)))
        )
        document["proof"] = str(proof)
    return document


def _story(document: Mapping[str, object]) -> str:
    text = (
        f"{document['code']}: server {document['executor']} used {document['fuel_used']:,} fuel, "
        f"cost {document['cost_wei']} wei, certified by a quorum at height {document['certified_height']}"
    )
    return (
        text
        + (f"\nresult in {document['out']}" if document["out"] else "")
        + (f"\nproof in {document['proof']}" if document["proof"] else "")
    )


tasks_app = typer.Typer(help="Tasks of this key: what became of them, also after a crash.", no_args_is_help=True)
TaskId = Annotated[str, typer.Argument(help="Task id, 0x-hex (a unique beginning is enough for your own tasks).")]


def _find(client: Client, text: str) -> bytes:
    known = [t for t in client.journal.tasks() if hex0x(t).startswith(text.lower())]
    if len(known) == 1:
        return known[0]
    if len(known) > 1:
        raise Refused(f"{text} begins {len(known)} of your tasks; give more of it", field="task")
    task = unhex(text)
    if len(task) != 32:
        raise Refused(f"{text} is none of your tasks and no whole task id", field="task")
    return task


@tasks_app.command("list")
def tasks_list(node: Node = None, key: Key = None, genesis_id: Pin = None, as_json: Json = False) -> None:
    """Your tasks, from the journal, with their state on the ledger now."""

    def run() -> None:
        rows: list[dict[str, object]] = []
        with _client(node, key, genesis_id, _timeline) as client:
            for task, fields in client.journal.tasks().items():
                try:
                    state = client.task(task)
                    rows.append({"task": hex0x(task), "label": fields.get("label", ""), "state": state.state,
                                 "amount_wei": state.amount, "why": state.why})  # fmt: skip
                except EdgoraError as error:
                    rows.append({"task": hex0x(task), "label": fields.get("label", ""), "state": fields["stage"].upper(),
                                 "amount_wei": "0", "why": error.detail})  # fmt: skip
        if as_json:
            show({"tasks": rows})
        else:
            table("tasks", ["task", "what", "state", "wei", "why"], [
                (str(r["task"])[:14], r["label"], r["state"], r["amount_wei"], r["why"]) for r in rows
            ])  # fmt: skip

    _guard(run, as_json=as_json)


@tasks_app.command("show")
def tasks_show(task: TaskId, node: Node = None, key: Key = None, genesis_id: Pin = None, as_json: Json = False) -> None:
    """One task: state, money, and why it waits or why that server."""

    def run() -> None:
        with _client(node, key, genesis_id, _timeline) as client:
            found = _find(client, task)
            state, why = client.task(found), client.why(found)
        if as_json:
            show({"task": state, "why": why})
            return
        rows: list[tuple[str, object]] = [("state", state.state), ("why", why.sentence), ("executor", state.executor),
            ("maximum", f"{state.maximum} wei"), ("amount", f"{state.amount} wei")]  # fmt: skip
        if why.choice is not None:
            rows += [(f"not server {a.server}", a.reason.sentence) for a in why.choice.alternatives]
        table(f"task {state.id}", ["what", "value"], rows)

    _guard(run, as_json=as_json)


@tasks_app.command("cancel")
def tasks_cancel(
    task: TaskId, node: Node = None, key: Key = None, genesis_id: Pin = None, as_json: Json = False
) -> None:
    """Cancel a task that no server has yet."""

    def run() -> rest.Task:
        with _client(node, key, genesis_id, _timeline) as client:
            return client.cancel(_find(client, task))

    state = _guard(run, as_json=as_json)
    if as_json:
        show(state)
    else:
        console.print(f"{state.state}: {state.why}", markup=False)


@tasks_app.command("fetch")
def tasks_fetch(
    task: TaskId, out: Annotated[Path | None, typer.Option("--out", help="Where the opened result goes.")] = None,
    proof: Annotated[Path | None, typer.Option("--proof", help="Save an offline proof.")] = None, raw: Raw = False,
    node: Node = None, key: Key = None, genesis_id: Pin = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Get the result of a task that an earlier run of the client submitted, even if it crashed."""

    def run() -> dict[str, object]:
        with _client(node, key, genesis_id, _timeline) as client:
            found = _find(client, task)
            fields = client.journal.task(found)
            if fields is None:
                raise Refused(f"{task} is not in this key's journal: its result cannot be opened here", field="task")
            client.resume()
            if fields["stage"] == "refused":
                raise Refused(f"the ledger refused it: {fields['why']}", field="task", fix="submit it again")
            ticket = ticket_of(found, fields)
            goal = out or (Path(fields["out"]) if "out" in fields else None)
            return _keep(client, ticket, client.deliver(ticket), goal, proof, raw=raw)

    document = _guard(run, as_json=as_json)
    if as_json:
        show(document)
    else:
        console.print(_story(document), markup=False, soft_wrap=True)


def verify(
    proof: Annotated[Path, typer.Argument(help="Proof document saved by submit or fetch.")],
    genesis_id: Pin = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Result to compare with the certified digest: a PNG, or --raw octets."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a saved proof offline: signatures of the quorum, Merkle paths, offer, result."""

    def run() -> None:
        try:
            data = proof.read_bytes()
            content = None if output is None else output.read_bytes()
        except OSError as error:
            raise Refused(f"{error.filename}: {error.strerror}", field="proof") from None
        document, anchor = read_document(data), None if genesis_id is None else unhex(genesis_id)
        checks = check_document(document, anchor, content)
        if content is not None and content.startswith(_PNG):  # what submit made of an image kernel's output
            pixels = Raster.from_file(content).to_octets()
            checks = max(check_document(document, anchor, pixels), checks, key=lambda found: all(c.ok for c in found))
        good = all(c.ok for c in checks)
        if as_json:
            show({"ok": good, "checks": [{"name": c.name, "ok": c.ok, "sentence": c.sentence} for c in checks]})
        else:
            table("proof holds" if good else "proof does NOT hold", ["check", "holds", "what"],
                  [(c.name, "yes" if c.ok else "NO", c.sentence) for c in checks])  # fmt: skip
        if not good:
            raise typer.Exit(1)

    _guard(run, as_json=as_json)


def app_commands(app: typer.Typer) -> None:
    """Register the verbs of this module."""
    app.command()(submit)
    app.command()(quote)
    app.command()(verify)
    app.add_typer(tasks_app, name="tasks")
