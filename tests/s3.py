"""An S3 server on loopback, for tests of results and archives in a bucket."""

from collections.abc import Iterator
from contextlib import contextmanager

KEY = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}


@contextmanager
def serving(bucket: str, port: int = 0) -> Iterator[str]:
    """Serve a bucket while the block runs; gives the address. What it holds is there again in the next block."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    boto3.client("s3", endpoint_url=address, **KEY).create_bucket(Bucket=bucket)
    try:
        yield address
    finally:
        server.stop()


def environment(address: str) -> dict[str, str]:
    """Environment variables with which programs reach the server."""
    return {
        "AWS_ACCESS_KEY_ID": KEY["aws_access_key_id"],
        "AWS_SECRET_ACCESS_KEY": KEY["aws_secret_access_key"],
        "AWS_REGION": KEY["region_name"],
        "AWS_ENDPOINT_URL": address,
    }
