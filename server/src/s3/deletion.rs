//! DeleteObjects: up to a thousand keys in one request, an answer for each.

use std::time::Duration;

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http_body::Body;

use super::Server;
use super::answer::{self, Answer};
use super::attributes::unquoted;
use super::auth::{Admitted, Asker, DELETE, GET, Need};
use super::body::{Checksums, Expected, RequestBody};
use super::error::{Code, Failure};
use super::request::{Request, check_key};
use super::versioning::parse_name;
use super::watch::Watch;
use super::xml::{self, Element, Writer, malformed};
use crate::object::{Condition, Deleted, Deletion, Error};

const KEYS_MAX: usize = 1000;
/// Keys that are decided about before others get their turn.
const DECISIONS_AT_ONCE: usize = 32;

/// What the document asks for.
#[derive(Debug, PartialEq, Eq)]
struct Deletions {
    quiet: bool,
    entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    key: String,
    version: Option<String>,
    /// What is to be deleted, or why it cannot be.
    deletion: Result<Deletion, Failure>,
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn delete_objects<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        admitted: Admitted,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let Admitted { asker, payload } = admitted;
        asker.check_hope()?;
        let expected = Expected::new(payload, &request.headers, Checksums::Body)?;
        if !expected.is_checked() {
            let text = "The request lacks Content-MD5 or an x-amz-checksum of its body.";
            return Err(Failure::new(Code::InvalidRequest, text));
        }
        let document = RequestBody::new(body, watch, expected).document().await?;
        let mut deletions = Deletions::parse(&document)?;
        for (index, entry) in deletions.entries.iter_mut().enumerate() {
            if index % DECISIONS_AT_ONCE == DECISIONS_AT_ONCE - 1 && !asker.is_root() {
                // A long policy takes its time for each key; others get their turn.
                self.inner.runtime.sleep(Duration::ZERO).await;
            }
            entry.allow(self.check_entry(&asker, request.bucket(), entry).await);
        }
        let outcomes = self.delete_entries(request.bucket(), &deletions.entries).await?;
        Ok(answer::xml(deletions.answer(&outcomes)))
    }

    /// Each entry is a deletion of its own, and one with a condition a look at the object as well.
    async fn check_entry(&self, asker: &Asker, bucket: &str, entry: &Entry) -> Result<(), Failure> {
        let (key, version) = (entry.key.as_bytes(), entry.version.as_deref());
        self.check(asker, &Need::of_version(DELETE, bucket, key, version)).await?;
        if !entry.is_unconditional() {
            self.check(asker, &Need::of_version(GET, bucket, key, version)).await?;
        }
        Ok(())
    }

    /// One outcome for each entry, in order.
    async fn delete_entries(
        &self,
        bucket: &str,
        entries: &[Entry],
    ) -> Result<Vec<Result<Deleted, Failure>>, Failure> {
        let valid: Vec<Deletion> =
            entries.iter().filter_map(|entry| entry.deletion.clone().ok()).collect();
        let mut done = self.store().delete_many(bucket, &valid).await?.into_iter();
        let outcome = |entry: &Entry| {
            let deletion = entry.deletion.clone()?;
            match done.next().expect("one for each valid entry") {
                // Nothing to delete is a success, whatever it was to match.
                Err(Error::NoSuchKey) => Ok(Deleted { version: deletion.version, marker: false }),
                outcome => outcome.map_err(Failure::from),
            }
        };
        Ok(entries.iter().map(outcome).collect())
    }
}

impl Deletions {
    fn parse(document: &[u8]) -> Result<Self, Failure> {
        let root = xml::parse(document, "Delete")?;
        root.allow(&["Quiet", "Object"])?;
        let quiet = root.child_text("Quiet").is_some_and(|quiet| quiet.trim() == "true");
        let objects = root.children.iter().filter(|child| child.name == "Object");
        let entries = objects.map(Entry::parse).collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() || entries.len() > KEYS_MAX {
            return Err(malformed("it must hold 1 to 1000 objects"));
        }
        Ok(Self { quiet, entries })
    }

