"""pyiceberg: tables whose data and metadata are on the store, their catalogue in SQLite beside."""
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import GreaterThanOrEqual
from pyiceberg.transforms import IdentityTransform

from checks import ACCESS, BUCKET, ENDPOINT, REGION, SECRET, SECURE, SHORT, file_system, run

ROWS = 10_000 if SHORT else 200_000
# Over HTTPS s3fs does its I/O: the other one, pyarrow's, is not told an authority by pyiceberg.
FILES = "fsspec.FsspecFileIO" if SECURE else "pyarrow.PyArrowFileIO"
PROPERTIES = {
    "uri": "sqlite:///catalogue.db",
    "warehouse": f"s3://{BUCKET}/warehouse",
    "s3.endpoint": ENDPOINT,
    "s3.access-key-id": ACCESS,
    "s3.secret-access-key": SECRET,
    "s3.region": REGION,
    "py-io-impl": f"pyiceberg.io.{FILES}",
}
SCHEMA = pa.schema([("id", pa.int64()), ("group", pa.string())])
NAME = "space.table"
catalogue = SqlCatalog("catalogue", **PROPERTIES)


def rows(start, count):
    ids = range(start, start + count)
    return pa.table({"id": list(ids), "group": [f"g{number % 3}" for number in ids]}, schema=SCHEMA)


def ids(table, **options):
    return sorted(table.scan(**options).to_arrow()["id"].to_pylist())


def a_partitioned_table_and_its_commits():
    catalogue.create_namespace("space")
    table = catalogue.create_table(NAME, SCHEMA)
    with table.update_spec() as update:
        update.add_field("group", IdentityTransform(), "group")
    table.append(rows(0, ROWS))
    table.append(rows(ROWS, ROWS))
    assert ids(catalogue.load_table(NAME)) == list(range(2 * ROWS))


def a_scan_with_a_filter():
    table = catalogue.load_table(NAME)
    assert ids(table, row_filter=GreaterThanOrEqual("id", 2 * ROWS - 5)) == list(range(2 * ROWS - 5, 2 * ROWS))
    assert ids(table, row_filter="group = 'g1'") == list(range(1, 2 * ROWS, 3))


def an_older_snapshot():
    table = catalogue.load_table(NAME)
    first = table.history()[0].snapshot_id
    assert ids(table, snapshot_id=first) == list(range(ROWS))


def a_commit_that_came_too_late():
    """It is refused, and succeeds once it has seen the other one."""
    late, early = catalogue.load_table(NAME), catalogue.load_table(NAME)
    early.append(rows(20_000_000, 10))
    try:
        late.overwrite(rows(30_000_000, 10), "id >= 20000000")
        raise AssertionError("it overwrote rows that it has not seen")
    except (CommitFailedException, ValidationException):
        pass
    late.refresh()
    late.overwrite(rows(30_000_000, 10), "id >= 20000000")
    found = ids(catalogue.load_table(NAME), row_filter=GreaterThanOrEqual("id", 10_000_000))
    assert found == list(range(30_000_000, 30_000_010)), found


def deletion():
    table = catalogue.load_table(NAME)
    table.delete("id >= 10000000")
    assert ids(catalogue.load_table(NAME)) == list(range(2 * ROWS))


def a_table_that_is_purged_leaves_none_of_its_files():
    """But those of the commit that failed: they never were the table's."""
    fs = file_system()
    files = catalogue.load_table(NAME).inspect.files()["file_path"].to_pylist()
    assert files and all(fs.exists(file) for file in files), files
    catalogue.purge_table(NAME)
    fs.invalidate_cache()
    assert not catalogue.list_tables("space") and not any(fs.exists(file) for file in files)


run(a_partitioned_table_and_its_commits, a_scan_with_a_filter, an_older_snapshot,
    a_commit_that_came_too_late, deletion,
    a_table_that_is_purged_leaves_none_of_its_files)
