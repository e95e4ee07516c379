use std::time::Duration;

use crate::s3::testing::world::{Response, World, bytes, refused, world};
use crate::s3::testing::{ACCESS, ALICE, NOW_MS, SECRET, TestRequest, bearer};

fn get(world: &World, path: &str) -> Response {
    let request = TestRequest::new("GET", path, "").without("x-amz-content-sha256");
    world.send(&request.without("x-amz-date"), b"")
}

fn get_as(world: &World, token: &str) -> Response {
    let request = TestRequest::new("GET", "/minio/v2/metrics/cluster", "")
        .without("x-amz-content-sha256")
        .without("x-amz-date")
        .with("authorization", token);
    world.send(&request, b"")
}

#[test]
fn health_is_told_to_anybody() {
    let world = world();
    for (path, status) in [
        ("/minio/health/live", 200),
        ("/minio/health/ready", 200),
        ("/minio/health/cluster", 503),
        ("/minio/health/cluster/read", 200),
    ] {
        assert_eq!(get(&world, path).status, status, "{path}");
        let head = TestRequest::new("HEAD", path, "").without("x-amz-content-sha256");
        assert_eq!(world.send(&head.without("x-amz-date"), b"").status, status, "{path}");
    }
    let mut request = TestRequest::new("GET", "/minio/health/cluster", "");
    request.query = "maintenance=true".to_owned();
    assert_eq!(world.send(&request, b"").status, 412);
    assert_eq!(get(&world, "/minio/health/cluster").header("x-minio-write-quorum"), "3");
}

