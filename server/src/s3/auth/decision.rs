//! May they: what a request needs is asked of the policies that apply, and an [`Authorized`] is made
//! where all of it is allowed.
//!
//! Policies are read for each request of somebody other than root. One that cannot be read fails the
//! request; one that cannot be understood denies it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::HeaderMap;

use super::facts::{self, Arrival};
use super::need::{GET, Need};
use super::{Authenticated, Identity, Payload, denied};
use crate::object::{Error, Tags};
use crate::policy::{
    Action, Caller, Facts, Home, Name, Policy, Question, Resource, Verdict, decide,
};
use crate::s3::Server;
use crate::s3::bucket_policy::POLICY;
use crate::s3::error::{Code, Failure};
use crate::s3::operation::Operation;
use crate::s3::request::Request;
use crate::s3::versioning::parse_name;

/// Who asks, with the policies that bind them in the buckets that the request names.
pub(in crate::s3) struct Asker {
    identity: Identity,
    caller: Caller,
    facts: Facts,
    /// Of each bucket that the request names; `None` where it has none.
    policies: BTreeMap<String, Option<Rc<Policy>>>,
}

/// A request whose sender is known, and everything that has a say about it. Nothing is allowed yet.
pub(in crate::s3) struct Admitted {
    pub(in crate::s3) asker: Asker,
    pub(in crate::s3) payload: Payload,
}

/// Proof that a request may do what it asks for.
pub(in crate::s3) struct Authorized {
    asker: Rc<Asker>,
    payload: Payload,
    /// The tags of the objects that the decision went by.
    seen: Vec<(Need, Tags)>,
}

impl From<Authorized> for Payload {
    fn from(authorized: Authorized) -> Self {
        authorized.payload
    }
}

impl Authorized {
    pub(in crate::s3) fn asker(&self) -> Rc<Asker> {
        Rc::clone(&self.asker)
    }

    /// Fails where the object that is about to be served has other tags than the one that was decided
    /// about: it was exchanged in between.
    pub(in crate::s3) fn check_tags(
        &self,
        bucket: &str,
        key: &[u8],
        version: Option<&str>,
        tags: &Tags,
    ) -> Result<(), Failure> {
        let is_other = |(need, seen): &(Need, Tags)| {
            let is_this = need
                .object()
                .is_some_and(|(there, name)| there == bucket && name.as_bytes() == key);
            is_this && need.version.as_deref() == version && seen != tags
        };
        if self.seen.iter().any(is_other) {
            let text = "The object was changed while it was decided who may read it; try again.";
            return Err(Failure::new(Code::SlowDown, text));
        }
        Ok(())
    }
}

impl Asker {
    pub(in crate::s3) fn is_root(&self) -> bool {
        matches!(self.identity, Identity::Root)
    }

    pub(in crate::s3) fn is_anonymous(&self) -> bool {
        matches!(self.identity, Identity::Anonymous)
    }

    /// Makes facts known that stand in the body.
    pub(in crate::s3) fn add_tags(&mut self, tags: &Tags) {
        facts::add_tags(&mut self.facts, tags);
    }

    pub(in crate::s3) fn set_location(&mut self, location: &str) {
        self.facts.set_text(Name::LocationConstraint, location);
    }

    /// Fails where there is no policy at all that could allow anything: no body is read for those.
    pub(in crate::s3) fn check_hope(&self) -> Result<(), Failure> {
        if self.is_root() || self.own().is_some() || self.policies.values().any(Option::is_some) {
            return Ok(());
        }
        Err(denied("Access denied: no policy allows it."))
    }

    fn own(&self) -> Option<&Policy> {
        match &self.identity {
            Identity::Root | Identity::Anonymous => None,
            Identity::User(user) => user.policy.as_ref(),
        }
    }

