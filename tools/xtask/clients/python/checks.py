"""What the programs of the Python clients share: where the server is, and how checks are told.

usage of each: use_CLIENT.py ENDPOINT BUCKET short|full

The bucket is there and empty. Credentials come from the environment, and `AWS_CA_BUNDLE` where the
server speaks HTTPS. Each check is one PASS or FAIL line, and `done` ends them.
"""
import os
import random
import sys
import traceback
from urllib.parse import urlsplit

ENDPOINT, BUCKET = sys.argv[1], sys.argv[2]
SHORT = sys.argv[3] == "short"
SECURE, HOST = urlsplit(ENDPOINT).scheme == "https", urlsplit(ENDPOINT).netloc
ACCESS, SECRET = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
AUTHORITY = os.environ.get("AWS_CA_BUNDLE")
REGION = "us-east-1"
MIB = 1 << 20

# As the clients that are built on Rust's object_store take them.
OBJECT_STORE = {
    "aws_access_key_id": ACCESS,
    "aws_secret_access_key": SECRET,
    "aws_region": REGION,
    "aws_endpoint_url": ENDPOINT,
    "aws_allow_http": "false" if SECURE else "true",
}


def blob(seed, length):
    return random.Random(seed).randbytes(length)


def file_system():
    """The store as fsspec's users see it."""
    import s3fs
    # Without the version, presigned addresses are those of version 2.
    return s3fs.S3FileSystem(
        key=ACCESS, secret=SECRET, config_kwargs={"signature_version": "s3v4"},
        client_kwargs={"endpoint_url": ENDPOINT, "region_name": REGION, "verify": AUTHORITY})


def run(*checks):
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            check()
            print(f"PASS {name}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            print(f"FAIL {name}: {reason} ({where.name}, line {where.lineno})")
    print("done")
