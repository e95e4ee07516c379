//! One keep-alive HTTP/1.1 connection. Bodies are handed out in pieces of one reused buffer.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::stream::{Stream, Trust};

const BUFFER_BYTES: usize = 1 << 20;
const HEAD_LIMIT_BYTES: usize = 64 << 10;
/// Up to here head and body leave in one write, hence in one system call and one segment.
const ONE_WRITE_BYTES: usize = 64 << 10;

/// Status and the few headers that anybody asks for.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) etag: String,
    pub(crate) body_bytes: u64,
    /// What the head says of the body's length; of HEAD, the object's.
    pub(crate) length: Option<u64>,
    /// The body, where the caller asked to keep it.
    pub(crate) body: Vec<u8>,
}

/// How far a request got that has no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Nothing reached the server: the request did not happen.
    NotSent(io::Error),
    /// It may or may not have happened.
    Unknown(io::Error),
}

impl From<Unanswered> for io::Error {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::NotSent(error) | Unanswered::Unknown(error) => error,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connection {
    address: SocketAddr,
    timeout: Duration,
    /// Whose certificate the server has to show; without, it is spoken to in the open.
    trust: Option<Trust>,
    stream: Option<Stream>,
    /// Received and not consumed: `buffer[start..end]`.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

struct Head {
    answer: Answer,
    framing: Framing,
    close: bool,
}

impl Connection {
    pub(crate) fn new(address: SocketAddr, timeout: Duration) -> Self {
        let buffer = vec![0; BUFFER_BYTES];
        Self { address, timeout, trust: None, stream: None, buffer, start: 0, end: 0 }
    }

    pub(crate) fn trusting(self, trust: Trust) -> Self {
        Self { trust: Some(trust), ..self }
    }

    /// Sends one request and hands the body of its answer to `sink`. A connection that failed, or
    /// that the server wants closed, is opened again by the next request.
    pub(crate) fn exchange(
        &mut self,
        head: &mut Vec<u8>,
        body: &[u8],
        has_answer_body: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> Result<Answer, Unanswered> {
        if self.stream.is_none() {
            let stream = Stream::open(self.address, self.timeout, self.trust.as_ref());
            self.stream = Some(stream.map_err(Unanswered::NotSent)?);
            (self.start, self.end) = (0, 0);
        }
        match self.converse(head, body, has_answer_body, sink) {
            Ok((answer, close)) => {
                if close {
                    self.stream = None;
                }
                Ok(answer)
            }
            Err(error) => {
                self.stream = None;
                Err(Unanswered::Unknown(error))
            }
        }
    }

    fn converse(
        &mut self,
        head: &mut Vec<u8>,
        body: &[u8],
        has_answer_body: bool,
        sink: &mut dyn FnMut(&[u8]),
    ) -> io::Result<(Answer, bool)> {
        let stream = self.stream.as_mut().expect("opened by the caller");
        let sent = if body.len() <= ONE_WRITE_BYTES {
            head.extend_from_slice(body);
            stream.write_all(head)
        } else {
            stream.write_all(head).and_then(|()| stream.write_all(body))
        };
        // A server that refuses a request may answer before the body has ended, and close.
        let head = match (sent, self.read_final_head()) {
            (_, Ok(head)) => head,
            (Err(error), Err(_)) | (Ok(()), Err(error)) => return Err(error),
        };
        let Head { mut answer, framing, close } = head;
        if has_answer_body && !matches!(answer.status, 204 | 304) {
            answer.body_bytes = self.read_body(&framing, sink)?;
        }
        Ok((answer, close || matches!(framing, Framing::UntilClose)))
    }

    fn read_final_head(&mut self) -> io::Result<Head> {
        loop {
            let head = self.read_head()?;
            if head.answer.status >= 200 {
                return Ok(head);
            }
        }
    }

    fn read_head(&mut self) -> io::Result<Head> {
        loop {
            let seen = &self.buffer[self.start..self.end];
            if let Some(length) = find(seen, b"\r\n\r\n") {
                let head = parse_head(&seen[..length])?;
                self.start += length + 4;
                return Ok(head);
            }
            if seen.len() > HEAD_LIMIT_BYTES {
                return Err(malformed("the head of an answer is too long"));
            }
            self.receive()?;
        }
    }

    fn read_body(&mut self, framing: &Framing, sink: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
        match framing {
            Framing::Length(length) => {
                self.read_exactly(*length, sink)?;
                Ok(*length)
            }
            Framing::Chunked => self.read_chunks(sink),
            Framing::UntilClose => self.read_until_close(sink),
        }
    }

    fn read_exactly(&mut self, mut left: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        while left > 0 {
            if self.start == self.end {
                self.receive()?;
            }
            let take = left.min((self.end - self.start) as u64) as usize;
            sink(&self.buffer[self.start..self.start + take]);
            self.start += take;
            left -= take as u64;
        }
        Ok(())
    }

    fn read_chunks(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| malformed("chunk size"))?;
            if size == 0 {
                // Trailers, up to the empty line.
                while !self.read_line()?.is_empty() {}
                return Ok(total);
            }
            self.read_exactly(size, sink)?;
            self.read_line()?;
            total += size;
        }
    }

