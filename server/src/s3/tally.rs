//! What a core counts of its requests, for the metrics.
//!
//! The counters are the core's own: plain numbers that nobody else reads or writes, so counting a
//! request costs no synchronisation. Who wants them all asks every core for its [`Counts`] and adds
//! them up. They begin at zero with the process, as counters of Prometheus may.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;

use super::error::Code;

/// Upper ends of the classes of times to the first byte, in milliseconds; one more class has none.
pub const FIRST_BYTE_MS: [u64; 8] = [50, 100, 250, 500, 1000, 2500, 5000, 10_000];
/// Buckets that one core counts by name. The names come from clients, so their number is bounded.
const BUCKETS_MAX: usize = 1024;

/// Why a request was refused before it was known what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    Auth,
    Time,
    Header,
    Invalid,
}

impl Rejection {
    pub const ALL: [Self; 4] = [Self::Auth, Self::Time, Self::Header, Self::Invalid];

    fn of(code: Code) -> Self {
        match code {
            Code::AccessDenied | Code::InvalidAccessKeyId | Code::SignatureDoesNotMatch => {
                Self::Auth
            }
            Code::RequestTimeTooSkewed => Self::Time,
            Code::HeadersTooLarge | Code::AuthorizationHeaderMalformed => Self::Header,
            _ => Self::Invalid,
        }
    }
}

/// What was counted; of one core, or of several that were added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By MinIO's name of the operation.
    pub apis: BTreeMap<&'static str, ApiCounts>,
    pub buckets: BTreeMap<String, BucketCounts>,
    /// In the order of [`Rejection::ALL`].
    pub rejected: [u64; Rejection::ALL.len()],
    /// Bytes of heads and bodies, without TLS.
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

/// Requests for one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiCounts {
    /// Those that were answered or given up by the client.
    pub requests: u64,
    /// Those whose answers are not sent to their end.
    pub in_flight: u64,
    pub errors_4xx: u64,
    pub errors_5xx: u64,
    /// The client left before it had its answer.
    pub canceled: u64,
    /// How many took how long to the first byte of their answers, in the classes of [`FIRST_BYTE_MS`].
    pub first_byte: [u64; FIRST_BYTE_MS.len() + 1],
}

/// Requests that name one bucket, and the bytes of their bodies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketCounts {
    pub apis: BTreeMap<&'static str, ApiCounts>,
    pub received_bytes: u64,
    pub sent_bytes: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Self) {
        add_apis(&mut self.apis, &other.apis);
        for (name, bucket) in &other.buckets {
            let sum = self.buckets.entry(name.clone()).or_default();
            add_apis(&mut sum.apis, &bucket.apis);
            sum.received_bytes += bucket.received_bytes;
            sum.sent_bytes += bucket.sent_bytes;
        }
        for (sum, rejected) in self.rejected.iter_mut().zip(other.rejected) {
            *sum += rejected;
        }
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
    }
}

fn add_apis(
    sums: &mut BTreeMap<&'static str, ApiCounts>,
    others: &BTreeMap<&'static str, ApiCounts>,
) {
    for (name, api) in others {
        let sum = sums.entry(name).or_default();
        sum.requests += api.requests;
        sum.in_flight += api.in_flight;
        sum.errors_4xx += api.errors_4xx;
        sum.errors_5xx += api.errors_5xx;
        sum.canceled += api.canceled;
        for (sum, count) in sum.first_byte.iter_mut().zip(api.first_byte) {
            *sum += count;
        }
    }
}

