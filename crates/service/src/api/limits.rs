//! Rate limits: by account after authentication, by address before it.
//!
//! An account may read a long list in one go (a client that pages through a
//! pinset asks once per pin at worst) and poll its own pins without thinking
//! about it; so lists have a large burst and polling one pin costs a tenth.
//! With several services on one database each gives its share, by charging as
//! many times the cost as there are live ones (see [`super::instances`]).
//!
//! Memory is bounded: a limiter that knows [`MAX_KEYS`] keys forgets those
//! that are full again, and when none are, new keys share one allowance.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    nanos::Nanos,
    state::StateStore,
};
use parking_lot::Mutex;

use super::{address, error::ApiError};
use crate::db::AccountId;

/// Cells that one list costs; a GET of one pin costs one of them.
const CELLS_PER_READ: u32 = 10;
/// Keys that one limiter remembers: about 5 MiB at most.
const MAX_KEYS: usize = 1 << 16;

/// Requests a second that a limiter allows, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second after the burst.
    pub per_second: NonZeroU32,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
}

/// The limits of all live services on one database together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Reads of one account; a GET of one pin counts a tenth.
    pub reads: Rate,
    /// Writes of one account.
    pub writes: Rate,
    /// All requests of one client address (a /64 with IPv6).
    pub address: Rate,
}

impl Default for RateLimits {
    fn default() -> Self {
        let rate = |per_second, burst| Rate {
            per_second: NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN),
            burst: NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN),
        };
        // Many accounts may share an address, so it is given several times
        // what one account is.
        let address = rate(5_000, 50_000);
        Self { reads: rate(1_000, 10_000), writes: rate(200, 2_000), address }
    }
}

/// What a request costs its account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// A GET of one pin.
    Poll,
    /// A list, or any other read.
    Read,
    /// Any change.
    Write,
}

/// The limiters of one process.
pub(crate) struct Limits {
    limiters: Option<Limiters>,
}

struct Limiters {
    /// What every cost is multiplied by.
    instances: AtomicU32,
    reads: Limiter<AccountId>,
    writes: Limiter<AccountId>,
    addresses: Limiter<IpAddr>,
}

struct Limiter<K: Hash + Eq + Clone> {
    cells: RateLimiter<K, Store<K>, DefaultClock>,
    /// The most that one request can be charged: what the limiter holds when
    /// it is full. With more services than that, a request takes all of it.
    most: u32,
}

impl Limits {
    /// Limiters with these rates; none: no limits.
    pub(crate) fn new(rates: Option<RateLimits>) -> Self {
        let limiters = rates.map(|rates| Limiters {
            instances: AtomicU32::new(1),
            reads: Limiter::new(rates.reads, CELLS_PER_READ),
            writes: Limiter::new(rates.writes, 1),
            addresses: Limiter::new(rates.address, 1),
        });
        Self { limiters }
    }

    /// Gives what one of so many services has to give from now on.
    pub(crate) fn share_among(&self, instances: u32) {
        if let Some(limiters) = &self.limiters {
            limiters.instances.store(instances.max(1), Ordering::Relaxed);
        }
    }

    /// Charges a request to its account.
    ///
    /// # Errors
    /// `TooManyRequests`, with the pause after which it would pass.
    pub(crate) fn charge(&self, account: AccountId, cost: Cost) -> Result<(), ApiError> {
        let Some(limiters) = &self.limiters else { return Ok(()) };
        let times = limiters.instances.load(Ordering::Relaxed);
        match cost {
            Cost::Poll => limiters.reads.charge(&account, times, READS),
            Cost::Read => limiters.reads.charge(&account, CELLS_PER_READ.saturating_mul(times), READS),
            Cost::Write => limiters.writes.charge(&account, times, WRITES),
        }
    }

    /// Charges a request to its client's address.
    ///
    /// # Errors
    /// `TooManyRequests`, with the pause after which it would pass.
    pub(crate) fn charge_address(&self, client: IpAddr) -> Result<(), ApiError> {
        let Some(limiters) = &self.limiters else { return Ok(()) };
        let times = limiters.instances.load(Ordering::Relaxed);
        limiters.addresses.charge(&address::limit_key(client), times, REQUESTS)
    }
}

const READS: &str = "too many reads for this account; wait as long as Retry-After says";
const WRITES: &str = "too many changes for this account; wait as long as Retry-After says";
const REQUESTS: &str = "too many requests from this address; wait as long as Retry-After says";

impl<K: Hash + Eq + Clone> Limiter<K> {
    /// A limiter in which a request of the rate costs so many cells.
    fn new(rate: Rate, cells: u32) -> Self {
        let cells = NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN);
        let burst = rate.burst.saturating_mul(cells);
        let quota = Quota::per_second(rate.per_second.saturating_mul(cells)).allow_burst(burst);
        let cells = RateLimiter::new(quota, Store::new(), DefaultClock::default());
        Self { cells, most: burst.get() }
    }

    fn charge(&self, key: &K, cells: u32, reason: &'static str) -> Result<(), ApiError> {
        let cells = NonZeroU32::new(cells.min(self.most)).unwrap_or(NonZeroU32::MIN);
        let retry_after = match self.cells.check_key_n(key, cells) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(not_until)) => not_until.wait_time_from(self.cells.clock().now()),
            // More than it holds was asked for, which is ruled out above.
            Err(_) => Duration::from_secs(1),
        };
        metrics::counter!("pinfold_http_rate_limited_total").increment(1);
        Err(ApiError::TooManyRequests { reason: reason.into(), retry_after })
    }
}

