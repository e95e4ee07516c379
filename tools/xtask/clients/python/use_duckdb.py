"""duckdb: Parquet and CSV through its own S3 reader and writer, the extension httpfs.

The extension comes as a package of the registry, beside duckdb itself; it is loaded from there.
"""
import pathlib

import duckdb
import duckdb_extension_httpfs

from checks import ACCESS, AUTHORITY, BUCKET, HOST, REGION, SECRET, SECURE, SHORT, run

ROWS = 100_000 if SHORT else 2_000_000
ROOT = f"s3://{BUCKET}"
EXTENSION = (pathlib.Path(duckdb_extension_httpfs.__file__).parent
             / f"extensions/v{duckdb.__version__}/httpfs.duckdb_extension")

db = duckdb.connect(config={"autoinstall_known_extensions": False})
db.execute(f"LOAD '{EXTENSION}'")
if AUTHORITY:
    db.execute(f"SET ca_cert_file = '{AUTHORITY}'; SET enable_server_cert_verification = true")
db.execute(f"""CREATE SECRET (TYPE s3, KEY_ID '{ACCESS}', SECRET '{SECRET}', REGION '{REGION}',
    ENDPOINT '{HOST}', URL_STYLE 'path', USE_SSL {str(SECURE).lower()})""")
db.execute(f"""CREATE TABLE source AS SELECT range AS id, range % 7 AS grp,
    md5(range::VARCHAR) AS digest FROM range({ROWS})""")


def same(query, expected="SELECT * FROM source"):
    """Both queries give the same rows, and some."""
    count = db.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]
    differing = db.execute(f"""SELECT count(*) FROM
        (({query} EXCEPT ALL {expected}) UNION ALL ({expected} EXCEPT ALL {query}))""").fetchone()[0]
    assert count > 0 and differing == 0, f"{count} rows, {differing} differ"


def one_file():
    db.execute(f"COPY source TO '{ROOT}/one.parquet' (FORMAT parquet, ROW_GROUP_SIZE 20000)")
    same(f"SELECT * FROM '{ROOT}/one.parquet'")


def a_filter_reads_a_part():
    same(f"SELECT digest FROM '{ROOT}/one.parquet' WHERE id > {ROWS - 5}",
         f"SELECT digest FROM source WHERE id > {ROWS - 5}")


def partitioned_data():
    db.execute(f"COPY source TO '{ROOT}/set' (FORMAT parquet, PARTITION_BY (grp))")
    read = f"read_parquet('{ROOT}/set/*/*.parquet', hive_partitioning = true)"
    same(f"SELECT id, grp, digest FROM {read}")
    same(f"SELECT id FROM {read} WHERE grp = 3", "SELECT id FROM source WHERE grp = 3")
    files = db.execute(f"SELECT file FROM glob('{ROOT}/set/**/*.parquet')").fetchall()
    assert len({file.rsplit("/", 2)[1] for file, in files}) == 7, files


def csv():
    db.execute(f"COPY source TO '{ROOT}/one.csv' (HEADER)")
    same(f"SELECT * FROM read_csv('{ROOT}/one.csv')")


def an_existing_file_is_replaced():
    db.execute(f"COPY (SELECT 1 AS one) TO '{ROOT}/one.parquet' (FORMAT parquet)")
    assert db.execute(f"FROM '{ROOT}/one.parquet'").fetchall() == [(1,)]


def a_missing_file_is_an_error():
    try:
        db.execute(f"FROM '{ROOT}/never-was.parquet'")
    except duckdb.HTTPException as error:
        assert "404" in str(error), error
        return
    raise AssertionError("a missing file was read")


run(one_file, a_filter_reads_a_part, partitioned_data, csv, an_existing_file_is_replaced,
    a_missing_file_is_an_error)
