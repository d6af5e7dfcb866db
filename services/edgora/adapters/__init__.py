"""One file a thing: the outside world behind the ports. Imported by composition roots only."""
