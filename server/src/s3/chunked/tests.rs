use super::*;
use crate::s3::sigv4::{Scope, SigningKey};

type Decoded = (Vec<u8>, Vec<(String, String)>);
const MALFORMED: fn(&SourceError) -> bool = |e| matches!(e, SourceError::Malformed(_));

fn chain(seed: &str) -> ChunkChain {
    let scope = Scope { timestamp: "20130524T000000Z".to_owned(), region: "us-east-1".to_owned() };
    let key = SigningKey::derive("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", &scope);
    ChunkChain::new(key, scope, parse_sha256(seed.as_bytes()).expect("a hash"))
}

/// Feeds `pieces` and returns what came out, after `finish`.
fn run<'a>(mut decoder: Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Decoded> {
    let mut out = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(data) = decoder.decode(&mut input)? {
            assert!(!data.is_empty());
            out.extend_from_slice(&data);
        }
        assert!(input.is_empty());
    }
    decoder.finish()?;
    Ok((out, decoder.trailers))
}

/// The example of the documentation: 65 KiB of `a` in chunks of 64 KiB.
fn documented(signatures: [&str; 3], trailers: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (size, signature) in [65536usize, 1024, 0].into_iter().zip(signatures) {
        body.extend(format!("{size:x};chunk-signature={signature}\r\n").bytes());
        body.extend(std::iter::repeat_n(b'a', size));
        if size > 0 {
            body.extend(b"\r\n");
        }
    }
    body.extend(trailers.bytes());
    body.extend(b"\r\n");
    body
}

const SEED: &str = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
fn signed() -> Vec<u8> {
    let signatures = [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ];
    documented(signatures, "")
}

const TRAILER_SEED: &str = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
const TRAILER_SIGNATURES: [&str; 3] = [
    "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
    "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
    "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
];
const TRAILERS: &str = "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:\
    d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n";
fn signed_trailer() -> Vec<u8> {
    documented(TRAILER_SIGNATURES, TRAILERS)
}

#[test]
fn the_signed_example_decodes() {
    let decoder = Decoder::new(Some(chain(SEED)), false, 66560);
    let (out, trailers) = run(decoder, [&signed()[..]]).expect("decodes");
    assert_eq!(out, vec![b'a'; 66560]);
    assert!(trailers.is_empty());
}

#[test]
fn the_signed_trailer_example_decodes() {
    let decoder = Decoder::new(Some(chain(TRAILER_SEED)), true, 66560);
    let (out, trailers) = run(decoder, [&signed_trailer()[..]]).expect("decodes");
    assert_eq!(out.len(), 66560);
    let expected = ("x-amz-checksum-crc32c".to_owned(), "sOO8/Q==".to_owned());
    assert_eq!(trailers, [expected]);
}

#[test]
fn trailers_may_end_as_minio_go_ends_them() {
    let trailers = TRAILERS.replacen("\r\n", "\n\r\n", 1);
    let body = documented(TRAILER_SIGNATURES, &trailers);
    for pieces in [body.chunks(body.len()), body.chunks(1)] {
        let decoder = Decoder::new(Some(chain(TRAILER_SEED)), true, 66560);
        assert_eq!(run(decoder, pieces).expect("decodes").1.len(), 1);
    }
    let unsigned = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\n\r\n\r\n";
    assert!(run(Decoder::new(None, true, 5), [&unsigned[..]]).is_ok());
    let short = &unsigned[..unsigned.len() - 2];
    assert_eq!(run(Decoder::new(None, true, 5), [short]), Err(SourceError::Incomplete));
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let body = signed_trailer();
    let interesting = (0..90).chain(65600..65800).chain(body.len() - 330..body.len());
    for at in interesting {
        let mut wrong = body.clone();
        wrong[at] ^= 1;
        let decoder = Decoder::new(Some(chain(TRAILER_SEED)), true, 66560);
        let outcome = run(decoder, [&wrong[..]]);
        // The case of a hexadecimal digit or of a trailer's name says nothing.
        assert!(outcome.is_err(), "byte {at}: {:?}", wrong[at] as char);
    }
    let decoder = Decoder::new(Some(chain(SEED)), true, 66560);
    assert_eq!(run(decoder, [&body[..]]), Err(SourceError::ChunkSignatureMismatch), "another seed");
}

#[test]
fn chunks_and_trailers_cannot_be_left_out() {
    let all = signed_trailer();
    let first_chunk = 65536 + 90;
    let mut without_first = all[first_chunk - 1..].to_vec();
    while !without_first.starts_with(b"400;") {
        without_first.remove(0);
    }
    let decoder = Decoder::new(Some(chain(TRAILER_SEED)), true, 1024);
    assert_eq!(run(decoder, [&without_first[..]]), Err(SourceError::ChunkSignatureMismatch));

    let missing = SourceError::Trailer(TRAILER_SIGNATURE);
    let no_trailers = documented(TRAILER_SIGNATURES, "");
    let decoder = Decoder::new(Some(chain(TRAILER_SEED)), true, 66560);
    assert_eq!(run(decoder, [&no_trailers[..]]), Err(missing.clone()));
    let unsigned = documented(TRAILER_SIGNATURES, "x-amz-checksum-crc32c:sOO8/Q==\r\n");
    let decoder = Decoder::new(Some(chain(TRAILER_SEED)), true, 66560);
    assert_eq!(run(decoder, [&unsigned[..]]), Err(missing));
    for length in [0, 100, 65620, all.len() - 1, all.len() - 100] {
        let decoder = Decoder::new(Some(chain(TRAILER_SEED)), true, 66560);
        assert_eq!(run(decoder, [&all[..length]]), Err(SourceError::Incomplete));
    }
}

