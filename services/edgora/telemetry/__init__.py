"""Events turned into metrics and logs. Imported by composition roots only."""
