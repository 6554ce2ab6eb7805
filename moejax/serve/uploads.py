"""A request's form, within limits: its text fields, and its file as a stream that has no name on disk."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import BinaryIO

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from moejax.serve.declined import Declined

MEGABYTE = 1 << 20
FORM = MEGABYTE  # bytes for fields and boundaries beside the file
FIELDS = 200
DRAIN = 10.0  # seconds in which the rest of a refused upload is taken, so that its sender hears why


class Upload:
    """Reads the body of one request: counts its bytes, and takes what is left of it where it is refused."""

    def __init__(self, request: Request, megabytes: float):
        self.most, self.size, self.ended = round(megabytes * MEGABYTE) + FORM, 0, False
        self.megabytes, self._receive = megabytes, request.receive
        self.request = Request(request.scope, self._counted)
        declared = request.headers.get("content-length", "")
        self.declared = int(declared) if declared.isdecimal() and len(declared) < 20 else 0

    async def _counted(self):
        message = await self._receive()
        self.size += len(message.get("body", b""))
        self.ended = message["type"] != "http.request" or not message.get("more_body", False)
        if self.size > self.most:
            raise self._too_large()
        return message

    def _too_large(self):
        return Declined(413, "too_large", f"the upload is larger than {self.megabytes:g} MB, the most here", "file")

    @contextlib.asynccontextmanager
    async def form(self) -> AsyncIterator[tuple[list[tuple[str, str]], BinaryIO]]:
        """(text fields, the file). The file is in memory, a larger one in a file that no folder names: it is gone when
        this ends, or the process does. Errors: Declined.
        """
        if self.declared > self.most:
            raise self._too_large()
        if self.request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            message = "send the recording as a form, multipart/form-data, in its field 'file'"
            raise Declined(400, "missing_file", message, "file")
        parser = MultiPartParser(self.request.headers, self.request.stream(), max_files=1, max_fields=FIELDS)
        try:
            form = await self._parsed(parser)
            file, fields = None, []
            for name, value in form.multi_items():
                if isinstance(value, UploadFile) and name == "file":
                    file = value.file
                elif isinstance(value, UploadFile):
                    raise Declined(400, "unknown_field", f"a file as {name[:50]!r}; the recording is 'file'", name[:50])
                elif name == "file":
                    message = "the field 'file' is text; it has to be an upload (no path or address is opened)"
                    raise Declined(400, "missing_file", message, "file")
                else:
                    fields.append((name, value))
            if file is None:
                message = "the field 'file' is missing: send the recording as multipart/form-data"
                raise Declined(400, "missing_file", message, "file")
            yield fields, file
        finally:
            for opened in parser._files_to_close_on_error:  # also one whose part never ended, which no form has
                opened.close()

    async def _parsed(self, parser: MultiPartParser) -> FormData:
        try:
            return await parser.parse()
        except (Declined, ClientDisconnect):
            raise
        except MultiPartException as error:
            raise Declined(400, "bad_form", f"the form cannot be read: {error.message}") from error
        except (ValueError, LookupError, AssertionError, TypeError) as error:  # of the parser, on broken bytes
            raise Declined(400, "bad_form", "the form cannot be read: broken multipart data") from error

    async def drain(self) -> None:
        """Takes the rest of a refused body, within reason: a connection that is closed on it loses the answer."""
        left = 4 * self.most
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                while not self.ended and left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    self.ended = message["type"] != "http.request" or not message.get("more_body", False)
