//! ListObjects and its second version: the current objects of a bucket.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;

use super::answer::{self, Answer};
use super::auth::{Authorized, parse_decimal};
use super::bucket::owner;
use super::error::{Code, Failure};
use super::request::{Request, check_key};
use super::target::encode_into;
use super::xml::Writer;
use super::{Server, attributes, checksum, date};
use crate::object::{List, ListFrom, Listed, ListedObject, Listing};

/// A page has at most so many keys and common prefixes.
pub(super) const KEYS_MAX: u32 = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    V1,
    V2,
}

/// What a listing asks for, as the client wrote it.
struct Page<'a> {
    form: Form,
    request: &'a Request,
    prefix: &'a str,
    delimiter: Option<&'a str>,
    limit: u32,
    shown: Shown,
}

/// How names are written in an answer: as they are, or percent-encoded where the client asks so.
#[derive(Clone, Copy)]
pub(super) struct Shown {
    url_encoded: bool,
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn list_objects(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.list(Page::of(request, Form::V1)?).await
    }

    pub(super) async fn list_objects_v2(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.list(Page::of(request, Form::V2)?).await
    }

    async fn list(&self, page: Page<'_>) -> Result<Answer<M, R>, Failure> {
        let after = page.after()?;
        check_key(page.prefix.as_bytes())?;
        if let Some(ListFrom::Key(from) | ListFrom::Prefix(from)) = &after {
            check_key(from)?;
        }
        let listing = if page.limit == 0 {
            self.store().bucket(page.request.bucket()).await?;
            Listing::default()
        } else {
            let list = List {
                bucket: page.request.bucket().to_owned(),
                prefix: Bytes::copy_from_slice(page.prefix.as_bytes()),
                delimiter: page.delimiter.map(|d| Bytes::copy_from_slice(d.as_bytes())),
                after,
                limit: page.limit,
            };
            self.store().list(list).await?
        };
        Ok(answer::xml(page.document(&listing)))
    }
}

impl<'a> Page<'a> {
    fn of(request: &'a Request, form: Form) -> Result<Self, Failure> {
        let query = &request.target.query;
        Ok(Self {
            form,
            request,
            prefix: query.get("prefix").unwrap_or_default(),
            delimiter: query.filled("delimiter"),
            limit: limit(request, "max-keys", KEYS_MAX)?,
            shown: Shown::of(request)?,
        })
    }

    /// Where the page begins.
    fn after(&self) -> Result<Option<ListFrom>, Failure> {
        let query = &self.request.target.query;
        let marker = match self.form {
            Form::V1 => query.filled("marker"),
            Form::V2 => match query.filled("continuation-token") {
                Some(token) => {
                    let from = read_token(token).ok_or_else(|| {
                        let text = "The continuation token is not valid.";
                        Failure::new(Code::InvalidArgument, text)
                    })?;
                    return Ok(Some(from));
                }
                None => query.filled("start-after"),
            },
        };
        Ok(marker.map(|marker| self.marked(marker)))
    }

    /// A marker that is a common prefix of this listing stands for everything under it: it is what
    /// the page before ended with.
    fn marked(&self, marker: &str) -> ListFrom {
        let bytes = Bytes::copy_from_slice(marker.as_bytes());
        match is_common_prefix(marker, self.prefix, self.delimiter) {
            true => ListFrom::Prefix(bytes),
            false => ListFrom::Key(bytes),
        }
    }

    fn document(&self, listing: &Listing) -> String {
        let mut xml = Writer::s3("ListBucketResult");
        xml.text("Name", self.request.bucket());
        xml.text("Prefix", &self.shown(self.prefix));
        if let Some(delimiter) = self.delimiter {
            xml.text("Delimiter", &self.shown(delimiter));
        }
        xml.number("MaxKeys", self.limit.into());
        if self.shown.is_encoded() {
            xml.text("EncodingType", "url");
        }
        xml.flag("IsTruncated", listing.next.is_some());
        self.position(listing, &mut xml);
        for entry in &listing.entries {
            if let Listed::Object(object) = entry {
                self.object(object, &mut xml);
            }
        }
        for entry in &listing.entries {
            if let Listed::CommonPrefix(prefix) = entry {
                xml.element("CommonPrefixes", |xml| {
                    xml.text("Prefix", &self.shown_bytes(prefix));
                });
            }
        }
        xml.finish()
    }

