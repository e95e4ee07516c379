//! Tags of objects and buckets: how they are written in headers and documents, and their limits.
//! Tags are kept and shown in the order of their keys.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::Body;

use super::Server;
use super::answer::{self, Answer};
use super::auth::{Admitted, Authorized, Need, PUT_TAGS};
use super::body;
use super::error::{Code, Failure};
use super::request::Request;
use super::target::decode;
use super::versioning::{set_version, version_asked};
use super::watch::Watch;
use super::xml::{self, Element, Writer, malformed};
use crate::object::Tags;

pub(super) const OBJECT_TAGS_MAX: usize = 10;
const BUCKET_TAGS_MAX: usize = 50;
/// In characters.
const KEY_CHARACTERS_MAX: usize = 128;
const VALUE_CHARACTERS_MAX: usize = 256;
/// All keys and values of one object's tags, in bytes of UTF-8: they rest in its record.
const OBJECT_TAGS_BYTES_MAX: usize = 5 << 10;
/// The setting of a bucket that holds the document of its tags.
const BUCKET_TAGS: &str = "tagging";

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn get_object_tags(
        &self,
        request: &Request,
        authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let version = version_asked(request)?;
        let info = self.store().head(request.bucket(), request.key(), version).await?;
        let asked = request.parameter("versionId");
        authorized.check_tags(request.bucket(), request.key(), asked, &info.tags)?;
        let mut answer = answer::xml(document(&info.tags));
        set_version(&mut answer, info.version);
        Ok(answer)
    }

    pub(super) async fn put_object_tags<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        admitted: Admitted,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let Admitted { mut asker, payload } = admitted;
        asker.check_hope()?;
        let tags = parse(&body::document(request, payload, body, watch).await?)?;
        check_of_object(&tags)?;
        asker.add_tags(&tags);
        let version = request.parameter("versionId");
        let need = Need::of_version(PUT_TAGS, request.bucket(), request.key(), version);
        self.check(&asker, &need).await?;
        self.set_tags(request, &tags, StatusCode::OK).await
    }

    pub(super) async fn delete_object_tags(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.set_tags(request, &Tags::new(), StatusCode::NO_CONTENT).await
    }

    async fn set_tags(
        &self,
        request: &Request,
        tags: &Tags,
        status: StatusCode,
    ) -> Result<Answer<M, R>, Failure> {
        let asked = version_asked(request)?;
        let version = self.store().set_tags(request.bucket(), request.key(), asked, tags).await?;
        let mut answer = answer::empty(status);
        set_version(&mut answer, version);
        Ok(answer)
    }

    pub(super) async fn get_bucket_tags(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        match self.store().bucket_setting(request.bucket(), BUCKET_TAGS).await? {
            Some(kept) => Ok(answer::xml(document(&parse(&kept)?))),
            None => Err(Failure::new(Code::NoSuchTagSet, "The bucket has no tags.")),
        }
    }

    pub(super) async fn put_bucket_tags<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let tags = parse(&body::document(request, authorized, body, watch).await?)?;
        check(&tags, BUCKET_TAGS_MAX)?;
        let kept = (!tags.is_empty()).then(|| Bytes::from(document(&tags)));
        self.store().set_bucket_setting(request.bucket(), BUCKET_TAGS, kept).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }

    pub(super) async fn delete_bucket_tags(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        self.store().set_bucket_setting(request.bucket(), BUCKET_TAGS, None).await?;
        Ok(answer::empty(StatusCode::NO_CONTENT))
    }
}

/// What x-amz-tagging gives an object: pairs as in a query, a pair without a value has an empty one.
pub(super) fn of_headers(headers: &HeaderMap) -> Result<Tags, Failure> {
    let Some(value) = headers.get("x-amz-tagging") else { return Ok(Tags::new()) };
    let invalid = || {
        let text = "The header x-amz-tagging must hold URL-encoded pairs without repeated keys.";
        Failure::new(Code::InvalidArgument, text)
    };
    let text = value.to_str().map_err(|_| invalid())?;
    let mut tags = Tags::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decode(key, true).ok_or_else(invalid)?;
        tags.push((key, decode(value, true).ok_or_else(invalid)?));
    }
    sort(&mut tags);
    if has_repeated_key(&tags) {
        return Err(invalid());
    }
    check_of_object(&tags)?;
    Ok(tags)
}

/// Whether a copy takes the tags of its request instead of those of its source.
pub(super) fn are_replaced(headers: &HeaderMap) -> Result<bool, Failure> {
    match headers.get("x-amz-tagging-directive").map(http::HeaderValue::as_bytes) {
        None | Some(b"COPY") => Ok(false),
        Some(b"REPLACE") => Ok(true),
        Some(_) => {
            let text = "x-amz-tagging-directive must be COPY or REPLACE.";
            Err(Failure::new(Code::InvalidArgument, text))
        }
    }
}

/// The tags of a document, by key, not yet checked for their limits.
pub(super) fn parse(document: &[u8]) -> Result<Tags, Failure> {
    let root = xml::parse(document, "Tagging")?;
    root.allow(&["TagSet"])?;
    let [set] = &root.children[..] else { return Err(malformed("it must hold one TagSet")) };
    set.allow(&["Tag"])?;
    let mut tags = set.children.iter().map(parse_tag).collect::<Result<Tags, _>>()?;
    sort(&mut tags);
    Ok(tags)
}

fn parse_tag(tag: &Element) -> Result<(String, String), Failure> {
    tag.allow(&["Key", "Value"])?;
    match (tag.child_text("Key"), tag.child_text("Value")) {
        (Some(key), Some(value)) if tag.children.len() == 2 => {
            Ok((key.to_owned(), value.to_owned()))
        }
        _ => Err(malformed("a tag must hold one key and one value")),
    }
}

