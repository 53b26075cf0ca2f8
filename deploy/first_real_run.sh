#!/usr/bin/env bash
# The first run on real AWS: deploys, reads a film, prints what it ran on, deletes. Costs about half an hour of one
# instance. Nobody has run it yet: what it prints is worth an issue, whether it fails or not.
#
#   deploy/first_real_run.sh ROLE_ARN FILM [NAME]
#
# Variables: REGION (us-east-1), INSTANCE_TYPE (ml.g5.xlarge), PYTHON (.venv/bin/python, which `make setup` makes);
# EXTRA: more flags of deploy.endpoint, such as "--mode async" or "--image-uri ...". Needs the AWS CLI and credentials
# (aws sts get-caller-identity).
set -euo pipefail

if (($# < 2)); then
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
role=$1
film=$(realpath -- "$2")
name=${3:-viseme-first-run}
region=${REGION:-us-east-1}
read -r -a extra <<<"${EXTRA:-}"
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
endpoint=(--endpoint-name "$name" --region "$region")

clean_up() {
    status=$?
    printf '\n== deleting %s\n' "$name" >&2
    "$python" -m deploy.endpoint "${endpoint[@]}" --delete || printf 'NOT deleted: %s still costs money\n' "$name" >&2
    exit "$status"
}

print_what_it_ran_on() {
    printf '\n== what it ran on\n'
    aws logs filter-log-events --region "$region" --log-group-name "/aws/sagemaker/Endpoints/$name" \
        --filter-pattern '?"viseme is ready" ?"torch_version"' --query 'events[].message' --output text
    aws sagemaker describe-endpoint --region "$region" --endpoint-name "$name" \
        --query '[CreationTime,LastModifiedTime,EndpointStatus]' --output text
}

printf '== deploying %s\n' "$name" >&2
trap clean_up EXIT
"$python" -m deploy.endpoint "${endpoint[@]}" --role-arn "$role" \
    --instance-type "${INSTANCE_TYPE:-ml.g5.xlarge}" "${extra[@]}"

printf '\n== reading %s\n' "$film" >&2
time "$python" -m deploy.invoke "$film" "${endpoint[@]}"
print_what_it_ran_on
