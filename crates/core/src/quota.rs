//! What is charged, and how much a fetch may hold next.
//!
//! Nothing is charged before it is known. A fetching node asks for grants;
//! each is reserved from every account that holds the content, in one
//! conditional statement of the database. These functions say how large a
//! grant is and what is charged in the end; the database adds the locks.

/// The smallest charge of a content, in bytes: what its rows cost.
pub const MIN_BILLED: u64 = 4_096;

/// A grant far from the limit, in bytes. Large enough that a fetch at full
/// rate asks a few times a second, small enough that a few fetches side by
/// side do not tie up a free account's quota.
pub const GRANT: u64 = 64 << 20;

/// What a content with this many bytes in distinct blocks is charged.
///
/// A content that has no blocks of its own, because an identity CID holds all
/// of it, is charged nothing: use [`crate::manifest::Manifest::billed`] where
/// that can be.
#[must_use]
pub fn billed(bytes: u64) -> u64 {
    bytes.max(MIN_BILLED)
}

/// Bytes that an account may still reserve.
#[must_use]
pub fn free(quota: u64, used: u64, reserved: u64) -> u64 {
    quota.saturating_sub(used).saturating_sub(reserved)
}

/// The size of the next grant, in bytes; 0 when nothing is left.
///
/// It is [`GRANT`], halved until it takes no more than half of what is free,
/// so that fetches side by side share the rest; and what is free when that is
/// less than the smallest useful grant, one block of the largest size: so the
/// last byte of a quota can be used.
#[must_use]
pub fn next_grant(quota: u64, used: u64, reserved: u64) -> u64 {
    const SMALLEST: u64 = crate::policy::MAX_BLOCK as u64;
    let free = free(quota, used, reserved);
    let mut grant = GRANT;
    while grant > free / 2 && grant > SMALLEST {
        grant /= 2;
    }
    grant.min(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_grant_halves_near_the_limit() {
        let check = |quota, used, reserved, want| {
            assert_eq!(next_grant(quota, used, reserved), want, "{quota} {used} {reserved}");
        };
        check(20_000 * MIB, 0, 0, 64 * MIB);
        check(128 * MIB, 0, 0, 64 * MIB);
        check(128 * MIB, 0, 1, 32 * MIB);
        check(100 * MIB, 50 * MIB, 10 * MIB, 16 * MIB);
        check(100 * MIB, 96 * MIB, 0, 2 * MIB);
        check(100 * MIB, 98 * MIB, 0, 2 * MIB);
        check(100 * MIB, 99 * MIB, 0, MIB);
        check(100 * MIB, 0, 100 * MIB - 1, 1);
        check(100 * MIB, 100 * MIB, 0, 0);
        check(100 * MIB, u64::MAX, u64::MAX, 0);
        check(u64::MAX, 0, 0, 64 * MIB);
    }

    #[test]
    fn grants_use_a_quota_to_its_last_byte_and_never_exceed_it() {
        for quota in [0, 1, 4_095, 2 * MIB - 1, 2 * MIB, 63 * MIB + 17, 1_000 * MIB] {
            let mut reserved = 0;
            let mut steps = 0;
            loop {
                let grant = next_grant(quota, 0, reserved);
                if grant == 0 {
                    break;
                }
                reserved += grant;
                steps += 1;
                assert!(reserved <= quota);
            }
            assert_eq!(reserved, quota);
            assert!(steps < 40, "{steps} grants for {quota}");
        }
    }

    #[test]
    fn small_contents_are_charged_a_minimum() {
        assert_eq!([0, 1, 4_096, 4_097].map(billed), [4_096, 4_096, 4_096, 4_097]);
    }
}
