"""boto3: every call that its users make, and the refusals that they rely on."""
import threading
import urllib.request

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from checks import BUCKET, ENDPOINT, MIB, SHORT, blob, run

MULTIPART_MIB = 32 if SHORT else 200
s3 = boto3.client("s3", endpoint_url=ENDPOINT, config=Config(
    signature_version="s3v4", s3={"addressing_style": "path"},
    connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}))


def put(key, body=b"", **options):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **options)


def get(key, **options):
    return s3.get_object(Bucket=BUCKET, Key=key, **options)["Body"].read()


def refused(code, call, **options):
    """The answer must be this error; `code` is S3's name or an HTTP status."""
    try:
        call(Bucket=BUCKET, **options)
    except ClientError as error:
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        assert code in (error.response["Error"]["Code"], status), f"{error}, expected {code}"
        return
    raise AssertionError(f"succeeded, expected {code}")


def listed(**options):
    keys, prefixes = [], []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, **options):
        keys += [entry["Key"] for entry in page.get("Contents", [])]
        prefixes += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
    return keys, prefixes


def buckets():
    s3.head_bucket(Bucket=BUCKET)
    assert BUCKET in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    try:
        s3.create_bucket(Bucket=BUCKET)
    except ClientError as error:
        assert error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou", error
    refused("NoSuchKey", s3.get_object, Key="never-was")
    put("not-empty")
    refused("BucketNotEmpty", s3.delete_bucket)


def default_checksums():
    """boto3 sends a CRC trailer by itself and verifies what comes back."""
    for length in (0, 1, 8191, 8192, 8193, 65536, 70000, MIB, 3 * MIB + 1):
        body = blob(length, length)
        answer = put(f"sizes/{length}", body)
        kept = [name for name in answer if name.startswith("Checksum") and name != "ChecksumType"]
        head = s3.head_object(Bucket=BUCKET, Key=f"sizes/{length}", ChecksumMode="ENABLED")
        assert kept and all(head[name] == answer[name] for name in kept), (length, answer)
        assert get(f"sizes/{length}") == body, f"{length} bytes: other bytes came back"


def every_checksum():
    for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        answer = put(f"sums/{algorithm}", blob(1, 70000), ChecksumAlgorithm=algorithm)
        head = s3.head_object(Bucket=BUCKET, Key=f"sums/{algorithm}", ChecksumMode="ENABLED")
        assert head[f"Checksum{algorithm}"] == answer[f"Checksum{algorithm}"], algorithm


def wrong_checksums():
    """Nothing of a body that fails its check becomes visible."""
    refused("BadDigest", s3.put_object, Key="bad", Body=b"x", ContentMD5="AAAAAAAAAAAAAAAAAAAAAA==")
    refused(400, s3.put_object, Key="bad", Body=b"x", ChecksumCRC32="AAAAAA==")
    refused(404, s3.head_object, Key="bad")


def metadata():
    put("meta", b"x", Metadata={"who": "me"}, ContentType="text/x-odd", CacheControl="no-store")
    head = s3.head_object(Bucket=BUCKET, Key="meta")
    assert head["Metadata"] == {"who": "me"}, head
    assert (head["ContentType"], head["CacheControl"]) == ("text/x-odd", "no-store"), head


def multipart():
    body = blob(2, MULTIPART_MIB * MIB)
    with open("large", "wb") as file:
        file.write(body)
    config = TransferConfig(multipart_chunksize=8 * MIB, max_concurrency=4)
    s3.upload_file("large", BUCKET, "large", Config=config)
    head = s3.head_object(Bucket=BUCKET, Key="large")
    assert head["ContentLength"] == len(body), head
    assert head["ETag"].endswith(f'-{MULTIPART_MIB // 8}"'), head["ETag"]
    s3.download_file(BUCKET, "large", "back", Config=config)
    with open("back", "rb") as file:
        assert file.read() == body, "other bytes came back"
    for start, end in ((0, 0), (8 * MIB - 1, 8 * MIB), (5 * MIB, 21 * MIB), (len(body) - 3, len(body) - 1)):
        assert get("large", Range=f"bytes={start}-{end}") == body[start:end + 1], (start, end)


