//! The day on which a conversation began, for clients that send all of it each time and nothing that tells the day: known
//! by how the conversation begins. Without it the system message of a conversation that lasts past midnight would change,
//! and with it every token after.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Conversations of one key; the one that was used longest ago is forgotten first.
const MOST_OF_OWNER: usize = 1024;

/// See the module. Separate for each key, as everything that a client can notice.
#[derive(Default)]
pub(super) struct Dates {
    /// Beginnings are kept as their hash alone.
    hasher: RandomState,
    owners: Mutex<HashMap<Arc<str>, HashMap<u64, Day>>>,
}

struct Day {
    date: String,
    used: Instant,
}

/// How a conversation begins, and whether the model has spoken in it already.
#[derive(Debug, Clone, Copy)]
pub struct Beginning<'a> {
    /// The application's words and the first of the user's.
    pub words: &'a [&'a str],
    /// False for one that begins with this request.
    pub goes_on: bool,
}

impl Dates {
    /// The day on which it began: `today`, if it begins now or is not known.
    pub fn of(&self, now: Instant, owner: &str, beginning: Beginning, today: &str) -> String {
        let hash = self.hasher.hash_one(beginning.words);
        // Every change below is whole before anything can panic.
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let days = owners.entry(Arc::from(owner)).or_default();
        let known = days.get(&hash).filter(|_| beginning.goes_on).map(|day| day.date.clone());
        let date = known.unwrap_or_else(|| today.to_owned());
        days.insert(hash, Day { date: date.clone(), used: now });
        if days.len() > MOST_OF_OWNER
            && let Some(oldest) = days.iter().min_by_key(|(_, day)| day.used).map(|(hash, _)| *hash)
        {
            days.remove(&oldest);
        }
        date
    }

    /// Forgets what nobody used for so long.
    pub fn sweep(&self, now: Instant, max_age: Duration) {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        for days in owners.values_mut() {
            days.retain(|_, day| now.saturating_duration_since(day.used) < max_age);
        }
        owners.retain(|_, days| !days.is_empty());
    }

    /// Forgets everything of a key.
    pub fn erase(&self, owner: &str) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Beginning, Dates, MOST_OF_OWNER};

    const MONDAY: &str = "2026-11-23";
    const TUESDAY: &str = "2026-11-24";

    fn of(dates: &Dates, at: Instant, owner: &str, words: &str, goes_on: bool, today: &str) -> String {
        dates.of(at, owner, Beginning { words: &["Be brief.", words], goes_on }, today)
    }

    #[test]
    fn a_conversation_keeps_its_day_and_a_new_one_has_its_own() {
        let (dates, now) = (Dates::default(), Instant::now());
        assert_eq!(of(&dates, now, "ada", "Hi", false, MONDAY), MONDAY);
        assert_eq!(of(&dates, now, "ada", "Hi", true, TUESDAY), MONDAY);
        assert_eq!(of(&dates, now, "eve", "Hi", true, TUESDAY), TUESDAY, "another key's is another");
        assert_eq!(of(&dates, now, "ada", "Ho", true, TUESDAY), TUESDAY, "unknown");
        assert_eq!(of(&dates, now, "ada", "Hi", false, TUESDAY), TUESDAY, "begun again");
        assert_eq!(of(&dates, now, "ada", "Hi", true, MONDAY), TUESDAY);
    }

    #[test]
    fn what_is_not_used_is_forgotten_and_a_flood_forgets_its_own_oldest() {
        let (dates, now) = (Dates::default(), Instant::now());
        let second = Duration::from_secs(1);
        of(&dates, now, "ada", "Hi", false, MONDAY);
        for number in 0..2 * MOST_OF_OWNER {
            of(&dates, now + second, "eve", &number.to_string(), false, MONDAY);
        }
        assert_eq!(dates.owners.lock().unwrap()["eve"].len(), MOST_OF_OWNER);
        assert_eq!(of(&dates, now + second, "ada", "Hi", true, TUESDAY), MONDAY);
        dates.sweep(now + 60 * second, 60 * second);
        assert_eq!(of(&dates, now + 60 * second, "ada", "Hi", true, TUESDAY), MONDAY, "used since");
        dates.sweep(now + 120 * second, 60 * second);
        assert!(dates.owners.lock().unwrap().is_empty());
    }
}
