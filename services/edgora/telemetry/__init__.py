"""Events turned into metrics, traces and logs. Imported by composition roots only."""
