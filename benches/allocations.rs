//! What the server allocates for a request: the whole server, in this process, on directories of the
//! volume; a client that is not counted; and a count of what everything else asks of the allocator.
//! `cargo bench -p basalt-benches --bench allocations`.
//!
//! Sixteen connections, as in `cargo xtask bench`: what requests that run side by side share (writes of
//! journals, turns of the cores) is shared as it is there.

#![allow(clippy::disallowed_methods, reason = "the client of a measurement is no work of a core")]

mod counting_allocator;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use basalt_server::cli::{Cli, Command};
use basalt_server::config::Settings;
use basalt_server::environment::Environment;
use basalt_server::start;
use counting_allocator::{Count, Counting, leave_out_this_thread};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const USER: (&str, &str) = ("basaltadmin", "basaltsecret");
const CONNECTIONS: usize = 16;
/// Of each connection.
const NAMES: usize = 20;
const REQUESTS: usize = 500;
const BODY_BYTES: usize = 4 << 10;
/// What a PUT leaves to be done is done meanwhile.
const REST: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // The test harness's flags say nothing here; a number says how many drives.
    let drives = std::env::args().filter_map(|word| word.parse().ok()).next();
    let Some(drives) = drives else {
        return each_in_a_process_of_its_own(&["4", "16"]);
    };
    let folder =
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder for the drives");
    let address = free_address();
    let path = folder.path().to_owned();
    thread::spawn(move || {
        leave_out_this_thread();
        measure(address, drives);
        // The drives go with everything that is in them: nothing has to be closed.
        drop(folder);
        std::process::exit(0);
    });
    serve(address, &path, drives);
    ExitCode::FAILURE
}

/// A server runs once in a process.
fn each_in_a_process_of_its_own(layouts: &[&str]) -> ExitCode {
    let program: PathBuf = std::env::current_exe().expect("this program");
    let run = |drives: &&str| {
        let status = std::process::Command::new(&program).arg(drives).status();
        status.expect("this program runs").success()
    };
    if layouts.iter().all(run) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn serve(address: SocketAddr, folder: &Path, drives: usize) {
    let arguments = [
        "basalt".to_owned(),
        "--quiet".to_owned(),
        "server".to_owned(),
        "--address".to_owned(),
        address.to_string(),
        format!("{}/d{{1...{drives}}}", folder.display()),
    ];
    let cli = Cli::read(arguments.map(OsString::from)).expect("a command line");
    let Command::Server(server) = &cli.command else { unreachable!("it says server") };
    let variables = [("MINIO_ROOT_USER", USER.0), ("MINIO_ROOT_PASSWORD", USER.1)];
    let variables =
        variables.map(|(name, value)| (OsString::from(name), OsString::from(value))).into_iter();
    let environment = Environment::load(variables).expect("an environment");
    let settings = Settings::decide(server, &cli.global, &environment, folder).expect("settings");
    let config = start::prepare(settings).expect("blank directories");
    start::serve(config).expect("it serves");
}

fn measure(address: SocketAddr, drives: usize) {
    connect(address).ask(&request("PUT", "/bucket", b""));
    let body = vec![b'x'; BODY_BYTES];
    for (method, body) in [("PUT", &body[..]), ("GET", b""), ("HEAD", b"")] {
        let mut clients: Vec<Client> =
            (0..CONNECTIONS).map(|number| Client::new(address, number, method, body)).collect();
        // The first time, connections take their buffers and names are new.
        all_ask(&mut clients, NAMES);
        thread::sleep(REST);
        let before = Count::now();
        all_ask(&mut clients, REQUESTS);
        let after = Count::now();
        let each =
            |before: u64, after: u64| (after - before) as f64 / (CONNECTIONS * REQUESTS) as f64;
        let line = format!(
            "{drives:2} drives, {method:4} 4 KiB: {:6.1} allocations, {:8.0} bytes\n",
            each(before.allocations, after.allocations),
            each(before.bytes, after.bytes)
        );
        std::io::stdout().write_all(line.as_bytes()).expect("standard output is open");
    }
}

/// A connection, and what it asks by turns.
struct Client {
    connection: Connection,
    requests: Vec<Vec<u8>>,
}

impl Client {
    fn new(address: SocketAddr, number: usize, method: &str, body: &[u8]) -> Self {
        let path = |name| format!("/bucket/{number:02}-{name:08}");
        let requests = (0..NAMES).map(|name| request(method, &path(name), body)).collect();
        Self { connection: connect(address), requests }
    }
}

/// Every client asks so many times, all at the same time.
fn all_ask(clients: &mut [Client], times: usize) {
    thread::scope(|scope| {
        for Client { connection, requests } in clients {
            scope.spawn(move || {
                leave_out_this_thread();
                requests.iter().cycle().take(times).for_each(|request| connection.ask(request));
            });
        }
    });
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address")
}

struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

fn connect(address: SocketAddr) -> Connection {
    let stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    };
    stream.set_nodelay(true).expect("a TCP socket");
    Connection { stream, answer: vec![0; 64 << 10] }
}

impl Connection {
    /// Sends a request and takes its answer, which has to be a good one.
    fn ask(&mut self, request: &[u8]) {
        self.stream.write_all(request).expect("the server takes it");
        let mut filled = 0;
        loop {
            let length = self.stream.read(&mut self.answer[filled..]).expect("an answer comes");
            assert!(length > 0, "the server closed the connection");
            filled += length;
            let answer = &self.answer[..filled];
            if answer_bytes(answer, request.starts_with(b"HEAD")).is_some_and(|all| all <= filled) {
                assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
                return;
            }
        }
    }
}

/// Length of the answer that begins so, once its head is there.
fn answer_bytes(bytes: &[u8], is_head: bool) -> Option<usize> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).expect("heads are text");
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let body = if is_head { 0 } else { length.map_or(0, |length| length.expect("a length")) };
    Some(head + body)
}

/// A request with its body's hash signed, as it goes over the wire.
fn request(method: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    let now = OffsetDateTime::now_utc().format(format).expect("a date");
    let day = &now[..8];
    let hash = hex(&Sha256::digest(body));
    let names = "host;x-amz-content-sha256;x-amz-date";
    let headers = format!("host:localhost\nx-amz-content-sha256:{hash}\nx-amz-date:{now}\n");
    let canonical = format!("{method}\n{path}\n\n{headers}\n{names}\n{hash}");
    let scope = format!("{day}/us-east-1/s3/aws4_request");
    let canonical = hex(&Sha256::digest(canonical));
    let text = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{canonical}");
    let secret = format!("AWS4{}", USER.1);
    let steps = [day, "us-east-1", "s3", "aws4_request", &text];
    let key = steps.iter().fold(secret.into_bytes(), |key, step| keyed(&key, step.as_bytes()));
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={}",
        USER.0,
        hex(&key)
    );
    let headers = headers.replace('\n', "\r\n").replacen(':', ": ", 3);
    let mut wire = format!(
        "{method} {path} HTTP/1.1\r\n{headers}authorization: {authorization}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    wire.extend_from_slice(body);
    wire
}

fn keyed(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    mac.chain_update(bytes).finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes everything");
        hex
    })
}
