"""Object stores of this machine, with conditional writes: moto's S3, which Ray's workers reach too, and an emulator of Google's."""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any
from unittest import mock

import boto3
import s3fs
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server
from moto.server import ThreadedMotoServer

from tests.support import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@contextlib.contextmanager
def object_store() -> Iterator[str]:
    """The URL of an empty bucket. While it lasts, this process and what it starts ask this store and no other."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it tells of every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    asked = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    bucket = f"runs-{secrets.token_hex(4)}"
    try:
        with mock.patch.dict(os.environ, asked | KEYS):
            s3fs.S3FileSystem.clear_instance_cache()  # one that an earlier store was asked by
            boto3.client("s3").create_bucket(Bucket=bucket)
            yield f"s3://{bucket}"
    finally:
        server.stop()


@contextlib.contextmanager
def google_store() -> Iterator[str]:
    """The URL of an empty bucket of Google's. While it lasts, this process and what it starts ask this store and no other."""
    port = free_port()
    bucket = f"runs-{secrets.token_hex(4)}"
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=bucket)
    asked = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}", "NO_GCE_CHECK": "true"}  # no metadata server is looked for
    with server, mock.patch.dict(os.environ, asked), mock.patch.object(objects, "_multipart_upload", _conditional_upload):
        yield f"gs://{bucket}"


_upload = objects._multipart_upload


def _conditional_upload(request: Any, response: Any, storage: Any) -> None:
    """What the emulator lacks: an object that is to be new is refused where there is one. It treats one request at a time."""
    there = storage.objects.get(request.params["bucket_name"], {})
    if request.query.get("ifGenerationMatch") == ["0"] and request.data["meta"]["name"] in there:
        response.status = HTTPStatus.PRECONDITION_FAILED
    else:
        _upload(request, response, storage)
