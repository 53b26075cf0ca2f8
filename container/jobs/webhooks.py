"""Webhooks: each is signed by the Standard Webhooks scheme.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime

from container.jobs.delivery_queue import Delivery
from container.jobs.generations import notifications
from inference.errors import InvalidRequest

PREFIX = "whsec_"
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64


class WebhookSigner:
    """Signs webhooks with the deployment's secret."""

    def __init__(self, secret: str) -> None:
        """secret: `whsec_` and 24 to 64 bytes in base64. Raises: InvalidRequest."""
        from standardwebhooks import Webhook

        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except ValueError as err:
            raise InvalidRequest("VISEME_WEBHOOK_SECRET: expected whsec_ and base64") from err
        if not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
            raise InvalidRequest(
                f"VISEME_WEBHOOK_SECRET: found {len(key)} bytes; expected {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}"
            )
        self._webhook, self._secret = Webhook(key), secret

    def headers(self, delivery: Delivery, now: float) -> dict[str, str]:
        """Return the headers of a webhook that is sent now, in seconds since 1970.

        Those of generations are signed by sync.so's scheme as well.
        """
        signature = self._webhook.sign(delivery.id, datetime.fromtimestamp(now, UTC), delivery.payload)
        headers = {
            "content-type": "application/json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": signature,
        }
        if delivery.event.startswith(notifications.EVENT_PREFIX):
            value = notifications.signature_header(delivery.payload, self._secret, now)
            headers[notifications.SIGNATURE_HEADER] = value
        return headers
