"""`viseme jobs`: the durable jobs of a server."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from container.commands.console import (
    EXIT_INTERNAL,
    EXIT_USAGE,
    FaceOption,
    parse_face,
    pause_progress,
    print_error,
    print_line,
    print_note,
    report_progress,
)
from container.commands.read import DecoderName, read_phrases
from container.commands.sync import EnhanceName, FpsOption, LoopOption, ReferenceOption, SpeakerOption
from container.commands.sync_speaker import speaker_fields
from inference.atomic_write import atomic_file
from inference.errors import InvalidRequest, StorageError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from container.commands.job_bodies import JobBody
    from container.commands.job_server import JobServer, ServerEvent

app = typer.Typer(name="jobs", no_args_is_help=True, help="Submit, watch and download the durable jobs of a server.")

DEFAULT_URL = "http://127.0.0.1:8080"
RESULT_NAME = "result.json"
OUTPUT_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,127}")
READ_ONLY = "decoder", "nbest", "exact", "phrases"
SYNC_ONLY = (
    "models",
    "enhance",
    "fps",
    "resize_factor",
    "pads",
    "nosmooth",
    "loop",
    "reference",
    "active_speaker",
    "parity",
    "s3_output_prefix",
)
Fields = dict[str, Any]


class StateName(StrEnum):
    """States of jobs."""

    queued = "queued"
    starting = "starting"
    processing = "processing"
    succeeded = "succeeded"
    failed = "failed"
    canceled = "canceled"


UrlOption = Annotated[str, typer.Option("--url", envvar="VISEME_URL", help="The server.")]
TokenOption = Annotated[
    str | None,
    typer.Option("--token", envvar="VISEME_TOKEN", show_envvar=True, help="The server's token, if it has one."),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file", metavar="PEM", help="Authority of the server's certificate, if the system does not trust it."
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="ID", help="The job.")]
InputsArgument = Annotated[
    list[str],
    typer.Argument(metavar="VIDEO|FACE AUDIO", help="Files, http(s)://... or s3://bucket/key. Two: lip sync."),
]


@app.command()
def submit(
    inputs: InputsArgument,
    idempotency_key: Annotated[
        str | None, typer.Option("--idempotency-key", help="A repetition with this key returns the same job.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="Called when the job has ended.")
    ] = None,
    face: FaceOption = "largest",
    decoder: Annotated[DecoderName | None, typer.Option("--decoder", help="As of viseme read.")] = None,
    nbest: Annotated[int | None, typer.Option("--nbest", metavar="N", help="As of viseme read.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="As of viseme read.")] = False,
    phrases: Annotated[Path | None, typer.Option("--phrases", metavar="FILE", help="As of viseme read.")] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option("--checkpoint", metavar="NAME", help="A model of the server. Repeatable.")
    ] = None,
    enhance: Annotated[EnhanceName | None, typer.Option("--enhance", help="As of viseme sync.")] = None,
    fps: FpsOption = None,
    resize_factor: Annotated[int | None, typer.Option("--resize-factor", help="As of viseme sync.")] = None,
    pads: Annotated[
        tuple[int, int, int, int] | None, typer.Option("--pads", metavar="T B L R", help="As of viseme sync.")
    ] = None,
    nosmooth: Annotated[bool, typer.Option("--nosmooth", help="As of viseme sync.")] = False,
    loop: LoopOption = None,
    reference: ReferenceOption = None,
    speaker: SpeakerOption = None,
    parity: Annotated[bool, typer.Option("--parity", help="As of viseme sync.")] = False,
    output_prefix: Annotated[
        str | None, typer.Option("--output-prefix", metavar="s3://BUCKET/FOLDER", help="Also write the videos there.")
    ] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Submit a job and print its id.

    One input is read, a face and audio are synced. The server has the job on
    its disk when the id is printed.
    """
    options = given_options(
        decoder=decoder,
        nbest=nbest,
        exact=exact or None,
        phrases=None if phrases is None else read_phrases(phrases),
        models=checkpoint,
        enhance=enhance,
        fps=fps,
        resize_factor=resize_factor,
        pads=pads,
        nosmooth=nosmooth or None,
        loop=loop,
        reference=reference,
        active_speaker=None if speaker is None else speaker_fields(speaker),
        parity=parity or None,
        s3_output_prefix=output_prefix,
    )
    chosen = parse_face(face)
    headers = {"Idempotency-Key": idempotency_key, "X-Webhook-Url": webhook}
    with make_body(inputs, chosen, options, {name: one for name, one in headers.items() if one is not None}) as body:
        job = connect(url, token, ca_file).submit(body.path, body.headers)
    print_line(job["id"])


