"""`pytest tests/transcripts --rewrite` writes what the core does now into the scripts; review the diff."""


def pytest_addoption(parser):
    parser.addoption("--rewrite", action="store_true", help="rewrite the expected effects of transcripts")
