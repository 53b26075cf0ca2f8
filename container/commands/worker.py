"""`viseme worker`: run the jobs of other machines' servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def worker(
    broker_url: Annotated[
        str | None,
        typer.Option(
            "--broker",
            "--broker-url",
            metavar="redis://HOST",
            help="Redis, by which servers wake the workers. Default: VISEME_BROKER_URL, which hides its password.",
        ),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            metavar="postgresql://HOST/NAME",
            help="Database of the jobs. Default: VISEME_DATABASE_URL, else SQLite in VISEME_DATA_DIR.",
        ),
    ] = None,
    job_storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            "--job-storage",
            metavar="FOLDER|s3://BUCKET/PREFIX",
            help="Files of the jobs, which every machine must reach. Default: VISEME_JOB_STORAGE, else in "
            "VISEME_DATA_DIR.",
        ),
    ] = None,
    model_dir: Annotated[
        Path | None, typer.Option(help="Folder with your own weights. Default: SM_MODEL_DIR, else as the server.")
    ] = None,
    max_jobs_per_process: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Replace the process that runs the models after N jobs. Default: VISEME_MAX_JOBS_PER_PROCESS, else "
            "never.",
        ),
    ] = None,
) -> None:
    """Run the jobs that servers with the same database accept, one at a time.

    Any number of workers may run, on any number of machines. Logs go to
    stderr, one JSON object per line. On SIGTERM the job in progress has 20
    seconds to end; then another worker starts it again.
    """
    from inference.settings import Settings

    settings = Settings.from_env().with_overrides(
        broker_url=broker_url,
        database_url=database_url,
        job_storage=job_storage,
        model_dir=model_dir,
        max_jobs_per_process=max_jobs_per_process,
        job_workers=1,
    )
    from container.jobs.job_worker import run_job_worker

    raise typer.Exit(run_job_worker(settings))
