"""Built-in stages: where records come from, what gathers them, what works on them, and where they go."""
