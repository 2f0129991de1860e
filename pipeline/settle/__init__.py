"""What is settled and what is saved: frontier, cuts, the state file."""
