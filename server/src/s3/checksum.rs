//! S3's checksums: their names, how they are written, and what computes them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use crc_fast::CrcAlgorithm;
use http::HeaderMap;
use sha2::Digest;

use super::error::{Code, Failure};
use crate::object::{Algorithm, Checksum, UploadChecksum};

pub(super) fn header_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Crc32 => "x-amz-checksum-crc32",
        Algorithm::Crc32c => "x-amz-checksum-crc32c",
        Algorithm::Crc64Nvme => "x-amz-checksum-crc64nvme",
        Algorithm::Sha1 => "x-amz-checksum-sha1",
        Algorithm::Sha256 => "x-amz-checksum-sha256",
    }
}

pub(super) fn element_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Crc32 => "ChecksumCRC32",
        Algorithm::Crc32c => "ChecksumCRC32C",
        Algorithm::Crc64Nvme => "ChecksumCRC64NVME",
        Algorithm::Sha1 => "ChecksumSHA1",
        Algorithm::Sha256 => "ChecksumSHA256",
    }
}

pub(super) fn type_name(composite: bool) -> &'static str {
    if composite { "COMPOSITE" } else { "FULL_OBJECT" }
}

/// As S3 shows it: base64, and the number of parts where it is one of parts.
pub(super) fn text(checksum: &Checksum, parts: u32) -> String {
    let mut text = BASE64.encode(&checksum.value);
    if checksum.composite && parts > 0 {
        text.push_str(&format!("-{parts}"));
    }
    text
}

/// The bytes of a checksum in base64, if they are as many as the algorithm yields.
pub(super) fn parse(algorithm: Algorithm, text: &str) -> Option<Vec<u8>> {
    let value = BASE64.decode(text).ok()?;
    (value.len() == algorithm.length_bytes()).then_some(value)
}

/// The algorithm that a trailer or header is named for.
pub(super) fn algorithm_of_header(name: &str) -> Option<Algorithm> {
    Algorithm::ALL.into_iter().find(|&algorithm| header_name(algorithm) == name)
}

fn algorithm_of_name(name: &str) -> Option<Algorithm> {
    Algorithm::ALL.into_iter().find(|algorithm| algorithm.name().eq_ignore_ascii_case(name))
}

/// The one checksum that the headers of a request state, as text.
pub(super) fn stated(headers: &HeaderMap) -> Result<Option<(Algorithm, &str)>, Failure> {
    let mut found = None;
    for algorithm in Algorithm::ALL {
        for value in headers.get_all(header_name(algorithm)) {
            let text = value.to_str().map_err(|_| invalid(algorithm))?;
            if found.replace((algorithm, text)).is_some() {
                return Err(Failure::new(
                    Code::InvalidRequest,
                    "The request states more than one x-amz-checksum; one is allowed.",
                ));
            }
        }
    }
    Ok(found)
}

/// A value that can be nobody's checksum does not match either.
pub(super) fn invalid(algorithm: Algorithm) -> Failure {
    let text = format!("The value of {} is not a valid checksum.", header_name(algorithm));
    Failure::new(Code::BadDigest, text)
}

/// The MD5 that Content-MD5 states.
pub(super) fn content_md5(headers: &HeaderMap) -> Result<Option<[u8; 16]>, Failure> {
    let Some(value) = headers.get("content-md5") else { return Ok(None) };
    let decoded = BASE64.decode(value.as_bytes()).ok().and_then(|md5| md5.try_into().ok());
    match decoded {
        Some(md5) => Ok(Some(md5)),
        None => Err(Failure::new(Code::InvalidDigest, "The Content-MD5 is not valid.")),
    }
}

/// The checksum that a copy is to be kept with.
pub(super) fn algorithm_of_copy(headers: &HeaderMap) -> Result<Option<Algorithm>, Failure> {
    let Some(value) = headers.get("x-amz-checksum-algorithm") else { return Ok(None) };
    let algorithm = value.to_str().ok().and_then(algorithm_of_name);
    algorithm.map(Some).ok_or_else(|| wrong("The checksum algorithm is not supported.".into()))
}

/// What CreateMultipartUpload says about the checksum of the whole.
pub(super) fn of_upload(headers: &HeaderMap) -> Result<Option<UploadChecksum>, Failure> {
    let text = |name: &str| -> Result<Option<String>, Failure> {
        let Some(value) = headers.get(name) else { return Ok(None) };
        let value = value.to_str().map_err(|_| wrong(format!("The header {name} is not text.")))?;
        Ok(Some(value.to_ascii_uppercase()))
    };
    let kind = text("x-amz-checksum-type")?;
    let Some(name) = text("x-amz-checksum-algorithm")? else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(wrong("x-amz-checksum-type needs x-amz-checksum-algorithm.".into())),
        };
    };
    let algorithm = algorithm_of_name(&name)
        .ok_or_else(|| wrong(format!("The checksum algorithm {name} is not supported.")))?;
    let composite = match kind.as_deref() {
        None => algorithm != Algorithm::Crc64Nvme,
        Some("COMPOSITE") => true,
        Some("FULL_OBJECT") => false,
        Some(_) => return Err(wrong("x-amz-checksum-type is not valid.".into())),
    };
    let possible = match algorithm {
        Algorithm::Crc32 | Algorithm::Crc32c => true,
        Algorithm::Crc64Nvme => !composite,
        Algorithm::Sha1 | Algorithm::Sha256 => composite,
    };
    if !possible {
        let kind = type_name(composite);
        return Err(wrong(format!("The {kind} type cannot be used with {name}.")));
    }
    Ok(Some(UploadChecksum { algorithm, composite }))
}

