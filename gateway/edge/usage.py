"""``GET /v1/usage``: what the caller's tenant used, by day, key and scenario.

Invariant: the tenant whose usage is read is the one that the credential belongs to; nothing of the request names it.
Backends are not named: which of them serves a scenario is the operator's business.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any

from fastapi import FastAPI, Query

from gateway.edge import schemas
from gateway.edge.documented import LOOKUP_ERRORS, TheCall
from gateway.errors import InvalidRequest, RedisFailure, UsageUnavailable
from gateway.meter.ledger import Days, Ledger, grouped, today, total, usd
from gateway.pipeline import Pipeline
from gateway.redis.ledger_format import UsageCounts

PATH = "/v1/usage"

_DAY = {"pattern": r"^\d{4}-\d{2}-\d{2}$", "json_schema_extra": {"format": "date"}}
_From = Annotated[
    str | None,
    Query(alias="from", description="First UTC day. Default: the first of the month that `to` is in.", **_DAY),
]
_To = Annotated[str | None, Query(alias="to", description="Last UTC day. Default: today.", **_DAY)]


_RESPONSES: dict[int | str, dict[str, Any]] = {
    **LOOKUP_ERRORS,
    400: {"model": schemas.ErrorBody, "description": "The days are no days, in the wrong order, or hold too much."},
    503: {"model": schemas.ErrorBody, "description": "Usage cannot be read just now, or is not kept."},
}


def add_usage(app: FastAPI, pipeline: Pipeline, ledger: Ledger | None) -> None:
    """Serve the path; without a ledger every answer is UsageUnavailable."""

    @app.get(PATH, summary="Usage", tags=["usage"], responses=_RESPONSES)
    async def usage(call: TheCall, first: _From = None, last: _To = None) -> schemas.UsageReport:
        """What this key's tenant used on the UTC days from `from` to `to`, both included, at most 366."""
        tenant = (await pipeline.identify(call.head.credentials, call.record)).tenant.name
        until = _day(last, "to") if last is not None else today()
        since = _day(first, "from") if first is not None else until.replace(day=1)
        if ledger is None:
            raise UsageUnavailable("Usage is not available.", detail="there is no Redis to keep usage in")
        try:
            days = await ledger.days(tenant, since, until)
        except RedisFailure as failure:
            raise UsageUnavailable("Usage is not available just now.", detail=failure.text, retry_after_s=1.0) from None
        return _report(days, since, until)


def _day(text: str, name: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"`{name}` is not a day.", code="invalid_value", param=name) from None


def _report(days: Days, since: datetime.date, until: datetime.date) -> schemas.UsageReport:
    sums = grouped(days, lambda day, of: (day.isoformat(), of.key, of.scenario))
    rows = [
        schemas.UsageRow(date=datetime.date.fromisoformat(day), key=key, scenario=scenario, **_numbers(counts))
        for (day, key, scenario), counts in sums.items()
    ]
    whole = schemas.UsageNumbers(**_numbers(total(sums)))
    return schemas.UsageReport.model_validate({"from": since, "to": until, "total": whole, "data": rows})


def _numbers(counts: UsageCounts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "input_tokens": counts.input_tokens,
        "cached_input_tokens": counts.cached_input_tokens,
        "output_tokens": counts.output_tokens,
        "cost_usd": usd(counts.cost_nano_usd),
        "estimated_requests": counts.estimated_requests,
        "cached_requests": counts.cached_requests,
    }