    fn read_until_close(&mut self, sink: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let pending = &self.buffer[self.start..self.end];
            total += pending.len() as u64;
            sink(pending);
            self.start = self.end;
            match self.receive() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(total),
                Err(error) => return Err(error),
            }
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            let seen = &self.buffer[self.start..self.end];
            if let Some(length) = find(seen, b"\r\n") {
                let line = String::from_utf8_lossy(&seen[..length]).into_owned();
                self.start += length + 2;
                return Ok(line);
            }
            if seen.len() > HEAD_LIMIT_BYTES {
                return Err(malformed("a line of an answer is too long"));
            }
            self.receive()?;
        }
    }

    /// Receives at least one byte behind what is there.
    fn receive(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let stream = self.stream.as_mut().expect("open during an exchange");
        let count = stream.read(&mut self.buffer[self.end..])?;
        if count == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed"));
        }
        self.end += count;
        Ok(())
    }
}

fn parse_head(head: &[u8]) -> io::Result<Head> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| malformed("status line"))?;
    let mut parsed = Head {
        answer: Answer { status, ..Answer::default() },
        framing: Framing::UntilClose,
        close: false,
    };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("header"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let length = value.parse().map_err(|_| malformed("content-length"))?;
            parsed.framing = Framing::Length(length);
            parsed.answer.length = Some(length);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            parsed.framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            parsed.close = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("etag") {
            value.clone_into(&mut parsed.answer.etag);
        }
    }
    // Answers that never have a body leave the connection open without a length.
    if matches!(parsed.framing, Framing::UntilClose)
        && (status < 200 || status == 204 || status == 304)
    {
        parsed.framing = Framing::Length(0);
    }
    Ok(parsed)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("malformed answer: {what}"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Serves one connection: reads one request head per answer, in order.
    fn serve(answers: Vec<&'static [u8]>) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            // Before the first answer, so that who has seen the last one finds nobody.
            drop(listener);
            for answer in answers {
                let mut seen = Vec::new();
                while find(&seen, b"\r\n\r\n").is_none() {
                    let mut piece = [0; 1024];
                    let count = stream.read(&mut piece).expect("a request");
                    seen.extend_from_slice(&piece[..count]);
                }
                stream.write_all(answer).expect("sent");
            }
        });
        Connection::new(address, Duration::from_secs(5))
    }

    fn get(connection: &mut Connection) -> (Answer, Vec<u8>) {
        let mut body = Vec::new();
        let mut head = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        let answer = connection
            .exchange(&mut head, b"", true, &mut |piece| body.extend_from_slice(piece))
            .expect("an answer");
        (answer, body)
    }

    #[test]
    fn reads_every_framing_on_one_connection() {
        let mut connection = serve(vec![
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 3\r\n\r\nabc",
            b"HTTP/1.1 503 Slow\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nde\r\n1\r\nf\r\n0\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\nto the end",
        ]);
        let (answer, body) = get(&mut connection);
        assert_eq!((answer.status, answer.etag.as_str(), &body[..]), (200, "\"x\"", &b"abc"[..]));
        let (answer, body) = get(&mut connection);
        assert_eq!((answer.status, &body[..]), (503, &b"def"[..]));
        assert_eq!(get(&mut connection).0.status, 204);
        let (answer, body) = get(&mut connection);
        assert_eq!((answer.body_bytes, &body[..]), (10, &b"to the end"[..]));
        let again = connection.exchange(&mut b"GET /".to_vec(), b"", true, &mut |_| {});
        assert!(matches!(again, Err(Unanswered::NotSent(_))), "nobody listens any more: {again:?}");
    }

    #[test]
    fn a_short_body_is_an_error_and_the_outcome_unknown() {
        let mut connection = serve(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"]);
        let mut head = b"PUT / HTTP/1.1\r\n\r\n".to_vec();
        let answer = connection.exchange(&mut head, b"", true, &mut |_| {});
        assert!(matches!(answer, Err(Unanswered::Unknown(_))), "{answer:?}");
    }
}
