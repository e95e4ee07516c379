//! Whose access keys there are.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Identity;
use crate::users::User;

/// The root user's access key and secret.
#[derive(Clone)]
pub struct Credentials {
    access_key: String,
    secret_key: String,
}

impl Credentials {
    pub fn new(access_key: impl Into<String>, secret_key: impl Into<String>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into() }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.access_key)
    }
}

pub(super) struct Users {
    root: Credentials,
    others: BTreeMap<String, Rc<User>>,
}

impl Users {
    pub(super) fn new(root: Credentials, users: Vec<User>) -> Self {
        let others = users.into_iter().map(|user| (user.name.clone(), Rc::new(user))).collect();
        Self { root, others }
    }

    /// Whose an access key is, with the secret. Root's name is root's, whatever a file says.
    pub(super) fn find(&self, access_key: &str) -> Option<(Identity, &str)> {
        if access_key == self.root.access_key {
            return Some((Identity::Root, &self.root.secret_key));
        }
        let user = self.others.get(access_key)?;
        Some((Identity::User(Rc::clone(user)), &user.secret))
    }
}
