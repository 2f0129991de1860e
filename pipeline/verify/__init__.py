"""A user's own pipeline under kills, stops and failing stages, compared with an unbroken run of it."""
