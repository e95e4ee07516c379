"""pyarrow: Parquet files and partitioned data sets through its own S3 file system, in C++."""
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from checks import ACCESS, AUTHORITY, BUCKET, HOST, MIB, REGION, SECRET, SECURE, SHORT, blob, run

options = {"tls_ca_file_path": AUTHORITY} if AUTHORITY else {}
s3 = fs.S3FileSystem(
    access_key=ACCESS, secret_key=SECRET, region=REGION, endpoint_override=HOST,
    scheme="https" if SECURE else "http", allow_bucket_creation=True, allow_bucket_deletion=True,
    connect_timeout=5, request_timeout=60, **options)
ROWS = 200_000 if SHORT else 2_000_000
TABLE = pa.table({
    "id": pa.array(range(ROWS)),
    "group": pa.array([f"g{number % 7}" for number in range(ROWS)]),
    "bytes": pa.array([blob(number % 1000, 8) for number in range(ROWS)]),
})


def streams():
    body = blob(1, 23 * MIB + 5)
    with s3.open_output_stream(f"{BUCKET}/stream") as stream:
        for start in range(0, len(body), 3 * MIB):
            stream.write(body[start:start + 3 * MIB])
    with s3.open_input_stream(f"{BUCKET}/stream") as stream:
        assert stream.read() == body, "other bytes came back"
    with s3.open_input_file(f"{BUCKET}/stream") as file:
        assert file.read_at(1000, 5 * MIB - 7) == body[5 * MIB - 7:5 * MIB + 993]
    with s3.open_output_stream(f"{BUCKET}/empty"):
        pass
    assert s3.get_file_info(f"{BUCKET}/empty").size == 0


def one_parquet_file():
    pq.write_table(TABLE, f"{BUCKET}/one.parquet", filesystem=s3, row_group_size=50_000)
    assert pq.read_table(f"{BUCKET}/one.parquet", filesystem=s3).equals(TABLE)
    column = pq.read_table(f"{BUCKET}/one.parquet", filesystem=s3, columns=["id"],
                           filters=[("id", ">", ROWS - 10)])
    assert column["id"].to_pylist() == list(range(ROWS - 9, ROWS)), column


def partitioned_data_set():
    ds.write_dataset(TABLE, f"{BUCKET}/set", filesystem=s3, format="parquet",
                     partitioning=ds.partitioning(pa.schema([("group", pa.string())]), flavor="hive"))
    found = ds.dataset(f"{BUCKET}/set", filesystem=s3, partitioning="hive")
    assert len(found.files) == 7, found.files
    assert found.count_rows() == ROWS
    part = found.to_table(filter=pc.field("group") == "g3")
    assert part["id"].sort().equals(TABLE.filter(pc.equal(TABLE["group"], "g3"))["id"])
    whole = found.to_table(columns=["id", "group", "bytes"]).sort_by("id")
    assert whole.cast(TABLE.schema).equals(TABLE)


def directories_copies_and_moves():
    s3.create_dir(f"{BUCKET}/folder/below")
    assert s3.get_file_info(f"{BUCKET}/folder/below").type == fs.FileType.Directory
    s3.copy_file(f"{BUCKET}/one.parquet", f"{BUCKET}/folder/copied")
    s3.move(f"{BUCKET}/folder/copied", f"{BUCKET}/folder/below/moved")
    assert s3.get_file_info(f"{BUCKET}/folder/copied").type == fs.FileType.NotFound
    assert pq.read_table(f"{BUCKET}/folder/below/moved", filesystem=s3).equals(TABLE)
    below = s3.get_file_info(fs.FileSelector(f"{BUCKET}/folder", recursive=True))
    assert sorted(info.base_name for info in below) == ["below", "moved"], below


def removal():
    s3.delete_dir_contents(f"{BUCKET}/set")
    assert not s3.get_file_info(fs.FileSelector(f"{BUCKET}/set", recursive=True))
    s3.delete_dir(BUCKET)
    assert s3.get_file_info(BUCKET).type == fs.FileType.NotFound


run(streams, one_parquet_file, partitioned_data_set, directories_copies_and_moves, removal)
