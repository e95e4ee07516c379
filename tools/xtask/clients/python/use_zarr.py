"""zarr: arrays in chunks, groups and attributes, through fsspec and s3fs."""
import numpy as np
import zarr
from zarr.storage import FsspecStore

from checks import ACCESS, AUTHORITY, BUCKET, ENDPOINT, REGION, SECRET, SHORT, file_system, run

SIDE = 600 if SHORT else 2000
OPTIONS = {"key": ACCESS, "secret": SECRET, "client_kwargs": {
    "endpoint_url": ENDPOINT, "region_name": REGION, "verify": AUTHORITY}}
SOURCE = np.random.default_rng(1).integers(0, 1 << 30, (SIDE, SIDE))


def store(path, **options):
    return FsspecStore.from_url(f"s3://{BUCKET}/{path}", storage_options=OPTIONS, **options)


def an_array_in_chunks():
    array = zarr.create_array(
        store("array"), shape=SOURCE.shape, chunks=(200, 200), dtype=SOURCE.dtype, overwrite=True)
    array[:] = SOURCE
    assert (zarr.open_array(store("array", read_only=True), mode="r")[:] == SOURCE).all()
    fs = file_system()
    chunks = [name for name in fs.find(f"{BUCKET}/array") if "/c/" in name]
    assert len(chunks) == (SIDE // 200) ** 2, len(chunks)


def a_part_is_read_and_written():
    array = zarr.open_array(store("array"), mode="r+")
    assert (array[150:450, 199:201] == SOURCE[150:450, 199:201]).all()
    array[190:210, 190:210] = 7
    expected = SOURCE.copy()
    expected[190:210, 190:210] = 7
    assert (zarr.open_array(store("array"), mode="r")[:] == expected).all()


def groups_and_attributes():
    root = zarr.create_group(store("group"), overwrite=True)
    root.attrs["who"] = "ünï"
    root.create_group("below").create_array("row", data=np.arange(1000))
    again = zarr.open_group(store("group"), mode="r")
    assert again.attrs["who"] == "ünï" and sorted(again.group_keys()) == ["below"]
    assert (again["below/row"][:] == np.arange(1000)).all()


def shards():
    """Many chunks in one object: a chunk is read by range."""
    array = zarr.create_array(
        store("shards"), shape=SOURCE.shape, chunks=(50, 50), shards=(200, 200), dtype=SOURCE.dtype)
    array[:] = SOURCE
    again = zarr.open_array(store("shards"), mode="r")
    assert (again[49:51, 0:SIDE] == SOURCE[49:51]).all() and (again[:] == SOURCE).all()


def an_appended_row():
    array = zarr.open_array(store("array"), mode="r+")
    array.append(SOURCE[:200])
    assert zarr.open_array(store("array"), mode="r").shape == (SIDE + 200, SIDE)
    assert (zarr.open_array(store("array"), mode="r")[SIDE:] == SOURCE[:200]).all()


def removal():
    root = zarr.open_group(store("group"), mode="r+")
    del root["below"]
    assert not list(zarr.open_group(store("group"), mode="r").group_keys())
    fs = file_system()
    fs.rm(BUCKET, recursive=True)
    fs.invalidate_cache()
    assert not fs.exists(BUCKET)


run(an_array_in_chunks, a_part_is_read_and_written, groups_and_attributes, shards, an_appended_row,
    removal)
