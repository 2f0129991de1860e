"""All workloads, in their order."""

from tests.benchmarks.contest import Workload
from tests.benchmarks.database import DATABASE
from tests.benchmarks.etl import CHECKPOINT, ETL, MEMORY
from tests.benchmarks.guide import GUIDE
from tests.benchmarks.passing import PASSING
from tests.benchmarks.slow_sink import GROWING, SLOW_SINK

__all__ = ("WORKLOADS",)

WORKLOADS: dict[str, Workload] = {
    workload.name: workload for workload in (ETL, PASSING, SLOW_SINK, GROWING, DATABASE, CHECKPOINT, MEMORY, GUIDE)
}