    /// The policies that have a say in a bucket.
    fn policies<'a>(&'a self, bucket: Option<&str>) -> impl Iterator<Item = &'a Policy> {
        let of_bucket = bucket.and_then(|bucket| self.policies.get(bucket));
        self.own().into_iter().chain(of_bucket.and_then(Option::as_deref))
    }

    fn uses_existing_tags(&self, need: &Need) -> bool {
        !self.is_root() && self.policies(need.bucket()).any(Policy::uses_existing_tags)
    }

    /// The one decision about what somebody may do.
    fn judge(&self, need: &Need, tags: Option<&Tags>) -> Result<(), Failure> {
        match self.identity {
            Identity::Root => return Ok(()),
            Identity::User(_) | Identity::Anonymous => {}
        }
        let mut facts = self.facts.clone();
        if let Some(version) = &need.version {
            facts.set_text(Name::VersionId, version.as_str());
        }
        if let Some(tags) = tags {
            facts::add_existing_tags(&mut facts, tags);
        }
        let question = Question {
            caller: &self.caller,
            action: need.action,
            resource: need.resource(),
            facts: &facts,
        };
        match decide(self.policies(need.bucket()), &question) {
            Verdict::Allowed => Ok(()),
            Verdict::Denied | Verdict::Silent => {
                let name = need.action.name();
                Err(denied(format!("Access denied: s3:{name} is not allowed here.")))
            }
        }
    }

    /// Whether a listing would tell of this key.
    fn may_list(&self, bucket: &str, key: &str) -> bool {
        let mut facts = self.facts.clone();
        facts.set_text(Name::Prefix, key);
        let question = Question {
            caller: &self.caller,
            action: Action::ListBucket,
            resource: Resource::Bucket(bucket),
            facts: &facts,
        };
        self.is_root() || decide(self.policies(Some(bucket)), &question) == Verdict::Allowed
    }
}

impl<M: Mailbox, R: Runtime> Server<M, R> {
    /// Reads the policies that bind whoever sent a request.
    pub(in crate::s3) async fn admit(
        &self,
        authenticated: Authenticated,
        request: &Request,
        arrival: Arrival,
    ) -> Result<Admitted, Failure> {
        let mut asker = asker(&authenticated, arrival);
        if asker.is_anonymous() {
            refuse_overrides(request)?;
        }
        if !asker.is_root() {
            facts::add_request(&mut asker.facts, request)?;
            // A bucket that is to be created has no say in it.
            let named = request.target.bucket.as_deref();
            let named = named.filter(|_| request.operation != Operation::CreateBucket);
            let origin = request.origin.as_ref().map(|origin| origin.bucket());
            for bucket in named.into_iter().chain(origin) {
                self.add_policy(&mut asker, bucket).await?;
            }
        }
        Ok(Admitted { asker, payload: authenticated.payload })
    }

    /// As [`Self::admit`] and [`Self::authorize`], for an upload by a form. Its headers are those that
    /// a PUT would have.
    pub(in crate::s3) async fn authorize_form(
        &self,
        authenticated: Authenticated,
        headers: &HeaderMap,
        tags: &Tags,
        (bucket, key): (&str, &[u8]),
        arrival: Arrival,
    ) -> Result<Authorized, Failure> {
        let mut asker = asker(&authenticated, arrival);
        if !asker.is_root() {
            facts::add_headers(&mut asker.facts, headers)?;
            facts::add_tags(&mut asker.facts, tags);
            self.add_policy(&mut asker, bucket).await?;
        }
        let needs = super::need::of_form(bucket, key, !tags.is_empty());
        self.authorize(Admitted { asker, payload: authenticated.payload }, &needs).await
    }

    /// The only maker of [`Authorized`]: all needs must be allowed.
    pub(in crate::s3) async fn authorize(
        &self,
        admitted: Admitted,
        needs: &[Need],
    ) -> Result<Authorized, Failure> {
        assert!(!needs.is_empty(), "everything needs something");
        let Admitted { asker, payload } = admitted;
        let mut seen = Vec::new();
        for need in needs {
            match self.check(&asker, need).await {
                Ok(None) => {}
                Ok(Some(tags)) => seen.push((need.clone(), tags)),
                Err(denial) => return Err(self.absence(&asker, need).await.unwrap_or(denial)),
            }
        }
        Ok(Authorized { asker: Rc::new(asker), payload, seen })
    }

    /// Fails unless one need is allowed; gives out the tags that the decision went by.
    pub(in crate::s3) async fn check(
        &self,
        asker: &Asker,
        need: &Need,
    ) -> Result<Option<Tags>, Failure> {
        let tags = match need.object() {
            Some(object) if asker.uses_existing_tags(need) => {
                Some(self.tags_of(object, need).await?)
            }
            _ => None,
        };
        asker.judge(need, tags.as_ref()).map(|()| tags)
    }

    /// Whoever may list learns that a key is absent, though it may not be read.
    async fn absence(&self, asker: &Asker, need: &Need) -> Option<Failure> {
        let (bucket, key) = need.object().filter(|_| GET.contains(&need.action))?;
        if !asker.may_list(bucket, key) {
            return None;
        }
        let key = Bytes::copy_from_slice(key.as_bytes());
        let version = need.version.as_deref().map(parse_name).transpose().ok()?;
        let absent = self.store().head(bucket, &key, version).await.err();
        absent.filter(is_absence).map(Failure::from)
    }

