//! The object_store crate: objects, ranges, parts, conditions and copies, listing, removal.
//!
//! usage: use_object_store ENDPOINT BUCKET short|full; the bucket is there and empty. Credentials
//! come from the environment, and `AWS_CA_BUNDLE` where the server speaks HTTPS. Each check is one
//! PASS or FAIL line, and `done` ends them.

use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, future, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{
    Attribute, Certificate, ClientOptions, Error, GetOptions, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, UpdateVersion, WriteMultipart,
};

const MIB: usize = 1 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [endpoint, bucket, form] = &arguments[..] else {
        anyhow::bail!("usage: use_object_store ENDPOINT BUCKET short|full");
    };
    let store = open(endpoint, bucket)?;
    let large = if form == "short" { 17 * MIB } else { 100 * MIB };
    told("objects of many sizes", sizes(&store).await);
    told("ranges", ranges(&store).await);
    told("an upload in parts", parts(&store, large + 5).await);
    told("an upload given up", given_up(&store).await);
    told("a put that only creates", creates(&store).await);
    told("a put that only updates what was seen", updates(&store).await);
    told("of many first writers one wins", race(&store).await);
    told("conditional get", conditional_get(&store).await);
    told("copy and rename", copies(&store).await);
    told("attributes", attributes(&store).await);
    told("listing with and without a delimiter", listing(&store).await);
    told("removal of many", removal(&store).await);
    println!("done");
    Ok(())
}

fn open(endpoint: &str, bucket: &str) -> Result<AmazonS3> {
    let mut client = ClientOptions::new()
        .with_allow_http(endpoint.starts_with("http://"))
        .with_timeout(Duration::from_secs(60));
    if let Ok(authority) = env::var("AWS_CA_BUNDLE") {
        client = client.with_root_certificate(Certificate::from_pem(&fs::read(authority)?)?);
    }
    let store = AmazonS3Builder::new()
        .with_endpoint(endpoint)
        .with_bucket_name(bucket)
        .with_region("us-east-1")
        .with_access_key_id(env::var("AWS_ACCESS_KEY_ID")?)
        .with_secret_access_key(env::var("AWS_SECRET_ACCESS_KEY")?)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client);
    Ok(store.build()?)
}

fn told(name: &str, outcome: Result<()>) {
    match outcome {
        Ok(()) => println!("PASS {name}"),
        Err(error) => println!("FAIL {name}: {}", format!("{error:#}").replace('\n', " ")),
    }
}

/// Bytes that follow from a seed, by a xorshift generator.
fn blob(seed: usize, length: usize) -> Bytes {
    let mut state = seed as u64 * 2 + 0x9e37_79b9_7f4a_7c15;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take(length).collect::<Vec<u8>>().into()
}

async fn get(store: &AmazonS3, key: &str) -> Result<Bytes> {
    Ok(store.get(&Path::from(key)).await?.bytes().await?)
}

async fn sizes(store: &AmazonS3) -> Result<()> {
    for length in [0, 1, 8191, 70_000, 3 * MIB + 1] {
        let key = Path::from(format!("sizes/{length}"));
        store.put(&key, blob(length, length).into()).await?;
        ensure!(store.head(&key).await?.size == length as u64, "{length} bytes: another size");
        ensure!(store.get(&key).await?.bytes().await? == blob(length, length), "other bytes");
    }
    let absent = store.get(&Path::from("never-was")).await.err();
    ensure!(matches!(absent, Some(Error::NotFound { .. })), "{absent:?}");
    Ok(())
}

async fn ranges(store: &AmazonS3) -> Result<()> {
    let (key, body) = (Path::from("sizes/70000"), blob(70_000, 70_000));
    let wanted = [0..1, 4095..4097, 30_000..69_999];
    let found = store.get_ranges(&key, &wanted).await?;
    for (range, bytes) in wanted.iter().zip(&found) {
        let part = body.slice(range.start as usize..range.end as usize);
        ensure!(*bytes == part, "{range:?}: other bytes");
    }
    Ok(())
}

async fn parts(store: &AmazonS3, length: usize) -> Result<()> {
    let (key, body) = (Path::from("large"), blob(1, length));
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(&key).await?, 8 * MIB);
    for piece in body.chunks(1_000_000) {
        upload.wait_for_capacity(3).await?;
        upload.write(piece);
    }
    upload.finish().await?;
    ensure!(get(store, "large").await? == body, "other bytes came back");
    Ok(())
}

async fn given_up(store: &AmazonS3) -> Result<()> {
    let key = Path::from("given-up");
    let mut upload = store.put_multipart(&key).await?;
    upload.put_part(blob(1, 5 * MIB).into()).await?;
    upload.abort().await?;
    let absent = store.head(&key).await.err();
    ensure!(matches!(absent, Some(Error::NotFound { .. })), "{absent:?}");
    Ok(())
}

