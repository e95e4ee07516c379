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
use super::watch::Watch;
use super::xml::{self, Element, Writer, malformed};
use crate::object::{Condition, Error};

const KEYS_MAX: usize = 1000;
/// Keys that are decided about before others get their turn.
const DECISIONS_AT_ONCE: usize = 32;

/// What the document asks for.
#[derive(Debug, PartialEq, Eq)]
struct Deletion {
    quiet: bool,
    entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    key: String,
    version: Option<String>,
    /// What is to be deleted, or why it cannot be.
    condition: Result<Condition, Failure>,
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
        let mut deletion = Deletion::parse(&document)?;
        for (index, entry) in deletion.entries.iter_mut().enumerate() {
            if index % DECISIONS_AT_ONCE == DECISIONS_AT_ONCE - 1 && !asker.is_root() {
                // A long policy takes its time for each key; others get their turn.
                self.inner.runtime.sleep(Duration::ZERO).await;
            }
            entry.allow(self.check_entry(&asker, request.bucket(), entry).await);
        }
        let outcomes = self.delete_entries(request.bucket(), &deletion.entries).await?;
        Ok(answer::xml(deletion.answer(&outcomes)))
    }

    /// Each entry is a deletion of its own, and one with a condition a look at the object as well.
    async fn check_entry(&self, asker: &Asker, bucket: &str, entry: &Entry) -> Result<(), Failure> {
        let (key, version) = (entry.key.as_bytes(), entry.version.as_deref());
        self.check(asker, &Need::of_version(DELETE, bucket, key, version)).await?;
        if !matches!(entry.condition, Ok(Condition::None)) {
            self.check(asker, &Need::of_version(GET, bucket, key, version)).await?;
        }
        Ok(())
    }

    /// One outcome for each entry, in order.
    async fn delete_entries(
        &self,
        bucket: &str,
        entries: &[Entry],
    ) -> Result<Vec<Result<(), Failure>>, Failure> {
        let unconditional = |entry: &&Entry| entry.condition == Ok(Condition::None);
        let keys: Vec<Bytes> = entries.iter().filter(unconditional).map(Entry::key_bytes).collect();
        let mut plain = self.store().delete_many(bucket, &keys).await?.into_iter();
        let mut outcomes = Vec::with_capacity(entries.len());
        for entry in entries {
            outcomes.push(match &entry.condition {
                Ok(Condition::None) => {
                    plain.next().expect("one for each key").map_err(Failure::from)
                }
                Ok(condition) => {
                    let key = entry.key_bytes();
                    match self.store().delete(bucket, &key, condition.clone()).await {
                        Ok(()) | Err(Error::NoSuchKey) => Ok(()),
                        Err(error) => Err(error.into()),
                    }
                }
                Err(failure) => Err(failure.clone()),
            });
        }
        Ok(outcomes)
    }
}

impl Deletion {
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

    fn answer(&self, outcomes: &[Result<(), Failure>]) -> String {
        let mut xml = Writer::s3("DeleteResult");
        for (entry, outcome) in self.entries.iter().zip(outcomes) {
            match outcome {
                Ok(()) if self.quiet => {}
                Ok(()) => xml.element("Deleted", |xml| entry.name(xml)),
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
        let condition = Self::condition(object, &key, version);
        Ok(Self { key, version: version.map(str::to_owned), condition })
    }

    fn condition(object: &Element, key: &str, version: Option<&str>) -> Result<Condition, Failure> {
        check_key(key.as_bytes())?;
        if version.is_some_and(|version| version != "null") {
            return Err(Failure::new(Code::NoSuchVersion, "The version does not exist."));
        }
        if object.child("LastModifiedTime").is_some() || object.child("Size").is_some() {
            return Err(Failure::not_implemented("A deletion on condition of time or size"));
        }
        Ok(match object.child_text("ETag") {
            None => Condition::None,
            Some("*") => Condition::Present,
            Some(etag) => Condition::Matches(unquoted(etag).to_owned()),
        })
    }

    /// What may not be done is not looked at any further.
    fn allow(&mut self, allowed: Result<(), Failure>) {
        if let Err(failure) = allowed {
            self.condition = Err(failure);
        }
    }

    fn key_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(self.key.as_bytes())
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
        let deletion = Deletion::parse(document).expect("parses");
        assert!(deletion.quiet);
        let keys: Vec<_> = deletion.entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["a&b", " c ", "d"]);
        assert_eq!(deletion.entries[0].condition, Ok(Condition::None));
        assert_eq!(deletion.entries[1].condition, Ok(Condition::Matches("e".to_owned())));
        assert!(deletion.entries[2].condition.is_err());
        let no_key = Failure::new(Code::AccessDenied, "No.");
        let answer = deletion.answer(&[Ok(()), Err(no_key), Ok(())]);
        assert!(!answer.contains("<Deleted>"), "{answer}");
        assert!(answer.contains("<Error><Key> c </Key><Code>AccessDenied</Code>"), "{answer}");
    }

    #[test]
    fn a_deletion_has_one_to_a_thousand_keys() {
        let objects = |count: usize| {
            format!("<Delete>{}</Delete>", "<Object><Key>k</Key></Object>".repeat(count))
        };
        assert!(Deletion::parse(objects(1000).as_bytes()).is_ok());
        for count in [0, 1001] {
            assert!(Deletion::parse(objects(count).as_bytes()).is_err(), "{count}");
        }
        for document in [
            "<Delete><Object/></Delete>",
            "<Delete><Object><Key/></Object></Delete>",
            "<Delete><Object><Key>k</Key><Other/></Object></Delete>",
            "<Deletes><Object><Key>k</Key></Object></Deletes>",
        ] {
            assert!(Deletion::parse(document.as_bytes()).is_err(), "{document}");
        }
    }
}
