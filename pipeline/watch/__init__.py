"""What a run shows: counters, log events, report."""
