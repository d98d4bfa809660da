//! Rate limits of clients.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Instant;

use super::lock;

/// Requests of this many seconds may come at once, as for a page with many pictures.
const BURST_S: f64 = 4.0;
/// The most clients that are remembered; those idle for the longest time are forgotten first.
const MOST_CLIENTS: usize = 10_000;

/// The remaining requests of clients.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<IpAddr, Bucket>>);

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// Whether a client may send a request now, at `per_s` requests per second; 0 allows any number.
    pub fn may_ask(&self, client: IpAddr, per_s: u32, now: Instant) -> bool {
        if per_s == 0 {
            return true;
        }
        let per_s = f64::from(per_s);
        let most = per_s * BURST_S;
        let mut buckets = lock(&self.0);
        if buckets.len() >= MOST_CLIENTS {
            // A client that was idle for that long has its full rate anyway.
            buckets.retain(|_, bucket| now.saturating_duration_since(bucket.at).as_secs_f64() < BURST_S);
            if buckets.len() >= MOST_CLIENTS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(who(client)).or_insert(Bucket { left: most, at: now });
        let since_s = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + since_s * per_s).min(most);
        bucket.at = now;
        if bucket.left < 1.0 {
            return false;
        }
        bucket.left -= 1.0;
        true
    }
}

/// One client may use a whole network of IPv6 addresses.
fn who(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_client_may_ask_so_often_and_others_do_not_suffer() {
        let rates = Rates::default();
        let start = Instant::now();
        let asked = |client: &str, at_s: f64| {
            let now = start + Duration::from_secs_f64(at_s);
            (0..100).filter(|_| rates.may_ask(client.parse().unwrap(), 10, now)).count()
        };
        assert_eq!(asked("10.0.0.1", 0.0), 40);
        assert_eq!(asked("10.0.0.1", 0.5), 5);
        assert_eq!(asked("10.0.0.2", 0.5), 40);
        assert_eq!(asked("10.0.0.1", 60.0), 40, "no more than at first");
        assert_eq!(asked("2001:db8::1", 0.0), 40);
        assert_eq!(asked("2001:db8::2:3:4:5", 0.0), 0, "the same network");
        assert!((0..100).all(|_| rates.may_ask("10.0.0.9".parse().unwrap(), 0, start)));
        for number in 0..20_000u32 {
            rates.may_ask(std::net::Ipv4Addr::from(number).into(), 10, start);
        }
        assert!(lock(&rates.0).len() <= MOST_CLIENTS);
    }
}
