//! Uploads by an HTML form: multipart/form-data as browsers send it. The fields come first, within
//! limits, and then the file, whose bytes are passed on as they arrive.
//!
//! A PUT has to know its size. A short form is taken whole; of a longer one the file must be the
//! last field, so that its size follows from the length of the request. That nothing else stands
//! behind it is verified at the end, before anything becomes visible.

use std::pin::Pin;
use std::task::{Context, Poll};

use basalt_engine::seam::Runtime;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

use super::error::{Code, Failure};
use super::watch::Watch;
use crate::object::error::SourceError;

/// All fields before the file, with their heads, in bytes.
const FIELDS_BYTES_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 128;
/// The fields are looked at anew each time that so many bytes more of them arrived.
const LOOK_BYTES: usize = 4 << 10;
/// From here on a form is not taken whole.
const WHOLE_BYTES_MAX: u64 = 4 << 20;
/// RFC 2046 allows as many characters.
const BOUNDARY_BYTES_MAX: usize = 70;

/// What stands before the bytes of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Names in lower case, in their order; no name occurs twice.
    pub(super) fields: Vec<(String, String)>,
    pub(super) file_name: String,
}

impl Form {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(there, _)| there == name).map(|(_, value)| value.as_str())
    }
}

/// The bytes of the file, as a body of its own. Its size is known once [`File::begin`] was called.
pub(super) struct File<'a, B> {
    incoming: &'a mut B,
    /// What stands behind the file: the boundary's delimiter, with the two dashes and the line end
    /// that close the form.
    closing: Vec<u8>,
    delimiter_bytes: usize,
    /// What arrived and was not given out.
    pending: BytesMut,
    /// Bytes from the file's first to the request's last.
    rest: u64,
    size: u64,
    given: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Arriving,
    /// All of the file is in `pending`, and nothing else.
    Whole,
    Ended,
    /// The form is not what its length promised.
    Broken,
}

pub(super) fn malformed(text: &'static str) -> Failure {
    Failure::new(Code::MalformedPost, text)
}

/// The boundary that a Content-Type names.
pub(super) fn boundary(content_type: &str) -> Result<&str, Failure> {
    let parameter = |one: &'_ str| -> Option<usize> {
        let (name, _) = one.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then_some(0)
    };
    let found = content_type.split(';').skip(1).find(|one| parameter(one).is_some());
    let value = found.and_then(|one| one.split_once('=')).map(|(_, value)| value.trim());
    let value = value.map(|value| {
        value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
    });
    value
        .filter(|value| !value.is_empty() && value.len() <= BOUNDARY_BYTES_MAX)
        .filter(|value| value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '))
        .ok_or_else(|| malformed("The Content-Type of the form names no valid boundary."))
}

/// Reads the fields; the file begins where this ends. `length` is that of the whole request.
pub(super) async fn read<'a, B: Body<Data = Bytes> + Unpin, R: Runtime>(
    incoming: &'a mut B,
    watch: &Watch<R>,
    boundary: &str,
    length: u64,
) -> Result<(Form, File<'a, B>), Failure> {
    let mut arrived = BytesMut::new();
    let mut taken = 0u64;
    let mut look_at = LOOK_BYTES;
    let (form, file_at) = loop {
        let arrival = next(incoming, watch).await?;
        if let Some(bytes) = &arrival {
            taken += bytes.len() as u64;
            arrived.extend_from_slice(bytes);
        }
        if arrival.is_some() && arrived.len() < look_at {
            continue;
        }
        look_at = arrived.len() + LOOK_BYTES;
        if let Some(found) = parse(&arrived, boundary)? {
            break found;
        }
        if arrival.is_none() {
            return Err(malformed("The form has no field named file."));
        }
        if arrived.len() > FIELDS_BYTES_MAX {
            let text = "The fields before the file are too long.";
            return Err(Failure::new(Code::FormTooLong, text));
        }
    };
    if file_at > FIELDS_BYTES_MAX {
        return Err(Failure::new(Code::FormTooLong, "The fields before the file are too long."));
    }
    let pending = arrived.split_off(file_at);
    let rest = (length.saturating_sub(taken)).saturating_add(pending.len() as u64);
    let closing = format!("\r\n--{boundary}--\r\n").into_bytes();
    let file = File {
        incoming,
        delimiter_bytes: closing.len() - 4,
        closing,
        pending,
        rest,
        size: 0,
        given: 0,
        state: State::Arriving,
    };
    Ok((form, file))
}

