#!/usr/bin/env bash
# Trial run on real AWS: deploys an endpoint, sends it a video, prints its GPU and versions, and deletes it. It costs
# about half an hour of one instance. It has not been run yet: please report its output, whether it fails or succeeds.
#
#   deploy/first_real_run.sh ROLE_ARN VIDEO [NAME]
#
# Variables: REGION (default: that of the AWS CLI), INSTANCE_TYPE (ml.g5.xlarge), PYTHON (.venv/bin/python, made by
# `make setup`); EXTRA: more options of deploy.endpoint, such as "--mode async" or "--image-uri ...". Needs the AWS CLI
# and credentials (check with: aws sts get-caller-identity). It runs on bash 3.2, which macOS has.
set -euo pipefail

if (($# < 2)); then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
role=$1
folder=$(cd -- "$(dirname -- "$2")" && pwd -P)
video=$folder/$(basename -- "$2")
name=${3:-viseme-first-run}
region=${REGION:-${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}}
if [ -z "$region" ]; then
    printf 'no region: set REGION, or run: aws configure set region REGION\n' >&2
    exit 2
fi
extra=()
if [ -n "${EXTRA:-}" ]; then
    read -r -a extra <<<"$EXTRA"
fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
endpoint=(--endpoint-name "$name" --region "$region")

clean_up() {
    status=$?
    printf '\n== deleting %s\n' "$name" >&2
    "$python" -m deploy.endpoint "${endpoint[@]}" --delete || printf 'NOT deleted: %s still costs money\n' "$name" >&2
    exit "$status"
}

print_environment() {
    printf '\n== environment\n'
    aws logs filter-log-events --region "$region" --log-group-name "/aws/sagemaker/Endpoints/$name" \
        --filter-pattern '?"viseme is ready" ?"torch_version"' --query 'events[].message' --output text
    aws sagemaker describe-endpoint --region "$region" --endpoint-name "$name" \
        --query '[CreationTime,LastModifiedTime,EndpointStatus]' --output text
}

printf '== deploying %s\n' "$name" >&2
trap clean_up EXIT
# Bash 3.2 and 4.3 take an empty array for an unset variable, which `set -u` forbids.
"$python" -m deploy.endpoint "${endpoint[@]}" --role-arn "$role" \
    --instance-type "${INSTANCE_TYPE:-ml.g5.xlarge}" ${extra[@]+"${extra[@]}"}

printf '\n== sending %s\n' "$video" >&2
time "$python" -m deploy.invoke "$video" "${endpoint[@]}"
print_environment
