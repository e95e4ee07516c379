//! Which node a drive is on.

/// A node of the deployment: its place in the order in which the command line names nodes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeIndex(pub u16);