    /// Where this page began, and where the next one does.
    fn position(&self, listing: &Listing, xml: &mut Writer) {
        let query = &self.request.target.query;
        let next = listing.next.as_ref().map(|next| match next {
            ListFrom::Key(bytes) | ListFrom::Prefix(bytes) => self.shown_bytes(bytes),
        });
        match self.form {
            Form::V1 => {
                xml.text("Marker", &self.shown(query.get("marker").unwrap_or_default()));
                if let Some(next) = next {
                    xml.text("NextMarker", &next);
                }
            }
            Form::V2 => {
                xml.number("KeyCount", listing.entries.len() as u64);
                if let Some(start) = query.get("start-after") {
                    xml.text("StartAfter", &self.shown(start));
                }
                if let Some(token) = query.get("continuation-token") {
                    xml.text("ContinuationToken", token);
                }
                if let Some(next) = &listing.next {
                    xml.text("NextContinuationToken", &write_token(next));
                }
            }
        }
    }

    fn object(&self, object: &ListedObject, xml: &mut Writer) {
        xml.element("Contents", |xml| {
            xml.text("Key", &self.shown_bytes(&object.key));
            xml.text("LastModified", &date::iso(object.modified_ms));
            xml.text("ETag", &format!("\"{}\"", object.etag));
            for one in &object.checksums {
                xml.text("ChecksumAlgorithm", one.algorithm.name());
                xml.text("ChecksumType", checksum::type_name(one.composite));
            }
            xml.number("Size", object.size);
            let shows_owner = self.form != Form::V2
                || self.request.parameter("fetch-owner").is_some_and(|value| value == "true");
            if shows_owner {
                owner(xml);
            }
            xml.text("StorageClass", attributes::storage_class_name(object.class));
        });
    }

    fn shown(&self, text: &str) -> String {
        self.shown.text(text)
    }

    fn shown_bytes(&self, bytes: &[u8]) -> String {
        self.shown.bytes(bytes)
    }
}

/// Whether a marker is a common prefix of the listing.
pub(super) fn is_common_prefix(marker: &str, prefix: &str, delimiter: Option<&str>) -> bool {
    delimiter.zip(marker.strip_prefix(prefix)).is_some_and(|(delimiter, below)| {
        below.find(delimiter).is_some_and(|at| at + delimiter.len() == below.len())
    })
}

impl Shown {
    pub(super) fn of(request: &Request) -> Result<Self, Failure> {
        match request.target.query.filled("encoding-type") {
            None => Ok(Self { url_encoded: false }),
            Some("url") => Ok(Self { url_encoded: true }),
            Some(_) => Err(Failure::new(Code::InvalidArgument, "encoding-type must be url.")),
        }
    }

    pub(super) fn is_encoded(self) -> bool {
        self.url_encoded
    }

