"""All routes of webhook_ingest."""

from fastapi import APIRouter

from services.webhook_ingest.api import ingest, operations

ROUTERS: tuple[APIRouter, ...] = (ingest.router, operations.router)
