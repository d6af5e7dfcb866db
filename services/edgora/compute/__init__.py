"""Runs foreign modules deterministically and counts what they use. The only room that knows the WASM engine.

limits.py says what a run may use and how it ends, module.py which modules are taken, wasi.py what they can see,
engine.py and compiler.py make machine code, cache.py keeps it, execution.py and sandbox.py run it, meter.py turns fuel
into time. kernels/ holds the sources of the modules that we ship. Import what you need from these; nothing is loaded here.
"""
