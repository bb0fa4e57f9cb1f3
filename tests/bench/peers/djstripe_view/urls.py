"""The one route, where dj-stripe's documentation puts it."""

# mypy: ignore-errors

from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("stripe/", include("djstripe.urls", namespace="djstripe"))]
