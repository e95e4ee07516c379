use super::*;
use crate::cli::{Cli, Command};
use crate::node::drives::{Drive, State, Terms};
use crate::start::seats;
use basalt_net::node::NodeIndex;

fn decide(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Settings, Refusal> {
    let arguments = ["basalt", "server"].into_iter().chain(arguments.iter().copied());
    let Cli { command: Command::Server(server), global } = Cli::read(arguments).unwrap() else {
        panic!("server");
    };
    Settings::decide(&server, &global, &Environment::of(variables), Path::new("/work"))
}

fn first_drive(settings: &Settings) -> &Path {
    &settings.topology.drives().next().unwrap().path
}

#[test]
fn defaults() {
    let settings = decide(&["/data{1...4}"], &[]).unwrap();
    assert_eq!(settings.listen.port(), 9000);
    assert!(settings.listen.ip().is_unspecified());
    assert_eq!(settings.console, None);
    assert_eq!(settings.region, None);
    assert_eq!(settings.credentials, None);
    assert_eq!(settings.parity, [ClassParity { standard: 2, reduced_redundancy: 1 }]);
    assert_eq!(settings.output, Output::default());
    assert!(!settings.allow_buffered);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
}

#[test]
fn the_environment_file_of_a_minio_unit_works_untouched() {
    let variables = [
        ("MINIO_VOLUMES", "/mnt/drive{1...8}"),
        ("MINIO_OPTS", "--address :9100 --console-address :9101"),
        ("MINIO_ROOT_USER", "operator"),
        ("MINIO_ROOT_PASSWORD", "a good secret"),
        ("MINIO_SITE_REGION", "eu-west-7"),
        ("MINIO_STORAGE_CLASS_STANDARD", "EC:3"),
    ];
    let on_argv = ["--address", ":9100", "--console-address", ":9101", "/mnt/drive{1...8}"];
    let settings = decide(&on_argv, &variables).unwrap();
    assert_eq!(settings.topology.drives().count(), 8);
    assert_eq!(settings.listen.port(), 9100);
    assert_eq!(settings.console.unwrap().port(), 9101);
    assert_eq!(settings.region.as_deref(), Some("eu-west-7"));
    assert_eq!(settings.parity, [ClassParity { standard: 3, reduced_redundancy: 2 }]);
    assert_eq!(settings.credentials.unwrap().user, "operator");
    assert_eq!(settings.warnings.len(), 1, "the console: {:?}", settings.warnings);
}

#[test]
fn the_environment_names_drives_before_the_command_line() {
    let drives = |variables: &[(&str, &str)]| {
        first_drive(&decide(&["/argv"], variables).unwrap()).to_path_buf()
    };
    let endpoints = ("MINIO_ENDPOINTS", "/endpoints");
    let volumes = ("MINIO_VOLUMES", "/volumes");
    let arguments = ("MINIO_ARGS", "/args");
    let ours = ("BASALT_VOLUMES", "/ours");
    assert_eq!(drives(&[]), Path::new("/argv"));
    assert_eq!(drives(&[endpoints]), Path::new("/endpoints"));
    assert_eq!(drives(&[endpoints, volumes]), Path::new("/volumes"));
    assert_eq!(drives(&[endpoints, volumes, arguments]), Path::new("/args"));
    assert_eq!(drives(&[endpoints, volumes, arguments, ours]), Path::new("/ours"));
    let several = decide(&[], &[("MINIO_VOLUMES", " /a  /b ")]).unwrap();
    assert_eq!(several.topology.drives().count(), 2);
    assert!(decide(&["/argv"], &[volumes]).unwrap().warnings[0].contains("MINIO_VOLUMES"));
}

#[test]
fn regions_and_twins() {
    let region = |variables: &[(&str, &str)]| decide(&["/data"], variables).unwrap().region;
    let old = ("MINIO_REGION", "old");
    let site = ("MINIO_SITE_REGION", "site");
    assert_eq!(region(&[old]).as_deref(), Some("old"));
    assert_eq!(region(&[old, site]).as_deref(), Some("site"));
    assert_eq!(region(&[old, site, ("BASALT_REGION", "ours")]).as_deref(), Some("ours"));
}

#[test]
fn addresses_to_listen_on() {
    let listen = |text: &str| {
        decide(&["--address", text, "/data"], &[]).map(|settings| settings.listen.to_string())
    };
    assert_eq!(listen("127.0.0.1:9000").unwrap(), "127.0.0.1:9000");
    assert_eq!(listen("[::1]:80").unwrap(), "[::1]:80");
    for (text, cause) in [
        ("localhost", "no port"),
        (":http", "not a port"),
        (":70000", "not a port"),
        (":0", "every core"),
        ("::1:9000", "in brackets"),
    ] {
        let refused = listen(text).unwrap_err();
        assert!(refused.cause.contains(cause), "{refused}");
    }
    let variable = decide(&["/data"], &[("MINIO_ADDRESS", ":9200")]).unwrap();
    assert_eq!(variable.listen.port(), 9200);
    let flag = decide(&["--address", ":1", "/data"], &[("MINIO_ADDRESS", ":9200")]).unwrap();
    assert_eq!(flag.listen.port(), 1);
    let same = decide(&["--address", ":9000", "--console-address", ":9000", "/data"], &[]);
    assert!(same.unwrap_err().cause.contains("the same"));
}

#[test]
fn certificates_are_used_or_refused_and_never_ignored() {
    let home = tempfile::tempdir().unwrap();
    let certificates = home.path().join(".minio/certs");
    std::fs::create_dir_all(&certificates).unwrap();
    let home_text = home.path().to_str().unwrap();
    assert!(decide(&["/data"], &[("HOME", home_text)]).unwrap().certificates.is_none());
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(certificates.join("public.crt"), made.cert.pem()).unwrap();
    let refused = decide(&["/data"], &[("HOME", home_text)]).unwrap_err();
    assert!(refused.what.contains("private.key"), "{refused}");
    std::fs::write(certificates.join("private.key"), made.signing_key.serialize_pem()).unwrap();
    assert!(decide(&["/data"], &[("HOME", home_text)]).unwrap().certificates.is_some());
    let elsewhere = home.path().to_str().unwrap();
    let plain = decide(&["--certs-dir", elsewhere, "/data"], &[("HOME", home_text)]).unwrap();
    assert!(plain.certificates.is_none());
    let given = certificates.to_str().unwrap();
    assert!(decide(&["-S", given, "/data"], &[]).unwrap().certificates.is_some());
    assert!(decide(&["-S", "/no/such/place", "/data"], &[]).is_err());
}

#[test]
fn what_has_no_effect_is_said() {
    let settings = decide(
        &["--memlimit", "1GiB", "/data"],
        &[("MINIO_KMS_SECRET_KEY", "k"), ("MINIO_STORAGE_CLASS_STANDARD", "EC:0")],
    )
    .unwrap();
    let warnings = settings.warnings.join("\n");
    assert!(warnings.contains("--memlimit") && warnings.contains("MINIO_KMS_SECRET_KEY"));
    assert!(!warnings.contains("parity 0"), "one drive can have no parity: {warnings}");
    let zero = [("MINIO_STORAGE_CLASS_STANDARD", "EC:0")];
    assert!(decide(&["/data{1...4}"], &zero).unwrap().warnings[0].contains("parity 0"));
}

#[test]
fn buffered_drives_by_flag_or_variable() {
    let allowed = |flags: &[&str], value: &str| {
        let arguments: Vec<&str> = flags.iter().copied().chain(["/data"]).collect();
        decide(&arguments, &[("BASALT_ALLOW_BUFFERED", value)]).map(|s| s.allow_buffered)
    };
    assert!(allowed(&[], "on").unwrap());
    assert!(!allowed(&[], "off").unwrap());
    assert!(allowed(&["--allow-buffered"], "").unwrap());
    assert!(allowed(&[], "perhaps").is_err());
}

#[test]
fn metrics_for_anybody() {
    let public = |value: &str| {
        decide(&["/data"], &[("MINIO_PROMETHEUS_AUTH_TYPE", value)]).map(|s| s.public_metrics)
    };
    assert!(public("public").unwrap());
    assert!(!public("jwt").unwrap());
    assert!(!public("").unwrap());
    assert!(public("private").is_err());
}

#[test]
fn capacity_is_that_of_the_drives() {
    const TIB: u64 = 1 << 40;
    let settings = decide(&["/data{1...32}"], &[("MINIO_STORAGE_CLASS_STANDARD", "EC:6")]).unwrap();
    let config = first_node(settings, &[TIB; 32]);
    assert_eq!(config.sets.len(), 2);
    assert!(config.sets.iter().all(|set| set.len() == 16));
    let expected = capacity::Capacity { raw_bytes: 32 * TIB, usable_bytes: 20 * TIB };
    assert_eq!(config.capacity(), expected);
}

#[test]
fn drives_of_other_nodes_are_assumed_to_be_like_those_here() {
    const TIB: u64 = 1 << 40;
    let one_set = decide(&["http://n{1...4}/d{1...2}"], &ROOT).unwrap();
    let expected = capacity::Capacity { raw_bytes: 9 * TIB, usable_bytes: 4 * TIB };
    assert_eq!(first_node(one_set, &[TIB, 2 * TIB]).capacity(), expected);
    // Of the second set no drive is here.
    let arguments = ["http://n1/a", "http://n1/b", "http://n2/a", "http://n2/b"];
    let size = ("BASALT_ERASURE_SET_DRIVE_COUNT", "2");
    let two_sets = decide(&arguments, &[ROOT[0], ROOT[1], size]).unwrap();
    let expected = capacity::Capacity { raw_bytes: 5 * TIB, usable_bytes: 2 * TIB };
    assert_eq!(first_node(two_sets, &[TIB, 2 * TIB]).capacity(), expected);
}

const ROOT: [(&str, &str); 2] =
    [("BASALT_ROOT_USER", "operator"), ("BASALT_ROOT_PASSWORD", "a good secret")];

/// What the first node runs with, its drives of these sizes.
fn first_node(settings: Settings, space_bytes: &[u64]) -> ServerConfig {
    let this = NodeIndex(0);
    let local = settings.topology.drives().filter(|place| place.node == this);
    let drives: Vec<Drive> = local
        .zip(space_bytes)
        .map(|(place, &space_bytes)| Drive {
            path: place.path.clone(),
            state: State::Blank,
            device: 1,
            sharing: 1,
            made: false,
            space_bytes,
            terms: Terms { allow_buffered: false, may_be_on_root: false },
        })
        .collect();
    ServerConfig {
        sets: seats(&settings.topology, this, drives),
        cluster: None,
        topology: settings.topology,
        parity: settings.parity,
        users: Vec::new(),
        credentials: Credentials {
            user: "root".into(),
            secret: "secret".into(),
            origin: credentials::Origin::Environment,
        },
        listen: settings.listen,
        certificates: None,
        region: None,
        public_metrics: false,
        upload_rest: Default::default(),
        domains: Default::default(),
        origins: Default::default(),
        output: Output::default(),
    }
}

#[test]
fn several_nodes_are_given_the_root_user() {
    let refused = decide(&["http://n{1...4}/d{1...4}"], &[]).unwrap_err();
    assert!(refused.remedy.contains("BASALT_ROOT_PASSWORD"), "{refused}");
    let settings = decide(&["http://n{1...4}/d{1...4}"], &ROOT).unwrap();
    assert_eq!(settings.topology.nodes.len(), 4);
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert!(decide(&["http://n1/d{1...4}"], &[]).is_ok(), "one node makes them");
}

#[test]
fn urls_have_the_port_of_the_address() {
    let ports = |arguments: &[&str]| {
        let nodes = decide(arguments, &ROOT).unwrap().topology.nodes;
        nodes.iter().map(|node| node.port).collect::<Vec<_>>()
    };
    let urls = ["http://a/d", "http://b:9100/d"];
    assert_eq!(ports(&urls), [9000, 9100]);
    assert_eq!(ports(&["--address", ":9200", urls[0], urls[1]]), [9200, 9100]);
    let refused = decide(&["--address", ":0", urls[0], urls[1]], &ROOT).unwrap_err();
    assert!(refused.cause.contains("port 0"), "{refused}");
}

#[test]
fn peers_have_an_address_of_their_own_or_none() {
    let nodes = "http://n{1...4}/d{1...4}";
    let peers = |arguments: &[&str], variables: &[(&str, &str)]| {
        let variables: Vec<_> = ROOT.iter().chain(variables).copied().collect();
        decide(&[arguments, &[nodes]].concat(), &variables).map(|settings| settings.peer_address)
    };
    let variable = [("BASALT_PEER_ADDRESS", "10.0.0.1:9011")];
    assert_eq!(peers(&[], &[]).unwrap(), None);
    assert_eq!(peers(&[], &variable).unwrap(), Some("10.0.0.1:9011".parse().unwrap()));
    let flag = ["--peer-address", "10.0.0.1:9010"];
    assert_eq!(peers(&flag, &variable).unwrap(), Some("10.0.0.1:9010".parse().unwrap()));
    for arguments in [
        &["--peer-address", ":9000"][..],
        &["--peer-address", "10.0.0.1:9000"],
        &["--peer-address", "10.0.0.1:80", "--address", "10.0.0.1:80"],
        &["--peer-address", ":9001", "--console-address", "10.0.0.1:9001"],
    ] {
        assert!(peers(arguments, &[]).unwrap_err().cause.contains("listens there too"));
    }
    assert!(peers(&["--peer-address", "10.0.0.1:80", "--address", "10.0.0.2:80"], &[]).is_ok());
    assert!(peers(&["--peer-address", "9010"], &[]).unwrap_err().cause.contains("no port"));
    let alone = decide(&["--peer-address", ":9010", "/data"], &[]).unwrap();
    assert!(alone.warnings[0].contains("--peer-address"), "{:?}", alone.warnings);
}

#[test]
fn urls_and_certificates_say_the_same() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().to_str().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(place.path().join("public.crt"), made.cert.pem()).unwrap();
    std::fs::write(place.path().join("private.key"), made.signing_key.serialize_pem()).unwrap();
    let with = |url: &str| decide(&["-S", directory, url], &ROOT);
    let without = |url: &str| decide(&[url], &ROOT);
    assert!(with("https://n{1...4}/d{1...4}").is_ok());
    assert!(without("http://n{1...4}/d{1...4}").is_ok());
    let refused = with("http://n{1...4}/d{1...4}").unwrap_err();
    assert!(refused.remedy.contains("write https"), "{refused}");
    let refused = without("https://n{1...4}/d{1...4}").unwrap_err();
    assert!(refused.remedy.contains("write http"), "{refused}");
}

