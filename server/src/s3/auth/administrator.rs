//! Who may administer: root, by a signed header. The signature is verified as every other.

use super::{Gate, Head, Identity, Kind, Regions, denied};
use crate::s3::error::Failure;

impl Gate {
    /// Fails unless root asks. The region is anybody's choice: `mc admin` signs for none.
    pub(in crate::s3) fn check_administrator(
        &self,
        head: &Head<'_>,
        now_ms: u64,
    ) -> Result<(), Failure> {
        let authenticated = match Kind::of(head) {
            Kind::HeaderV4(fields) => self.header(head, fields, now_ms, Regions::Any)?,
            _ => {
                self.authenticate(head, now_ms)?;
                return Err(denied("Administration needs a signature in the header."));
            }
        };
        match authenticated.identity {
            Identity::Root => Ok(()),
            Identity::User(_) | Identity::Anonymous => {
                Err(denied("Access denied: only the root user may administer."))
            }
        }
    }
}