    fn answer(&self, outcomes: &[Result<Deleted, Failure>]) -> String {
        let mut xml = Writer::s3("DeleteResult");
        for (entry, outcome) in self.entries.iter().zip(outcomes) {
            match outcome {
                Ok(_) if self.quiet => {}
                Ok(deleted) => xml.element("Deleted", |xml| {
                    entry.name(xml);
                    if let Some(version) = deleted.version.filter(|_| deleted.marker) {
                        xml.flag("DeleteMarker", true);
                        xml.text("DeleteMarkerVersionId", &version.to_string());
                    }
                }),
                Err(failure) => xml.element("Error", |xml| {
                    entry.name(xml);
                    xml.text("Code", failure.code.name());
                    xml.text("Message", &failure.message);
                }),
            }
        }
        xml.finish()
    }
}

impl Entry {
    fn parse(object: &Element) -> Result<Self, Failure> {
        object.allow(&["Key", "VersionId", "ETag", "LastModifiedTime", "Size"])?;
        let key = object.child_text("Key").filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| malformed("an object without a key"))?.to_owned();
        let version = object.child_text("VersionId").filter(|version| !version.is_empty());
        let deletion = Self::deletion(object, &key, version);
        Ok(Self { key, version: version.map(str::to_owned), deletion })
    }

    fn deletion(object: &Element, key: &str, version: Option<&str>) -> Result<Deletion, Failure> {
        check_key(key.as_bytes())?;
        let version = version.map(parse_name).transpose()?;
        if object.child("LastModifiedTime").is_some() || object.child("Size").is_some() {
            return Err(Failure::not_implemented("A deletion on condition of time or size"));
        }
        let condition = match object.child_text("ETag") {
            None => Condition::None,
            Some("*") => Condition::Present,
            Some(etag) => Condition::Matches(unquoted(etag).to_owned()),
        };
        Ok(Deletion { key: Bytes::copy_from_slice(key.as_bytes()), version, condition })
    }

    fn is_unconditional(&self) -> bool {
        self.deletion.as_ref().is_ok_and(|deletion| deletion.condition == Condition::None)
    }

    /// What may not be done is not looked at any further.
    fn allow(&mut self, allowed: Result<(), Failure>) {
        if let Err(failure) = allowed {
            self.deletion = Err(failure);
        }
    }

    fn name(&self, xml: &mut Writer) {
        xml.text("Key", &self.key);
        if let Some(version) = &self.version {
            xml.text("VersionId", version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_names_its_keys() {
        let document = b"<Delete xmlns='x'><Quiet>true</Quiet><Object><Key>a&amp;b</Key></Object>\
            <Object><Key> c </Key><ETag>\"e\"</ETag></Object>\
            <Object><Key>d</Key><VersionId>v1</VersionId></Object></Delete>";
        let deletion = Deletions::parse(document).expect("parses");
        assert!(deletion.quiet);
        let keys: Vec<_> = deletion.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["a&b", " c ", "d"]);
        let condition = |entry: &Entry| entry.deletion.clone().map(|deletion| deletion.condition);
        assert_eq!(condition(&deletion.entries[0]), Ok(Condition::None));
        assert_eq!(condition(&deletion.entries[1]), Ok(Condition::Matches("e".to_owned())));
        assert!(deletion.entries[2].deletion.is_err());
        let no_key = Failure::new(Code::AccessDenied, "No.");
        let answer =
            deletion.answer(&[Ok(Deleted::default()), Err(no_key), Ok(Deleted::default())]);
        assert!(!answer.contains("<Deleted>"), "{answer}");
        assert!(answer.contains("<Error><Key> c </Key><Code>AccessDenied</Code>"), "{answer}");
    }

    #[test]
    fn a_deletion_has_one_to_a_thousand_keys() {
        let objects = |count: usize| {
            format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(count))
        };
        assert!(Deletions::parse(objects(1000).as_bytes()).is_ok());
        for count in [0, 1001] {
            assert!(Deletions::parse(objects(count).as_bytes()).is_err(), "{count}");
        }
        for document in [
            "<Delete><Object/></Delete>",
            "<Delete><Object><Key/></Object></Delete>",
            "<Delete><Object><Key>k</Key><Other/></Object></Delete>",
            "<Deletes><Object><Key>k</Key></Object></Deletes>",
        ] {
            assert!(Deletions::parse(document.as_bytes()).is_err(), "{document}");
        }
    }
}
