//! `load`, `overload` and `flood`: what is asked, and what must not happen.

use std::time::Duration;

use super::Settings;
use super::crowd::{closed, open, uniform};
use super::http::{Client, Outcome, chat};
use super::report::{Watch, check, first_ms, kinds, ms, percentile, spread};
use super::server::Server;

/// Before a rate is measured the queue may fill.
const WARM: Duration = Duration::from_secs(2);
/// After the last client has gone its pages must be free in this time.
const FREE: Duration = Duration::from_millis(100);
/// Tokens of an answer at most; nano mostly ends by itself.
const ANSWER: usize = 200;
/// The client beside a flood wants few: its first token is what is looked at.
const SHORT: usize = 8;

/// Many streams for long, some of them dropped.
pub fn load(server: &Server, settings: &Settings) -> Result<(), String> {
    let (streams, drop) = (settings.count("streams", 64)?, settings.number("drop", 0.2)?);
    let time = settings.seconds("seconds", 300.0)?;
    let ask = |client: &mut Client, number: u64| {
        let leaves = uniform(1, number) < drop;
        let after = 1 + (uniform(2, number) * 29.0) as usize;
        client.ask(&chat(&server.key, number, ANSWER), leaves.then_some(after))
    };
    let (watch, mut sizes) = (Watch::new(server), Vec::new());
    let outcomes = closed(server.at, streams, time, &ask, &mut || sizes.push(server.resident_mb()));
    println!("{} requests by {streams} streams in {time:?}: {:?}", outcomes.len(), kinds(&outcomes));
    println!("{watch}");
    println!("first token: {}", spread(first_ms(&outcomes)));
    std::thread::sleep(FREE);
    let metrics = server.metrics()?;
    let kept = |name: &&String| name.starts_with("ossia_kv_pages{") && name.contains("used");
    let used: Vec<_> = metrics.keys().filter(kept).map(|name| (name, metrics[name])).collect();
    println!("pages in use {FREE:?} after the last: {used:?}");
    let at = |share: f64| sizes.get((sizes.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    let (early, late) = (at(0.2), sizes.last().copied().unwrap_or(f64::NAN));
    println!("memory: {early:.0} MB after a fifth, {:.0} in the middle, {late:.0} at the end", at(0.5));
    check(&outcomes)?;
    if used.is_empty() || used.iter().any(|(_, pages)| *pages != 0.0) {
        return Err("pages are still in use, or there is no count of them".to_owned());
    }
    if early.is_nan() || late > 1.1 * early {
        return Err(format!("memory grows: {early:.0} MB to {late:.0} MB"));
    }
    Ok(())
}

/// Capacity, then many times as many requests as that; in turn, since a shared machine is not always as fast.
pub fn overload(server: &Server, settings: &Settings) -> Result<(), String> {
    let (time, times) = (settings.seconds("seconds", 10.0)? + WARM, settings.number("times", 10.0)?);
    let (workers, rounds) = (settings.count("workers", 512)?, settings.count("rounds", 3)?);
    let mut fresh = 0;
    let mut capacity = |streams: usize| {
        // Every run has questions of its own: none is in the cache.
        fresh += 1;
        let first: u64 = fresh << 32;
        let ask = |client: &mut Client, number: u64| client.ask(&chat(&server.key, first + number, ANSWER), None);
        let watch = Watch::new(server);
        let outcomes = closed(server.at, streams, time, &ask, &mut || {});
        let rate = goodput(&outcomes, time);
        println!(
            "{streams} at a time: {rate:.1} answers a second; first token: {}\n{watch}",
            spread(first_ms(&outcomes))
        );
        check(&outcomes).map(|()| rate)
    };
    let mut best = (0.0, 1);
    for streams in settings.counts("streams", &[16, 24])? {
        let rate = capacity(streams)?;
        best = if rate > best.0 { (rate, streams) } else { best };
    }
    let mut shares = Vec::new();
    for round in 0..rounds as u64 {
        let peak = capacity(best.1)?;
        let rate = overloaded(server, (workers, times * peak, time), (1 << 48) + (round << 32))?;
        println!("  {:.1} % of the {peak:.1} before", 100.0 * rate / peak);
        shares.push(100.0 * rate / peak);
        server.idle(Duration::from_secs(60))?;
    }
    println!("goodput, median of {rounds} rounds: {:.1} % of capacity", percentile(&mut shares, 0.5));
    Ok(())
}

/// Answers a second while so many are asked for; tells how the rest was refused.
fn overloaded(server: &Server, (workers, rate, time): (usize, f64, Duration), first: u64) -> Result<f64, String> {
    let ask = |client: &mut Client, number: u64| client.ask(&chat(&server.key, first + number, ANSWER), None);
    let watch = Watch::new(server);
    let outcomes = open(server.at, workers, rate, time, &ask);
    let watch = watch.to_string();
    let good = goodput(&outcomes, time);
    let sent = outcomes.iter().filter(|outcome| outcome.at <= time).count();
    println!("{:.0} a second offered: {good:.1} answers a second\n{watch}", sent as f64 / time.as_secs_f64());
    println!("  {:?}; late {}", kinds(&outcomes), outcomes.len() - sent);
    println!("  first token of those answered: {}", spread(first_ms(&outcomes)));
    let refused: Vec<Outcome> = outcomes.iter().filter(|outcome| outcome.status == 429).cloned().collect();
    println!("  refused: {}", spread(refused.iter().map(|outcome| ms(outcome.all)).collect()));
    let silent = refused.iter().filter(|outcome| !outcome.retry_after).count();
    let closed = refused.iter().filter(|outcome| outcome.closed).count();
    println!("  refused without Retry-After {silent}, and the connection closed {closed}");
    check(&outcomes)?;
    if silent > 0 { Err("refusals without Retry-After".to_owned()) } else { Ok(good) }
}

/// Answers a second that were there within `time`, once the queue had filled.
fn goodput(outcomes: &[Outcome], time: Duration) -> f64 {
    let there = |outcome: &&Outcome| {
        let end = outcome.at + outcome.all;
        outcome.status == 200 && outcome.done && end > WARM && end <= time
    };
    outcomes.iter().filter(there).count() as f64 / (time - WARM).as_secs_f64()
}

/// One client alone, then beside another who floods the server.
pub fn flood(server: &Server, settings: &Settings) -> Result<(), String> {
    let (crowd, time) = (settings.count("flood", 100)?, settings.seconds("seconds", 20.0)?);
    let other = server.add_key()?;
    let small = |client: &mut Client, number: u64| client.ask(&chat(&other, number + (1 << 32), SHORT), None);
    let large = |client: &mut Client, number: u64| client.ask(&chat(&server.key, number, ANSWER), None);
    let watch = Watch::new(server);
    let alone = closed(server.at, 1, time, &small, &mut || {});
    println!("alone: first token {}", spread(first_ms(&alone)));
    println!("{watch}");
    let watch = Watch::new(server);
    let (beside, others) = std::thread::scope(|scope| {
        let others = scope.spawn(|| closed(server.at, crowd, time + 2 * WARM, &large, &mut || {}));
        std::thread::sleep(WARM);
        let beside = closed(server.at, 1, time, &small, &mut || {});
        (beside, others.join().expect("the flood's thread panicked"))
    });
    println!("beside {crowd} of another client: first token {}", spread(first_ms(&beside)));
    println!("{watch}\n  the others: {:?}", kinds(&others));
    let at = |outcomes: &[Outcome], share: f64| percentile(&mut first_ms(outcomes), share);
    let ratio = |share: f64| at(&beside, share) / at(&alone, share);
    println!("ratio: 99 % {:.2}, median {:.2}", ratio(0.99), ratio(0.5));
    check(&alone)?;
    check(&beside)?;
    check(&others)
}