#[test]
fn metrics_need_roots_token() {
    let world = world();
    let far = NOW_MS / 1000 + 3600;
    let claims = |subject: &str, expires: u64| {
        format!(r#"{{"exp":{expires},"sub":"{subject}","iss":"prometheus"}}"#)
    };
    let hs512 = r#"{"alg":"HS512","typ":"JWT"}"#;
    let good = bearer(hs512, &claims(ACCESS, far), SECRET);
    let page = get_as(&world, &format!("Bearer {good}"));
    assert_eq!((page.status, page.text()), (200, "of Cluster\n"));
    assert_eq!(page.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(get_as(&world, &format!("bearer {good}")).status, 200);
    let (unsigned, _) = good.rsplit_once('.').expect("three parts");
    let none = bearer(r#"{"alg":"none"}"#, &claims(ACCESS, far), SECRET);
    let (none, _) = none.rsplit_once('.').expect("three parts");
    for (what, token) in [
        ("another secret", bearer(hs512, &claims(ACCESS, far), "other-secret")),
        ("a user's", bearer(hs512, &claims(ALICE.0, far), ALICE.1)),
        ("a user's signature of root's name", bearer(hs512, &claims(ACCESS, far), ALICE.1)),
        ("expired", bearer(hs512, &claims(ACCESS, NOW_MS / 1000 - 1), SECRET)),
        ("an expiry that is no number", {
            let claims = format!(r#"{{"exp":"never","sub":"{ACCESS}"}}"#);
            bearer(hs512, &claims, SECRET)
        }),
        ("another algorithm", bearer(r#"{"alg":"HS256"}"#, &claims(ACCESS, far), SECRET)),
        ("no algorithm", format!("{none}.")),
        ("no signature", format!("{unsigned}.")),
        ("two parts", unsigned.to_owned()),
        ("four parts", format!("{good}.a")),
        ("no name", bearer(hs512, r#"{"iss":"prometheus"}"#, SECRET)),
        ("nothing", String::new()),
    ] {
        let answer = get_as(&world, &format!("Bearer {token}"));
        assert_eq!(answer.status, 403, "{what}");
        refused(&answer, 403, "AccessDenied");
    }
    refused(&get(&world, "/minio/v2/metrics/cluster"), 403, "AccessDenied");
    let signed = world.ask("GET", "/minio/v2/metrics/cluster", &[], b"");
    refused(&signed, 403, "AccessDenied");
}

#[test]
fn public_metrics_are_anybodys_by_page() {
    let world = World::with(1, None, true);
    for (path, text) in [
        ("/minio/v2/metrics/cluster", "of Cluster\n"),
        ("/minio/prometheus/metrics", "of Cluster\n"),
        ("/minio/v2/metrics/node", "of Node\n"),
        ("/minio/v2/metrics/bucket", "of Bucket\n"),
        ("/minio/v2/metrics/resource", "of Resource\n"),
    ] {
        let page = get(&world, path);
        assert_eq!((page.status, page.text()), (200, text), "{path}");
    }
    refused(&get(&world, "/minio/v2/metrics/other"), 403, "AccessDenied");
    refused(&get(&world, "/minio/v2/metrics/cluster/"), 403, "AccessDenied");
}

#[test]
fn requests_are_counted() {
    let world = world();
    let data = bytes(300_000);
    assert_eq!(world.ask("PUT", "/bucket/key", &[], &data).status, 200);
    assert_eq!(world.ask("GET", "/bucket/key", &[], b"").status, 200);
    assert_eq!(world.ask("HEAD", "/bucket/key", &[], b"").status, 200);
    assert_eq!(world.ask("GET", "/bucket/absent", &[], b"").status, 404);
    assert_eq!(world.ask("GET", "/absent/key", &[], b"").status, 404);
    world.lose(0);
    world.lose(1);
    assert_eq!(world.ask("PUT", "/bucket/key", &[], &data).status, 503);
    world.recover();
    assert_eq!(world.ask_unsigned("GET", "/bucket/key", &[], b"").status, 403);
    assert_eq!(world.ask_as(("nobody", "secret"), "GET", "/bucket/key", &[], b"").status, 403);
    get(&world, "/minio/health/live");

    let counts = world.counts();
    let all = |api: &str| {
        let api = &counts.apis[api];
        (api.requests, api.in_flight, api.errors_4xx, api.errors_5xx, api.canceled)
    };
    assert_eq!(all("putbucket"), (1, 0, 0, 0, 0));
    assert_eq!(all("putobject"), (2, 0, 0, 1, 0));
    // One without a signature is the anonymous', who may not.
    assert_eq!(all("getobject"), (4, 0, 3, 0, 0));
    assert_eq!(all("headobject"), (1, 0, 0, 0, 0));
    assert_eq!(counts.rejected, [1, 0, 0, 0], "of an unknown user");
    assert_eq!(counts.buckets.keys().collect::<Vec<_>>(), ["bucket"]);
    let bucket = &counts.buckets["bucket"];
    assert_eq!(bucket.received_bytes, 600_000);
    assert!((300_000..310_000).contains(&bucket.sent_bytes), "{}", bucket.sent_bytes);
    assert_eq!(bucket.apis["getobject"].requests, 3);
    assert!(counts.received_bytes > 600_000 && counts.sent_bytes > 300_000);
}

#[test]
fn a_client_that_leaves_is_counted() {
    let world = world();
    let data = bytes(1 << 20);
    let pipe = world.connect();
    let wire = TestRequest::new("PUT", "/bucket/key", "UNSIGNED-PAYLOAD").sign().wire(&data);
    pipe.send(&wire[..wire.len() / 2]);
    world.simulation.run_for(Duration::from_secs(1));
    assert_eq!(world.counts().apis["putobject"].in_flight, 1);
    pipe.close();
    world.simulation.run_for(Duration::from_secs(1));
    let api = world.counts().apis["putobject"].clone();
    assert_eq!((api.requests, api.in_flight), (1, 0));
    assert_eq!(api.errors_4xx + api.canceled, 1, "{api:?}");
    // One that leaves while it is answered.
    assert_eq!(world.ask("PUT", "/bucket/key", &[], &bytes(20 << 20)).status, 200);
    let pipe = world.connect();
    pipe.block();
    pipe.send(&TestRequest::new("GET", "/bucket/key", "UNSIGNED-PAYLOAD").sign().wire(b""));
    world.simulation.run_for(Duration::from_secs(1));
    assert_eq!(world.counts().apis["getobject"].in_flight, 1);
    world.simulation.run_for(Duration::from_secs(90));
    let api = world.counts().apis["getobject"].clone();
    assert_eq!((api.requests, api.in_flight, api.canceled), (1, 0, 1));
}
