//! What inbound connections are counted by: where they come from, and the
//! memory of this process.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// How often the memory is looked at, while connections come in: often enough
/// that those in between hold little, seldom enough to cost nothing.
const LOOK: Duration = Duration::from_millis(200);

/// Connections by address. Never larger than the connections counted.
#[derive(Default)]
pub(super) struct ByAddress(HashMap<IpAddr, usize>);

impl ByAddress {
    pub(super) fn count(&self, ip: IpAddr) -> usize {
        self.0.get(&ip).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, ip: IpAddr) {
        *self.0.entry(ip).or_default() += 1;
    }

    pub(super) fn remove(&mut self, ip: IpAddr) {
        if let Some(count) = self.0.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&ip);
            }
        }
    }
}

/// The memory that this process has in use, against a limit in bytes.
pub(super) struct Memory {
    limit: u64,
    looked: Option<(Instant, bool)>,
}

impl Memory {
    pub(super) fn new(limit: u64) -> Self {
        Self { limit, looked: None }
    }

    /// Whether more is in use than may be. Where the system does not tell,
    /// nothing is known to be.
    pub(super) fn is_exceeded(&mut self) -> bool {
        let now = Instant::now();
        match self.looked {
            Some((at, exceeded)) if now.duration_since(at) < LOOK => exceeded,
            _ => {
                let exceeded = resident().is_some_and(|bytes| bytes > self.limit);
                self.looked = Some((now, exceeded));
                exceeded
            }
        }
    }
}

/// The bytes of this process that are in memory, as Linux tells.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_memory_in_use_is_read() {
        let bytes = resident().unwrap();
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
        assert!(Memory::new(0).is_exceeded() && !Memory::new(u64::MAX).is_exceeded());
    }

    #[test]
    fn addresses_are_forgotten_with_their_last_connection() {
        let (mut counts, ip) = (ByAddress::default(), IpAddr::from([1, 2, 3, 4]));
        counts.add(ip);
        counts.add(ip);
        counts.remove(ip);
        assert_eq!(counts.count(ip), 1);
        counts.remove(ip);
        counts.remove(ip);
        assert_eq!((counts.count(ip), counts.0.len()), (0, 0));
    }
}
