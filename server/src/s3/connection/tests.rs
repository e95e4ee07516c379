use std::cell::Cell;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::object;
use crate::s3::answer::AnswerBody;
use crate::s3::testing::{Pipe, TestRuntime, settle};
use crate::s3::watch::Patience;

const SECOND: Duration = Duration::from_secs(1);

/// A body of an object that no test reads.
struct NoBody;

impl object::Body for NoBody {
    async fn next(&mut self) -> object::Result<Option<Bytes>> {
        Ok(None)
    }
}

type TestBody = AnswerBody<NoBody, TestRuntime>;

/// Answers each request with its path; `/wait` waits for `gate`, `/body` for the request's body.
async fn connection(
    pipe: Pipe,
    runtime: TestRuntime,
    gate: Rc<Cell<bool>>,
    stop: impl Future<Output = ()>,
) {
    let watch = Rc::new(Watch::new(runtime.clone(), Patience::default()));
    let service = service_fn(|request: http::Request<Incoming>| {
        let (watch, gate) = (Rc::clone(&watch), Rc::clone(&gate));
        watch.request_begins();
        async move {
            let path = request.uri().path().to_owned();
            if path == "/wait" {
                let open = |_: &mut Context<'_>| match gate.get() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                };
                poll_fn(open).await;
            }
            if path == "/body" {
                let mut body = request.into_body();
                let next = |task: &mut Context<'_>| {
                    watch.poll_body(task, |task| Pin::new(&mut body).poll_frame(task))
                };
                let _ = poll_fn(next).await;
            }
            let mut body = TestBody::whole(Bytes::from(path));
            body.ends_request_of(watch);
            Ok::<_, Infallible>(http::Response::new(body))
        }
    });
    serve(pipe, &runtime, &watch, service, stop).await;
}

struct Setting {
    pipe: Pipe,
    runtime: TestRuntime,
    gate: Rc<Cell<bool>>,
    stop: Rc<Cell<bool>>,
}

impl Setting {
    fn new() -> Self {
        let (gate, stop) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        Self { pipe: Pipe::default(), runtime: TestRuntime::default(), gate, stop }
    }

    fn connection(&self) -> Pin<Box<dyn Future<Output = ()>>> {
        let stop = Rc::clone(&self.stop);
        let stopped = poll_fn(move |_| match stop.get() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let gate = Rc::clone(&self.gate);
        Box::pin(connection(self.pipe.clone(), self.runtime.clone(), gate, stopped))
    }
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let setting = Setting::new();
    let mut connection = setting.connection();
    for path in ["/a", "/b"] {
        setting.pipe.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n").as_bytes());
        assert!(settle(connection.as_mut()).is_pending());
        let answer = setting.pipe.receive();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(path), "{answer}");
    }
    setting.pipe.close();
    assert!(settle(connection.as_mut()).is_ready());
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let setting = Setting::new();
    let mut connection = setting.connection();
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\n\r\n");
    let all = ["/wait", "/a", "/b"].map(request).concat();
    setting.pipe.send(all.as_bytes());
    assert!(settle(connection.as_mut()).is_pending());
    assert_eq!(setting.pipe.receive(), "", "no answer overtakes another");
    setting.gate.set(true);
    assert!(settle(connection.as_mut()).is_pending());
    let answers = setting.pipe.receive();
    let order = ["/wait", "/a", "/b"].map(|path| answers.find(&format!("\r\n\r\n{path}")));
    assert!(order.is_sorted() && order[0].is_some(), "{answers}");
}

#[test]
fn a_body_that_only_drips_is_answered_and_then_closed() {
    let watch = Watch::new(TestRuntime::default(), Patience::default());
    watch.request_begins();
    let task = &mut Context::from_waker(std::task::Waker::noop());
    let mut seconds = 0;
    // A byte every ten seconds, well within the patience for each.
    while watch.poll_body(task, |_| Poll::<()>::Pending).is_pending() {
        watch.runtime().pass(10 * SECOND);
        seconds += 10;
        if watch.verdict() == Verdict::BodyTimedOut {
            break;
        }
        assert!(watch.poll_body(task, |_| Poll::Ready(())).is_ready());
        watch.body_progress(1);
        assert!(seconds < 120, "still waiting");
    }
    assert!(seconds >= Patience::default().body.as_secs());
    // At the least rate it may take for ever.
    let watch = Watch::new(TestRuntime::default(), Patience::default());
    watch.request_begins();
    for _ in 0..1000 {
        assert!(watch.poll_body(task, |_| Poll::<()>::Pending).is_pending());
        watch.runtime().pass(10 * SECOND);
        assert_eq!(watch.verdict(), Verdict::Wait);
        assert!(watch.poll_body(task, |_| Poll::Ready(())).is_ready());
        watch.body_progress(10 * 1024);
    }
}

#[test]
fn an_answer_that_is_taken_in_drips_is_cut_off() {
    let watch = Watch::new(TestRuntime::default(), Patience::default());
    watch.request_begins();
    let mut seconds = 0;
    // A byte every ten seconds, well within the patience for each.
    while watch.verdict() == Verdict::Wait {
        assert!(seconds < 120, "still waiting");
        watch.write_waits();
        watch.runtime().pass(10 * SECOND);
        seconds += 10;
        if watch.verdict() == Verdict::Wait {
            watch.write_progress(1);
        }
    }
    assert!(seconds >= Patience::default().write.as_secs());
    // At the least rate it may take for ever.
    let watch = Watch::new(TestRuntime::default(), Patience::default());
    watch.request_begins();
    for _ in 0..1000 {
        watch.write_waits();
        watch.runtime().pass(10 * SECOND);
        assert_eq!(watch.verdict(), Verdict::Wait);
        watch.write_progress(10 * 1024);
    }
}

