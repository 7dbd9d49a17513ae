//! Quotas: how many requests and tokens a key may use in a minute. Two buckets for each key fill evenly; a request is
//! taken while there is one left, and tokens are taken off when they are known, so that a bucket may go below empty and
//! the key waits until it has filled again. What a client waits for is said in OpenAI's headers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::auth::{Identity, Quota};
use crate::error::ApiError;

/// Buckets fill in this time.
const MINUTE_S: f64 = 60.0;
/// Before more keys than this have buckets, full ones are forgotten.
const MOST_BUCKETS: usize = 20_000;

/// The buckets of all keys.
#[derive(Default)]
pub struct Quotas {
    keys: Mutex<HashMap<Arc<str>, Buckets>>,
}

struct Buckets {
    /// Left.
    requests: f64,
    tokens: f64,
    at: Instant,
}

/// What is left of a key's quota.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Left {
    quota: Quota,
    requests: f64,
    tokens: f64,
}

impl Quotas {
    /// Takes one request.
    pub fn request(&self, identity: &Identity) -> Result<Left, ApiError> {
        self.request_at(identity, Instant::now())
    }

    /// Refuses where the tokens of this minute are used up already.
    pub fn admit(&self, identity: &Identity, tokens: usize) -> Result<(), ApiError> {
        self.admit_at(identity, tokens, Instant::now())
    }

    /// Takes tokens.
    pub fn spend(&self, identity: &Identity, tokens: usize) {
        self.with(identity, Instant::now(), |buckets| buckets.tokens -= tokens as f64);
    }

    /// What is left now.
    pub fn left(&self, identity: &Identity) -> Left {
        self.with(identity, Instant::now(), |buckets| Left::of(identity.quota, buckets))
    }

    fn request_at(&self, identity: &Identity, now: Instant) -> Result<Left, ApiError> {
        let Some(limit) = identity.quota.requests_per_minute else {
            return Ok(self.with(identity, now, |buckets| Left::of(identity.quota, buckets)));
        };
        self.with(identity, now, |buckets| {
            if buckets.requests < 1.0 {
                let retry_after_s = seconds_until(1.0 - buckets.requests, limit);
                return Err(ApiError::RateLimit { what: "requests", limit, retry_after_s });
            }
            buckets.requests -= 1.0;
            Ok(Left::of(identity.quota, buckets))
        })
    }

    fn admit_at(&self, identity: &Identity, tokens: usize, now: Instant) -> Result<(), ApiError> {
        let Some(limit) = identity.quota.tokens_per_minute else { return Ok(()) };
        // A prompt that is longer than the whole quota would never be taken: it may go when the bucket is full.
        let wanted = (tokens as f64).min(limit as f64);
        self.with(identity, now, |buckets| match buckets.tokens >= wanted {
            true => Ok(()),
            false => {
                let retry_after_s = seconds_until(wanted - buckets.tokens, limit);
                Err(ApiError::RateLimit { what: "tokens", limit, retry_after_s })
            }
        })
    }

