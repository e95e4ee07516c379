use std::os::unix::fs::PermissionsExt;

use super::*;

fn given(variables: &[(&str, &str)]) -> Result<Found, Refusal> {
    from_environment(&Environment::of(variables), Path::new("/nonexistent"))
}

#[test]
fn a_pair_from_the_environment() {
    let found =
        given(&[("MINIO_ROOT_USER", "operator"), ("BASALT_ROOT_PASSWORD", "12345678")]).unwrap();
    let credentials = found.credentials.unwrap();
    assert_eq!((credentials.user.as_str(), credentials.secret.as_str()), ("operator", "12345678"));
    assert_eq!(credentials.origin, Origin::Environment);
    assert!(found.warnings.is_empty());
    assert!(given(&[]).unwrap().credentials.is_none());
}

#[test]
fn half_a_pair_and_unfit_values_are_refused() {
    let password = ("MINIO_ROOT_PASSWORD", "12345678");
    for (variables, expected) in [
        (vec![("MINIO_ROOT_USER", "operator")], "half given"),
        (vec![password], "half given"),
        (vec![("MINIO_ACCESS_KEY", "operator")], "half given"),
        (vec![password, ("MINIO_ACCESS_KEY", "operator")], "half given"),
        (vec![("MINIO_ROOT_USER", "ab"), password], "MINIO_ROOT_USER is too short"),
        (
            vec![("MINIO_ROOT_USER", "abc"), ("MINIO_ROOT_PASSWORD", "1234567")],
            "MINIO_ROOT_PASSWORD is too short",
        ),
        (vec![("MINIO_ROOT_USER", "a=b"), password], "= or ,"),
    ] {
        let refused = given(&variables).unwrap_err();
        assert!(refused.what.contains(expected), "{variables:?}: {refused}");
        assert!(!refused.to_string().contains("1234567"), "a secret in a message");
    }
}

#[test]
fn deprecated_and_notorious_pairs_are_warned_about() {
    let old = given(&[("MINIO_ACCESS_KEY", "operator"), ("MINIO_SECRET_KEY", "12345678")]).unwrap();
    assert_eq!(old.credentials.unwrap().user, "operator");
    assert!(old.warnings[0].contains("deprecated"));
    let pair = [("MINIO_ROOT_USER", NOTORIOUS), ("MINIO_ROOT_PASSWORD", NOTORIOUS)];
    assert!(given(&pair).unwrap().warnings[0].contains("tries first"));
    let both = [
        ("MINIO_ACCESS_KEY", "old"),
        ("MINIO_SECRET_KEY", "87654321"),
        ("MINIO_ROOT_USER", "new"),
        ("MINIO_ROOT_PASSWORD", "12345678"),
    ];
    let both = given(&both).unwrap();
    assert_eq!(both.credentials.unwrap().user, "new");
    assert!(both.warnings.is_empty());
}

#[test]
fn values_from_files() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("user"), "operator\n").unwrap();
    fs::write(place.path().join("password"), "12345678\n").unwrap();
    fs::write(place.path().join("empty"), "\n").unwrap();
    let absolute = place.path().join("user");
    let given = |password: &str| {
        let environment = Environment::of(&[
            ("MINIO_ROOT_USER_FILE", absolute.to_str().unwrap()),
            ("MINIO_ROOT_PASSWORD_FILE", password),
        ]);
        from_environment(&environment, place.path())
    };
    let credentials = given("password").unwrap().credentials.unwrap();
    assert_eq!((credentials.user.as_str(), credentials.secret.as_str()), ("operator", "12345678"));
    assert!(given("empty").unwrap_err().cause.contains("empty"));
    assert!(given("missing").unwrap_err().what.contains("missing"));
}

#[test]
fn made_once_and_kept() {
    let place = tempfile::tempdir().unwrap();
    let drive = place.path().join("d1");
    let made = kept_or_made(&drive).unwrap();
    let path = place.path().join(".basalt-root-d1");
    assert_eq!(made.origin, Origin::File { path: path.clone(), fresh: true });
    assert!(made.user.starts_with("root-") && made.secret.len() == GENERATED_SECRET_CHARACTERS);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "no temporary file is left");

    let kept = kept_or_made(&drive).unwrap();
    assert_eq!((&kept.user, &kept.secret), (&made.user, &made.secret));
    assert_eq!(kept.origin, Origin::File { path, fresh: false });
    assert_ne!(kept_or_made(&place.path().join("d2")).unwrap().secret, made.secret);
    assert!(!format!("{made:?}").contains(&made.secret));
}

#[test]
fn a_crash_while_making_them_leaves_no_trace() {
    let place = tempfile::tempdir().unwrap();
    let drive = place.path().join("d1");
    fs::write(place.path().join(".basalt-root-d1.new"), "half a li").unwrap();
    let made = kept_or_made(&drive).unwrap();
    assert_eq!(kept_or_made(&drive).unwrap().secret, made.secret);
}

#[test]
fn a_kept_file_that_is_open_to_others_or_damaged_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let drive = place.path().join("d1");
    let made = kept_or_made(&drive).unwrap();
    let path = place.path().join(".basalt-root-d1");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(kept_or_made(&drive).unwrap_err().cause.contains("0640"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(kept_or_made(&drive).unwrap().secret, made.secret);
    fs::write(&path, "BASALT_ROOT_USER=root-x\n").unwrap();
    let refused = kept_or_made(&drive).unwrap_err();
    assert!(refused.what.contains("cannot be understood"), "{refused}");
}
