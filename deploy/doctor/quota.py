"""The account's quota of instances, beside what the endpoint may need."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.doctor.findings import Finding, not_checked, ok, warning
from deploy.doctor.read_only_aws import ReadOnlyAws
from deploy.doctor.version import EndpointVersion
from deploy.errors import DeployError
from deploy.scaling import find_bounds

QUOTA = "quota"
N_PAGES = 60  # of 100 quotas; SageMaker has some thousand


def check_quota(aws: ReadOnlyAws, version: EndpointVersion) -> Iterator[Finding]:
    """Compare the quota of each instance type with the largest number of instances. Raises: CallFailed, DeployError."""
    if not version.config:
        raise DeployError("the configuration could not be described")
    if not version.instance_types:
        yield ok(QUOTA, "none: the endpoint has no instances of its own")
        return
    bounds = find_bounds(aws, version.endpoint)
    n_most = max(version.n_running, bounds.maximum if bounds else 0)
    names = {f"{one} for endpoint usage": one for one in version.instance_types}
    pages = aws.pages("service-quotas", "ListServiceQuotas", "Quotas", N_PAGES, ServiceCode="sagemaker", MaxResults=100)
    values = {names[one["QuotaName"]]: int(one["Value"]) for one in pages if one["QuotaName"] in names}
    for instance_type in version.instance_types:
        yield judge_quota(instance_type, values.get(instance_type), version.n_running, n_most)


def judge_quota(instance_type: str, value: int | None, n_running: int, n_most: int) -> Finding:
    """n_most: instances that autoscaling may start. Other endpoints of the account use the same quota."""
    if value is None:
        return not_checked(QUOTA, f"AWS lists none for {instance_type}")
    found = f"{value} of {instance_type}, {n_running} run here"
    fix = f"raise it in Service Quotas, Amazon SageMaker, '{instance_type} for endpoint usage'"
    if value < n_most:
        return warning(QUOTA, f"{found}, autoscaling may start {n_most}", fix)
    if value <= n_running:
        return warning(QUOTA, f"{found}: an update that starts new instances beside the old ones is refused", fix)
    return ok(QUOTA, f"{found}, at most {n_most}; other endpoints of the account use it, too")
