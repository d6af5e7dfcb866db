"""Rebuild the committed artifacts from the Solidity sources: `python -m edgora.contracts.build [--check]`.

py-solc-x is the interface to the compiler; which compiler runs is decided by `find_solc`, in this order: $EDGORA_SOLC,
an installed solcx version, the shim over npm's wasm module, a download by solcx. All give equal octets. Works in a
source checkout only.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from edgora.contracts import Artifact
from edgora.wire.hashing import keccak

__all__ = ["SOLC_VERSION", "artifact_text", "compile_sources", "find_solc", "main", "read_sources"]

SOLC_VERSION = "0.8.37"
_ROOT = Path(__file__).resolve().parents[2]
_MODULES = _ROOT.parent / "node_modules"
_ARTIFACTS = Path(__file__).resolve().parent / "artifacts"
_IMPORT = re.compile(r'^import [^"]*"([^"]+)";', re.MULTILINE)

SETTINGS: Mapping[str, object] = {
    "optimizer": {"enabled": True, "runs": 200},
    "viaIR": True,
    "evmVersion": "cancun",
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
    "outputSelection": {
        "*": {
            "": ["ast"],
            "*": [
                "abi", "evm.bytecode.object", "evm.deployedBytecode.object", "evm.deployedBytecode.immutableReferences",
                "storageLayout",
            ],
        }
    },
}  # fmt: skip


def find_solc() -> Path:
    """The compiler to call. Raises RuntimeError naming every way to get one if there is none."""
    try:
        import solcx
    except ModuleNotFoundError:
        raise RuntimeError("building contracts needs py-solc-x: install edgora[dev]") from None
    if named := os.environ.get("EDGORA_SOLC"):
        return Path(named)
    if SOLC_VERSION in {str(version) for version in solcx.get_installed_solc_versions()}:
        return Path(solcx.install.get_executable(SOLC_VERSION))
    shim = _ROOT / "tools" / "solc"
    if (_MODULES / "solc").is_dir() and shim.exists():
        return shim
    try:
        solcx.install_solc(SOLC_VERSION)
    except Exception as error:
        message = f"no solc {SOLC_VERSION}: set EDGORA_SOLC, or run `npm ci`, or let solcx download it"
        raise RuntimeError(message) from error
    return Path(solcx.install.get_executable(SOLC_VERSION))


def read_sources() -> dict[str, str]:
    """Every source by its name in the compiler: src/*.sol and what they import from OpenZeppelin."""
    found = {path.relative_to(_ROOT).as_posix(): path.read_text("utf-8") for path in sorted(_ROOT.glob("src/**/*.sol"))}
    if not found:
        raise RuntimeError(f"no sources under {_ROOT}: the artifacts are built in a source checkout")
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        for target in _IMPORT.findall(found[name]):
            resolved = os.path.normpath(Path(name).parent / target) if target.startswith(".") else target
            if resolved not in found:
                found[resolved] = (_MODULES / resolved).read_text("utf-8")
                waiting.append(resolved)
    return dict(sorted(found.items()))


def compile_sources(sources: Mapping[str, str], settings: Mapping[str, object] = SETTINGS) -> dict[str, Any]:
    """Standard JSON output for these sources. Raises RuntimeError with the compiler's words if it does not compile."""
    import solcx

    question = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": dict(settings),
    }
    try:
        answer: dict[str, Any] = solcx.compile_standard(question, solc_binary=find_solc())
    except solcx.exceptions.SolcError as error:
        raise RuntimeError(str(error)) from error
    return answer


def _storage(layout: Mapping[str, Any]) -> list[dict[str, object]]:
    """The layout without the compiler's node numbers: one row a variable, struct members below their variable."""
    rows: list[dict[str, object]] = []
    types = layout["types"]
    for variable in layout["storage"]:
        kind = types[variable["type"]]
        rows.append({"slot": int(variable["slot"]), "name": variable["label"], "type": kind["label"]})
        while "value" in kind:
            kind = types[kind["value"]]
        for member in kind.get("members", ()):
            width = int(types[member["type"]]["numberOfBytes"])
            rows.append({
                "name": f"{variable['label']}.{member['label']}", "word": int(member["slot"]),
                "octet": member["offset"], "octets": width,
            })  # fmt: skip
    return rows


def artifact_text(output: Mapping[str, Any], source: str = "src/Settlement.sol", name: str = "Settlement") -> str:
    """The artifact of one contract as it is committed: JSON, keys in order, one line a field."""
    compiled = output["contracts"][source][name]
    runtime = compiled["evm"]["deployedBytecode"]
    names: dict[str, str] = {}

    def walk(node: object) -> None:
        if isinstance(node, dict):
            if node.get("nodeType") == "VariableDeclaration" and node.get("mutability") == "immutable":
                names[str(node["id"])] = node["name"]
            for child in node.values():
                walk(child)
        elif isinstance(node, list):
            for child in node:
                walk(child)

    for unit in output["sources"].values():
        walk(unit["ast"])
    code = runtime["object"]
    fields = {
        "name": name,
        "compiler": f"solc {SOLC_VERSION}, via-IR, optimizer runs 200, cancun, no metadata",
        "abi": compiled["abi"],
        "bytecode": compiled["evm"]["bytecode"]["object"],
        "runtime": code,
        "runtimeHash": keccak(bytes.fromhex(code)).hex(),
        "immutables": {
            names[key]: sorted(place["start"] for place in places)
            for key, places in sorted(runtime["immutableReferences"].items(), key=lambda item: names[item[0]])
        },
        "storage": _storage(compiled["storageLayout"]),
    }
    return msgspec.json.format(msgspec.json.encode(fields, order="deterministic"), indent=1).decode() + "\n"


def build() -> dict[str, str]:
    """File name to text of every artifact."""
    bench = "bench/PaperTrading.sol"
    plain = compile_sources({bench: (_ROOT / bench).read_text("utf-8")})
    return {
        "Settlement.json": artifact_text(compile_sources(read_sources())),
        "PaperTrading.json": artifact_text(plain, bench, "PaperTrading"),
    }


def main(arguments: list[str] | None = None) -> int:
    """Write the artifacts, or compare them: exit code 1 names each file that differs."""
    parser = argparse.ArgumentParser(prog="python -m edgora.contracts.build", description="Build contract artifacts.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a committed artifact differs")
    check = parser.parse_args(arguments).check
    differing = 0
    for name, text in build().items():
        path = _ARTIFACTS / name
        Artifact.from_json(text)
        if path.exists() and path.read_text("utf-8") == text:
            continue
        differing += 1
        if check:
            sys.stderr.write(f"{path.name}: differs from what its sources give; run python -m edgora.contracts.build\n")
        else:
            path.write_text(text, "utf-8")
            sys.stderr.write(f"{path.name}: written\n")
    return 1 if check and differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
