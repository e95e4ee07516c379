//! The built binary: what it refuses, with which exit code, and its help.

use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs with this environment alone, in `directory`.
fn basalt(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_basalt"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs a command line that must be refused; returns the exit code and what was said.
fn refusal(directory: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let output = basalt(directory, arguments, variables);
    assert!(!output.status.success(), "{arguments:?} was not refused");
    (output.status.code().expect("an exit code"), text(&output.stderr))
}

#[test]
fn help_is_as_reviewed() {
    let place = tempfile::tempdir().unwrap();
    let output = basalt(place.path(), &["server", "--help"], &[]);
    assert!(output.status.success());
    assert_eq!(
        text(&output.stdout),
        include_str!("help-server.txt"),
        "after a review: basalt server --help </dev/null | cat > server/tests/help-server.txt"
    );
    let version = text(&basalt(place.path(), &["--version"], &[]).stdout);
    assert_eq!(version.trim(), format!("basalt {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_command_line_ends_with_two() {
    let place = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (&["server"][..], "no drive is named"),
        (&["server", "/"], "root directory"),
        (&["server", "/data{1...17}"], "name 16 or 18 drives"),
        (&["server", "/data{1..4}"], "exactly three dots"),
        (&["server", "/a{1...4}", "/b"], "with and without ellipses"),
        (&["server", "/a", "/a/"], "more than once"),
        (
            &["server", "http://node{1...4}/d{1...4}"],
            "BASALT_ROOT_PASSWORD, the same on every node",
        ),
        (&["server", "http://n1/a", "https://n2/a"], "http and https are mixed"),
        (&["server", "https://n{1...4}/d{1...4}"], "no certificate on this machine"),
        (&["server", "--address", ":0", "http://n{1...4}/d{1...4}"], "port 0"),
        (&["server", "--peer-address", ":9000", "/data"], "listens there too"),
        (&["server", "10.0.0.1:9000/d"], "without its scheme"),
        (&["server", "--address", "9000", "/data"], "no port"),
        (&["server", "--adress", ":9000", "/data"], "'--address'"),
        (&["server", "--sftp", "address=:8022", "/data"], "--sftp"),
        (&["inspect", "/data", "--key", "bucket"], "BUCKET/KEY"),
    ] {
        let (code, said) = refusal(place.path(), arguments, &[]);
        assert_eq!(code, 2, "{arguments:?} said\n{said}");
        assert!(said.contains(expected), "{arguments:?} said\n{said}");
    }
}

#[test]
fn a_node_that_is_none_of_those_named_ends() {
    let place = tempfile::tempdir().unwrap();
    let root = [("MINIO_ROOT_USER", "operator"), ("MINIO_ROOT_PASSWORD", "a good secret")];
    // Below the test's own place, should one of them be taken for this machine after all.
    let at = |host: &str, path: &str| format!("http://{host}{}{path}", place.path().display());
    let here = |port: u16, path: &str| at(&format!("127.0.0.1:{port}"), path);
    for (arguments, code, expected) in [
        (vec![at("203.0.113.{1...4}", "/d{1...4}")], 1, "leads to an address of this machine"),
        (vec![here(9001, "/a"), here(9002, "/b")], 1, "they listen at 9001, 9002"),
        (vec![here(9001, "/d{1...2}")], 1, "they listen at 9001"),
        (vec![here(9000, "/a"), here(9001, "/a")], 2, "directories of its own"),
        (vec![at("127.0.0.{1...2}", "/d{1...2}")], 2, "directories of its own"),
        (vec![here(9000, "/a"), at("127.0.0.2", "/b")], 1, "are both this node"),
    ] {
        let arguments: Vec<&str> =
            std::iter::once("server").chain(arguments.iter().map(String::as_str)).collect();
        let (ended, said) = refusal(place.path(), &arguments, &root);
        assert_eq!(ended, code, "{arguments:?} said\n{said}");
        assert!(said.contains(expected), "{arguments:?} said\n{said}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_wrong_environment_ends_with_two() {
    let place = tempfile::tempdir().unwrap();
    for (variables, expected) in [
        (&[("MINIO_ROOT_USER", "operator")][..], "only half given"),
        (&[("MINIO_ROOT_USER", "ab"), ("MINIO_ROOT_PASSWORD", "12345678")], "3 characters"),
        (&[("MINIO_STORAGE_CLASS_STANDARD", "EC:3")], "at most 2"),
        (&[("MINIO_STORAGE_CLASS_RRS", "RS:1")], "only scheme is EC"),
        (&[("MINIO_ERASURE_SET_DRIVE_COUNT", "3")], "2, 4 would be"),
        (&[("BASALT_LOG", "loud=very")], "is not a filter"),
        (&[("MINIO_VOLUMES", "/d{4...1}")], "backwards"),
    ] {
        let (code, said) = refusal(place.path(), &["server", "d{1...4}"], variables);
        assert_eq!(code, 2, "{variables:?} said\n{said}");
        assert!(said.contains(expected), "{variables:?} said\n{said}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_foreign_directory_ends_with_one_and_keeps_its_files() {
    let place = tempfile::tempdir().unwrap();
    let letter = place.path().join("d1/letter.txt");
    std::fs::create_dir(place.path().join("d1")).unwrap();
    std::fs::write(&letter, "dear all").unwrap();
    let (code, said) = refusal(place.path(), &["server", "--allow-buffered", "d1"], &[]);
    assert_eq!(code, 1, "{said}");
    for expected in ["error: ", "d1 cannot be a drive", "cause: ", "letter.txt", "remedy: "] {
        assert!(said.contains(expected), "no {expected:?} in\n{said}");
    }
    assert_eq!(std::fs::read(&letter).unwrap(), b"dear all");
}

#[test]
fn refusals_are_json_where_logs_are() {
    let place = tempfile::tempdir().unwrap();
    let (code, said) = refusal(place.path(), &["server", "--json", "/"], &[]);
    assert_eq!(code, 2);
    let line = said.trim();
    assert!(line.starts_with('{') && line.ends_with('}') && !line.contains('\n'), "{said}");
    assert!(line.contains("\"cause\":") && line.contains("\"remedy\":"), "{said}");
}

#[test]
fn only_a_stopped_drive_is_inspected() {
    let place = tempfile::tempdir().unwrap();
    let (code, said) = refusal(place.path(), &["inspect", "."], &[]);
    assert_eq!(code, 1);
    assert!(said.contains("it has no basalt.data"), "{said}");
    std::fs::write(place.path().join("basalt.data"), "x").unwrap();
    let lock = std::fs::File::open(place.path()).unwrap();
    lock.try_lock().unwrap();
    let (code, said) = refusal(place.path(), &["inspect", "."], &[]);
    assert_eq!(code, 1);
    assert!(said.contains("is in use") && said.contains("process"), "{said}");
}

/// A server that is killed when the test ends before it is stopped.
struct Running(std::process::Child);

impl Running {
    /// Starts one on `d1` to `d4` of `directory` and waits for its start-up text.
    fn start(directory: &Path, address: &str) -> (Self, String) {
        Self::start_with(directory, address, &[], Stdio::null())
    }

    fn start_with(
        directory: &Path,
        address: &str,
        arguments: &[&str],
        log: Stdio,
    ) -> (Self, String) {
        use std::io::{BufRead, BufReader};
        let child = Command::new(env!("CARGO_BIN_EXE_basalt"))
            .args(["server", "--allow-buffered", "--address", address, "d{1...4}"])
            .args(arguments)
            .env_clear()
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary runs");
        let mut running = Self(child);
        let out = running.0.stdout.take().expect("piped");
        let lines = BufReader::new(out).lines().map(|line| line.expect("UTF-8"));
        let mut said: Vec<String> = Vec::new();
        for line in lines {
            let last = line.contains("mc alias set");
            said.push(line);
            if last {
                return (running, said.join("\n"));
            }
        }
        panic!("it did not start: {said:?}");
    }

    /// Asks it to end, and waits until it has.
    fn stop(mut self) {
        let process = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("it runs");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

#[test]
fn a_server_starts_stops_starts_again_and_its_drives_can_be_inspected() {
    let place = tempfile::tempdir().unwrap();
    let (first, said) = Running::start(place.path(), &free_address());
    assert!(said.contains("4 drives in 1 set of 4"), "{said}");
    assert!(said.contains("shown this once"), "{said}");
    let (code, refused) = refusal(place.path(), &["inspect", "d1"], &[]);
    assert_eq!(code, 1);
    assert!(refused.contains("is in use"), "{refused}");
    first.stop();

    let output = basalt(place.path(), &["inspect", "d2", "--verify"], &[]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", text(&output.stderr));
    assert!(said.contains("place        set 0, position 1"), "{said}");
    assert!(said.contains("4 of 4 copies whole") && said.contains("0 corrupt"), "{said}");
    let output = basalt(place.path(), &["inspect", "d2", "--key", "photos/a"], &[]);
    assert!(text(&output.stdout).contains("knows nothing of it"));

    let (second, said) = Running::start(place.path(), &free_address());
    assert!(!said.contains("shown this once") && said.contains(".basalt-root-d1"), "{said}");
    second.stop();
}

/// Writes a fresh certificate for localhost and its key into `directory`; returns the certificate.
/// Whoever read its log may have ended: that is no reason not to serve, nor not to stop.
#[test]
fn a_server_whose_log_nobody_reads_serves_and_stops() {
    let place = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (server, _) = Running::start_with(place.path(), &free_address(), &[], writer.into());
    server.stop();
}

fn write_certificate(directory: &Path) -> rustls::pki_types::CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    // The key first: a pair that does not match is reported, and looked at again once it changes.
    std::fs::write(directory.join("private.key"), made.signing_key.serialize_pem())
        .expect("written");
    std::fs::write(directory.join("public.crt"), made.cert.pem()).expect("written");
    made.cert.der().clone()
}

/// Asks over TLS whether the server lives, trusting `certificate` alone.
fn ask_securely(
    address: &str,
    certificate: &rustls::pki_types::CertificateDer<'static>,
) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).expect("a certificate");
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    let connection = rustls::ClientConnection::new(config.into(), name).expect("made");
    let socket = std::net::TcpStream::connect(address)?;
    let mut stream = rustls::StreamOwned::new(connection, socket);
    let request = "GET /minio/health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn https_is_served_where_certificates_are_and_changed_ones_are_taken_over() {
    use std::io::{Read, Write};
    let place = tempfile::tempdir().unwrap();
    let certificates = place.path().join("certs");
    std::fs::create_dir(&certificates).unwrap();
    let first = write_certificate(&certificates);
    let address = free_address();
    let (server, said) =
        Running::start_with(place.path(), &address, &["--certs-dir", "certs"], Stdio::null());
    assert!(said.contains(&format!("https://{address}")), "{said}");
    assert!(ask_securely(&address, &first).unwrap().starts_with("HTTP/1.1 200 "));

    let mut plain = std::net::TcpStream::connect(&address).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");

    let second = write_certificate(&certificates);
    // Every core takes it over for itself, and a connection may come to any of them.
    let (mut in_a_row, mut refused) = (0, 0);
    while in_a_row < 16 {
        if ask_securely(&address, &second).is_ok() {
            in_a_row += 1;
        } else {
            (in_a_row, refused) = (0, refused + 1);
            assert!(refused < 600, "the new certificate is not served after a minute");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    server.stop();
}