def multipart_refusals():
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="parts")["UploadId"]
    part = s3.upload_part(Bucket=BUCKET, Key="parts", UploadId=upload, PartNumber=2, Body=b"small")
    wrong = {"Parts": [{"PartNumber": 2, "ETag": '"00000000000000000000000000000000"'}]}
    refused("InvalidPart", s3.complete_multipart_upload, Key="parts", UploadId=upload, MultipartUpload=wrong)
    refused(404, s3.head_object, Key="parts")
    right = {"Parts": [{"PartNumber": 2, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(Bucket=BUCKET, Key="parts", UploadId=upload, MultipartUpload=right)
    assert get("parts") == b"small"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key="given-up")["UploadId"]
    s3.upload_part(Bucket=BUCKET, Key="given-up", UploadId=upload, PartNumber=1, Body=b"x")
    s3.abort_multipart_upload(Bucket=BUCKET, Key="given-up", UploadId=upload)
    refused("NoSuchUpload", s3.upload_part, Key="given-up", UploadId=upload, PartNumber=2, Body=b"y")
    refused(404, s3.head_object, Key="given-up")


def conditional_put():
    etag = put("once", b"1", IfNoneMatch="*")["ETag"]
    refused(412, s3.put_object, Key="once", Body=b"2", IfNoneMatch="*")
    put("once", b"3", IfMatch=etag)
    refused(412, s3.put_object, Key="once", Body=b"4", IfMatch=etag)
    assert get("once") == b"3"


def conditional_race():
    """Of many writers that each want to be first, one is."""
    for turn in range(5):
        answers = []

        def write(number, turn=turn):
            try:
                put(f"race/{turn}", bytes([number]), IfNoneMatch="*")
                answers.append(number)
            except ClientError as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412), error

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == 1, f"{len(answers)} writers were first"
        assert get(f"race/{turn}") == bytes(answers), "the bytes are not the winner's"


def conditional_get():
    etag = put("seen", b"x")["ETag"]
    refused(304, s3.get_object, Key="seen", IfNoneMatch=etag)
    refused(412, s3.get_object, Key="seen", IfMatch='"0"')
    assert get("seen", IfMatch=etag) == b"x"


def ranges():
    body = blob(3, 300_000)
    put("ranged", body)
    for text, part in (("0-0", body[:1]), ("4095-4096", body[4095:4097]), ("100000-199999", body[100000:200000]),
                       ("299990-", body[299990:]), ("-10", body[-10:]), ("299999-999999", body[-1:])):
        assert get("ranged", Range=f"bytes={text}") == part, text
    refused("InvalidRange", s3.get_object, Key="ranged", Range="bytes=300000-")


def delimiters():
    names = [f"list/{group}/{number}" for group in "abc" for number in range(5)] + ["list/z", "list/a"]
    for name in names:
        put(name)
    for size in (2, 1000):
        pages = {"PageSize": size}
        keys, _ = listed(Prefix="list/", PaginationConfig=pages)
        assert keys == sorted(names), (size, keys)
        keys, prefixes = listed(Prefix="list/", Delimiter="/", PaginationConfig=pages)
        assert keys == ["list/a", "list/z"], (size, keys)
        assert prefixes == ["list/a/", "list/b/", "list/c/"], (size, prefixes)
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", StartAfter="list/c/3")
    assert [entry["Key"] for entry in page["Contents"]] == ["list/c/4", "list/z"], page
    page = s3.list_objects(Bucket=BUCKET, Prefix="list/", Marker="list/c/3")
    assert [entry["Key"] for entry in page["Contents"]] == ["list/c/4", "list/z"], page


def key_and_folder():
    """`a` and `a/b` are two keys."""
    for name in ("both", "both/below", "both/below/more"):
        put(name, name.encode())
    for name in ("both", "both/below", "both/below/more"):
        assert get(name) == name.encode()
    assert listed(Prefix="both")[0] == ["both", "both/below", "both/below/more"]
    s3.delete_object(Bucket=BUCKET, Key="both/below")
    assert listed(Prefix="both")[0] == ["both", "both/below/more"]


def odd_keys(names):
    for name in names:
        put(f"odd/{name}", name.encode())
    for name in names:
        assert get(f"odd/{name}") == name.encode(), repr(name)
    keys, _ = listed(Prefix="odd/")
    want = sorted((f"odd/{name}" for name in names), key=lambda name: name.encode())
    assert keys == want, f"listed {keys!r}"
    for name in names:
        s3.delete_object(Bucket=BUCKET, Key=f"odd/{name}")
    assert listed(Prefix="odd/")[0] == []


def unicode_keys():
    odd_keys(["ünï", "日本/語", "\U0001f980", "a b", "a+b", "a%20b", "a&b=c;d?e#f", "'\"<>", "trailing/", "\ud7ff", "\uffff"])


def control_keys():
    odd_keys(["bell\x07", "new\nline", "tab\t", "return\r", "\x01", "\x7f"])


def dotted_keys():
    odd_keys(["..", ".", "../up", "a/../b", "a/./b", "a//b", "..."])


def long_key():
    name = "k" * 1022 + "é"
    assert len(name.encode()) == 1024
    put(name, b"long")
    assert get(name) == b"long"
    assert name in listed(Prefix="kkkk")[0]
    refused("KeyTooLongError", s3.put_object, Key="k" * 1025, Body=b"x")


def delete_many():
    names = [f"many/{number}" for number in range(50)]
    for name in names:
        put(name)
    wanted = {"Objects": [{"Key": name} for name in names + ["many/never-was"]]}
    answer = s3.delete_objects(Bucket=BUCKET, Delete=wanted)
    assert len(answer["Deleted"]) == 51 and not answer.get("Errors"), answer
    assert listed(Prefix="many/")[0] == []
    s3.delete_object(Bucket=BUCKET, Key="many/0")


def copy():
    put("copy/from", b"copied", Metadata={"who": "me"})
    source = {"Bucket": BUCKET, "Key": "copy/from"}
    s3.copy_object(Bucket=BUCKET, Key="copy/to", CopySource=source)
    assert get("copy/to") == b"copied"
    assert s3.head_object(Bucket=BUCKET, Key="copy/to")["Metadata"] == {"who": "me"}


def presigned():
    url = s3.generate_presigned_url("put_object", Params={"Bucket": BUCKET, "Key": "pre"})
    request = urllib.request.Request(url, b"hello", method="PUT", headers={"Content-Type": ""})
    urllib.request.urlopen(request, timeout=20)
    url = s3.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "pre"})
    assert urllib.request.urlopen(url, timeout=20).read() == b"hello"
    for broken in (url[:-1] + ("0" if url[-1] != "0" else "1"), f"{ENDPOINT}/{BUCKET}/pre"):
        try:
            urllib.request.urlopen(broken, timeout=20)
            raise AssertionError("an unsigned request was answered")
        except urllib.error.HTTPError as error:
            assert error.code == 403, error


def emptied():
    keys, _ = listed()
    for start in range(0, len(keys), 1000):
        wanted = {"Objects": [{"Key": key} for key in keys[start:start + 1000]]}
        assert not s3.delete_objects(Bucket=BUCKET, Delete=wanted).get("Errors")
    s3.delete_bucket(Bucket=BUCKET)
    refused(404, s3.head_bucket)


run(buckets, default_checksums, every_checksum, wrong_checksums, metadata, multipart,
    multipart_refusals, conditional_put, conditional_race, conditional_get, ranges, delimiters,
    key_and_folder, unicode_keys, control_keys, dotted_keys, long_key, delete_many, copy, presigned,
    emptied)
