"""deltalake: commits of a table by conditional put, from several writers at once."""
import threading

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from checks import BUCKET, OBJECT_STORE, SHORT, file_system, run

OPTIONS = {**OBJECT_STORE, "aws_conditional_put": "etag"}
ROOT = f"s3://{BUCKET}/table"
ROWS = 10_000 if SHORT else 200_000
WRITERS, COMMITS = 4, 3


def rows(start, count):
    ids = range(start, start + count)
    return pa.table({"id": pa.array(ids, pa.int64()), "group": [f"g{number % 3}" for number in ids]})


def ids(table):
    return sorted(table.to_pyarrow_table()["id"].to_pylist())


def opened(**options):
    return DeltaTable(ROOT, storage_options=OPTIONS, **options)


def a_table_in_partitions():
    write_deltalake(ROOT, rows(0, ROWS), partition_by=["group"], storage_options=OPTIONS)
    write_deltalake(ROOT, rows(ROWS, ROWS), mode="append", storage_options=OPTIONS)
    assert ids(opened()) == list(range(2 * ROWS))
    part = opened().to_pyarrow_table(filters=[("group", "=", "g1")])
    assert sorted(part["id"].to_pylist()) == list(range(1, 2 * ROWS, 3))


def an_older_version():
    assert ids(opened(version=0)) == list(range(ROWS))


def commits_of_several_writers():
    """Every commit that succeeded is there, once, as a version of its own."""
    before = opened().version()
    done, errors = [], []

    def write(writer):
        for turn in range(COMMITS):
            start = 10_000_000 + (writer * COMMITS + turn) * 100
            try:
                write_deltalake(ROOT, rows(start, 100), mode="append", storage_options=OPTIONS)
                done.append(start)
            except CommitFailedError:
                pass
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    assert len(done) >= WRITERS, f"only {len(done)} commits succeeded"
    assert opened().version() == before + len(done), (opened().version(), before, len(done))
    found = [number for number in ids(opened()) if number >= 10_000_000]
    assert found == sorted(start + number for start in done for number in range(100))


def a_version_is_written_once():
    """Of several that make one table, one does; who comes later fails, or appends to it."""
    made = []

    def create():
        try:
            write_deltalake(f"{ROOT}-race", rows(0, 10), mode="error", storage_options=OPTIONS)
            made.append(True)
        except DeltaError:
            pass

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table = DeltaTable(f"{ROOT}-race", storage_options=OPTIONS)
    assert made and table.version() + 1 == len(made), (table.version(), made)
    assert ids(table) == sorted(list(range(10)) * len(made)), f"rows of {len(made)} writers"


def deletion_and_optimisation():
    before = ids(opened())
    opened().delete("id >= 10000000")
    assert ids(opened()) == [number for number in before if number < 10_000_000]
    opened().optimize.compact()
    opened().create_checkpoint()
    assert ids(opened()) == list(range(2 * ROWS))


def vacuum():
    removed = opened().vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert removed and ids(opened()) == list(range(2 * ROWS))
    fs = file_system()
    left = fs.find(f"{BUCKET}/table")
    assert not [name for name in removed if f"{BUCKET}/table/{name}" in left]


run(a_table_in_partitions, an_older_version, commits_of_several_writers, a_version_is_written_once,
    deletion_and_optimisation, vacuum)
