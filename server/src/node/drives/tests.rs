use std::os::unix::fs::symlink;

use super::*;

/// The file system under the tests may be any, so these allow all.
fn examined(paths: &[PathBuf]) -> Result<Examination, Refusal> {
    examine(paths, true)
}

fn states(examination: &Examination) -> Vec<State> {
    examination.drives.iter().map(|drive| drive.state.clone()).collect()
}

fn fault_of(state: &State) -> &Fault {
    match state {
        State::Refused(fault) => fault,
        other => panic!("{other:?} is no fault"),
    }
}

#[test]
fn missing_directories_are_made_and_blank() {
    let place = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (1..=4).map(|n| place.path().join(format!("a/d{n}"))).collect();
    let found = examined(&paths).unwrap();
    assert_eq!(states(&found), vec![State::Blank; 4]);
    assert!(paths.iter().all(|path| path.is_dir()));
}

#[test]
fn formatted_drives_and_lost_and_found_are_accepted() {
    let place = tempfile::tempdir().unwrap();
    let paths = ["d1", "d2"].map(|name| place.path().join(name));
    for path in &paths {
        fs::create_dir_all(path.join("lost+found")).unwrap();
    }
    fs::write(paths[0].join(DATA_FILE), b"data").unwrap();
    assert_eq!(states(&examined(&paths).unwrap()), [State::Ours, State::Blank]);
}

#[test]
fn foreign_directories_are_refused_and_left_alone() {
    let place = tempfile::tempdir().unwrap();
    for (name, entry, cause, remedy) in [
        ("photos", "holiday.jpg", "\"holiday.jpg\"", "empty"),
        ("minio", ".minio.sys/format.json", "MinIO drive", "docs/migration.md"),
        ("strange", "basalt.data/x", "\"basalt.data\"", "empty"),
    ] {
        let path = place.path().join(name);
        let entry = path.join(entry);
        fs::create_dir_all(entry.parent().unwrap()).unwrap();
        fs::write(&entry, b"precious").unwrap();
        let refused = examined(&[path]).err().unwrap();
        assert!(refused.cause.contains(cause), "{refused}");
        assert!(refused.remedy.contains(remedy), "{refused}");
        assert_eq!(fs::read(&entry).unwrap(), b"precious");
    }
}

#[test]
fn files_devices_and_the_root_directory_are_no_drives() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, b"x").unwrap();
    let root = place.path().join("root");
    symlink("/", &root).unwrap();
    for (path, cause) in [(file, "not a directory"), (root, "the root directory")] {
        let refused = examined(&[path]).err().unwrap();
        assert!(refused.cause.contains(cause), "{refused}");
    }
}

#[test]
fn one_bad_drive_stops_a_first_start_only() {
    let place = tempfile::tempdir().unwrap();
    let paths = ["d1", "d2", "d3"].map(|name| place.path().join(name));
    fs::create_dir_all(paths[1].join("foreign")).unwrap();
    assert!(examined(&paths).is_err());
    fs::create_dir_all(&paths[0]).unwrap();
    fs::write(paths[0].join(DATA_FILE), b"data").unwrap();
    let found = examined(&paths).unwrap();
    assert_eq!(found.drives[0].state, State::Ours);
    assert!(fault_of(&found.drives[1].state).cause.contains("foreign"));
    assert_eq!(found.drives[2].state, State::Blank);
    assert_eq!(found.drives[0].sharing, 2, "a refused drive takes no share");
}

#[test]
fn later_a_missing_directory_is_a_missing_drive() {
    let place = tempfile::tempdir().unwrap();
    let paths = ["d1", "d2"].map(|name| place.path().join(name));
    examined(&paths).unwrap();
    fs::write(paths[0].join(DATA_FILE), b"data").unwrap();
    fs::remove_dir(&paths[1]).unwrap();
    let found = examined(&paths).unwrap();
    assert!(fault_of(&found.drives[1].state).remedy.contains("put the directory back"));
    assert!(!paths[1].exists());
}

#[test]
fn one_directory_by_two_names_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("d1");
    let link = place.path().join("d2");
    fs::create_dir(&directory).unwrap();
    symlink(&directory, &link).unwrap();
    let refused = examined(&[directory, link]).err().unwrap();
    assert!(refused.what.contains("are the same directory"), "{refused}");
}

#[test]
fn drives_in_use_are_refused_with_the_process_that_has_them() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("d1");
    let paths = [path.clone()];
    let first = examined(&paths).unwrap();
    let refused = examined(&paths).err().unwrap();
    assert!(refused.what.contains("is in use"), "{refused}");
    assert!(refused.cause.contains("process"), "{refused}");
    fs::write(path.join(DATA_FILE), b"data").unwrap();
    assert!(check_stopped(&path).is_err());
    drop(first);
    check_stopped(&path).unwrap();
    examined(&paths).unwrap();
}

#[test]
fn only_a_drive_can_be_inspected() {
    let place = tempfile::tempdir().unwrap();
    assert!(check_stopped(place.path()).unwrap_err().cause.contains(DATA_FILE));
    assert!(check_stopped(&place.path().join("missing")).is_err());
    assert!(!place.path().join("missing").exists(), "inspection makes nothing");
}