#[test]
fn an_idle_connection_is_closed() {
    let setting = Setting::new();
    let patience = Patience::default();
    let mut connection = setting.connection();
    setting.pipe.send(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(settle(connection.as_mut()).is_pending());
    setting.runtime.pass(patience.idle - SECOND);
    assert!(settle(connection.as_mut()).is_pending());
    setting.pipe.send(b"GET /b HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(settle(connection.as_mut()).is_pending());
    setting.runtime.pass(patience.idle - SECOND);
    assert!(settle(connection.as_mut()).is_pending(), "the second request began a new wait");
    setting.runtime.pass(SECOND);
    assert!(settle(connection.as_mut()).is_ready());
}

#[test]
fn a_head_that_comes_in_drips_is_cut_off() {
    let setting = Setting::new();
    let mut connection = setting.connection();
    setting.pipe.send(b"GET /a HTTP/1.1\r\n");
    let mut seconds = 0;
    while settle(connection.as_mut()).is_pending() {
        setting.runtime.pass(SECOND);
        setting.pipe.send(b"a: b\r\n");
        seconds += 1;
        assert!(seconds <= Patience::default().head.as_secs() + 1, "still open");
    }
    assert!(seconds >= Patience::default().head.as_secs());
}

#[test]
fn time_that_the_server_needs_counts_for_nobody() {
    let setting = Setting::new();
    let mut connection = setting.connection();
    setting.pipe.send(b"GET /wait HTTP/1.1\r\nhost: h\r\n\r\n");
    for _ in 0..100 {
        assert!(settle(connection.as_mut()).is_pending());
        setting.runtime.pass(60 * SECOND);
    }
    setting.gate.set(true);
    assert!(settle(connection.as_mut()).is_pending());
    assert!(setting.pipe.receive().ends_with("/wait"));
}

#[test]
fn a_stalled_body_is_answered_and_then_closed() {
    let setting = Setting::new();
    let mut connection = setting.connection();
    setting.pipe.send(b"PUT /body HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n");
    assert!(settle(connection.as_mut()).is_pending());
    assert_eq!(setting.pipe.receive(), "");
    // The one timer may look late by the shortest of the waits.
    setting.runtime.pass(Patience::default().body + Patience::default().head);
    let outcome = settle(connection.as_mut());
    let answer = setting.pipe.receive();
    assert!(answer.ends_with("/body"), "{answer}");
    assert!(outcome.is_ready(), "the rest of the body cannot be told from a request");
}

#[test]
fn a_peer_that_takes_nothing_is_cut_off() {
    let setting = Setting::new();
    let mut connection = setting.connection();
    setting.pipe.block();
    setting.pipe.send(b"GET /a HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(settle(connection.as_mut()).is_pending());
    setting.runtime.pass(Patience::default().write + Patience::default().head);
    assert!(settle(connection.as_mut()).is_ready());
}

#[test]
fn stopping_finishes_the_request_in_progress() {
    let setting = Setting::new();
    let mut connection = setting.connection();
    setting.pipe.send(b"GET /wait HTTP/1.1\r\nhost: h\r\n\r\n");
    assert!(settle(connection.as_mut()).is_pending());
    setting.stop.set(true);
    assert!(settle(connection.as_mut()).is_pending());
    setting.gate.set(true);
    assert!(settle(connection.as_mut()).is_ready());
    let answer = setting.pipe.receive();
    assert!(answer.contains("connection: close") && answer.ends_with("/wait"), "{answer}");
    assert!(setting.pipe.is_closed());

    let idle = Setting::new();
    let mut connection = idle.connection();
    idle.stop.set(true);
    assert!(settle(connection.as_mut()).is_ready(), "an idle connection ends at once");
}

#[test]
fn heads_that_are_too_long_or_ambiguous_are_refused() {
    let long = format!("GET /a HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(HEAD_BYTES_MAX));
    for (head, status) in [
        (long.as_str(), "431"),
        ("GET /a HTTP/1.1\r\na: b\r\n c\r\n\r\n", "400"),
        ("PUT /a HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "400"),
        ("PUT /a HTTP/1.1\r\ncontent-length: +1\r\n\r\n", "400"),
        ("PUT /a HTTP/1.1\r\ntransfer-encoding: chunked, gzip\r\n\r\n", "400"),
        ("GET /a\0 HTTP/1.1\r\n\r\n", "400"),
    ] {
        let setting = Setting::new();
        let mut connection = setting.connection();
        setting.pipe.send(head.as_bytes());
        let outcome = settle(connection.as_mut());
        let answer = setting.pipe.receive();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(outcome.is_ready());
    }
    // With both lengths the connection ends after the answer, so that nothing can hide behind.
    let setting = Setting::new();
    let mut connection = setting.connection();
    setting.pipe.send(
        b"PUT /a HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n\
          0\r\n\r\nGET /hidden HTTP/1.1\r\nhost: h\r\n\r\n",
    );
    assert!(settle(connection.as_mut()).is_ready());
    assert!(!setting.pipe.receive().contains("/hidden"));
}