impl ApiCounts {
    fn ends(&mut self, outcome: Outcome) {
        self.in_flight -= 1;
        self.requests += 1;
        match outcome {
            Outcome::Canceled => self.canceled += 1,
            Outcome::Answered(status, after) => {
                self.errors_4xx += u64::from(status.is_client_error());
                self.errors_5xx += u64::from(status.is_server_error());
                let millis = after.as_millis();
                let class = FIRST_BYTE_MS.iter().position(|&end| millis <= u128::from(end));
                self.first_byte[class.unwrap_or(FIRST_BYTE_MS.len())] += 1;
            }
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy)]
enum Outcome {
    /// With this status, so long after it arrived.
    Answered(StatusCode, Duration),
    Canceled,
}

/// The counters of one core.
#[derive(Default)]
pub(super) struct Tally {
    apis: RefCell<BTreeMap<&'static str, ApiCounts>>,
    buckets: RefCell<Buckets>,
    rejected: Cell<[u64; Rejection::ALL.len()]>,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
}

/// Found by name when a request comes, and by place when it ends: only the first request in a bucket
/// takes its name along.
#[derive(Default)]
struct Buckets {
    places: BTreeMap<String, usize>,
    counts: Vec<BucketCounts>,
}

impl Tally {
    pub(super) fn counts(&self) -> Counts {
        let buckets = self.buckets.borrow();
        let named =
            |(name, place): (&String, &usize)| (name.clone(), buckets.counts[*place].clone());
        Counts {
            apis: self.apis.borrow().clone(),
            buckets: buckets.places.iter().map(named).collect(),
            rejected: self.rejected.get(),
            received_bytes: self.received_bytes.get(),
            sent_bytes: self.sent_bytes.get(),
        }
    }

    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.set(self.received_bytes.get() + bytes as u64);
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }
}

impl Buckets {
    fn find(&self, name: &str) -> Bucket {
        match self.places.get(name) {
            Some(place) => Bucket::Counted(*place),
            None if self.counts.len() < BUCKETS_MAX => Bucket::New(name.to_owned()),
            None => Bucket::None,
        }
    }

    /// Others may name anything, so a bucket is counted from the first request on that succeeds in it.
    fn of(&mut self, bucket: Bucket, succeeds: bool) -> Option<&mut BucketCounts> {
        let place = match bucket {
            Bucket::Counted(place) => place,
            // Another request in it may have come and gone meanwhile.
            Bucket::New(name) => match self.places.get(&name) {
                Some(place) => *place,
                None if succeeds && self.counts.len() < BUCKETS_MAX => {
                    self.places.insert(name, self.counts.len());
                    self.counts.push(BucketCounts::default());
                    self.counts.len() - 1
                }
                None => return None,
            },
            Bucket::None => return None,
        };
        Some(&mut self.counts[place])
    }
}

/// The bucket that a request names.
enum Bucket {
    Counted(usize),
    New(String),
    /// None, or one too many.
    None,
}

/// One request while it is served, until the last byte of its answer is handed over. One that is
/// dropped without an answer was given up by its client.
pub(super) struct Flight {
    tally: Rc<Tally>,
    /// What it asks for, once that is known.
    asked: RefCell<Option<(&'static str, Bucket)>>,
    outcome: Cell<Outcome>,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
}

impl Flight {
    pub(super) fn new(tally: &Rc<Tally>) -> Self {
        Self {
            tally: Rc::clone(tally),
            asked: RefCell::new(None),
            outcome: Cell::new(Outcome::Canceled),
            received_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
        }
    }

    /// It is known what the request asks for.
    pub(super) fn asks(&self, api: &'static str, bucket: Option<&str>) {
        let bucket = bucket.map_or(Bucket::None, |name| self.tally.buckets.borrow().find(name));
        let before = self.asked.borrow_mut().replace((api, bucket));
        assert!(before.is_none(), "a request asks for one thing");
        self.tally.apis.borrow_mut().entry(api).or_default().in_flight += 1;
    }

    /// It is refused, or failed.
    pub(super) fn fails(&self, code: Code) {
        if self.asked.borrow().is_none() {
            let mut rejected = self.tally.rejected.get();
            rejected[Rejection::of(code) as usize] += 1;
            self.tally.rejected.set(rejected);
        }
    }

    pub(super) fn is_answered(&self, status: StatusCode, after: Duration) {
        self.outcome.set(Outcome::Answered(status, after));
    }

    /// The client left before the end of the answer.
    pub(super) fn is_cut_off(&self) {
        self.outcome.set(Outcome::Canceled);
    }