    fn with<T>(&self, identity: &Identity, now: Instant, take: impl FnOnce(&mut Buckets) -> T) -> T {
        let mut keys = self.lock();
        if keys.len() >= MOST_BUCKETS && !keys.contains_key(&identity.key_id) {
            keys.retain(|_, buckets| (now - buckets.at).as_secs_f64() < MINUTE_S);
        }
        let (requests, tokens) = full(identity.quota);
        let fresh = || Buckets { requests, tokens, at: now };
        let buckets = keys.entry(Arc::clone(&identity.key_id)).or_insert_with(fresh);
        let share = now.saturating_duration_since(buckets.at).as_secs_f64() / MINUTE_S;
        buckets.requests = (buckets.requests + share * requests).min(requests);
        buckets.tokens = (buckets.tokens + share * tokens).min(tokens);
        buckets.at = buckets.at.max(now);
        take(buckets)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Buckets>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What full buckets hold.
fn full(quota: Quota) -> (f64, f64) {
    (quota.requests_per_minute.unwrap_or(0) as f64, quota.tokens_per_minute.unwrap_or(0) as f64)
}

/// Seconds until a bucket that fills with `per_minute` has `missing` more.
fn seconds_until(missing: f64, per_minute: u64) -> u64 {
    (missing * MINUTE_S / per_minute.max(1) as f64).ceil().clamp(1.0, 3600.0) as u64
}

impl Left {
    fn of(quota: Quota, buckets: &Buckets) -> Self {
        Self { quota, requests: buckets.requests, tokens: buckets.tokens }
    }

    /// OpenAI's headers; none for what has no quota.
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        if let Some(limit) = self.quota.requests_per_minute {
            set("x-ratelimit-limit-requests", limit.to_string());
            set("x-ratelimit-remaining-requests", (self.requests.max(0.0) as u64).to_string());
            set("x-ratelimit-reset-requests", reset(limit, self.requests));
        }
        if let Some(limit) = self.quota.tokens_per_minute {
            set("x-ratelimit-limit-tokens", limit.to_string());
            set("x-ratelimit-remaining-tokens", (self.tokens.max(0.0) as u64).to_string());
            set("x-ratelimit-reset-tokens", reset(limit, self.tokens));
        }
    }
}

/// The time until a bucket is full, as OpenAI writes it.
fn reset(limit: u64, left: f64) -> String {
    let seconds = (limit as f64 - left) * MINUTE_S / limit.max(1) as f64;
    format!("{:.3}s", seconds.max(0.0))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use axum::http::HeaderMap;

    use super::Quotas;
    use crate::auth::{Identity, Quota};
    use crate::error::ApiError;

    fn identity(key_id: &str, requests: Option<u64>, tokens: Option<u64>) -> Identity {
        let quota = Quota { requests_per_minute: requests, tokens_per_minute: tokens };
        Identity {
            key_id: key_id.into(),
            name: "".into(),
            client: 1,
            salt: 1,
            quota,
            trail: crate::audit::Trail::default(),
        }
    }

    #[test]
    fn requests_run_out_and_come_back() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let me = identity("me", Some(3), None);
        for left in ["2", "1", "0"] {
            let mut headers = HeaderMap::new();
            quotas.request_at(&me, now).unwrap().write(&mut headers);
            assert_eq!(headers["x-ratelimit-remaining-requests"], left);
            assert_eq!(headers["x-ratelimit-limit-requests"], "3");
            assert!(!headers.contains_key("x-ratelimit-limit-tokens"));
        }
        let refused = ApiError::RateLimit { what: "requests", limit: 3, retry_after_s: 20 };
        assert_eq!(quotas.request_at(&me, now), Err(refused));
        assert!(quotas.request_at(&identity("you", Some(3), None), now).is_ok(), "others are not touched");
        assert!(quotas.request_at(&me, now + Duration::from_secs(21)).is_ok());
        assert!(quotas.request_at(&me, now + Duration::from_secs(22)).is_err());
    }

    #[test]
    fn tokens_are_taken_when_they_are_known() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let me = identity("me", None, Some(600));
        quotas.admit_at(&me, 500, now).unwrap();
        quotas.with(&me, now, |buckets| buckets.tokens -= 900.0);
        let refused = ApiError::RateLimit { what: "tokens", limit: 600, retry_after_s: 31 };
        assert_eq!(quotas.admit_at(&me, 10, now), Err(refused));
        quotas.admit_at(&me, 10, now + Duration::from_secs(31)).unwrap();
        quotas.admit_at(&me, 100_000, now + Duration::from_secs(120)).unwrap();
        assert_eq!(quotas.left(&me).quota.tokens_per_minute, Some(600));
    }

    #[test]
    fn no_quota_no_limit() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let me = identity("me", None, None);
        for _ in 0..1000 {
            quotas.request_at(&me, now).unwrap();
        }
        quotas.spend(&me, usize::MAX);
        quotas.admit_at(&me, usize::MAX, now).unwrap();
        let zero = identity("zero", Some(0), Some(0));
        assert!(quotas.request_at(&zero, now).is_err());
    }
}
