"""An object store of this machine, with conditional writes: moto's S3, which Ray's workers reach too."""

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from unittest import mock

import boto3
import s3fs
from moto.server import ThreadedMotoServer

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