    pub(super) fn text(self, text: &str) -> String {
        if !self.url_encoded {
            return text.to_owned();
        }
        let mut encoded = Vec::with_capacity(text.len());
        encode_into(text.as_bytes(), true, &mut encoded);
        String::from_utf8(encoded).expect("ASCII")
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> String {
        self.text(&String::from_utf8_lossy(bytes))
    }
}

/// How many entries a page may have: `name` says, up to `most`.
pub(super) fn limit(request: &Request, name: &str, most: u32) -> Result<u32, Failure> {
    let Some(text) = request.target.query.filled(name) else { return Ok(most) };
    let limit = parse_decimal(text).filter(|&limit| limit <= i32::MAX as u64).ok_or_else(|| {
        let text = format!("{name} must be a number from 0 to 2147483647.");
        Failure::new(Code::InvalidArgument, text)
    })?;
    Ok(u32::try_from(limit).expect("below the limit").min(most))
}

/// Tokens are opaque to clients: a letter for the kind, then the bytes, in base64.
fn write_token(from: &ListFrom) -> String {
    let (kind, bytes) = match from {
        ListFrom::Key(bytes) => (b'k', bytes),
        ListFrom::Prefix(bytes) => (b'p', bytes),
    };
    let mut token = vec![kind];
    token.extend_from_slice(bytes);
    BASE64.encode(token)
}

fn read_token(token: &str) -> Option<ListFrom> {
    let token = Bytes::from(BASE64.decode(token).ok()?);
    match token.first()? {
        b'k' => Some(ListFrom::Key(token.slice(1..))),
        b'p' => Some(ListFrom::Prefix(token.slice(1..))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use basalt_engine::record::Etag;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::object::StorageClass;
    use crate::s3::target::Target;

    fn request(raw: &str) -> Request {
        let (path, query) = raw.split_once('?').map_or((raw, None), |(p, q)| (p, Some(q)));
        let target = Target::parse(path, query).expect("parses");
        Request::new(&Method::GET, target, HeaderMap::new(), Vec::new()).expect("valid")
    }

    fn listing(key: &'static [u8], prefix: &'static [u8]) -> Listing {
        let object = ListedObject {
            key: Bytes::from_static(key),
            size: 5,
            etag: Etag { md5: [1; 16], parts: 2 },
            modified_ms: 1_369_353_600_000,
            class: StorageClass::Standard,
            checksums: Vec::new(),
        };
        let prefix = Bytes::from_static(prefix);
        Listing {
            entries: vec![Listed::Object(object), Listed::CommonPrefix(prefix.clone())],
            next: Some(ListFrom::Prefix(prefix)),
        }
    }

    #[test]
    fn keys_with_control_characters_are_shown_as_references_or_encoded() {
        let listing = listing(b"a b\x01<+/", b"p/");
        let plain = request("/bucket?delimiter=/");
        let document = Page::of(&plain, Form::V1).expect("valid").document(&listing);
        assert!(document.contains("<Key>a b&#x1;&lt;+/</Key>"), "{document}");
        assert!(document.contains("<NextMarker>p/</NextMarker>"), "{document}");
        assert!(document.contains("<ETag>&quot;01010101010101010101010101010101-2&quot;</ETag>"));
        let encoded = request("/bucket?list-type=2&encoding-type=url");
        let document = Page::of(&encoded, Form::V2).expect("valid").document(&listing);
        assert!(document.contains("<Key>a%20b%01%3C%2B/</Key>"), "{document}");
        assert!(document.contains("<KeyCount>2</KeyCount>"), "{document}");
        assert!(!document.contains("<Owner>"), "{document}");
    }

    #[test]
    fn a_token_leads_back_to_where_it_was_given_out() {
        for from in [
            ListFrom::Key(Bytes::from_static(b"a\xff/")),
            ListFrom::Prefix(Bytes::from_static(b"p/")),
        ] {
            assert_eq!(read_token(&write_token(&from)), Some(from));
        }
        for token in ["", "!", "eA"] {
            assert_eq!(read_token(token), None, "{token}");
        }
    }

    #[test]
    fn a_marker_that_is_a_common_prefix_passes_over_what_is_under_it() {
        let cases = [
            ("/bucket?delimiter=/&marker=a/", true),
            ("/bucket?delimiter=/&prefix=a/&marker=a/b/", true),
            ("/bucket?delimiter=/&marker=a/b", false),
            ("/bucket?delimiter=/&marker=a/b/", false),
            ("/bucket?delimiter=/&prefix=b/&marker=a/", false),
            ("/bucket?marker=a/", false),
        ];
        for (raw, is_prefix) in cases {
            let request = request(raw);
            let after = Page::of(&request, Form::V1).expect("valid").after().expect("valid");
            assert_eq!(matches!(after, Some(ListFrom::Prefix(_))), is_prefix, "{raw}");
        }
    }

    #[test]
    fn limits_are_numbers_up_to_a_thousand() {
        let limit = |raw: &str| Page::of(&request(raw), Form::V1).map(|page| page.limit);
        assert_eq!(limit("/bucket"), Ok(1000));
        assert_eq!(limit("/bucket?max-keys=0"), Ok(0));
        assert_eq!(limit("/bucket?max-keys=5000"), Ok(1000));
        for raw in ["/bucket?max-keys=-1", "/bucket?max-keys=a", "/bucket?max-keys=2147483648"] {
            assert!(limit(raw).is_err(), "{raw}");
        }
        assert!(Page::of(&request("/bucket?encoding-type=x"), Form::V1).is_err());
    }
}
