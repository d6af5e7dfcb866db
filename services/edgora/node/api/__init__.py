"""REST under /v1, one router a resource; no business rule lives here."""
