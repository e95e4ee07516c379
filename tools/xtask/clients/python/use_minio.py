"""minio-py: objects, parts, listings, metadata, tags, composition, presigned requests."""
import io
from datetime import timedelta

import urllib3
from minio import Minio
from minio.commonconfig import ComposeSource, CopySource, Tags
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from checks import ACCESS, AUTHORITY, BUCKET, HOST, MIB, REGION, SECRET, SECURE, SHORT, blob, run

pool = urllib3.PoolManager(
    timeout=60, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=AUTHORITY)
client = Minio(HOST, access_key=ACCESS, secret_key=SECRET, secure=SECURE, http_client=pool)


def put(key, body, **options):
    return client.put_object(BUCKET, key, io.BytesIO(body), len(body), **options)


def get(key, **options):
    answer = client.get_object(BUCKET, key, **options)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def refused(code, call):
    try:
        call()
    except S3Error as error:
        assert error.code == code, f"{error}, expected {code}"
        return
    raise AssertionError(f"succeeded, expected {code}")


def buckets():
    assert client.bucket_exists(BUCKET) and not client.bucket_exists(f"{BUCKET}-never-was")
    other = f"{BUCKET}-other"
    client.make_bucket(other, location=REGION)
    assert other in [bucket.name for bucket in client.list_buckets()]
    client.remove_bucket(other)
    assert not client.bucket_exists(other)


def objects_of_many_sizes():
    for length in (0, 1, 8191, 70000, 5 * MIB + 1):
        body = blob(length, length)
        put(f"sizes/{length}", body)
        assert client.stat_object(BUCKET, f"sizes/{length}").size == length
        assert get(f"sizes/{length}") == body, f"{length} bytes: other bytes came back"
    refused("NoSuchKey", lambda: get("never-was"))


def ranges():
    body = blob(70000, 70000)
    assert get("sizes/70000", offset=4095, length=10001) == body[4095:14096]
    assert get("sizes/70000", offset=69000) == body[69000:]


def upload_of_a_file_in_parts():
    body = blob(2, (24 if SHORT else 96) * MIB)
    with open("up", "wb") as file:
        file.write(body)
    client.fput_object(BUCKET, "large", "up", part_size=8 * MIB, num_parallel_uploads=3)
    client.fget_object(BUCKET, "large", "down")
    with open("down", "rb") as file:
        assert file.read() == body, "other bytes came back"


def upload_of_a_stream_of_unknown_length():
    body = blob(3, 11 * MIB + 7)
    client.put_object(BUCKET, "stream", io.BytesIO(body), -1, part_size=5 * MIB)
    assert get("stream") == body


def metadata_and_tags():
    tags = Tags.new_object_tags()
    tags["colour"] = "blue + green"
    put("meta", b"x", content_type="text/x-odd", metadata={"who": "me"})
    client.set_object_tags(BUCKET, "meta", tags)
    stat = client.stat_object(BUCKET, "meta")
    assert stat.content_type == "text/x-odd" and stat.metadata["x-amz-meta-who"] == "me"
    assert client.get_object_tags(BUCKET, "meta") == tags
    client.delete_object_tags(BUCKET, "meta")
    assert not client.get_object_tags(BUCKET, "meta")


def copy_and_compose():
    client.copy_object(BUCKET, "copied", CopySource(BUCKET, "large"))
    assert get("copied") == get("large")
    sources = [ComposeSource(BUCKET, "large"), ComposeSource(BUCKET, "meta")]
    client.compose_object(BUCKET, "composed", sources)
    assert get("composed") == get("large") + b"x"


def listing():
    names = [f"list/{group}/{number}" for group in "ab" for number in range(3)] + ["list/ünï 日本+%20"]
    for name in names:
        put(name, b"")
    found = [entry.object_name for entry in client.list_objects(BUCKET, "list/", recursive=True)]
    assert found == sorted(names, key=str.encode), found
    found = [entry.object_name for entry in client.list_objects(BUCKET, "list/")]
    assert sorted(found) == ["list/a/", "list/b/", "list/ünï 日本+%20"], found
    found = client.list_objects(BUCKET, "list/", recursive=True, start_after="list/b/1")
    assert [entry.object_name for entry in found] == ["list/b/2", "list/ünï 日本+%20"]


def versions():
    from minio.commonconfig import ENABLED
    from minio.versioningconfig import VersioningConfig
    other = f"{BUCKET}-versions"
    client.make_bucket(other)
    client.set_bucket_versioning(other, VersioningConfig(ENABLED))
    first = client.put_object(other, "key", io.BytesIO(b"1"), 1).version_id
    client.put_object(other, "key", io.BytesIO(b"2"), 1)
    client.remove_object(other, "key")
    found = list(client.list_objects(other, include_version=True))
    # The client names delete markers behind the others.
    assert [bool(entry.is_delete_marker) for entry in found] == [False, False, True], found
    assert client.get_object(other, "key", version_id=first).read() == b"1"
    for entry in found:
        client.remove_object(other, "key", version_id=entry.version_id)
    client.remove_bucket(other)


def presigned():
    url = client.presigned_put_object(BUCKET, "pre", expires=timedelta(minutes=5))
    assert pool.request("PUT", url, body=b"hello").status == 200
    url = client.presigned_get_object(BUCKET, "pre", expires=timedelta(minutes=5))
    assert pool.request("GET", url).data == b"hello"
    assert pool.request("GET", url.split("?")[0]).status == 403


def removal():
    names = [entry.object_name for entry in client.list_objects(BUCKET, recursive=True)]
    errors = list(client.remove_objects(BUCKET, [DeleteObject(name) for name in names]))
    assert not errors, errors
    client.remove_bucket(BUCKET)
    refused("NoSuchBucket", lambda: put("late", b""))


run(buckets, objects_of_many_sizes, ranges, upload_of_a_file_in_parts,
    upload_of_a_stream_of_unknown_length, metadata_and_tags, copy_and_compose, listing, versions,
    presigned, removal)
