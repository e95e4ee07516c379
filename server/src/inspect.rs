//! `basalt inspect`: what a stopped drive holds. Nothing is written.
//!
//! Ends with an error where something is wrong with the drive, so that scripts notice.

mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc;

use basalt_engine::drive::inspect::Inspection;
use basalt_engine::request::Digest;
use basalt_engine::runtime::{DirectStorage, GlommioRuntime, Options, start};
use basalt_engine::seam::Storage;
use basalt_engine::units::{BlockCount, Key, Keyspace};

use crate::cli::Inspect;
use crate::node::drives::{self, DATA_FILE};
use crate::object::{bucket, version};
use crate::refusal::Refusal;

/// Memory of the one core that reads.
const ARENA_BYTES: u64 = 64 << 20;
/// Keys that are looked at in one step.
const PAGE_KEYS: usize = 1024;

/// One object.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Target {
    bucket: String,
    key: String,
}

/// What is asked of the drive, on the core that reads it.
#[derive(Clone)]
struct Question {
    directory: PathBuf,
    target: Option<Target>,
    verify: bool,
}

/// What is printed, and what is wrong with the drive.
#[derive(Default)]
struct Answer {
    text: String,
    wrong: Vec<String>,
}

pub fn run(inspect: &Inspect) -> Result<(), Refusal> {
    let target = inspect.key.as_deref().map(target).transpose()?;
    drives::check_stopped(&inspect.drive)?;
    let directory = inspect.drive.clone();
    let answer = ask(Question { directory, target, verify: inspect.verify })?;
    // A reader that wants no more (`| head`) is no failure.
    let _ = io::stdout().lock().write_all(answer.text.as_bytes());
    if answer.wrong.is_empty() {
        return Ok(());
    }
    Err(Refusal::machine(
        format!("{} is not as it should be", inspect.drive.display()),
        answer.wrong.join("; "),
        "the drive was not touched. What is missing here is rebuilt from the other drives: start \
         the server with it, or with an empty directory in its place",
    ))
}

/// `BUCKET/KEY`: the bucket ends at the first slash, and the key is all that follows.
fn target(text: &str) -> Result<Target, Refusal> {
    match text.split_once('/') {
        Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
            Ok(Target { bucket: bucket.to_owned(), key: key.to_owned() })
        }
        _ => Err(Refusal::usage(
            format!("`{text}` does not name an object"),
            "it is not BUCKET/KEY",
            "name bucket and key: --key photos/2024/beach.jpg",
        )),
    }
}

/// Reads the drive on a core of its own.
fn ask(question: Question) -> Result<Answer, Refusal> {
    let what = format!("{} cannot be read", question.directory.display());
    let remedy = "run it as the user of the server, on a machine that allows io_uring";
    let refused = |cause: String| Refusal::machine(what.clone(), cause, remedy);
    let (sender, receiver) = mpsc::channel();
    let running = start(&Options::new(1, ARENA_BYTES), move |runtime| {
        let (question, sender) = (question.clone(), sender.clone());
        async move {
            // The receiver waits for exactly this.
            let _ = sender.send(read(&runtime, &question).await);
        }
    });
    let running = running.map_err(|error| refused(error.to_string()))?;
    let answer = receiver.recv();
    running.join().map_err(|failure| refused(failure.to_string()))?;
    let answer = answer.map_err(|_| refused("the reader gave no answer".to_owned()))?;
    answer.map_err(|error| refused(error.to_string()))
}

async fn read(runtime: &GlommioRuntime, question: &Question) -> basalt_engine::Result<Answer> {
    let file = question.directory.join(DATA_FILE);
    let storage = DirectStorage::open(runtime, &file, BlockCount::default())?;
    let inspection = Inspection::read(&storage).await?;
    let mut answer = Answer::default();
    match &question.target {
        None => describe_drive(&inspection, &mut answer).await,
        Some(target) => describe_object(&inspection, target, &mut answer),
    }
    if let Some(damage) = inspection.damage() {
        answer.wrong.push(format!("it lost something that it once held: {damage}"));
    }
    if question.verify {
        let verified = inspection.verify().await;
        answer.text.push_str(&report::verified(&verified));
        let faults = verified.faults.len();
        if faults > 0 {
            answer.wrong.push(format!("{faults} of {} payloads are corrupt", verified.payloads));
        }
    }
    Ok(answer)
}

async fn describe_drive<S: Storage>(inspection: &Inspection<'_, S>, answer: &mut Answer) {
    let batches = inspection.batches().await;
    let mut keys = report::Keys::default();
    each_key(inspection, |key, digest| keys.count(key, digest));
    let copies = inspection.copies().iter().flatten().count();
    answer.text.push_str(&report::superblock(inspection.superblock(), copies));
    answer.text.push_str(&report::journal(inspection.manifest(), &batches));
    answer.text.push_str(&report::segments(inspection.segments()));
    answer.text.push_str(&report::keys(&keys));
}

/// All lives of the object's bucket that this drive knows keys of. The bucket's record tells which
/// of them is current; it stands on the drives of set 0 alone.
fn describe_object<S: Storage>(
    inspection: &Inspection<'_, S>,
    target: &Target,
    answer: &mut Answer,
) {
    let current = inspection
        .key(&bucket::bucket_key(&target.bucket))
        .and_then(|digest| digest.slots.last().cloned())
        .and_then(|slot| slot.accepted)
        .and_then(|(_, record)| bucket::incarnation_of(&record));
    let mut found: Vec<(Key, Digest)> = Vec::new();
    each_key(inspection, |key, digest| {
        let object = match key.space() {
            Keyspace::Objects => Some(key.clone()),
            Keyspace::Versions => version::archived_in(key).map(|(object, _)| object),
            _ => None,
        };
        let is_target = |object: Key| object.name() == target.key.as_bytes();
        if object.is_some_and(is_target) && current.is_none_or(|i| i == key.bucket()) {
            found.push((key.clone(), digest.clone()));
        }
    });
    let name = format!("{}/{}", target.bucket, target.key);
    if current.is_none() && !found.is_empty() {
        answer.text.push_str(
            "The record of the bucket is not on this drive: these are the keys of that name in \
             any bucket.\n",
        );
    }
    if found.is_empty() {
        answer.text.push_str(&format!("{name}: this drive knows nothing of it\n"));
    }
    let position = inspection.superblock().position;
    for (key, digest) in found {
        let name = match key.space() {
            Keyspace::Versions => format!("{name} (a former version)"),
            _ => name.clone(),
        };
        answer.text.push_str(&report::object(&name, key.bucket(), &digest, position, |payload| {
            inspection.payload(payload).map(|held| held.place.clone())
        }));
    }
}

fn each_key<S: Storage>(inspection: &Inspection<'_, S>, mut visit: impl FnMut(&Key, &Digest)) {
    let mut page = inspection.keys(None, PAGE_KEYS);
    while let Some((last, _)) = page.last() {
        for (key, digest) in &page {
            visit(key, digest);
        }
        page = inspection.keys(Some(&last.clone()), PAGE_KEYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let named = target("photos/a//b").unwrap();
        assert_eq!((named.bucket.as_str(), named.key.as_str()), ("photos", "a//b"));
        for text in ["", "photos", "photos/", "/a"] {
            assert!(target(text).is_err(), "{text}");
        }
    }
}
