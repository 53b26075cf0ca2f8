"""An endpoint's logs: whether there are any, for how long they are kept, and what is wrong by them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from deploy.diagnostics import DRIVER
from deploy.doctor.findings import Finding, failure, not_checked, ok, warning
from deploy.doctor.read_only_aws import ReadOnlyAws
from deploy.doctor.version import EndpointVersion
from deploy.logs import LOG_GROUP_FOLDER
from deploy.waiting import created_at, find_ready_line, read_last_log_lines

LOGS, RETENTION, ERRORS = "logs", "log retention", "errors in the log"
SINCE = timedelta(days=1)
# Lines of our server, of Multi Model Server and of Python; "?" means any of them.
ERROR_PATTERN = '?"\\"level\\": \\"error\\"" ?"\\"level\\": \\"critical\\"" ?ERROR ?CRITICAL ?Traceback'
UNREADABLE = "(the log cannot be read"  # starts what the readers of deploy.waiting return instead of a line
N_PAGES = 5
MAX_LINE_CHARACTERS = 300


def check_logs(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Read the endpoint's log group. Raises: CallFailed, DeployError."""
    group = LOG_GROUP_FOLDER + version.endpoint
    found = aws.call("logs", "DescribeLogGroups", logGroupNamePrefix=group).get("logGroups", [])
    own = next((one for one in found if one["logGroupName"] == group), None)
    if own is None:
        fix = "let the role write logs (logs:CreateLogGroup, logs:CreateLogStream, logs:PutLogEvents)"
        yield warning(LOGS, f"there is no group {group}: no container has started, or none may write logs", fix)
        return
    days = own.get("retentionInDays")
    fix = "python -m deploy.endpoint --update --log-days 30"
    yield (
        ok(RETENTION, f"{days} days") if days else warning(RETENTION, "the logs are kept, and paid for, for ever", fix)
    )
    started = created_at(str(version.found.get("EndpointConfigName", "")))
    lines = read_last_log_lines(aws, version.endpoint, started)
    ready = find_ready_line(aws, version.endpoint, started)
    unread = next((one for one in [*lines, ready or ""] if one.startswith(UNREADABLE)), None)
    shown = ready or f"{len(lines)} lines of the newest container"
    yield not_checked(LOGS, unread) if unread else ok(LOGS, shown)
    yield from check_error_lines(aws, group, lines)


def check_error_lines(aws: ReadOnlyAws, group: str, lines: list[str]) -> Iterator[Finding]:
    """Yield what the log says is wrong. lines: the last ones."""
    since_ms = int((datetime.now(UTC) - SINCE).timestamp() * 1000)
    errors: list[str] = []
    more: dict[str, str] = {}
    for _ in range(N_PAGES):
        page = aws.call(
            "logs", "FilterLogEvents", logGroupName=group, filterPattern=ERROR_PATTERN, startTime=since_ms, **more
        )
        errors += [event["message"].strip() for event in page.get("events", [])]
        if not page.get("nextToken"):
            break
        more = {"nextToken": page["nextToken"]}
    driver = next((one for one in [*lines, *errors] if DRIVER.pattern.search(one)), None)
    if driver:
        yield failure(ERRORS, driver[:MAX_LINE_CHARACTERS], DRIVER.advice)
    elif errors:
        yield warning(ERRORS, f"{len(errors)} lines in a day, the last: {errors[-1][:MAX_LINE_CHARACTERS]}")
    else:
        yield ok(ERRORS, "none in a day")
