//! How two nodes come to trust a connection, as plain functions over bytes. docs/wire.md has the tables.
//!
//! The connecting node says hello, the accepting one answers with a challenge or a refusal, the
//! connecting one proves that it knows the secret, and then the accepting one does. The secret is never
//! sent: a proof is an HMAC over everything that was said, so it holds for this connection, these nodes,
//! this deployment and these arguments only. Who accepts proves last: it tells nothing that depends on
//! the secret to somebody who has not shown that he knows it.
//!
//! What a refusal says before trust is only what an operator needs to find the mistake.

use std::fmt;

use basalt_engine::checksum::crc64;
use basalt_engine::units::DeploymentId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use super::Malformed;
use super::message::{VERSION, VERSION_OLDEST};
use crate::node::NodeIndex;

/// What a connection of a peer begins with: neither a method of HTTP nor a record of TLS.
pub const MAGIC: [u8; 8] = *b"\x00BASALT\n";
/// Bytes of a hello and of a challenge, of a proof, and of a welcome.
pub const HELLO_BYTES: usize = 128;
pub const PROOF_BYTES: usize = 32;
pub const WELCOME_BYTES: usize = 48;
/// Clocks may differ by less than this.
pub const CLOCK_DIFFERENCE_MAX_MS: u64 = 5 * 60 * 1000;

const CRC_AT: usize = HELLO_BYTES - 8;

/// What all nodes of a deployment know, and nobody else.
#[derive(Clone, Copy)]
pub struct Secret([u8; 32]);

impl Secret {
    /// `key` is already hard to guess: derived from the root user's secret by a slow function.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn proof(
        &self,
        whose: &[u8],
        hello: &[u8; HELLO_BYTES],
        challenge: &[u8; HELLO_BYTES],
    ) -> Mac256 {
        let mut mac = Mac256::new_from_slice(&self.0).expect("any length will do");
        for part in [whose, hello, challenge] {
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

type Mac256 = Hmac<Sha256>;

const CONNECTING: &[u8] = b"basalt peer, connecting";
const ACCEPTING: &[u8] = b"basalt peer, accepting";

/// What a connection is for. The numbers are sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Lane {
    /// Steps of the protocol, calls, and whatever else is short.
    Steps = 0,
    /// Payload.
    Payload = 1,
}

/// Who speaks, and what it is sure of.
#[derive(Clone, Debug)]
pub struct Identity {
    pub this: NodeIndex,
    /// Hash of what the arguments say: nodes, seats, set sizes, storage classes.
    pub topology: [u8; 32],
    /// Once the deployment is formed.
    pub deployment: Option<DeploymentId>,
    pub secret: Secret,
}

/// Why a node does not talk to another.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    #[error(
        "it speaks versions {their_oldest} to {theirs} of the peer protocol, this node {VERSION_OLDEST} \
         to {VERSION}: bring all nodes to releases that have one in common"
    )]
    Version { theirs: u16, their_oldest: u16 },
    #[error(
        "its arguments differ (topology {theirs}, here {ours}): start every node with the same drives, \
         in the same order, and the same storage classes and set size"
    )]
    Topology { theirs: String, ours: String },
    #[error(
        "it belongs to deployment {theirs}, this node to {ours}: its drives or its address are another \
         cluster's"
    )]
    Deployment { theirs: DeploymentId, ours: DeploymentId },
    #[error(
        "its clock is {seconds} s {}: set the clocks of all nodes by NTP", if *.ahead {"ahead"} else {"behind"}
    )]
    Clock { seconds: u64, ahead: bool },
    #[error(
        "its root user or password is another one: start every node with the same MINIO_ROOT_USER and \
         MINIO_ROOT_PASSWORD"
    )]
    Credentials,
    #[error(
        "it takes itself for node {theirs}, and should be node {expected}: its address in the arguments \
         leads elsewhere"
    )]
    OtherNode { theirs: u16, expected: u16 },
    #[error("it is not a node of a cluster, or of an unknown kind: {0}")]
    Malformed(#[from] Malformed),
}

