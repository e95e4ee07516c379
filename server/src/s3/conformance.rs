//! What AWS documents of each operation, asked over HTTP: errors, limits, paging, ranges, copies,
//! checksums, links. Written from the documentation; `docs/s3.md` says which operation is tested where.

mod checksums;
mod copies;
mod errors;
mod headers;
mod limits;
mod links;
mod listings;
mod ranges;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest, Md5};

use super::testing::world::{Response, World};

/// What Content-MD5 says of a body.
fn content_md5(body: &[u8]) -> String {
    BASE64.encode(Md5::digest(body))
}

/// Begins an upload and answers its id.
fn begin(world: &World, key: &str, headers: &[(&str, &str)]) -> String {
    let begun = world.ask("POST", &format!("/bucket/{key}?uploads"), headers, b"");
    assert_eq!(begun.status, 200, "{begun:?}");
    begun.element("UploadId").to_owned()
}

fn put_part(world: &World, key: &str, id: &str, number: u32, data: &[u8]) -> Response {
    let target = format!("/bucket/{key}?partNumber={number}&uploadId={id}");
    world.ask("PUT", &target, &[], data)
}

/// Completes an upload of these parts, each a number and an ETag.
fn complete(world: &World, key: &str, id: &str, parts: &[(u32, &str)]) -> Response {
    let part = |(number, etag): &(u32, &str)| {
        format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
    };
    let parts: String = parts.iter().map(part).collect();
    let document = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    world.ask("POST", &format!("/bucket/{key}?uploadId={id}"), &[], document.as_bytes())
}

/// Deletes these keys in one request.
fn delete_all(world: &World, keys: impl IntoIterator<Item = String>) -> Response {
    let objects: String =
        keys.into_iter().map(|key| format!("<Object><Key>{key}</Key></Object>")).collect();
    let document = format!("<Delete>{objects}</Delete>");
    let md5 = content_md5(document.as_bytes());
    world.ask("POST", "/bucket?delete", &[("content-md5", &md5)], document.as_bytes())
}
