"""Run `viseme worker` or `viseme serve` with the settings of the environment, on what stands for another machine.

    python -m bench.job_process worker|server MACHINE --lease 6 --poll 5 --grace 20 [--real]

Processes of different MACHINEs believe to be on different hosts: the others notice the death of one only when its lease
has expired. Without --real, its children have no models, and digest their inputs.
"""

from __future__ import annotations

import argparse


def main() -> None:
    """Run until a signal arrives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=("worker", "server"))
    parser.add_argument("machine")
    parser.add_argument("--lease", type=float, required=True, help="seconds that a lease lasts")
    parser.add_argument("--poll", type=float, required=True, help="seconds between looks at the queue")
    parser.add_argument("--grace", type=float, required=True, help="seconds for a job to end after SIGTERM")
    parser.add_argument("--real", action="store_true", help="load the models")
    args = parser.parse_args()
    # The child imports this module, too, but needs none of these.
    from bench.job_child import run_digest_jobs
    from container.jobs import job_queue, job_worker, processes, runner, service
    from container.worker import process as worker_process
    from inference.settings import Settings

    job_queue.LEASE_S = args.lease
    runner.RENEWAL_S = args.lease / 3  # type: ignore[attr-defined]
    runner.RETRY_DELAYS_S = (args.poll,) * len(runner.RETRY_DELAYS_S)
    service.POLL_S = args.poll
    service.LEASE_SWEEP_S = min(service.LEASE_SWEEP_S, args.lease / 3)
    job_worker.GRACE_S = args.grace
    processes.host_name = lambda: args.machine  # type: ignore[assignment]
    if not args.real:
        worker_process.run_worker = run_digest_jobs  # type: ignore[attr-defined]
    settings = Settings.from_env()
    if args.role == "server":
        from container.server import run_server

        raise SystemExit(run_server(settings))
    raise SystemExit(job_worker.run_job_worker(settings.with_overrides(job_workers=1)))


if __name__ == "__main__":
    main()