impl Refusal {
    /// As it is sent.
    fn code(&self) -> u16 {
        match self {
            Self::Malformed(_) => 1,
            Self::Version { .. } => 2,
            Self::Topology { .. } => 3,
            Self::Deployment { .. } => 4,
            Self::Clock { .. } => 5,
            Self::Credentials => 6,
            Self::OtherNode { .. } => 7,
        }
    }
}

/// The first thing each side says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Hello {
    /// In a hello the range that is understood; in a challenge both are what was chosen.
    version_oldest: u16,
    version: u16,
    from: u16,
    to: u16,
    /// Of a [`Lane`].
    lane: u8,
    /// In a challenge: why not, or 0.
    refusal: u16,
    wall_ms: u64,
    topology: [u8; 32],
    /// Zero while there is none.
    deployment: u128,
    nonce: [u8; 32],
}

impl Hello {
    fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version_oldest.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.from.to_le_bytes());
        bytes[14..16].copy_from_slice(&self.to.to_le_bytes());
        bytes[16] = self.lane;
        bytes[18..20].copy_from_slice(&self.refusal.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.wall_ms.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.topology);
        bytes[64..80].copy_from_slice(&self.deployment.to_le_bytes());
        bytes[80..112].copy_from_slice(&self.nonce);
        let crc = crc64(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Result<Self, Malformed> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        if bytes[..8] != MAGIC {
            return Err(Malformed("the first bytes are not a peer's"));
        }
        if crc64(&bytes[..CRC_AT]) != u64_at(CRC_AT) {
            return Err(Malformed("the checksum of a hello"));
        }
        Ok(Self {
            version_oldest: u16_at(8),
            version: u16_at(10),
            from: u16_at(12),
            to: u16_at(14),
            lane: bytes[16],
            refusal: u16_at(18),
            wall_ms: u64_at(24),
            topology: bytes[32..64].try_into().expect("32"),
            deployment: u128::from_le_bytes(bytes[64..80].try_into().expect("16")),
            nonce: bytes[80..112].try_into().expect("32"),
        })
    }

    fn of(identity: &Identity, to: NodeIndex, lane: u8, wall_ms: u64, nonce: [u8; 32]) -> Self {
        Self {
            version_oldest: u16::from(VERSION_OLDEST),
            version: u16::from(VERSION),
            from: identity.this.0,
            to: to.0,
            lane,
            refusal: 0,
            wall_ms,
            topology: identity.topology,
            deployment: identity.deployment.map_or(0, |deployment| deployment.0),
            nonce,
        }
    }

    /// What of the other's view is not ours, in the order in which an operator would look.
    fn differs(&self, identity: &Identity, wall_ms: u64) -> Result<(), Refusal> {
        if self.topology != identity.topology {
            let (theirs, ours) = (short(&self.topology), short(&identity.topology));
            return Err(Refusal::Topology { theirs, ours });
        }
        if self.to != identity.this.0 {
            return Err(Refusal::OtherNode { theirs: identity.this.0, expected: self.to });
        }
        let theirs = DeploymentId(self.deployment);
        if let Some(ours) =
            identity.deployment.filter(|ours| self.deployment != 0 && *ours != theirs)
        {
            return Err(Refusal::Deployment { theirs, ours });
        }
        let apart_ms = self.wall_ms.abs_diff(wall_ms);
        if apart_ms >= CLOCK_DIFFERENCE_MAX_MS {
            return Err(Refusal::Clock { seconds: apart_ms / 1000, ahead: self.wall_ms > wall_ms });
        }
        Ok(())
    }
}

