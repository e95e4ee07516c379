//! Folders of files to copy up and down, and their comparison.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::random;

/// Names that are awkward in a URL, an empty file, one beside a folder's worth of small ones.
pub(crate) fn make(root: &Path, large_bytes: usize) -> Result<()> {
    let mut files = vec![
        ("empty".to_owned(), 0),
        ("one".to_owned(), 1),
        ("a b+c%20&d=e;f.txt".to_owned(), 1000),
        ("folder/ünï-日本.bin".to_owned(), 70_001),
        ("folder/deep/er/~tilde'(1)!.dat".to_owned(), 65_536),
        ("large.bin".to_owned(), large_bytes),
    ];
    files.extend((0..40).map(|index| (format!("many/{index:03}.txt"), 100 + index)));
    for (index, (name, length)) in files.iter().enumerate() {
        let path = root.join(name);
        fs::create_dir_all(path.parent().expect("every name is below the root"))?;
        fs::write(&path, random::bytes(index as u64, *length))?;
        // Older than any object, or `aws s3 sync` copies again what it copied in this second.
        let past = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        fs::File::options().write(true).open(&path)?.set_modified(past)?;
    }
    Ok(())
}

/// Errors unless both folders hold the same files with the same bytes.
pub(crate) fn ensure_same(left: &Path, right: &Path) -> Result<()> {
    let (left, right) = (read(left)?, read(right)?);
    let names: Vec<&String> = left.keys().chain(right.keys()).collect();
    let differing = names.into_iter().find(|name| left.get(*name) != right.get(*name));
    ensure!(
        differing.is_none(),
        "{} differs after the way there and back",
        differing.map_or("", |name| name)
    );
    ensure!(!left.is_empty(), "an empty folder was compared");
    Ok(())
}

pub(crate) fn ensure_same_file(left: &Path, right: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    ensure!(read(left)? == read(right)?, "{} and {} differ", left.display(), right.display());
    Ok(())
}

fn read(root: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?
        {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).expect("it was found below the root");
                found.insert(name.to_string_lossy().into_owned(), fs::read(&path)?);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_and_a_missing_file_are_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let (left, right) = (folder.path().join("l"), folder.path().join("r"));
        make(&left, 10).expect("made");
        make(&right, 10).expect("made");
        ensure_same(&left, &right).expect("equal");
        fs::write(right.join("one"), b"!").expect("written");
        assert!(ensure_same(&left, &right).is_err());
        fs::remove_file(right.join("one")).expect("removed");
        assert!(ensure_same(&left, &right).is_err());
        assert!(ensure_same(&right, &left).is_err());
    }
}