@app.command("list")
def list_jobs(
    state: Annotated[StateName | None, typer.Option("--state", help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 20,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Print jobs, the newest first: one JSON object per line."""
    for job in connect(url, token, ca_file).pages(state, limit):
        print_line(json.dumps(job))


@app.command()
def show(
    job_id: JobArgument,
    log: Annotated[bool, typer.Option("--log", help="Print the log of the last attempt instead.")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="With --log: of this attempt.")] = None,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Print a job's record as JSON, or a log of it."""
    server = connect(url, token, ca_file)
    if attempt is not None and not log:
        raise InvalidRequest("--attempt: expected --log as well")
    if not log:
        print_line(json.dumps(server.find(job_id), indent=2))
        return
    print_line(server.log(job_id, attempt or logged_attempt(server.find(job_id))).removesuffix("\n"))


@app.command()
def watch(
    job_id: JobArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a JSON object instead.")] = False,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Wait for the end of a job, with a progress bar; print words as they are read.

    A lost connection is continued. Exit codes: 0 the job succeeded; 2 its
    request was wrong, or it was canceled; 1 any other failure.
    """
    server = connect(url, token, ca_file)
    job = server.find(job_id)
    with report_progress() as progress:
        view = JobView(progress, progress.add_task(job["task"], total=100))
        for event in server.events(job_id):
            if as_json:
                with pause_progress(progress):
                    print_line(json.dumps({"event": event.kind, "id": event.id} | event.fields))
            view.update(event, prints_words=not as_json)
    finish_watch(server.find(job_id), prints_result=not as_json, has_words=bool(view.words))


@app.command()
def cancel(
    job_id: JobArgument,
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Cancel a job, and print its record as JSON; a job that has ended stays as it is."""
    print_line(json.dumps(connect(url, token, ca_file).cancel(job_id), indent=2))


@app.command()
def download(
    job_id: JobArgument,
    output_dir: Annotated[Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Folder to write to.")],
    url: UrlOption = DEFAULT_URL,
    token: TokenOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Write what a job made, and result.json, to a folder; print the paths.

    Each file appears when it is complete and its SHA-256 is right.
    """
    server = connect(url, token, ca_file)
    job = server.find(job_id)
    if job["state"] != StateName.succeeded:
        raise InvalidRequest(f"the job {job_id} is {job['state']}; expected one that has succeeded")
    written = []
    with report_progress() as progress:
        for output in job["outputs"]:
            target = output_dir / checked_name(output["name"])
            task = progress.add_task(target.name, total=output["size"])
            server.download(output, target, lambda n, task=task: progress.update(task, completed=n))  # type: ignore[misc]
            written.append(target)
    written.append(write_result(job["result"], output_dir / RESULT_NAME))
    for path in written:
        print_line(str(path))


class JobView:
    """Shows the events of a job: its progress in a bar, its words on stdout."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self.words: list[str] = []  # printed so far
        self._attempt, self._n_words = 0, 0

    def update(self, event: ServerEvent, *, prints_words: bool) -> None:
        """Show an event. A later attempt reads the same words again, of which only new ones are printed."""
        fields = event.fields
        if fields["attempt"] != self._attempt:
            self._attempt, self._n_words = fields["attempt"], 0
            self._progress.update(self._task, completed=0)
        if event.kind == "progress":
            self._progress.update(self._task, completed=fields["progress"], description=fields["stage"])
        elif event.kind == "state" and fields.get("error") and fields["state"] == StateName.queued:
            with pause_progress(self._progress):
                print_note(
                    f"attempt {fields['attempt']} failed, and the job is queued again: {fields['error']['message']}"
                )
        elif event.kind == "words" and prints_words:
            self._print([one["word"] for one in fields["words"]])

    def _print(self, words: list[str]) -> None:
        first = self._n_words
        self._n_words += len(words)
        if new := words[max(len(self.words) - first, 0) :]:
            self.words += new
            with pause_progress(self._progress):
                print_line(" ".join(new))


def finish_watch(job: Fields, *, prints_result: bool, has_words: bool) -> None:
    """Print the result of a job that has ended. Raises: typer.Exit unless it succeeded."""
    if job["state"] == StateName.succeeded:
        if prints_result and not has_words:
            made = [output["name"] for output in job["outputs"]]
            print_line(job["result"].get("text", "\n".join(made)))
        return
    if job["state"] == StateName.canceled:
        print_error(f"the job {job['id']} was canceled")
        raise typer.Exit(EXIT_USAGE)
    error = job["error"]
    print_error(f"{error['code']}: {error['message']}")
    raise typer.Exit(EXIT_USAGE if error["status"] < 500 else EXIT_INTERNAL)


def connect(url: str, token: str | None, ca_file: Path | None) -> JobServer:
    from container.commands.job_server import JobServer

    return JobServer(url, token or None, ca_file)


def make_body(
    inputs: list[str], face: int | str, options: Fields, headers: dict[str, str]
) -> AbstractContextManager[JobBody]:
    """Return the request for these inputs. Raises: InvalidRequest if an option is of the other task."""
    from container.commands.job_bodies import JobInput, read_body, sync_body

    if len(inputs) not in (1, 2):
        raise InvalidRequest(f"{len(inputs)} inputs; expected a VIDEO to read, or FACE and AUDIO to sync")
    is_sync = len(inputs) == 2
    for name in READ_ONLY if is_sync else SYNC_ONLY:
        if name in options:
            task = "lip reading: expected one VIDEO" if is_sync else "lip sync: expected FACE and AUDIO"
            raise InvalidRequest(f"{option_name(name)} is an option of {task}")
    if face != "largest":
        options = options | {"face_index" if is_sync else "face": face}
    first, *others = (JobInput(name) for name in inputs)
    return sync_body(first, others[0], options, headers) if is_sync else read_body(first, options, headers)


def given_options(**options: object) -> Fields:
    """Return the options that are given, by their names in a request."""
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in options.items() if value}


def option_name(name: str) -> str:
    """Return the option by which a field of a request is given."""
    special = {"models": "--checkpoint", "active_speaker": "--speaker", "s3_output_prefix": "--output-prefix"}
    return special.get(name, f"--{name.replace('_', '-')}")


def logged_attempt(job: Fields) -> int:
    """Return the number of the last attempt that has ended, or else of the first. Raises: InvalidRequest if none."""
    attempts: list[Fields] = job["attempts"]
    if not attempts:
        raise InvalidRequest(f"the job {job['id']} is {job['state']}; no attempt has begun yet, so that it has no log")
    ended = [one for one in attempts if one["ended_at"] is not None]
    number: int = (ended or attempts)[-1]["number"]
    return number


def checked_name(name: str) -> str:
    """Return the name of an output if it is one of a plain file. Raises: StorageError."""
    if not OUTPUT_NAME.fullmatch(name):
        raise StorageError(f"an output is named {name[:80]!r}; expected the name of a file")
    return name


def write_result(result: Fields | None, path: Path) -> Path:
    try:
        with atomic_file(path, make_parents=True) as partial:
            partial.write_text(json.dumps(result, indent=2) + "\n")
    except OSError as err:
        raise StorageError(f"{path}: could not be written ({err.strerror or err})") from err
    return path
