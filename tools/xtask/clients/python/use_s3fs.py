"""s3fs: files and folders of a file system that is a bucket."""
import os

from checks import BUCKET, MIB, SHORT, blob, file_system, run

fs = file_system()
LARGE = blob(1, (17 if SHORT else 70) * MIB)
NAMES = ["empty", "one", "a b+c%20&d=e;f.txt", "folder/ünï-日本.bin", "folder/deep/er/~tilde'(1)!.dat"]


def files_written_and_read():
    for length in (0, 1, 70000):
        with fs.open(f"{BUCKET}/files/{length}", "wb") as file:
            file.write(blob(length, length))
        with fs.open(f"{BUCKET}/files/{length}", "rb") as file:
            assert file.read() == blob(length, length), f"{length} bytes: other bytes came back"
        assert fs.size(f"{BUCKET}/files/{length}") == length
    with fs.open(f"{BUCKET}/files/text", "w") as file:
        file.write("ünï\n日本\n")
    assert fs.cat(f"{BUCKET}/files/text").decode() == "ünï\n日本\n"


def a_file_in_blocks_with_seeks():
    with fs.open(f"{BUCKET}/large", "wb", block_size=5 * MIB) as file:
        for start in range(0, len(LARGE), MIB):
            file.write(LARGE[start:start + MIB])
    with fs.open(f"{BUCKET}/large", "rb") as file:
        for start in (0, 5 * MIB - 3, len(LARGE) - 100, 12345):
            file.seek(start)
            assert file.read(100) == LARGE[start:start + 100], start
    assert fs.cat_file(f"{BUCKET}/large", start=-10) == LARGE[-10:]
    assert fs.cat(f"{BUCKET}/large") == LARGE


def append():
    with fs.open(f"{BUCKET}/files/text", "a") as file:
        file.write("more\n")
    assert fs.cat(f"{BUCKET}/files/text").decode() == "ünï\n日本\nmore\n"


def put_and_get_of_folders():
    for number, name in enumerate(NAMES):
        os.makedirs(os.path.dirname(f"up/{name}"), exist_ok=True)
        with open(f"up/{name}", "wb") as file:
            file.write(blob(number, number * 1000))
    fs.put("up/", f"{BUCKET}/tree/", recursive=True)
    fs.get(f"{BUCKET}/tree/", "down/", recursive=True)
    for number, name in enumerate(NAMES):
        with open(f"down/{name}", "rb") as file:
            assert file.read() == blob(number, number * 1000), name


def find_glob_walk_and_ls():
    found = fs.find(f"{BUCKET}/tree")
    assert found == sorted(f"{BUCKET}/tree/{name}" for name in NAMES), found
    assert fs.glob(f"{BUCKET}/tree/**/*.dat") == [f"{BUCKET}/tree/folder/deep/er/~tilde'(1)!.dat"]
    assert fs.isdir(f"{BUCKET}/tree/folder") and fs.isfile(f"{BUCKET}/tree/one")
    assert not fs.exists(f"{BUCKET}/tree/never-was")
    top = fs.ls(f"{BUCKET}/tree", detail=False, refresh=True)
    assert f"{BUCKET}/tree/folder" in top and len(top) == 4, top
    roots = [root for root, _, _ in fs.walk(f"{BUCKET}/tree")]
    assert f"{BUCKET}/tree/folder/deep/er" in roots, roots
    assert fs.du(f"{BUCKET}/tree") == sum(number * 1000 for number in range(len(NAMES)))


def copy_and_move():
    fs.copy(f"{BUCKET}/large", f"{BUCKET}/copied")
    fs.mv(f"{BUCKET}/copied", f"{BUCKET}/moved")
    fs.invalidate_cache()
    assert not fs.exists(f"{BUCKET}/copied")
    assert fs.cat(f"{BUCKET}/moved") == LARGE
    # A folder with folders in it can be copied; to move it, the client takes them for keys.
    fs.copy(f"{BUCKET}/tree/", f"{BUCKET}/other/", recursive=True)
    for number, name in enumerate(NAMES):
        assert fs.cat(f"{BUCKET}/other/{name}") == blob(number, number * 1000), name


def exclusive_creation():
    fs.pipe_file(f"{BUCKET}/once", b"1", mode="create")
    try:
        fs.pipe_file(f"{BUCKET}/once", b"2", mode="create")
        raise AssertionError("an existing file was created")
    except FileExistsError:
        pass
    assert fs.cat(f"{BUCKET}/once") == b"1"


def metadata_and_url():
    fs.setxattr(f"{BUCKET}/once", who="me")
    assert fs.getxattr(f"{BUCKET}/once", "who") == "me"
    assert "X-Amz-Signature" in fs.sign(f"{BUCKET}/once")
    assert fs.info(f"{BUCKET}/once", refresh=True)["size"] == 1


def removal():
    fs.rm(f"{BUCKET}/other", recursive=True)
    assert not fs.find(f"{BUCKET}/other")
    fs.rm(BUCKET, recursive=True)
    fs.invalidate_cache()
    assert not fs.exists(BUCKET)


run(files_written_and_read, a_file_in_blocks_with_seeks, append, put_and_get_of_folders,
    find_glob_walk_and_ls, copy_and_move, exclusive_creation, metadata_and_url, removal)
