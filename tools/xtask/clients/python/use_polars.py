"""polars: Parquet written to the store and scanned from it, whole and partitioned."""
import polars as pl

from checks import BUCKET, OBJECT_STORE, SHORT, file_system, run

ROWS = 100_000 if SHORT else 1_000_000
ROOT = f"s3://{BUCKET}"
FRAME = pl.DataFrame({"id": range(ROWS)}).with_columns(
    (pl.col("id") % 7).cast(pl.String).alias("group"), (pl.col("id") * 2654435761 % 1000003).alias("value"))


def one_file():
    FRAME.write_parquet(f"{ROOT}/one.parquet", storage_options=OBJECT_STORE)
    assert pl.read_parquet(f"{ROOT}/one.parquet", storage_options=OBJECT_STORE).equals(FRAME)


def scan_with_a_filter():
    scan = pl.scan_parquet(f"{ROOT}/one.parquet", storage_options=OBJECT_STORE)
    found = scan.filter(pl.col("id") >= ROWS - 3).select("value").collect()
    assert found["value"].to_list() == FRAME["value"][-3:].to_list(), found


def partitioned_data():
    for (group,), part in FRAME.partition_by("group", as_dict=True, include_key=False).items():
        part.write_parquet(f"{ROOT}/set/group={group}/part.parquet", storage_options=OBJECT_STORE)
    scan = pl.scan_parquet(f"{ROOT}/set/", storage_options=OBJECT_STORE, hive_partitioning=True)
    whole = scan.collect().sort("id").with_columns(pl.col("group").cast(pl.String))
    assert whole.select(FRAME.columns).equals(FRAME)
    one = pl.scan_parquet(f"{ROOT}/set/group=3/*.parquet", storage_options=OBJECT_STORE).collect()
    assert one["id"].to_list() == list(range(3, ROWS, 7))


def sink_of_a_stream():
    scan = pl.scan_parquet(f"{ROOT}/one.parquet", storage_options=OBJECT_STORE)
    scan.filter(pl.col("group") == "5").sink_parquet(f"{ROOT}/sunk.parquet", storage_options=OBJECT_STORE)
    sunk = pl.read_parquet(f"{ROOT}/sunk.parquet", storage_options=OBJECT_STORE)
    assert sunk.equals(FRAME.filter(pl.col("group") == "5"))


def csv_and_ipc():
    FRAME.write_csv(f"{ROOT}/one.csv", storage_options=OBJECT_STORE)
    again = pl.read_csv(f"{ROOT}/one.csv", storage_options=OBJECT_STORE, schema=FRAME.schema)
    assert again.equals(FRAME)
    FRAME.lazy().sink_ipc(f"{ROOT}/one.arrow", storage_options=OBJECT_STORE)
    assert pl.scan_ipc(f"{ROOT}/one.arrow", storage_options=OBJECT_STORE).collect().equals(FRAME)


def what_it_left_is_listed():
    fs = file_system()
    assert len(fs.find(f"{BUCKET}/set")) == 7
    fs.rm(BUCKET, recursive=True)


run(one_file, scan_with_a_filter, partitioned_data, sink_of_a_stream, csv_and_ipc,
    what_it_left_is_listed)