fn short(topology: &[u8; 32]) -> String {
    topology[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The connecting side, after its hello.
pub struct Connecting {
    identity: Identity,
    to: NodeIndex,
    hello: [u8; HELLO_BYTES],
}

/// The connecting side, after its proof.
#[derive(Debug)]
pub struct Proving {
    identity: Identity,
    hello: [u8; HELLO_BYTES],
    challenge: [u8; HELLO_BYTES],
    version: u8,
}

/// What both sides know when they trust each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// The other node.
    pub peer: NodeIndex,
    pub lane: Lane,
    /// Of the messages.
    pub version: u8,
    /// Bytes that the connecting side may have sent and not have had answered.
    pub credit_bytes: u32,
}

impl Connecting {
    pub fn new(
        identity: Identity,
        to: NodeIndex,
        lane: Lane,
        wall_ms: u64,
        nonce: [u8; 32],
    ) -> Self {
        let hello = Hello::of(&identity, to, lane as u8, wall_ms, nonce).encode();
        Self { identity, to, hello }
    }

    pub fn hello(&self) -> &[u8; HELLO_BYTES] {
        &self.hello
    }

    /// The proof to send, if the challenge says that the nodes fit.
    pub fn challenged(
        self,
        challenge: &[u8; HELLO_BYTES],
        wall_ms: u64,
    ) -> Result<(Proving, [u8; PROOF_BYTES]), Refusal> {
        let said = Hello::decode(challenge)?;
        let ours = u16::from(VERSION_OLDEST)..=u16::from(VERSION);
        let understood = said.version_oldest == said.version && ours.contains(&said.version);
        if !understood {
            let (theirs, their_oldest) = (said.version, said.version_oldest);
            return Err(Refusal::Version { theirs, their_oldest });
        }
        if said.from != self.to.0 {
            return Err(Refusal::OtherNode { theirs: said.from, expected: self.to.0 });
        }
        said.differs(&self.identity, wall_ms)?;
        if said.refusal != 0 {
            // It sees something that this side does not: all that this side can see fits.
            return Err(Malformed("it refuses this node for a reason unknown here").into());
        }
        let mac = self.identity.secret.proof(CONNECTING, &self.hello, challenge);
        let version = u8::try_from(said.version).expect("within our own");
        let proving =
            Proving { identity: self.identity, hello: self.hello, challenge: *challenge, version };
        Ok((proving, mac.finalize().into_bytes().into()))
    }
}

impl Proving {
    pub fn welcomed(self, welcome: &[u8; WELCOME_BYTES]) -> Result<Agreed, Refusal> {
        let mac = self.identity.secret.proof(ACCEPTING, &self.hello, &self.challenge);
        mac.verify_slice(&welcome[16..48]).map_err(|_| Refusal::Credentials)?;
        let hello = Hello::decode(&self.hello).expect("our own");
        let credit_bytes = u32::from_le_bytes(welcome[4..8].try_into().expect("four"));
        let lane = lane_of(hello.lane)?;
        Ok(Agreed { peer: NodeIndex(hello.to), lane, version: self.version, credit_bytes })
    }
}

/// The accepting side, after its challenge.
#[derive(Debug)]
pub struct Accepting {
    identity: Identity,
    hello: [u8; HELLO_BYTES],
    challenge: [u8; HELLO_BYTES],
    agreed: Agreed,
}

impl Accepting {
    /// The challenge to send, and why no proof is wanted, where none is.
    pub fn hello(
        identity: Identity,
        hello: &[u8; HELLO_BYTES],
        wall_ms: u64,
        nonce: [u8; 32],
        credit_bytes: u32,
    ) -> ([u8; HELLO_BYTES], Result<Self, Refusal>) {
        let judged = judge(&identity, hello, wall_ms);
        let (peer, version) = match &judged {
            Ok((said, version)) => (said.from, *version),
            Err(_) => (0, u16::from(VERSION)),
        };
        let mut answer = Hello::of(&identity, NodeIndex(peer), 0, wall_ms, nonce);
        (answer.version_oldest, answer.version) = (version, version);
        match judged {
            Err(refusal) => {
                answer.refusal = refusal.code();
                if matches!(refusal, Refusal::Version { .. }) {
                    answer.version_oldest = u16::from(VERSION_OLDEST);
                }
                if let Ok(said) = Hello::decode(hello) {
                    answer.to = said.from;
                }
                (answer.encode(), Err(refusal))
            }
            Ok((said, version)) => {
                let challenge = answer.encode();
                let agreed = lane_of(said.lane).map(|lane| Agreed {
                    peer: NodeIndex(said.from),
                    lane,
                    version: u8::try_from(version).expect("within our own"),
                    credit_bytes,
                });
                let accepting = agreed
                    .map(|agreed| Self { identity, hello: *hello, challenge, agreed })
                    .map_err(Refusal::from);
                (challenge, accepting)
            }
        }
    }

    /// The welcome to send, and what was agreed, where the proof holds.
    pub fn proved(
        self,
        proof: &[u8; PROOF_BYTES],
    ) -> ([u8; WELCOME_BYTES], Result<Agreed, Refusal>) {
        let mut welcome = [0; WELCOME_BYTES];
        let secret = &self.identity.secret;
        let expected = secret.proof(CONNECTING, &self.hello, &self.challenge);
        if expected.verify_slice(proof).is_err() {
            welcome[0..2].copy_from_slice(&Refusal::Credentials.code().to_le_bytes());
            return (welcome, Err(Refusal::Credentials));
        }
        welcome[4..8].copy_from_slice(&self.agreed.credit_bytes.to_le_bytes());
        let mac = secret.proof(ACCEPTING, &self.hello, &self.challenge);
        welcome[16..48].copy_from_slice(&mac.finalize().into_bytes());
        (welcome, Ok(self.agreed))
    }
}

/// What was said, and the version to speak.
fn judge(
    identity: &Identity,
    hello: &[u8; HELLO_BYTES],
    wall_ms: u64,
) -> Result<(Hello, u16), Refusal> {
    let said = Hello::decode(hello)?;
    let version = said.version.min(u16::from(VERSION));
    if version < said.version_oldest.max(u16::from(VERSION_OLDEST)) {
        let (theirs, their_oldest) = (said.version, said.version_oldest);
        return Err(Refusal::Version { theirs, their_oldest });
    }
    said.differs(identity, wall_ms)?;
    Ok((said, version))
}

fn lane_of(number: u8) -> Result<Lane, Malformed> {
    [Lane::Steps, Lane::Payload]
        .into_iter()
        .find(|lane| *lane as u8 == number)
        .ok_or(Malformed("the kind of a lane"))
}

/// Hash of a text that every node must have alike.
pub fn topology_hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn identity(this: u16) -> Identity {
        Identity {
            this: NodeIndex(this),
            topology: [7; 32],
            deployment: Some(DeploymentId(5)),
            secret: Secret::new([9; 32]),
        }
    }

    fn shake(connecting: Identity, accepting: Identity, their_ms: u64) -> (Outcome, Outcome) {
        let to = NodeIndex(1);
        let one = Connecting::new(connecting, to, Lane::Payload, NOW, [1; 32]);
        let (challenge, two) = Accepting::hello(accepting, one.hello(), their_ms, [2; 32], 1000);
        let (one, proof) = match one.challenged(&challenge, NOW) {
            Ok(proving) => proving,
            Err(refusal) => return (Err(refusal), two.map(|two| two.agreed)),
        };
        let (welcome, two) = match two {
            Ok(two) => two.proved(&proof),
            Err(refusal) => panic!("refused in silence: {refusal}"),
        };
        (one.welcomed(&welcome), two)
    }

    type Outcome = Result<Agreed, Refusal>;

    #[test]
    fn nodes_that_fit_agree() {
        let (one, two) = shake(identity(0), identity(1), NOW + 299_000);
        let agreed = Agreed {
            peer: NodeIndex(1),
            lane: Lane::Payload,
            version: VERSION,
            credit_bytes: 1000,
        };
        assert_eq!(one, Ok(agreed));
        assert_eq!(two, Ok(Agreed { peer: NodeIndex(0), ..agreed }));
    }

    #[test]
    fn a_deployment_yet_to_be_formed_is_no_difference() {
        let blank = Identity { deployment: None, ..identity(0) };
        assert!(shake(blank.clone(), identity(1), NOW).0.is_ok());
        assert!(shake(identity(0), Identity { this: NodeIndex(1), ..blank }, NOW).1.is_ok());
    }

    #[test]
    fn each_difference_is_named_on_both_sides() {
        let other = Identity { topology: [8; 32], ..identity(1) };
        let (one, two) = shake(identity(0), other, NOW);
        assert!(matches!(
            (one, two),
            (Err(Refusal::Topology { .. }), Err(Refusal::Topology { .. }))
        ));

        let other = Identity { deployment: Some(DeploymentId(6)), ..identity(1) };
        let (one, two) = shake(identity(0), other, NOW);
        let ours = Refusal::Deployment { theirs: DeploymentId(6), ours: DeploymentId(5) };
        assert_eq!(one, Err(ours));
        assert!(matches!(two, Err(Refusal::Deployment { .. })));

        let (one, two) = shake(identity(0), identity(1), NOW + 400_000);
        assert_eq!(one, Err(Refusal::Clock { seconds: 400, ahead: true }));
        assert_eq!(two, Err(Refusal::Clock { seconds: 400, ahead: false }));

        let (one, two) = shake(identity(0), identity(2), NOW);
        let elsewhere = Refusal::OtherNode { theirs: 2, expected: 1 };
        assert_eq!((one, two), (Err(elsewhere.clone()), Err(elsewhere)));
    }

    #[test]
    fn another_secret_is_refused_and_nothing_is_proved_to_it() {
        let other = Identity { secret: Secret::new([3; 32]), ..identity(1) };
        let (one, two) = shake(identity(0), other.clone(), NOW);
        assert_eq!((one, two), (Err(Refusal::Credentials), Err(Refusal::Credentials)));

        let one = Connecting::new(identity(0), NodeIndex(1), Lane::Steps, NOW, [1; 32]);
        let (challenge, two) = Accepting::hello(other, one.hello(), NOW, [2; 32], 0);
        let (_, proof) = one.challenged(&challenge, NOW).expect("so far they fit");
        let (welcome, _) = two.expect("so far they fit").proved(&proof);
        assert_eq!(welcome[16..], [0; 32]);
    }

    #[test]
    fn a_proof_holds_for_its_own_connection_only() {
        let hello = |nonce| Connecting::new(identity(0), NodeIndex(1), Lane::Steps, NOW, nonce);
        let accept =
            |one: &Connecting, nonce| Accepting::hello(identity(1), one.hello(), NOW, nonce, 0);
        let recorded = hello([1; 32]);
        let (challenge, _) = accept(&recorded, [2; 32]);
        let (_, proof) = recorded.challenged(&challenge, NOW).expect("fits");
        let (_, again) = accept(&hello([1; 32]), [3; 32]);
        assert_eq!(again.expect("fits").proved(&proof).1, Err(Refusal::Credentials));
        let (_, other_way) = accept(&hello([1; 32]), [2; 32]);
        assert!(
            other_way.expect("fits").proved(&proof).1.is_ok(),
            "the same words, the same proof"
        );
    }

    #[test]
    fn older_and_newer_nodes_speak_what_both_understand() {
        let one = Connecting::new(identity(0), NodeIndex(1), Lane::Steps, NOW, [1; 32]);
        let mut newer = Hello::decode(one.hello()).expect("ours");
        newer.version = u16::from(VERSION) + 5;
        let (_, accepting) = Accepting::hello(identity(1), &newer.encode(), NOW, [2; 32], 0);
        assert_eq!(accepting.expect("the older is understood").agreed.version, VERSION);
        newer.version_oldest = newer.version;
        let (challenge, accepting) =
            Accepting::hello(identity(1), &newer.encode(), NOW, [2; 32], 0);
        let refusal = accepting.expect_err("nothing in common");
        assert!(matches!(refusal, Refusal::Version { .. }), "{refusal}");
        let told = Hello::decode(&challenge).expect("a challenge");
        assert_eq!((told.refusal, told.version), (2, u16::from(VERSION)));
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let one = Connecting::new(identity(0), NodeIndex(1), Lane::Steps, NOW, [1; 32]);
        for bit in 0..HELLO_BYTES * 8 {
            let mut hello = *one.hello();
            hello[bit / 8] ^= 1 << (bit % 8);
            let (_, accepting) = Accepting::hello(identity(1), &hello, NOW, [2; 32], 0);
            assert!(accepting.is_err(), "bit {bit}");
        }
    }
}
