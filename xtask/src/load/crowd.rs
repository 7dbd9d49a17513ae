//! Threads that ask: as many as there are streams, each again as soon as it was answered (a closed loop), or at times that
//! do not depend on how fast the server is (an open loop).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::http::{Client, Outcome};

/// After a refusal a stream of a closed loop waits so long.
const PAUSE: Duration = Duration::from_millis(200);
/// How often the caller looks around while the threads ask.
const LOOK: Duration = Duration::from_secs(1);
/// A thread needs little.
const STACK: usize = 256 << 10;

/// Makes one request and hears the answer: told the client, and the request's number in the whole run.
pub type Ask<'a> = &'a (dyn Fn(&mut Client, u64) -> Outcome + Sync);

/// `streams` threads, each asking until `time` is over; what was begun is heard to its end. `meanwhile` is called about
/// every second by the calling thread.
pub fn closed(at: SocketAddr, streams: usize, time: Duration, ask: Ask, meanwhile: &mut dyn FnMut()) -> Vec<Outcome> {
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    let stream = || {
        let (mut client, mut outcomes) = (Client::new(at), Vec::new());
        while begun.elapsed() < time {
            let sent = begun.elapsed();
            let outcome = ask(&mut client, next.fetch_add(1, Ordering::Relaxed) as u64);
            if outcome.status == 429 || outcome.error.is_some() {
                thread::sleep(PAUSE);
            }
            outcomes.push(Outcome { at: sent, ..outcome });
        }
        outcomes
    };
    together(streams, &stream, meanwhile)
}

/// Requests at random times, `rate` a second for `time`. A request that finds none of the `workers` free is late: its
/// time is counted from when it was sent, and `at` says when it was due.
pub fn open(at: SocketAddr, workers: usize, rate: f64, time: Duration, ask: Ask) -> Vec<Outcome> {
    let due = arrivals(rate, time, 9);
    let (begun, next) = (Instant::now(), AtomicUsize::new(0));
    let worker = || {
        let (mut client, mut outcomes) = (Client::new(at), Vec::new());
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(&at) = due.get(number) else { return outcomes };
            thread::sleep(at.saturating_sub(begun.elapsed()));
            let sent = begun.elapsed();
            outcomes.push(Outcome { at: sent, ..ask(&mut client, number as u64) });
        }
    };
    together(workers, &worker, &mut || {})
}

/// Runs `work` on so many threads and gathers what they have heard.
fn together(threads: usize, work: &(dyn Fn() -> Vec<Outcome> + Sync), meanwhile: &mut dyn FnMut()) -> Vec<Outcome> {
    thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let handles: Vec<_> = (0..threads).filter_map(|number| spawn(number).ok()).collect();
        assert_eq!(handles.len(), threads, "the system refuses so many threads");
        let mut looked = Instant::now();
        while handles.iter().any(|handle| !handle.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            if looked.elapsed() >= LOOK {
                looked = Instant::now();
                meanwhile();
            }
        }
        handles.into_iter().flat_map(|handle| handle.join().expect("a client's thread panicked")).collect()
    })
}

/// Times of independent arrivals, `rate` a second.
fn arrivals(rate: f64, time: Duration, seed: u64) -> Vec<Duration> {
    let (mut all, mut at) = (Vec::new(), 0.0);
    for number in 0.. {
        at -= (1.0 - uniform(seed, number)).ln() / rate;
        if at >= time.as_secs_f64() {
            break;
        }
        all.push(Duration::from_secs_f64(at));
    }
    all
}

/// A number in 0 to 1 that depends on these two alone.
pub fn uniform(seed: u64, number: u64) -> f64 {
    let mut z = seed.wrapping_mul(0xD134_2543_DE82_EF95).wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{arrivals, together};
    use crate::load::http::Outcome;

    #[test]
    fn arrivals_keep_their_rate() {
        let all = arrivals(500.0, Duration::from_secs(20), 9);
        assert!((9_700..10_300).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted() && all.iter().all(|&at| at < Duration::from_secs(20)));
        assert_eq!(all, arrivals(500.0, Duration::from_secs(20), 9));
    }

    #[test]
    fn everybody_is_heard() {
        let outcomes = together(7, &|| vec![Outcome::default(); 3], &mut || {});
        assert_eq!(outcomes.len(), 21);
    }
}
