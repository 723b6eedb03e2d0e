"""What Dagster loads; assembly only."""

import dagster as dg

from ibkr_depth_pipeline.orchestration.feed import depth_feed, ingest_job
from ibkr_depth_pipeline.orchestration.resources import IbkrGateway, RedisStore, ibkr_resource, redis_resource

defs = dg.Definitions(
    assets=[depth_feed],
    jobs=[ingest_job],
    resources={"ibkr": ibkr_resource(IbkrGateway()), "redis": redis_resource(RedisStore())},
    executor=dg.in_process_executor,  # for the Materialize button, whose job has nothing of ours but this
)