#[test]
fn a_node_that_a_set_cannot_do_without_is_said() {
    let warnings = |argument| decide(&[argument], &ROOT).unwrap().warnings;
    assert!(warnings("http://n{1...4}/d{1...4}").is_empty());
    let crowded = warnings("http://n{1...2}/d{1...8}");
    assert!(crowded[0].contains("http://n1:9000 has 8 drives of set 0"), "{crowded:?}");
    assert!(warnings("http://n1/d{1...8}").is_empty(), "there is one node only");
}

#[test]
fn uploads_rest_for_as_long_as_the_environment_says() {
    let rest = |value: &str| {
        decide(&["/data"], &[("MINIO_API_STALE_UPLOADS_EXPIRY", value)])
            .map(|settings| settings.upload_rest.age.as_secs())
            .ok()
    };
    for (value, seconds) in [("24h", 86_400), ("1h30m", 5_400), ("10s", 10), ("2d", 172_800)] {
        assert_eq!(rest(value), Some(seconds), "{value}");
    }
    for value in ["0s", "h", "10", "1.5h", "-1h", "9999999999999h", "1h é"] {
        assert_eq!(rest(value), None, "{value}");
    }
    let settings =
        decide(&["/data"], &[("BASALT_API_STALE_UPLOADS_CLEANUP_INTERVAL", "5m")]).unwrap();
    assert_eq!(settings.upload_rest.interval.as_secs(), 300);
    assert_eq!(settings.upload_rest.age.as_secs(), 86_400);
}

#[test]
fn domains_and_origins_come_from_the_environment() {
    let settings = decide(&["/data"], &[]).unwrap();
    assert_eq!((settings.domains, settings.origins), Default::default());
    let variables = [("MINIO_DOMAIN", "s3.test,a.b"), ("MINIO_API_CORS_ALLOW_ORIGIN", "https://a")];
    let settings = decide(&["/data"], &variables).unwrap();
    assert_eq!(Some(settings.domains), Domains::parse("s3.test,a.b"));
    assert_eq!(settings.origins, Origins::parse("https://a"));
    assert!(decide(&["/data"], &[("MINIO_DOMAIN", "http://s3.test")]).is_err());
}
