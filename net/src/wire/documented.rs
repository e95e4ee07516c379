//! What docs/wire.md shows is what is sent.

use basalt_engine::Error;
use basalt_engine::request::{Reply, Request};
use basalt_engine::units::{DeploymentId, DriveIndex, SetIndex};

use super::frame::{Header, Kind};
use super::handshake::{Connecting, Identity, Lane, Secret};
use super::message::{pack_answers, pack_ask};
use crate::node::NodeIndex;

/// The bytes of the example called `name`.
fn documented(name: &str) -> Vec<u8> {
    let page = include_str!("../../../docs/wire.md");
    let (_, after) = page.split_once(&format!("```{name}\n")).expect("the page has the example");
    let (example, _) = after.split_once("```").expect("the example ends");
    let byte = |text| u8::from_str_radix(text, 16).expect("hexadecimal");
    example.split_whitespace().map(byte).collect()
}

fn check(name: &str, sent: &[u8]) {
    let lines = sent.chunks(16).map(|line| {
        let bytes: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        bytes.join(" ")
    });
    let lines: Vec<String> = lines.collect();
    assert!(documented(name) == sent, "docs/wire.md should show:\n{}", lines.join("\n"));
}

#[test]
fn the_header_of_a_frame() {
    check(
        "frame",
        &Header::of(Kind::Ask, 1, b"123456789", 8192, 0x0102_0304_0506_0708).encode()[..32],
    );
}

#[test]
fn the_body_of_an_ask() {
    let requests = [1, 2].map(|drive| (DriveIndex(drive), Request::Status)).into();
    check("ask", &pack_ask(7, SetIndex(0), requests).body);
}

#[test]
fn the_body_of_answers() {
    let failed = Reply::Failed(Error::Unavailable { reason: "test" });
    check("answers", &pack_answers(vec![(7, DriveIndex(2), failed)]).body);
}

#[test]
fn the_hello() {
    let identity = Identity {
        this: NodeIndex(0),
        topology: [7; 32],
        deployment: Some(DeploymentId(5)),
        secret: Secret::new([0; 32]),
    };
    let now_ms = 1_800_000_000_000;
    let hello = Connecting::new(identity, NodeIndex(3), Lane::Steps, now_ms, [1; 32]);
    check("hello", hello.hello());
}
