//! What each operation needs, over HTTP.

use super::{ALL, SOURCE, Signer, TAGS, allow, denied, deny, put, set, statement};
use crate::s3::testing::ALICE;
use crate::s3::testing::world::{Response, World, world};

/// Every operation, with the actions that it needs and a request for it.
struct Case {
    actions: &'static [&'static str],
    method: &'static str,
    target: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [u8],
}

const fn case(
    actions: &'static [&'static str],
    method: &'static str,
    target: &'static str,
) -> Case {
    Case { actions, method, target, headers: &[], body: b"" }
}

const CASES: &[Case] = &[
    case(&["ListBucket"], "HEAD", "/bucket"),
    case(&["ListBucket"], "GET", "/bucket"),
    case(&["ListBucket"], "GET", "/bucket?list-type=2"),
    case(&["ListBucketVersions"], "GET", "/bucket?versions"),
    case(&["ListBucketMultipartUploads"], "GET", "/bucket?uploads"),
    case(&["GetBucketLocation"], "GET", "/bucket?location"),
    case(&["GetBucketTagging"], "GET", "/bucket?tagging"),
    Case { body: TAGS, ..case(&["PutBucketTagging"], "PUT", "/bucket?tagging") },
    case(&["PutBucketTagging"], "DELETE", "/bucket?tagging"),
    case(&["GetBucketPolicy"], "GET", "/bucket?policy"),
    case(&["PutBucketPolicy"], "PUT", "/bucket?policy"),
    case(&["GetBucketPolicyStatus"], "GET", "/bucket?policyStatus"),
    case(&["GetBucketAcl"], "GET", "/bucket?acl"),
    Case { headers: &[("x-amz-acl", "private")], ..case(&["PutBucketAcl"], "PUT", "/bucket?acl") },
    case(&["GetBucketVersioning"], "GET", "/bucket?versioning"),
    case(&["GetBucketCORS"], "GET", "/bucket?cors"),
    case(&["PutBucketCORS"], "PUT", "/bucket?cors"),
    case(&["PutBucketCORS"], "DELETE", "/bucket?cors"),
    case(&["GetBucketPublicAccessBlock"], "GET", "/bucket?publicAccessBlock"),
    case(&["PutBucketPublicAccessBlock"], "PUT", "/bucket?publicAccessBlock"),
    case(&["PutBucketPublicAccessBlock"], "DELETE", "/bucket?publicAccessBlock"),
    case(&["GetBucketOwnershipControls"], "GET", "/bucket?ownershipControls"),
    case(&["PutBucketOwnershipControls"], "PUT", "/bucket?ownershipControls"),
    case(&["PutBucketOwnershipControls"], "DELETE", "/bucket?ownershipControls"),
    case(&["GetLifecycleConfiguration"], "GET", "/bucket?lifecycle"),
    case(&["PutLifecycleConfiguration"], "DELETE", "/bucket?lifecycle"),
    case(&["GetEncryptionConfiguration"], "GET", "/bucket?encryption"),
    case(&["DeleteBucketWebsite"], "DELETE", "/bucket?website"),
    case(&["DeleteBucket"], "DELETE", "/bucket"),
    case(&["GetObject"], "GET", "/bucket/key"),
    case(&["GetObject"], "HEAD", "/bucket/key"),
    case(&["GetObjectVersion"], "GET", "/bucket/key?versionId=null"),
    case(&["GetObjectVersion"], "HEAD", "/bucket/key?versionId=null"),
    Case {
        headers: &[("x-amz-object-attributes", "ETag")],
        ..case(&["GetObject", "GetObjectAttributes"], "GET", "/bucket/key?attributes")
    },
    case(&["GetObjectAcl"], "GET", "/bucket/key?acl"),
    Case {
        headers: &[("x-amz-acl", "private")],
        ..case(&["PutObjectAcl"], "PUT", "/bucket/key?acl")
    },
    case(&["GetObjectTagging"], "GET", "/bucket/key?tagging"),
    case(&["GetObjectVersionTagging"], "GET", "/bucket/key?tagging&versionId=null"),
    Case { body: TAGS, ..case(&["PutObjectTagging"], "PUT", "/bucket/key?tagging") },
    case(&["DeleteObjectTagging"], "DELETE", "/bucket/key?tagging"),
    case(&["GetObjectRetention"], "GET", "/bucket/key?retention"),
    Case { body: b"content", ..case(&["PutObject"], "PUT", "/bucket/key") },
    Case {
        body: b"content",
        headers: &[("if-match", "*")],
        ..case(&["PutObject", "GetObject"], "PUT", "/bucket/key")
    },
    Case {
        body: b"content",
        headers: &[("if-none-match", "\"e\"")],
        ..case(&["PutObject", "GetObject"], "PUT", "/bucket/key")
    },
    Case {
        body: b"content",
        headers: &[("if-none-match", "*")],
        ..case(&["PutObject"], "PUT", "/bucket/key")
    },
    case(&["PutObject"], "POST", "/bucket/key?uploads"),
    Case { body: b"content", ..case(&["PutObject"], "PUT", "/bucket/key?partNumber=1&uploadId=0") },
    case(&["PutObject"], "POST", "/bucket/key?uploadId=0"),
    case(&["AbortMultipartUpload"], "DELETE", "/bucket/key?uploadId=0"),
    case(&["ListMultipartUploadParts"], "GET", "/bucket/key?uploadId=0"),
    Case { headers: SOURCE, ..case(&["PutObject", "GetObject"], "PUT", "/bucket/copy") },
    Case {
        headers: &[("x-amz-copy-source", "bucket/key?versionId=null")],
        ..case(&["PutObject", "GetObjectVersion"], "PUT", "/bucket/copy")
    },
    Case {
        headers: SOURCE,
        ..case(&["PutObject", "GetObject"], "PUT", "/bucket/copy?partNumber=1&uploadId=0")
    },
    case(&["DeleteObject"], "DELETE", "/bucket/gone"),
    case(&["DeleteObjectVersion"], "DELETE", "/bucket/gone?versionId=null"),
];

