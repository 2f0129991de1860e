"""Pipelines over HTTP: a JSON API, a dashboard, metrics and a stream of events, for one process on one port."""