async fn next<B: Body<Data = Bytes> + Unpin, R: Runtime>(
    incoming: &mut B,
    watch: &Watch<R>,
) -> Result<Option<Bytes>, Failure> {
    loop {
        let frame = std::future::poll_fn(|task| {
            watch.poll_body(task, |task| Pin::new(&mut *incoming).poll_frame(task))
        });
        match frame.await? {
            None => return Ok(None),
            Some(Err(_)) => return Err(SourceError::Incomplete.into()),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    watch.body_progress(data.len());
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// The form up to the first byte of the file, and where that is; `None` if it is not all there yet.
pub(super) fn parse(bytes: &[u8], boundary: &str) -> Result<Option<(Form, usize)>, Failure> {
    let opening = format!("--{boundary}\r\n");
    let delimiter = format!("\r\n--{boundary}");
    let compared = bytes.len().min(opening.len());
    if bytes[..compared] != opening.as_bytes()[..compared] {
        return Err(malformed("The form does not begin with its boundary."));
    }
    let mut at = opening.len();
    let mut fields: Vec<(String, String)> = Vec::new();
    loop {
        let Some(rest) = bytes.get(at..) else { return Ok(None) };
        let Some(head_bytes) = find(rest, b"\r\n\r\n") else { return Ok(None) };
        let head = Head::parse(&rest[..head_bytes])?;
        let content_at = at + head_bytes + 4;
        if head.name == "file" {
            let file_name = head.file_name.unwrap_or_default();
            return Ok(Some((Form { fields, file_name }, content_at)));
        }
        let content = &bytes[content_at..];
        let Some(content_bytes) = find(content, delimiter.as_bytes()) else { return Ok(None) };
        let value = std::str::from_utf8(&content[..content_bytes])
            .map_err(|_| malformed("A field of the form is not UTF-8."))?;
        if fields.iter().any(|(name, _)| *name == head.name) {
            return Err(malformed("A field of the form occurs more than once."));
        }
        fields.push((head.name, value.to_owned()));
        if fields.len() > FIELDS_MAX {
            return Err(Failure::new(Code::FormTooLong, "The form has too many fields."));
        }
        at = content_at + content_bytes + delimiter.len();
        match bytes.get(at..at + 2) {
            None => return Ok(None),
            Some(b"\r\n") => at += 2,
            Some(b"--") => return Err(malformed("The form has no field named file.")),
            Some(_) => return Err(malformed("A boundary of the form is not valid.")),
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// The head of one field.
struct Head {
    name: String,
    file_name: Option<String>,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self, Failure> {
        let invalid = || malformed("The head of a field of the form is not valid.");
        let head = std::str::from_utf8(head).map_err(|_| invalid())?;
        let disposition = head.split("\r\n").find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case("content-disposition").then_some(value.trim())
        });
        let parameters =
            disposition.and_then(|value| value.strip_prefix("form-data")).ok_or_else(invalid)?;
        let (mut name, mut file_name) = (None, None);
        let mut rest = parameters.trim_start();
        while let Some(parameter) = rest.strip_prefix(';') {
            let (key, after) = parameter.trim_start().split_once('=').ok_or_else(invalid)?;
            let (value, after) = value(after).ok_or_else(invalid)?;
            match key {
                "name" => name = Some(value.to_ascii_lowercase()),
                "filename" => file_name = Some(value),
                _ => {}
            }
            rest = after.trim_start();
        }
        if !rest.is_empty() {
            return Err(invalid());
        }
        Ok(Self { name: name.filter(|name| !name.is_empty()).ok_or_else(invalid)?, file_name })
    }
}

/// A parameter's value, quoted or not, and what stands behind it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return Some((text[..end].trim().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

impl<B: Body<Data = Bytes> + Unpin> File<'_, B> {
    /// Learns the size: takes the rest of a short form. For those who may upload only.
    pub(super) async fn begin<R: Runtime>(&mut self, watch: &Watch<R>) -> Result<(), Failure> {
        if self.rest <= WHOLE_BYTES_MAX {
            return self.take_whole(watch).await;
        }
        self.size = self.rest - self.closing.len() as u64;
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Why a write of the file failed, where that is the form's fault.
    pub(super) fn fault(&self) -> Option<Failure> {
        let text = "The file must be the last field of the form, and the form's closing boundary \
                    the end of the request.";
        (self.state == State::Broken).then(|| malformed(text))
    }

    async fn take_whole<R: Runtime>(&mut self, watch: &Watch<R>) -> Result<(), Failure> {
        while let Some(bytes) = next(self.incoming, watch).await? {
            self.pending.extend_from_slice(&bytes);
            if self.pending.len() as u64 > WHOLE_BYTES_MAX {
                return Err(malformed("The form is longer than it says."));
            }
        }
        let delimiter = &self.closing[..self.delimiter_bytes];
        let end = find(&self.pending, delimiter)
            .ok_or_else(|| malformed("The file of the form does not end in a boundary."))?;
        self.pending.truncate(end);
        self.size = end as u64;
        self.state = State::Whole;
        Ok(())
    }

    /// What of the file is certain by now; `None` if more has to arrive.
    fn ready(&mut self) -> Option<Bytes> {
        if self.state == State::Whole {
            self.state = State::Ended;
            return Some(self.pending.split().freeze());
        }
        let delimiter = &self.closing[..self.delimiter_bytes];
        let certain = match find(&self.pending, delimiter) {
            Some(at) => at,
            None => self.pending.len().saturating_sub(self.delimiter_bytes - 1),
        };
        if certain > 0 {
            self.given += certain as u64;
            return Some(self.pending.split_to(certain).freeze());
        }
        None
    }

    /// Judges what is left when the request has ended.
    fn end(&mut self) {
        let is_closed = self.pending[..] == self.closing[..];
        self.state = match is_closed && self.given == self.size {
            true => State::Ended,
            false => State::Broken,
        };
    }
}

/// The form ended in another way than its length promised.
#[derive(Debug)]
pub(super) struct Broken;

impl<B: Body<Data = Bytes> + Unpin> Body for File<'_, B> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self.state {
                State::Ended => return Poll::Ready(None),
                State::Broken => return Poll::Ready(Some(Err(Broken))),
                State::Arriving | State::Whole => {}
            }
            if let Some(bytes) = self.ready() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if self.pending.len() > self.closing.len() {
                self.state = State::Broken;
                continue;
            }
            match std::task::ready!(Pin::new(&mut *self.incoming).poll_frame(task)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.pending.extend_from_slice(&data);
                    }
                }
                Some(Err(_)) => return Poll::Ready(Some(Err(Broken))),
                None => self.end(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::testing::{Frames, TestRuntime, run};
    use crate::s3::watch::Patience;

    fn part(head: &str, content: &[u8]) -> Vec<u8> {
        let head = format!("--B\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        [head.as_bytes(), content, b"\r\n"].concat()
    }

    /// What the form says, and the bytes of its file or the fault.
    type Outcome = Result<(Form, Result<Vec<u8>, Code>), Code>;

    fn read_pieces(body: &[u8], piece: usize) -> Outcome {
        let watch = Watch::new(TestRuntime::default(), Patience::default());
        let mut frames = Frames::of(body.chunks(piece));
        run(async {
            let (form, mut file) = read(&mut frames, &watch, "B", body.len() as u64)
                .await
                .map_err(|failure| failure.code)?;
            file.begin(&watch).await.map_err(|failure| failure.code)?;
            let mut bytes = Vec::new();
            loop {
                let frame = std::future::poll_fn(|task| Pin::new(&mut file).poll_frame(task));
                match frame.await {
                    None => break,
                    Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().expect("data")),
                    Some(Err(Broken)) => {
                        return Ok((form, Err(file.fault().expect("it is broken").code)));
                    }
                }
            }
            assert_eq!(bytes.len() as u64, file.size());
            Ok((form, Ok(bytes)))
        })
    }

    #[test]
    fn fields_and_the_file_are_found_however_they_arrive() {
        let data: Vec<u8> = (0..5000u32).map(|index| (index * 7) as u8).collect();
        let mut body = part("name=\"Key\"", b"a/${filename}");
        body.extend(part("name=policy", b"line\r\nline"));
        body.extend(part("name=\"file\"; filename=\"a \\\"b\\\".txt\"", &data));
        body.extend(part("name=\"submit\"", b"ignored"));
        body.extend(b"--B--\r\n");
        for piece in [1, 7, 4096, body.len()] {
            let (form, file) = read_pieces(&body, piece).expect("valid");
            assert_eq!(form.get("key"), Some("a/${filename}"));
            assert_eq!(form.get("policy"), Some("line\r\nline"));
            assert_eq!((form.fields.len(), form.file_name.as_str()), (2, "a \"b\".txt"));
            assert!(file == Ok(data.clone()), "in pieces of {piece}");
        }
    }

    #[test]
    fn a_long_file_must_come_last() {
        let data = vec![b'\r'; WHOLE_BYTES_MAX as usize + 10];
        let mut body = part("name=\"key\"", b"k");
        body.extend(part("name=\"file\"", &data));
        let open = body.clone();
        body.extend(b"--B--\r\n");
        for piece in [1000, 65_537, body.len()] {
            let (_, file) = read_pieces(&body, piece).expect("valid");
            assert!(file == Ok(data.clone()), "in pieces of {piece}");
        }
        let behind = [&open[..], &part("name=\"submit\"", b"x"), b"--B--\r\n"].concat();
        let unclosed = [&open[..], b"--B--"].concat();
        for wrong in [behind, unclosed, open] {
            let (_, file) = read_pieces(&wrong, 65_536).expect("the fields are there");
            assert_eq!(file, Err(Code::MalformedPost));
        }
    }

    #[test]
    fn forms_that_are_not_valid_are_refused() {
        let file = part("name=\"file\"", b"x");
        let cases: [(Vec<u8>, Code); 9] = [
            (b"".to_vec(), Code::MalformedPost),
            (b"--C\r\n".to_vec(), Code::MalformedPost),
            ([&part("name=\"key\"", b"k")[..], b"--B--\r\n"].concat(), Code::MalformedPost),
            (part("name=\"key\"", b"k"), Code::MalformedPost),
            (file[..file.len() - 2].to_vec(), Code::MalformedPost),
            (
                [part("name=\"key\"", b"k"), part("name=\"KEY\"", b"k")].concat(),
                Code::MalformedPost,
            ),
            ([part("name=\"key", b"k"), file.clone()].concat(), Code::MalformedPost),
            ([part("name=\"key\"", b"\xff"), file.clone()].concat(), Code::MalformedPost),
            (
                [part("name=\"key\"", &vec![b'k'; FIELDS_BYTES_MAX]), file].concat(),
                Code::FormTooLong,
            ),
        ];
        for (body, code) in cases {
            let start = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
            assert_eq!(read_pieces(&body, 50_000).map(|_| ()), Err(code), "{start}");
        }
    }

    #[test]
    fn boundaries_are_found() {
        for (text, expected) in [
            ("multipart/form-data; boundary=B", "B"),
            ("multipart/form-data; charset=utf-8; Boundary=\"a b\"", "a b"),
        ] {
            assert_eq!(boundary(text).expect("valid"), expected);
        }
        let long = format!("multipart/form-data; boundary={}", "b".repeat(71));
        for text in ["multipart/form-data", "multipart/form-data; boundary=", &long] {
            assert!(boundary(text).is_err(), "{text}");
        }
    }
}