/// What a limiter remembers: when each key's allowance is full again, in
/// nanoseconds since the limiter was made.
struct Store<K> {
    cells: Mutex<Cells<K>>,
    started: std::time::Instant,
}

struct Cells<K> {
    by_key: HashMap<K, Nanos>,
    /// Of all keys for which there was no room.
    overflow: Option<Nanos>,
    /// No search for full keys before this, so that a flood pays for one
    /// search a second and not one a request.
    next_search: Duration,
}

impl<K> Store<K> {
    fn new() -> Self {
        let cells = Cells { by_key: HashMap::new(), overflow: None, next_search: Duration::ZERO };
        Self { cells: Mutex::new(cells), started: std::time::Instant::now() }
    }
}

impl<K: Hash + Eq + Clone> Cells<K> {
    /// Forgets keys that are full again, at most once a second.
    fn make_room(&mut self, now: Duration) {
        if self.by_key.len() < MAX_KEYS || now < self.next_search {
            return;
        }
        let now_nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.by_key.retain(|_, full_at| full_at.as_u64() > now_nanos);
        self.next_search = now + Duration::from_secs(1);
    }
}

impl<K: Hash + Eq + Clone> StateStore for Store<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut cells = self.cells.lock();
        if let Some(state) = cells.by_key.get_mut(key) {
            let (result, next) = f(Some(*state))?;
            *state = next;
            return Ok(result);
        }
        cells.make_room(self.started.elapsed());
        if cells.by_key.len() < MAX_KEYS {
            let (result, next) = f(None)?;
            cells.by_key.insert(key.clone(), next);
            return Ok(result);
        }
        let (result, next) = f(cells.overflow)?;
        cells.overflow = Some(next);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: per_second.try_into().unwrap(), burst: burst.try_into().unwrap() }
    }

    fn rates() -> RateLimits {
        RateLimits { reads: rate(1, 10), writes: rate(1, 3), address: rate(1, 5) }
    }

    fn limits() -> Limits {
        Limits::new(Some(rates()))
    }

    fn passed(mut attempt: impl FnMut() -> Result<(), ApiError>) -> usize {
        (0..1_000).take_while(|_| attempt().is_ok()).count()
    }

    #[test]
    fn polling_one_pin_costs_a_tenth_of_a_list() {
        let limits = limits();
        assert_eq!(passed(|| limits.charge(1, Cost::Read)), 10);
        assert_eq!(passed(|| limits.charge(2, Cost::Poll)), 100);
        assert_eq!(passed(|| limits.charge(1, Cost::Write)), 3, "writes are counted apart");
    }

    #[test]
    fn the_defaults_are_those_of_the_documentation() {
        let RateLimits { reads, writes, address } = RateLimits::default();
        assert_eq!((reads, writes, address), (rate(1_000, 10_000), rate(200, 2_000), rate(5_000, 50_000)));
        // A burst of lists, each of which a client may follow by ten polls.
        let limits = Limits::new(Some(RateLimits::default()));
        let lists = (0..20_000).take_while(|_| limits.charge(1, Cost::Read).is_ok()).count();
        assert!((10_000..20_000).contains(&lists), "{lists}");
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let limits = limits();
        passed(|| limits.charge(1, Cost::Write));
        match limits.charge(1, Cost::Write) {
            Err(ApiError::TooManyRequests { retry_after, .. }) => {
                assert!(retry_after > Duration::ZERO && retry_after <= Duration::from_secs(1));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn services_share_every_limit() {
        let limits = limits();
        limits.share_among(2);
        assert_eq!(passed(|| limits.charge(1, Cost::Read)), 5);
        assert_eq!(passed(|| limits.charge_address("203.0.113.9".parse().unwrap())), 2);
        limits.share_among(1);
        assert_eq!(passed(|| limits.charge(2, Cost::Read)), 10, "again alone");
    }

    #[test]
    fn with_more_services_than_the_burst_has_requests_one_still_passes() {
        let limits = limits();
        limits.share_among(1_000);
        assert_eq!(passed(|| limits.charge(1, Cost::Write)), 1);
    }

    #[test]
    fn addresses_are_counted_by_customer() {
        let limits = limits();
        assert_eq!(passed(|| limits.charge_address("2001:db8::1".parse().unwrap())), 5);
        assert!(limits.charge_address("2001:db8::2".parse().unwrap()).is_err());
        assert!(limits.charge_address("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn no_rates_no_limits() {
        let limits = Limits::new(None);
        assert_eq!(passed(|| limits.charge(1, Cost::Write)), 1_000);
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_shares_one_allowance() {
        let limits = limits();
        let address = |n: u32| IpAddr::V4(n.into());
        for n in 0..u32::try_from(MAX_KEYS).unwrap() {
            limits.charge_address(address(n)).unwrap();
        }
        let further = (0..1_000).filter(|n| limits.charge_address(address(u32::MAX - n)).is_ok()).count();
        assert!(further <= 10, "{further} keys beyond the bound passed");
        assert!(limits.charge_address(address(1)).is_ok(), "a known key keeps its own");
    }
}
