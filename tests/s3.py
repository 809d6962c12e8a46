"""An S3 server on loopback, for tests of results and archives in a bucket."""

from collections.abc import Iterator
from contextlib import contextmanager

KEY = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}


@contextmanager
def serving(bucket: str) -> Iterator[str]:
    """Serve an empty bucket while the block runs; gives the address."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=address, **KEY).create_bucket(Bucket=bucket)
    yield address
    server.stop()
