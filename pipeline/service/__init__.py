"""A pipeline inside of an async program: records are submitted, and whoever submits one gets its answer."""

from pipeline.service.answers import Answer
from pipeline.service.events import EventStream, ServiceEvent
from pipeline.service.service import Service

__all__ = ("Answer", "EventStream", "Service", "ServiceEvent")
