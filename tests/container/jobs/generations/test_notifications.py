"""Webhooks of generations, verified as sync.so's documentation tells its clients to."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select
from sync.core.unchecked_base_model import construct_type
from sync.webhooks.types import GenerationNotification

from container.jobs.generations.notifications import as_javascript
from container.jobs.generations.signed_urls import check_result_token
from container.jobs.generations.views import BASE_URL, REQUEST, ROUTE
from container.jobs.records import JobError, JobRecord
from container.jobs.schema import deliveries
from container.jobs.webhooks import Delivery, WebhookSigner

from ..conftest import JobDatabase  # noqa: TID252
from .conftest import SECRET

REQUESTED: dict[str, Any] = {
    "model": "small",
    "input": [
        {"type": "video", "url": "https://media.example/gesicht-ü.mp4"},
        {"type": "audio", "url": "https://media.example/a.wav"},
    ],
    "outputFileName": "one",
}
GENERATION = {
    "route": ROUTE,
    "webhook_url": "https://hooks.example/a",
    "extra": {REQUEST: REQUESTED, BASE_URL: "https://lips.example"},
}


def delivery_of(database: JobDatabase) -> Delivery:
    names = ("id", "event", "url", "payload", "n_tries")
    with database.engine.connect() as connection:
        row = connection.execute(select(deliveries)).mappings().one()
    return Delivery(**{name: row[name] for name in names})


def verify(body: str, header: str, secret: str) -> bool:
    """Do as the example at https://sync.so/docs/api-reference/guides/webhooks."""
    match = re.match(r"t=(\d+),v1=(.+)", header)
    assert match is not None
    text = json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False)  # JSON.stringify
    expected = hmac.new(secret.encode(), f"{match[1]}.{text}".encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected, match[2])


def finish(database: JobDatabase) -> JobRecord:
    job = database.submit(**GENERATION)
    database.queue.publish(database.claim(), {"duration_s": 3.0}, [])
    return database.find(job.id)


def test_the_end_of_a_generation_is_reported_in_the_form_of_sync_so(database: JobDatabase):
    job = finish(database)
    delivery = delivery_of(database)
    assert delivery.event == "generation.completed"
    found = construct_type(type_=GenerationNotification, object_=json.loads(delivery.payload))
    assert (found.id, found.status, found.model, found.output_duration) == (job.id, "COMPLETED", "small", 3)
    assert [one.url for one in found.input] == [one["url"] for one in REQUESTED["input"]]
    url = urlsplit(found.output_url)
    assert f"{url.scheme}://{url.netloc}" == "https://lips.example"
    check_result_token(parse_qs(url.query)["token"][0], job.id, database.repository.url_key(), database.clock())


def test_a_failure_is_reported_with_its_code(database: JobDatabase):
    database.submit(**GENERATION)
    database.queue.fail(database.claim(), JobError("access_denied", "media.example: has a private address", 403))
    payload = json.loads(delivery_of(database).payload)
    assert (payload["status"], payload["error_code"]) == ("FAILED", "generation_input_video_inaccessible")
    assert payload["outputUrl"] is None


def test_receivers_of_sync_so_and_of_standard_webhooks_verify_it(database: JobDatabase):
    finish(database)
    delivery = delivery_of(database)
    headers = WebhookSigner(SECRET).headers(delivery, database.clock())
    assert verify(delivery.payload, headers["sync-signature"], SECRET)
    assert not verify(delivery.payload, headers["sync-signature"], SECRET[:-1])
    assert not verify(delivery.payload.replace("COMPLETED", "FAILED"), headers["sync-signature"], SECRET)
    assert headers["sync-signature"].startswith(f"t={int(database.clock())},v1=")
    assert headers["webhook-id"] == delivery.id
    assert headers["webhook-signature"].startswith("v1,")


def test_webhooks_of_other_jobs_have_no_signature_of_sync_so(database: JobDatabase):
    database.submit(webhook_url="https://hooks.example/a")
    database.queue.publish(database.claim(), {}, [])
    assert "sync-signature" not in WebhookSigner(SECRET).headers(delivery_of(database), database.clock())


@pytest.mark.parametrize(("value", "text"), [(3.0, "3"), (2.5, "2.5"), ([{"a": -0.0}], '[{"a":0}]'), (None, "null")])
def test_numbers_are_written_as_javascript_does(value: object, text: str):
    assert json.dumps(as_javascript(value), separators=(",", ":")) == text


def test_the_key_of_urls_is_of_the_database(database: JobDatabase):
    key = database.repository.url_key()
    assert len(key) == 32
    assert database.repository.url_key() == key