const UNSIGNED: &[u8] =
    b"5\r\nhello\r\n06\r\n world\r\n0\r\nX-Amz-Checksum-CRC32: DUoRhQ==\r\n\r\n";

#[test]
fn every_split_decodes_to_the_same() {
    let expected = run(Decoder::new(None, true, 11), [UNSIGNED]).expect("decodes");
    assert_eq!(expected.0, b"hello world");
    assert_eq!(expected.1[0], ("x-amz-checksum-crc32".to_owned(), "DUoRhQ==".to_owned()));
    for first in 0..=UNSIGNED.len() {
        for second in first..=UNSIGNED.len() {
            let pieces = [&UNSIGNED[..first], &UNSIGNED[first..second], &UNSIGNED[second..]];
            let got = run(Decoder::new(None, true, 11), pieces).expect("decodes");
            assert_eq!(got, expected, "split at {first} and {second}");
        }
    }
    let single = UNSIGNED.chunks(1);
    assert_eq!(run(Decoder::new(None, true, 11), single).expect("decodes"), expected);
}

#[test]
fn the_declared_length_holds() {
    assert_eq!(run(Decoder::new(None, true, 10), [UNSIGNED]), Err(SourceError::TooLong));
    assert_eq!(run(Decoder::new(None, true, 12), [UNSIGNED]), Err(SourceError::Incomplete));
    let huge = b"ffffffffffffffff\r\n";
    assert_eq!(run(Decoder::new(None, true, 10), [&huge[..]]), Err(SourceError::TooLong));
}

#[test]
fn what_is_malformed_is_refused() {
    let signature = "0".repeat(64);
    let bodies = [
        ("no size", "\r\n0\r\n\r\n".to_owned()),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n".to_owned()),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n".to_owned()),
        ("a blank", "5 \r\nhello\r\n0\r\n\r\n".to_owned()),
        ("seventeen digits", "00000000000000005\r\nhello\r\n0\r\n\r\n".to_owned()),
        ("a bare LF", "5\nhello\r\n0\r\n\r\n".to_owned()),
        ("no line end after data", "5\r\nhelloX\r\n0\r\n\r\n".to_owned()),
        ("a bare LF after data", "5\r\nhello\n0\r\n\r\n".to_owned()),
        ("bytes after the end", "5\r\nhello\r\n0\r\n\r\nx".to_owned()),
        ("an extension", "5;a=b\r\nhello\r\n0\r\n\r\n".to_owned()),
        ("a fabricated signature", format!("5;chunk-signature={signature}\r\nhello\r\n0\r\n\r\n")),
        (
            "a fabricated trailer signature",
            format!("5\r\nhello\r\n0\r\nx-amz-trailer-signature:{signature}\r\n\r\n"),
        ),
        ("a trailer without colon", "5\r\nhello\r\n0\r\nabc\r\n\r\n".to_owned()),
        ("a trailer twice", "5\r\nhello\r\n0\r\na:1\r\nA:2\r\n\r\n".to_owned()),
        ("a long line", format!("{}\r\n", "1".repeat(200))),
        ("a long trailer", format!("5\r\nhello\r\n0\r\na:{}\r\n\r\n", "1".repeat(2000))),
    ];
    for (what, body) in bodies {
        let whole = run(Decoder::new(None, true, 5), [body.as_bytes()]);
        assert!(whole.as_ref().is_err_and(MALFORMED), "{what}: {whole:?}");
        let bytewise = run(Decoder::new(None, true, 5), body.as_bytes().chunks(1));
        assert!(bytewise.as_ref().is_err_and(MALFORMED), "{what}: {bytewise:?}");
    }
    let trailer = b"5\r\nhello\r\n0\r\na:1\r\n\r\n";
    assert!(run(Decoder::new(None, false, 5), [&trailer[..]]).is_err_and(|e| MALFORMED(&e)));
    let unsigned = b"5\r\nhello\r\n0\r\n\r\n";
    let decoder = Decoder::new(Some(chain(SEED)), false, 5);
    assert!(run(decoder, [&unsigned[..]]).is_err_and(|e| MALFORMED(&e)));
}

#[test]
fn an_error_is_final() {
    let mut decoder = Decoder::new(None, true, 5);
    let mut input = Bytes::from_static(b"x\r\n");
    let error = decoder.decode(&mut input).expect_err("malformed");
    let mut rest = Bytes::from_static(b"5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(decoder.decode(&mut rest), Err(error.clone()));
    assert_eq!(decoder.finish(), Err(error));
}
