"""HTTP's interim answers (1xx) are read past, to the final one, by every client that stands on `http.client`.

`http.client` skips 100 only and takes any other, as 102 (Processing) and 103 (Early Hints), for the answer. The final
answer then lies unread on a connection that is used again, and counts as that of the next request: batches would be
called acknowledged that never were. https://www.rfc-editor.org/rfc/rfc9110#section-15.2
"""

from http import HTTPStatus
from http.client import HTTPException, HTTPResponse

from urllib3.connection import HTTPConnection

MAX_INTERIM = 32  # of one answer; each may come as late as the read timeout allows


class FinalResponse(HTTPResponse):
    """An answer that begins with the final one."""

    def begin(self) -> None:
        """Read status and headers; raises HTTPException where no final answer comes."""
        for _ in range(MAX_INTERIM):
            super().begin()
            if not HTTPStatus.CONTINUE <= self.status < HTTPStatus.OK:
                return
            if self.status == HTTPStatus.SWITCHING_PROTOCOLS:  # no HTTP follows, and nobody asked for that
                self.will_close = True
                return
            self.headers = self.msg = None  # type: ignore[assignment] # `begin` does nothing where there are some
        raise HTTPException(f"no final answer after {MAX_INTERIM} interim ones")


def read_past_interim_answers() -> None:
    """Have urllib3, and with it requests, botocore and segment-analytics-python, do so; idempotent."""
    HTTPConnection.response_class = FinalResponse
