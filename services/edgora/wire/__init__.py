"""What two processes must agree on: units, hashes, typed structures, bytes, errors, REST resources. No IO, no keys."""
