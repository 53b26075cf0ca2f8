"""The page with the files of jobs in S3, to which downloads redirect: its policy allows that one origin."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from support.browser import drop_refusals, element, needs_chromium, open_page, running_browser
from support.job_server import running_job_server
from support.local_s3 import running_s3
from support.waiting import wait_until

from inference.settings import Settings


@needs_chromium
def test_a_file_is_fetched_with_the_token_from_s3(tmp_path: Path):
    with running_s3("jobs") as s3, running_browser() as browser:
        settings = Settings(data_dir=tmp_path, token="secret", job_storage="s3://jobs/files", s3_endpoint_url=s3)
        with running_job_server(settings, Authorization="Bearer secret") as server, ExitStack() as stack:
            # The page waits 2 s for the bucket's region, which a busy machine does not have by then.
            wait_until(lambda: s3 in server.client.get("/").headers["content-security-policy"])
            address = f"{server.client.base_url}/#jobs".replace("//#", "/#")
            page = stack.enter_context(open_page(browser, address, others=(s3,)))
            server.wait_for(server.submit(b"a video").json()["id"])
            element(page, "error").filter(has_text="Bearer").first.wait_for()
            drop_refusals(page)
            element(page, "token").fill("secret")
            element(page, "token").press("Enter")
            element(page, "job-details").locator("summary").click()
            with page.expect_download() as download:
                element(page, "download").click()
            assert Path(download.value.path()).read_bytes() == b"a video"
            sources = page.request.get(str(server.client.base_url)).headers["content-security-policy"].split("; ")
            assert [one for one in sources if s3 in one] == [
                f"connect-src 'self' {s3}",
                f"img-src 'self' blob: data: {s3}",
                f"media-src 'self' blob: {s3}",
            ]
