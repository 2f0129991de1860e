"""Kills, power cuts and injected errors against real child processes, with an auditor that knows every record."""