    /// Bytes of its body arrived.
    pub(super) fn received(&self, bytes: usize) {
        self.received_bytes.set(self.received_bytes.get() + bytes as u64);
        self.tally.received(bytes);
    }

    /// Bytes of the answer's body were handed over.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let Some((api, bucket)) = self.asked.get_mut().take() else { return };
        let outcome = self.outcome.get();
        let mut apis = self.tally.apis.borrow_mut();
        apis.get_mut(api).expect("it was counted when it came").ends(outcome);
        let succeeds = matches!(outcome, Outcome::Answered(status, _) if status.as_u16() < 400);
        let mut buckets = self.tally.buckets.borrow_mut();
        let Some(bucket) = buckets.of(bucket, succeeds) else { return };
        bucket.received_bytes += self.received_bytes.get();
        bucket.sent_bytes += self.sent_bytes.get();
        let of_api = bucket.apis.entry(api).or_default();
        of_api.in_flight += 1;
        of_api.ends(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(tally: &Rc<Tally>, bucket: &str, status: u16, millis: u64) {
        let flight = Flight::new(tally);
        flight.asks("getobject", Some(bucket));
        flight.received(2);
        flight.sent(3);
        let status = StatusCode::from_u16(status).expect("a status");
        flight.is_answered(status, Duration::from_millis(millis));
    }

    #[test]
    fn a_request_is_counted_once_where_it_belongs() {
        let tally = Rc::new(Tally::default());
        request(&tally, "made-up", 404, 1);
        request(&tally, "bucket", 200, 50);
        request(&tally, "bucket", 404, 51);
        request(&tally, "bucket", 503, 20_000);
        let left = Flight::new(&tally);
        left.asks("getobject", Some("bucket"));
        assert_eq!(tally.counts().apis["getobject"].in_flight, 1);
        drop(left);
        let counts = tally.counts();
        let api = &counts.apis["getobject"];
        assert_eq!((api.requests, api.in_flight), (5, 0));
        assert_eq!((api.errors_4xx, api.errors_5xx, api.canceled), (2, 1, 1));
        assert_eq!(api.first_byte, [2, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(counts.buckets.keys().collect::<Vec<_>>(), ["bucket"]);
        let bucket = &counts.buckets["bucket"];
        assert_eq!((bucket.received_bytes, bucket.sent_bytes), (6, 9));
        let api = &bucket.apis["getobject"];
        assert_eq!((api.requests, api.errors_4xx, api.errors_5xx, api.canceled), (4, 1, 1, 1));
    }

    #[test]
    fn what_is_refused_at_once_is_counted_by_its_reason() {
        let tally = Rc::new(Tally::default());
        let codes =
            [Code::SignatureDoesNotMatch, Code::RequestTimeTooSkewed, Code::HeadersTooLarge];
        for code in codes.into_iter().chain([Code::InvalidUri, Code::AccessDenied]) {
            Flight::new(&tally).fails(code);
        }
        let known = Flight::new(&tally);
        known.asks("putobject", None);
        known.fails(Code::AccessDenied);
        assert_eq!(tally.counts().rejected, [2, 1, 1, 1]);
    }

    #[test]
    fn names_of_buckets_are_bounded_and_counts_add_up() {
        let tally = Rc::new(Tally::default());
        for number in 0..=BUCKETS_MAX {
            request(&tally, &format!("bucket-{number}"), 200, 0);
        }
        tally.received(5);
        tally.sent(7);
        let counts = tally.counts();
        let requests = BUCKETS_MAX as u64 + 1;
        assert_eq!(counts.buckets.len(), BUCKETS_MAX);
        assert_eq!((counts.received_bytes, counts.sent_bytes), (5 + 2 * requests, 7));
        let mut sum = counts.clone();
        sum.add(&counts);
        assert_eq!(sum.apis["getobject"].requests, 2 * requests);
        assert_eq!(sum.apis["getobject"].first_byte[0], 2 * requests);
        assert_eq!(sum.buckets["bucket-7"].apis["getobject"].requests, 2);
        assert_eq!(sum.buckets["bucket-7"].sent_bytes, 6);
        assert_eq!(sum.sent_bytes, 14);
    }
}
