//! S3's actions, and what each of them acts on. A policy may name all of them, those too that nothing
//! here asks for yet: they are part of policies that people have.

use std::collections::BTreeSet;

use super::key::Facts;
use super::pattern::{Pattern, Syntax};

/// What an action acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Service,
    Bucket,
    Object,
}

macro_rules! actions {
    ($($scope:ident { $($action:ident,)* })*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Action { $($($action,)*)* }

        impl Action {
            pub const ALL: &[Self] = &[$($(Self::$action,)*)*];

            /// Without `s3:`.
            pub fn name(self) -> &'static str {
                match self { $($(Self::$action => stringify!($action),)*)* }
            }

            pub fn scope(self) -> Scope {
                match self { $($(Self::$action => Scope::$scope,)*)* }
            }
        }
    };
}

actions! {
    Service {
        ListAllMyBuckets,
    }
    Bucket {
        CreateBucket,
        DeleteBucket,
        DeleteBucketPolicy,
        DeleteBucketWebsite,
        ForceDeleteBucket,
        GetAccelerateConfiguration,
        GetAnalyticsConfiguration,
        GetBucketAcl,
        GetBucketCORS,
        GetBucketLocation,
        GetBucketLogging,
        GetBucketNotification,
        GetBucketObjectLockConfiguration,
        GetBucketOwnershipControls,
        GetBucketPolicy,
        GetBucketPolicyStatus,
        GetBucketPublicAccessBlock,
        GetBucketRequestPayment,
        GetBucketTagging,
        GetBucketVersioning,
        GetBucketWebsite,
        GetEncryptionConfiguration,
        GetIntelligentTieringConfiguration,
        GetInventoryConfiguration,
        GetLifecycleConfiguration,
        GetMetricsConfiguration,
        GetReplicationConfiguration,
        ListBucket,
        ListBucketMultipartUploads,
        ListBucketVersions,
        ListenBucketNotification,
        PutAccelerateConfiguration,
        PutAnalyticsConfiguration,
        PutBucketAcl,
        PutBucketCORS,
        PutBucketLogging,
        PutBucketNotification,
        PutBucketObjectLockConfiguration,
        PutBucketOwnershipControls,
        PutBucketPolicy,
        PutBucketPublicAccessBlock,
        PutBucketRequestPayment,
        PutBucketTagging,
        PutBucketVersioning,
        PutBucketWebsite,
        PutEncryptionConfiguration,
        PutIntelligentTieringConfiguration,
        PutInventoryConfiguration,
        PutLifecycleConfiguration,
        PutMetricsConfiguration,
        PutReplicationConfiguration,
    }
    Object {
        AbortMultipartUpload,
        BypassGovernanceRetention,
        DeleteObject,
        DeleteObjectTagging,
        DeleteObjectVersion,
        DeleteObjectVersionTagging,
        GetObject,
        GetObjectAcl,
        GetObjectAttributes,
        GetObjectLegalHold,
        GetObjectRetention,
        GetObjectTagging,
        GetObjectTorrent,
        GetObjectVersion,
        GetObjectVersionAcl,
        GetObjectVersionAttributes,
        GetObjectVersionForReplication,
        GetObjectVersionTagging,
        GetObjectVersionTorrent,
        InitiateReplication,
        ListMultipartUploadParts,
        ObjectOwnerOverrideToBucketOwner,
        PutObject,
        PutObjectAcl,
        PutObjectLegalHold,
        PutObjectRetention,
        PutObjectTagging,
        PutObjectVersionAcl,
        PutObjectVersionTagging,
        ReplicateDelete,
        ReplicateObject,
        ReplicateTags,
        RestoreObject,
    }
}

/// The actions that a statement's pattern names: `s3:Get*`, or `*` for all. Names are compared without
/// case.
pub(super) fn named(pattern: &str) -> Result<BTreeSet<Action>, String> {
    let unknown = || format!("the action {pattern:?} is no action of S3");
    let name = match pattern.split_at_checked(3) {
        Some((service, name)) if service.eq_ignore_ascii_case("s3:") => name,
        _ if pattern == "*" => pattern,
        _ => return Err(unknown()),
    };
    let name = Pattern::parse(name, Syntax { wildcards: true, variables: false })?;
    let nothing = Facts::default();
    let matches = |action: &Action| name.matches_folded(action.name(), &nothing);
    let actions: BTreeSet<Action> = Action::ALL.iter().copied().filter(matches).collect();
    if actions.is_empty() { Err(unknown()) } else { Ok(actions) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_actions() {
        let names = |pattern: &str| named(pattern).map(|found| found.into_iter().collect());
        assert_eq!(names("s3:GetObject"), Ok(vec![Action::GetObject]));
        assert_eq!(names("S3:getobjecT"), Ok(vec![Action::GetObject]));
        assert_eq!(
            names("s3:*ObjectVersion"),
            Ok(vec![Action::DeleteObjectVersion, Action::GetObjectVersion])
        );
        assert_eq!(named("s3:*").expect("all"), named("*").expect("all"));
        assert_eq!(named("s3:*").expect("all").len(), Action::ALL.len());
        for unknown in ["s3:GetObjects", "s3:", "GetObject", "iam:*", "", "**", "s3 :*", "s3:${*}"]
        {
            assert!(named(unknown).is_err(), "{unknown}");
        }
    }
}