    /// Whether a bucket may be shown to whoever may not list all of them.
    pub(in crate::s3) async fn may_see(
        &self,
        asker: &mut Asker,
        bucket: &str,
    ) -> Result<bool, Failure> {
        match self.add_policy(asker, bucket).await {
            Ok(()) => {}
            Err(failure) if failure.code == Code::NoSuchBucket => return Ok(false),
            Err(failure) => return Err(failure),
        }
        let may = |action| asker.judge(&Need::of_bucket(action, bucket), None).is_ok();
        let sees = may(Action::ListBucket) || may(Action::GetBucketLocation);
        asker.policies.clear();
        Ok(sees)
    }

    async fn add_policy(&self, asker: &mut Asker, bucket: &str) -> Result<(), Failure> {
        if asker.policies.contains_key(bucket) {
            return Ok(());
        }
        let policy = match self.store().bucket_setting(bucket, POLICY).await? {
            None => None,
            Some(text) => Some(self.inner.policies.read(bucket, text)?),
        };
        let opens = asker.is_anonymous() && policy.as_deref().is_some_and(Policy::is_public);
        let policy = match opens && self.public_access(bucket).await?.restricts {
            true => None,
            false => policy,
        };
        asker.policies.insert(bucket.to_owned(), policy);
        Ok(())
    }

    /// The tags of an object; one that is not there has none.
    async fn tags_of(&self, (bucket, key): (&str, &str), need: &Need) -> Result<Tags, Failure> {
        let version = need.version.as_deref().map(parse_name).transpose()?;
        match self.store().head(bucket, &Bytes::copy_from_slice(key.as_bytes()), version).await {
            Ok(info) => Ok(info.tags),
            Err(error) if is_absence(&error) => Ok(Tags::new()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether there is nothing to read.
fn is_absence(error: &Error) -> bool {
    matches!(
        error,
        Error::NoSuchKey | Error::NoSuchVersion | Error::Deleted { .. } | Error::IsMarker { .. }
    )
}

/// Whoever may not list learns of an absent key no more than of a forbidden one.
pub(in crate::s3) fn hide_absence<T>(
    asker: &Asker,
    needs: &[Need],
    outcome: Result<T, Failure>,
) -> Result<T, Failure> {
    let Err(failure) = &outcome else { return outcome };
    if asker.is_root() || !matches!(failure.code, Code::NoSuchKey | Code::NoSuchVersion) {
        return outcome;
    }
    let mut objects = needs.iter().filter_map(Need::object);
    if objects.all(|(bucket, key)| asker.may_list(bucket, key)) {
        return outcome;
    }
    Err(denied("Access denied: the key may not be read, or is not there."))
}

/// What an answer says of itself is chosen by its owner, not by whoever makes others follow a link.
fn refuse_overrides(request: &Request) -> Result<(), Failure> {
    if request.target.query.iter().any(|one| one.name.starts_with("response-")) {
        let text = "Response headers can be chosen in signed requests only.";
        return Err(Failure::new(Code::InvalidRequest, text));
    }
    Ok(())
}

fn asker(authenticated: &Authenticated, arrival: Arrival) -> Asker {
    let identity = authenticated.identity.clone();
    let (caller, policies) = (authenticated.caller(), BTreeMap::new());
    let facts = match identity {
        Identity::Root => Facts::default(),
        Identity::User(_) | Identity::Anonymous => authenticated.facts(arrival),
    };
    Asker { identity, caller, facts, policies }
}

/// Policies that were parsed, each beside the text that it came from: what is used is always what
/// was read just now.
#[derive(Default)]
pub(in crate::s3) struct Policies {
    parsed: RefCell<BTreeMap<String, (Bytes, Rc<Policy>)>>,
}

impl Policies {
    const POLICIES_MAX: usize = 64;

    fn read(&self, bucket: &str, text: Bytes) -> Result<Rc<Policy>, Failure> {
        let mut parsed = self.parsed.borrow_mut();
        if let Some((of, policy)) = parsed.get(bucket)
            && *of == text
        {
            return Ok(Rc::clone(policy));
        }
        let policy = Policy::parse(&text, Home::Bucket(bucket)).map_err(|reason| {
            tracing::error!(bucket, reason, "a kept policy is not understood: all are denied");
            denied("The bucket's policy cannot be understood, so nothing is allowed by it.")
        })?;
        let policy = Rc::new(policy);
        if parsed.len() >= Self::POLICIES_MAX {
            parsed.clear();
        }
        parsed.insert(bucket.to_owned(), (text, Rc::clone(&policy)));
        Ok(policy)
    }
}