pub(super) fn document(tags: &Tags) -> String {
    let mut xml = Writer::s3("Tagging");
    xml.element("TagSet", |xml| {
        for (key, value) in tags {
            xml.element("Tag", |xml| {
                xml.text("Key", key);
                xml.text("Value", value);
            });
        }
    });
    xml.finish()
}

fn sort(tags: &mut Tags) {
    tags.sort_by(|one, other| one.0.cmp(&other.0));
}

fn has_repeated_key(tags: &Tags) -> bool {
    tags.windows(2).any(|two| two[0].0 == two[1].0)
}

pub(super) fn check_of_object(tags: &Tags) -> Result<(), Failure> {
    check(tags, OBJECT_TAGS_MAX)?;
    let bytes: usize = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes <= OBJECT_TAGS_BYTES_MAX {
        return Ok(());
    }
    Err(invalid(format!("The tags have {bytes} bytes; {OBJECT_TAGS_BYTES_MAX} are allowed.")))
}

fn check(tags: &Tags, tags_max: usize) -> Result<(), Failure> {
    if tags.len() > tags_max {
        return Err(invalid(format!("There are {} tags; {tags_max} are allowed.", tags.len())));
    }
    if has_repeated_key(tags) {
        return Err(invalid("A tag's key is given more than once.".into()));
    }
    for (key, value) in tags {
        let key_length = key.chars().count();
        if key_length == 0 || key_length > KEY_CHARACTERS_MAX {
            return Err(invalid("A tag's key must have 1 to 128 characters.".into()));
        }
        if value.chars().count() > VALUE_CHARACTERS_MAX {
            return Err(invalid("A tag's value must have up to 256 characters.".into()));
        }
        if !key.chars().chain(value.chars()).all(is_allowed) {
            let text = "A tag may hold letters, digits, blanks and + - = . _ : / @ only.";
            return Err(invalid(text.into()));
        }
        if key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:")) {
            return Err(invalid("A tag's key must not begin with aws:.".into()));
        }
    }
    Ok(())
}

fn is_allowed(character: char) -> bool {
    character.is_alphanumeric()
        || (character.is_whitespace() && !character.is_control())
        || "+-=._:/@".contains(character)
}

fn invalid(text: String) -> Failure {
    Failure::new(Code::InvalidTag, text)
}

#[cfg(test)]
mod over_http;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Result<Tags, Code> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-tagging", value.parse().expect("a value"));
        of_headers(&headers).map_err(|failure| failure.code)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Tags {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_header_holds_pairs() {
        assert_eq!(of("foo=bar&bar"), Ok(pairs(&[("bar", ""), ("foo", "bar")])));
        assert_eq!(of("a%3Db=c+d%20%C3%A9"), Ok(pairs(&[("a=b", "c d é")])));
        assert_eq!(of(""), Ok(Tags::new()));
        assert_eq!(of("a=1&a=2"), Err(Code::InvalidArgument));
        assert_eq!(of("a=%zz"), Err(Code::InvalidArgument));
        assert_eq!(of("=a"), Err(Code::InvalidTag));
        assert_eq!(of("AWS:a=b"), Err(Code::InvalidTag));
        assert_eq!(of("a=%7B"), Err(Code::InvalidTag));
    }

    #[test]
    fn a_document_is_read_as_it_is_written() {
        let tags = pairs(&[("a", ""), ("b", "<&>")]);
        assert_eq!(parse(document(&tags).as_bytes()), Ok(tags));
        for wrong in [
            "<Tagging/>",
            "<Tagging><TagSet/><TagSet/></Tagging>",
            "<Tagging><TagSet><Tag><Key>a</Key></Tag></TagSet></Tagging>",
            "<Tagging><TagSet><Tag><Key>a</Key><Key>b</Key><Value/></Tag></TagSet></Tagging>",
            "<Tagging><TagSet><Other/></TagSet></Tagging>",
            "<Tags><TagSet/></Tags>",
        ] {
            let failure = parse(wrong.as_bytes()).expect_err("refused");
            assert_eq!(failure.code, Code::MalformedXml, "{wrong}");
        }
    }

    #[test]
    fn limits_are_kept() {
        let many = |count: usize| -> Tags {
            (0..count).map(|number| (format!("{number:02}"), String::new())).collect()
        };
        assert!(check_of_object(&many(10)).is_ok());
        assert_eq!(check_of_object(&many(11)).expect_err("refused").code, Code::InvalidTag);
        assert!(check(&many(50), BUCKET_TAGS_MAX).is_ok());
        assert!(check(&many(51), BUCKET_TAGS_MAX).is_err());
        let one = |key: usize, value: usize| pairs(&[(&"é".repeat(key), &"é".repeat(value))]);
        assert!(check_of_object(&one(128, 256)).is_ok());
        for wrong in [one(129, 0), one(0, 1), one(1, 257)] {
            assert!(check_of_object(&wrong).is_err());
        }
        let largest: Tags =
            (0..10).map(|number| (format!("{number:0128}"), "v".repeat(256))).collect();
        assert!(check_of_object(&largest).is_ok());
        let wide: Tags = (0..10)
            .map(|number| (format!("{number}{}", "é".repeat(127)), "é".repeat(256)))
            .collect();
        assert!(check_of_object(&wide).is_err(), "too many bytes for a record");
        assert!(check_of_object(&pairs(&[("a", "1"), ("a", "2")])).is_err());
    }
}