fn wrong(text: String) -> Failure {
    Failure::new(Code::InvalidRequest, text)
}

/// Computes one checksum over bytes as they pass.
pub(super) enum Hasher {
    Crc32(crc_fast::Digest),
    Crc64(crc_fast::Digest),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
}

impl Hasher {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        let crc = crc_fast::Digest::new;
        match algorithm {
            Algorithm::Crc32 => Self::Crc32(crc(CrcAlgorithm::Crc32IsoHdlc)),
            Algorithm::Crc32c => Self::Crc32(crc(CrcAlgorithm::Crc32Iscsi)),
            Algorithm::Crc64Nvme => Self::Crc64(crc(CrcAlgorithm::Crc64Nvme)),
            Algorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32(crc) | Self::Crc64(crc) => crc.update(bytes),
            Self::Sha1(sha1) => sha1.update(bytes),
            Self::Sha256(sha256) => sha256.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc32(crc) => crc.finalize().to_be_bytes()[4..].to_vec(),
            Self::Crc64(crc) => crc.finalize().to_be_bytes().to_vec(),
            Self::Sha1(sha1) => sha1.finalize().to_vec(),
            Self::Sha256(sha256) => sha256.finalize().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().expect("a value"));
        }
        map
    }

    #[test]
    fn each_algorithm_yields_its_published_check_value() {
        let expected = [
            (Algorithm::Crc32, "cbf43926"),
            (Algorithm::Crc32c, "e3069283"),
            (Algorithm::Crc64Nvme, "ae8b14860a799888"),
            (Algorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (Algorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
        ];
        for (algorithm, value) in expected {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(b"1234");
            hasher.update(b"56789");
            let mut hex = String::new();
            crate::s3::sigv4::hex_into(&hasher.finish(), &mut hex);
            assert_eq!(hex, value, "{algorithm:?}");
        }
    }

    #[test]
    fn one_checksum_may_be_stated() {
        assert_eq!(stated(&headers(&[])), Ok(None));
        let one = headers(&[("x-amz-checksum-crc32", "DUoRhQ==")]);
        assert_eq!(stated(&one), Ok(Some((Algorithm::Crc32, "DUoRhQ=="))));
        let two = [("x-amz-checksum-crc32", "DUoRhQ=="), ("x-amz-checksum-sha1", "x")];
        assert!(stated(&headers(&two)).is_err());
        let twice = [("x-amz-checksum-crc32", "a"), ("x-amz-checksum-crc32", "a")];
        assert!(stated(&headers(&twice)).is_err());
    }

    #[test]
    fn values_have_the_length_of_their_algorithm() {
        assert!(parse(Algorithm::Crc32, "DUoRhQ==").is_some());
        for text in ["", "DUoRhQ", "DUoRhQ==-2", "DUoRhQAA", "?"] {
            assert!(parse(Algorithm::Crc32, text).is_none(), "{text}");
        }
    }

    #[test]
    fn an_upload_has_the_type_that_its_algorithm_allows() {
        let of = |pairs: &[(&'static str, &str)]| of_upload(&headers(pairs));
        let algorithm = "x-amz-checksum-algorithm";
        let kind = "x-amz-checksum-type";
        assert_eq!(of(&[]), Ok(None));
        let crc = Ok(Some(UploadChecksum { algorithm: Algorithm::Crc32, composite: true }));
        assert_eq!(of(&[(algorithm, "crc32")]), crc);
        let whole = Ok(Some(UploadChecksum { algorithm: Algorithm::Crc64Nvme, composite: false }));
        assert_eq!(of(&[(algorithm, "CRC64NVME")]), whole);
        for (name, type_name) in [
            ("SHA256", "FULL_OBJECT"),
            ("CRC64NVME", "COMPOSITE"),
            ("CRC32", "HALF"),
            ("MD5", "COMPOSITE"),
        ] {
            assert!(of(&[(algorithm, name), (kind, type_name)]).is_err(), "{name} {type_name}");
        }
        assert!(of(&[(kind, "COMPOSITE")]).is_err());
    }

    #[test]
    fn content_md5_must_be_sixteen_bytes() {
        let md5 = headers(&[("content-md5", "XrY7u+Ae7tCTyyK7j1rNww==")]);
        assert!(content_md5(&md5).expect("valid").is_some());
        for wrong in ["", "YWJj", "XrY7u+Ae7tCTyyK7j1rNww", "x"] {
            let failure = content_md5(&headers(&[("content-md5", wrong)])).expect_err("invalid");
            assert_eq!(failure.code, Code::InvalidDigest);
        }
    }
}