#[test]
fn the_holder_of_a_lock() {
    let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                 2: FLOCK  ADVISORY  WRITE 22 fe:00:77 0 EOF\n\
                 3: FLOCK  ADVISORY  WRITE 33 fe:01:77 0 EOF\n";
    let device = rustix::fs::makedev(0xfe, 0);
    assert_eq!(lock_holder(locks, device, 77), Some(22));
    assert_eq!(lock_holder(locks, device, 78), None);
}

#[test]
fn memory_is_refused_unless_allowed() {
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let paths = [place.path().join("d1")];
    let refused = examine(&paths, false).err().unwrap();
    assert!(refused.cause.contains("tmpfs"), "{refused}");
    assert!(refused.remedy.contains("--allow-buffered"), "{refused}");
    let allowed = examine(&paths, true).unwrap();
    assert_eq!(allowed.drives[0].state, State::Blank);
    assert!(allowed.warnings[0].contains("--allow-buffered"), "{:?}", allowed.warnings);
    let strict = Terms { allow_buffered: false, may_be_on_root: true };
    assert!(fault_of(&look(&paths[0], strict)).cause.contains("tmpfs"));
    assert_eq!(look(&paths[0], allowed.drives[0].terms), State::Blank);
}

#[test]
fn file_systems_by_their_magic_number() {
    assert_eq!(Fitness::of(0x5846_5342), Fitness::Proven);
    assert_eq!(Fitness::of(0xef53), Fitness::Proven);
    for magic in [0x0102_1994, 0x6969, 0x794c_7630, 0x6573_5546] {
        assert!(matches!(Fitness::of(magic), Fitness::Unfit(_)), "{magic:#x}");
    }
    assert_eq!(Fitness::of(0x9123_683e), Fitness::Unproven);
}

fn drive(path: &str, state: State, device: u64) -> Drive {
    Drive::new(Path::new(path), state, device, false)
}

#[test]
fn an_empty_mount_point_among_mounted_drives_is_not_filled() {
    const ROOT: u64 = 1;
    let mut drives = [drive("/d1", State::Ours, 2), drive("/d2", State::Blank, ROOT)];
    refuse_unmounted(&mut drives, ROOT);
    assert!(fault_of(&drives[1].state).cause.contains("not mounted"));

    let mut on_root = [drive("/d1", State::Ours, ROOT), drive("/d2", State::Blank, ROOT)];
    refuse_unmounted(&mut on_root, ROOT);
    assert_eq!(on_root[1].state, State::Blank);

    let mut replaced = [drive("/d1", State::Ours, 2), drive("/d2", State::Blank, 3)];
    refuse_unmounted(&mut replaced, ROOT);
    assert_eq!(replaced[1].state, State::Blank);
}

#[test]
fn where_drives_are_now_tells_where_they_may_be_later() {
    const ROOT: u64 = 1;
    let fault = State::Refused(Fault::new("cause", "remedy"));
    let on_root = |drives: &mut [Drive]| {
        set_terms(drives, ROOT);
        drives.iter().map(|drive| drive.terms.may_be_on_root).collect::<Vec<_>>()
    };
    let mut mounted = [drive("/d1", State::Ours, 2), drive("/d2", fault.clone(), 0)];
    assert_eq!(on_root(&mut mounted), [false, false]);
    let mut mixed =
        [drive("/d1", State::Ours, 2), drive("/d2", State::Blank, ROOT), drive("/d3", fault, 0)];
    assert_eq!(on_root(&mut mixed), [false, true, true]);
}

#[test]
fn a_look_makes_nothing_and_minds_the_mount() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("d1");
    let terms = Terms { allow_buffered: true, may_be_on_root: true };
    assert!(fault_of(&look(&path, terms)).cause.contains("cannot be read"));
    assert!(!path.exists());
    fs::create_dir(&path).unwrap();
    assert_eq!(look(&path, terms), State::Blank);
    let mounted = Terms { may_be_on_root: false, ..terms };
    let on_root = fs::metadata(&path).unwrap().dev() == root_device();
    assert_eq!(matches!(look(&path, mounted), State::Refused(_)), on_root);
    fs::write(path.join(DATA_FILE), b"data").unwrap();
    assert_eq!(look(&path, mounted), State::Ours);
}

#[test]
fn drives_of_one_file_system_share_its_space() {
    let place = tempfile::tempdir().unwrap();
    let one = examined(&[place.path().join("d1")]).unwrap().drives[0].space_bytes;
    let paths: Vec<PathBuf> = (1..=4).map(|n| place.path().join(format!("d{n}"))).collect();
    let four = examined(&paths).unwrap();
    assert!(four.drives.iter().all(|drive| drive.sharing == 4));
    let share = four.drives[0].space_bytes as f64;
    // Others use the file system too, so only about a quarter.
    assert!((share * 4.0 / one as f64 - 1.0).abs() < 0.2, "{share} of {one}");
}

#[test]
fn drives_on_the_root_file_system_are_named() {
    let on_root = [drive("/d1", State::Blank, 1), drive("/d2", State::Blank, 2)];
    let warning = root_warning(&on_root, 1).unwrap();
    assert!(warning.contains("/d1") && !warning.contains("/d2"), "{warning}");
    assert_eq!(root_warning(&on_root, 3), None);
}
