"""Cases of ``pipeline test``: what goes into a pipeline, and what must come out of it, in virtual time."""
