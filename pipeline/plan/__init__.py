"""From words to a plan: YAML with positions, declared keys, the checked topology."""