impl Case {
    fn ask(&self, world: &World, signer: Option<Signer>) -> Response {
        let (method, target) = (self.method, self.target);
        match signer {
            Some(signer) => world.ask_as(signer, method, target, self.headers, self.body),
            None => world.ask_unsigned(method, target, self.headers, self.body),
        }
    }
}

/// Known classes: an operation whose handler never asked, and one that asked for another action's
/// permission than it uses (uploads by parts and forms with a right to read only, copies without one to
/// read their source).
#[test]
fn every_operation_needs_its_own_actions_and_no_other() {
    let world = world();
    put(&world, "/bucket/key");
    for case in CASES {
        denied(&case.ask(&world, Some(ALICE)));
        denied(&case.ask(&world, None));
    }
    for case in CASES {
        for missing in case.actions {
            let name = format!("s3:{missing}");
            set(&world, "bucket", &[allow("s3:*"), deny(&name, "bucket*")]);
            denied(&case.ask(&world, Some(ALICE)));
            denied(&case.ask(&world, None));
        }
        let statements: Vec<String> = case
            .actions
            .iter()
            .map(|action| {
                let resource = ALL;
                let name = format!("\"s3:{action}\"");
                statement("Allow", &name, resource, "")
            })
            .collect();
        set(&world, "bucket", &statements);
        let (target, needed) = (case.target, case.actions);
        for signer in [Some(ALICE), None] {
            let answer = case.ask(&world, signer);
            assert_ne!(answer.status, 403, "{} {target} with {needed:?}: {answer:?}", case.method);
            assert_ne!(answer.status, 500, "{} {target}: {answer:?}", case.method);
        }
        for other in CASES.iter().filter(|other| other.actions.iter().any(|a| !needed.contains(a)))
        {
            denied(&other.ask(&world, Some(ALICE)));
        }
        if case.method == "DELETE" && case.target == "/bucket" {
            // The bucket was not empty.
            assert_eq!(world.ask("HEAD", "/bucket/key", &[], b"").status, 200);
        }
    }
}

/// A known class: settings that could not be read counted as settings that are not there.
#[test]
fn a_policy_that_cannot_be_read_is_no_permission() {
    let world = world();
    put(&world, "/bucket/key");
    set(&world, "bucket", &[allow("s3:*")]);
    (0..3).for_each(|drive| world.lose(drive));
    for signer in [Some(ALICE), None] {
        for case in CASES.iter().filter(|case| case.method != "HEAD") {
            let answer = case.ask(&world, signer);
            assert_eq!(answer.status, 503, "{} {}: {answer:?}", case.method, case.target);
        }
    }
    world.recover();
    assert_eq!(world.ask_unsigned("GET", "/bucket/key", &[], b"").status, 200);
}