async fn creates(store: &AmazonS3) -> Result<()> {
    let key = Path::from("once");
    let create = || PutOptions::from(PutMode::Create);
    store.put_opts(&key, "1".into(), create()).await?;
    let again = store.put_opts(&key, "2".into(), create()).await.err();
    ensure!(matches!(again, Some(Error::AlreadyExists { .. })), "{again:?}");
    ensure!(get(store, "once").await? == "1", "it was overwritten");
    Ok(())
}

async fn updates(store: &AmazonS3) -> Result<()> {
    let key = Path::from("once");
    let seen = UpdateVersion { e_tag: store.head(&key).await?.e_tag, version: None };
    let update = || PutOptions::from(PutMode::Update(seen.clone()));
    store.put_opts(&key, "3".into(), update()).await?;
    let again = store.put_opts(&key, "4".into(), update()).await.err();
    ensure!(matches!(again, Some(Error::Precondition { .. })), "{again:?}");
    ensure!(get(store, "once").await? == "3", "it was overwritten");
    Ok(())
}

async fn race(store: &AmazonS3) -> Result<()> {
    let key = Path::from("race");
    let writers = (0..8).map(|number: u32| {
        let create = PutOptions::from(PutMode::Create);
        let write = store.put_opts(&key, number.to_string().into(), create);
        async move { write.await.map(|_| number).ok() }
    });
    let won: Vec<u32> = future::join_all(writers).await.into_iter().flatten().collect();
    ensure!(won.len() == 1, "{} writers were first", won.len());
    ensure!(get(store, "race").await? == won[0].to_string(), "the bytes are not the winner's");
    Ok(())
}

async fn conditional_get(store: &AmazonS3) -> Result<()> {
    let key = Path::from("once");
    let etag = store.head(&key).await?.e_tag;
    let unchanged = GetOptions { if_none_match: etag.clone(), ..GetOptions::default() };
    let answer = store.get_opts(&key, unchanged).await.err();
    ensure!(matches!(answer, Some(Error::NotModified { .. })), "{answer:?}");
    let other = GetOptions { if_match: Some("\"0\"".into()), ..GetOptions::default() };
    let answer = store.get_opts(&key, other).await.err();
    ensure!(matches!(answer, Some(Error::Precondition { .. })), "{answer:?}");
    let same = GetOptions { if_match: etag, ..GetOptions::default() };
    ensure!(store.get_opts(&key, same).await?.bytes().await? == "3", "other bytes");
    Ok(())
}

async fn copies(store: &AmazonS3) -> Result<()> {
    let [one, two, three] = ["large", "copied", "moved"].map(Path::from);
    store.copy(&one, &two).await?;
    store.rename(&two, &three).await?;
    ensure!(store.head(&two).await.is_err(), "the source of a rename is still there");
    ensure!(get(store, "moved").await? == get(store, "large").await?, "other bytes");
    Ok(())
}

async fn attributes(store: &AmazonS3) -> Result<()> {
    let key = Path::from("attributes");
    let kind = (Attribute::ContentType, "text/x-odd");
    let own = (Attribute::Metadata("who".into()), "me");
    let options =
        PutOptions { attributes: [kind, own].into_iter().collect(), ..Default::default() };
    store.put_opts(&key, "x".into(), options).await?;
    let found = store.get(&key).await?.attributes;
    let value = |name| found.get(&name).map(|value| value.to_string());
    ensure!(value(Attribute::ContentType).as_deref() == Some("text/x-odd"), "{found:?}");
    ensure!(value(Attribute::Metadata("who".into())).as_deref() == Some("me"), "{found:?}");
    Ok(())
}

async fn listing(store: &AmazonS3) -> Result<()> {
    let names = ["list/a/1", "list/a/2", "list/b b/1", "list/ünï/日本", "list/z"].map(Path::from);
    for name in &names {
        store.put(name, "".into()).await?;
    }
    let prefix = Path::from("list");
    let mut found: Vec<Path> =
        store.list(Some(&prefix)).map_ok(|entry| entry.location).try_collect().await?;
    found.sort();
    let mut expected = names.to_vec();
    expected.sort();
    ensure!(found == expected, "{found:?}");
    let top = store.list_with_delimiter(Some(&prefix)).await?;
    ensure!(top.common_prefixes.len() == 3 && top.objects.len() == 1, "{top:?}");
    let later: Vec<_> = store.list_with_offset(Some(&prefix), &names[1]).try_collect().await?;
    let expected = expected.iter().filter(|name| **name > names[1]).count();
    ensure!(expected > 0 && later.len() == expected, "{later:?}");
    Ok(())
}

async fn removal(store: &AmazonS3) -> Result<()> {
    let all: Vec<_> = store.list(None).map_ok(|entry| entry.location).try_collect().await?;
    let removed: Vec<Path> =
        store.delete_stream(stream::iter(all.clone()).map(Ok).boxed()).try_collect().await?;
    ensure!(removed.len() == all.len(), "{} of {} removed", removed.len(), all.len());
    let left: Vec<_> = store.list(None).try_collect().await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
