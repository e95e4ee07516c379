//! The versioning of a bucket, and how versions are named in requests and answers.

use basalt_engine::seam::Runtime;
use basalt_net::mailbox::Mailbox;
use bytes::Bytes;
use http::header::HeaderName;
use http::{Response, StatusCode};
use http_body::Body;

use super::Server;
use super::answer::{self, Answer};
use super::auth::Authorized;
use super::body::document;
use super::error::{Code, Failure};
use super::request::Request;
use super::watch::Watch;
use super::xml::{self, Writer, malformed};
use crate::object::{VersionName, Versioning};

pub(super) const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");
pub(super) const DELETE_MARKER: HeaderName = HeaderName::from_static("x-amz-delete-marker");

impl<M: Mailbox, R: Runtime> Server<M, R> {
    pub(super) async fn get_bucket_versioning(
        &self,
        request: &Request,
        _authorized: Authorized,
    ) -> Result<Answer<M, R>, Failure> {
        let bucket = self.store().bucket(request.bucket()).await?;
        let mut xml = Writer::s3("VersioningConfiguration");
        match bucket.versioning {
            Versioning::Unset => {}
            Versioning::Enabled => xml.text("Status", "Enabled"),
            Versioning::Suspended => xml.text("Status", "Suspended"),
        }
        Ok(answer::xml(xml.finish()))
    }

    pub(super) async fn put_bucket_versioning<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: &Request,
        authorized: Authorized,
        body: &mut B,
        watch: &Watch<R>,
    ) -> Result<Answer<M, R>, Failure> {
        let names_device = request.headers.contains_key("x-amz-mfa");
        let versioning = parse(&document(request, authorized, body, watch).await?)?;
        if names_device {
            return Err(no_mfa());
        }
        self.store().set_versioning(request.bucket(), versioning).await?;
        Ok(answer::empty(StatusCode::OK))
    }
}

fn parse(document: &[u8]) -> Result<Versioning, Failure> {
    let root = xml::parse(document, "VersioningConfiguration")?;
    root.allow(&["Status", "MfaDelete", "MFADelete"])?;
    let mfa = root.child_text("MfaDelete").or(root.child_text("MFADelete"));
    match mfa {
        None | Some("Disabled") => {}
        Some("Enabled") => return Err(no_mfa()),
        Some(_) => return Err(malformed("MfaDelete must be Enabled or Disabled")),
    }
    match root.child_text("Status") {
        Some("Enabled") => Ok(Versioning::Enabled),
        Some("Suspended") => Ok(Versioning::Suspended),
        Some(_) => Err(malformed("Status must be Enabled or Suspended")),
        None => {
            let text = "The Versioning element must be specified.";
            Err(Failure::new(Code::IllegalVersioningConfiguration, text))
        }
    }
}

fn no_mfa() -> Failure {
    Failure::not_implemented("Deletion that asks for a second factor (MfaDelete)")
}

/// The version that the request asks for.
pub(super) fn version_asked(request: &Request) -> Result<Option<VersionName>, Failure> {
    request.parameter("versionId").map(parse_name).transpose()
}

pub(super) fn parse_name(text: &str) -> Result<VersionName, Failure> {
    VersionName::parse(text).ok_or_else(|| {
        Failure::new(Code::InvalidArgument, "The version id that is specified is not valid.")
    })
}

/// Names the version that an answer is about, where versions are kept.
pub(super) fn set_version<B>(answer: &mut Response<B>, version: Option<VersionName>) {
    if let Some(version) = version {
        answer::set(answer, VERSION_ID, &version.to_string());
    }
}

/// As [`set_version`], in the answer to a write: S3 does not tell that of the null version.
pub(super) fn set_written_version<B>(answer: &mut Response<B>, version: Option<VersionName>) {
    set_version(answer, version.filter(|version| *version != VersionName::Null));
}

#[cfg(test)]
mod over_http;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_one_of_two_states() {
        let of = |inner: &str| {
            let document = format!("<VersioningConfiguration>{inner}</VersioningConfiguration>");
            parse(document.as_bytes()).map_err(|failure| failure.code)
        };
        assert_eq!(of("<Status>Enabled</Status>"), Ok(Versioning::Enabled));
        let both = "<MfaDelete>Disabled</MfaDelete><Status>Suspended</Status>";
        assert_eq!(of(both), Ok(Versioning::Suspended));
        assert_eq!(of(""), Err(Code::IllegalVersioningConfiguration));
        assert_eq!(of("<Status>enabled</Status>"), Err(Code::MalformedXml));
        assert_eq!(of("<Other/>"), Err(Code::MalformedXml));
        let mfa = "<Status>Enabled</Status><MfaDelete>Enabled</MfaDelete>";
        assert_eq!(of(mfa), Err(Code::NotImplemented));
    }
}
