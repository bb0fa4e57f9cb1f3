"""Make the tables, and store what dj-stripe would otherwise fetch from Stripe's API once: the account of the key.

The webhook endpoint comes with its secret and the identifier in its address.
"""

# mypy: ignore-errors

from __future__ import annotations

import os

import django
from django.conf import settings
from django.core.management import call_command

django.setup()

from djstripe.models import Account, APIKey, WebhookEndpoint  # noqa: E402 - models need django.setup() first

call_command("migrate", verbosity=0, interactive=False, run_syncdb=True)
account, _ = Account.objects.get_or_create(id="acct_bench", livemode=False)
APIKey.objects.get_or_create(
    secret=settings.STRIPE_TEST_SECRET_KEY,
    defaults={"type": "secret", "livemode": False, "djstripe_owner_account": account},
)
WebhookEndpoint.objects.get_or_create(
    id="we_bench",
    defaults={
        "livemode": False,
        "djstripe_owner_account": account,
        "djstripe_uuid": os.environ["PEER_ENDPOINT"],
        "secret": os.environ["PEER_SECRET"],
        "url": "https://shop.example/stripe/webhook/",
        "enabled_events": ["*"],
        "status": "enabled",
        "api_version": "2026-05-27.dahlia",
    },
)
