//! Fairness between clients, and what fills a step.

use super::*;

#[test]
fn the_least_served_client_is_next() {
    let mut scheduler = Scheduler::default();
    for id in 0..3 {
        scheduler.enqueue(7, id);
    }
    scheduler.enqueue(8, 3);
    assert_eq!(scheduler.heads()[0], (7, 0), "equal counters: first come, first served");
    scheduler.dequeue(7, 0, true);
    scheduler.charge(7, 10);
    assert_eq!(scheduler.heads()[0], (8, 3));
    scheduler.dequeue(8, 3, true);
    scheduler.charge(8, 11);
    assert_eq!(scheduler.heads()[0], (7, 1));
}

#[test]
fn among_equals_who_runs_least_is_next() {
    let mut scheduler = Scheduler::default();
    (0..3).for_each(|id| scheduler.enqueue(7, id));
    scheduler.dequeue(7, 0, true);
    scheduler.charge(7, 100);
    scheduler.enqueue(8, 3);
    assert_eq!((scheduler.served(7), scheduler.served(8)), (100, 100), "who comes starts where the others are");
    assert_eq!(scheduler.heads(), [(8, 3), (7, 1)]);
}

#[test]
fn a_pause_saves_up_nothing() {
    let mut scheduler = Scheduler::default();
    scheduler.enqueue(1, 0);
    scheduler.dequeue(1, 0, true);
    scheduler.enqueue(2, 1);
    scheduler.dequeue(2, 1, true);
    scheduler.charge(1, 5);
    scheduler.ended(1);
    scheduler.charge(2, 1000);
    scheduler.enqueue(1, 2);
    assert_eq!(scheduler.served(1), 1000);
    scheduler.enqueue(3, 3);
    assert_eq!(scheduler.served(3), 1000);
}

#[test]
fn leaving_for_a_moment_wins_nothing() {
    let mut scheduler = Scheduler::default();
    scheduler.enqueue(1, 0);
    scheduler.enqueue(2, 1);
    scheduler.dequeue(1, 0, true);
    scheduler.charge(1, 500);
    scheduler.ended(1);
    scheduler.enqueue(1, 2);
    assert_eq!((scheduler.served(1), scheduler.served(2)), (500, 0));
    assert_eq!(scheduler.heads()[0], (2, 1));
}

#[test]
fn who_was_made_to_wait_goes_before_his_others() {
    let mut scheduler = Scheduler::default();
    (0..3).for_each(|id| scheduler.enqueue(1, id));
    scheduler.dequeue(1, 0, true);
    scheduler.requeue(1, 0);
    assert_eq!(scheduler.heads()[0], (1, 0));
}

#[test]
fn absent_clients_are_forgotten() {
    let mut scheduler = Scheduler::default();
    for client in 0..10_000 {
        scheduler.enqueue(client, client);
        scheduler.dequeue(client, client, true);
        scheduler.charge(client, 100 + client);
        scheduler.ended(client);
    }
    assert!(scheduler.clients.len() <= MOST_ABSENT + 1);
}

fn prompt(id: u64, served: u64, pending: usize) -> Runnable {
    Runnable { id, client: id, served, made: 0, pending, decodes: false, all_logits: false, last_step: 0 }
}

fn decoding(id: u64, last_step: u64) -> Runnable {
    Runnable { made: 100, decodes: true, last_step, ..prompt(id, 0, 1) }
}

const ROOM: Room = Room { tokens: 512, rows: 8, prompt_tokens: 128 };

fn sizes(shares: &[Share]) -> Vec<(u64, usize)> {
    shares.iter().map(|s| (s.id, s.tokens)).collect()
}

#[test]
fn prompts_share_a_step_in_which_nobody_decodes() {
    let shares = plan(vec![prompt(1, 50, 300), prompt(2, 10, 300), prompt(3, 60, 9)], ROOM);
    assert_eq!(sizes(&shares), [(2, 252), (1, 251), (3, 9)]);
    assert_eq!(shares.iter().map(|s| s.logits).collect::<Vec<_>>(), [Logits::None, Logits::None, Logits::Last]);
    assert_eq!(tokens_of(&shares), (0, 512));
    // So many as have enough of it; then, if they leave room, whoever is next.
    let many = |pending: usize| (0..9).map(|id| prompt(id, id, pending)).collect();
    assert_eq!(sizes(&plan(many(5000), ROOM)), [(0, 128), (1, 128), (2, 128), (3, 128)]);
    assert_eq!(sizes(&plan(many(100), ROOM)), [(0, 100), (1, 100), (2, 100), (3, 100), (4, 100), (5, 12)]);
    assert_eq!(sizes(&plan(many(5000), Room { tokens: 100, ..ROOM })), [(0, 100)], "a small step is one prompt's");
}

#[test]
fn clients_share_a_step_evenly_not_prompts() {
    let of = |client: u64, runnable: Runnable| Runnable { client, ..runnable };
    let crowd = (1..4).map(|id| of(1, prompt(id, 0, 5000)));
    let shares = plan(crowd.chain([of(2, prompt(4, 0, 5000))]).collect(), ROOM);
    assert_eq!(sizes(&shares), [(1, 86), (2, 85), (3, 85), (4, 256)]);
}

#[test]
fn what_one_does_not_want_is_for_the_others() {
    assert_eq!(evenly(&[5, 100, 1, 100], 60), [5, 27, 1, 27]);
    assert_eq!(evenly(&[5, 100, 1, 100], 300), [5, 100, 1, 100]);
    assert_eq!((evenly(&[], 5), evenly(&[3, 3], 0)), (vec![], vec![0, 0]));
}

#[test]
fn a_long_prompt_does_not_hold_up_those_who_decode() {
    let shares = plan(vec![prompt(1, 0, 5000), decoding(2, 0), decoding(3, 0)], ROOM);
    assert_eq!(sizes(&shares), [(2, 1), (3, 1), (1, 128)]);
    assert_eq!(tokens_of(&shares), (2, 128));
    let tight = Room { tokens: 100, ..ROOM };
    assert_eq!(sizes(&plan(vec![prompt(1, 0, 5000), decoding(2, 0)], tight)), [(2, 1), (1, 99)]);
}

#[test]
fn where_rows_are_short_those_who_waited_longest_decode() {
    let room = Room { rows: 2, ..ROOM };
    let shares = plan(vec![decoding(1, 9), decoding(2, 8), decoding(3, 7), prompt(4, 0, 10)], room);
    assert_eq!(sizes(&shares), [(3, 1), (2, 1), (4, 9)]);
    assert_eq!(shares[2].logits, Logits::None, "its last token waits for a row");
    assert_eq!(plan(vec![prompt(4, 0, 1)], Room { rows: 0, ..ROOM }), []);
}

#[test]
fn a_prompt_that_wants_all_logits_is_cut_by_rows() {
    let all = Runnable { all_logits: true, ..prompt(1, 0, 100) };
    let shares = plan(vec![all, decoding(2, 0)], ROOM);
    assert_eq!(sizes(&shares), [(2, 1), (1, 7)]);
    assert_eq!(shares[1].logits, Logits::All);
}

/// A scheduler in which so many requests of clients 1, 2, … run.
fn with_running(running: &[u64]) -> Scheduler {
    let mut scheduler = Scheduler::default();
    for (client, &count) in (1..).zip(running) {
        for id in 0..count {
            scheduler.enqueue(client, 100 * client + id);
            scheduler.dequeue(client, 100 * client + id, true);
        }
    }
    scheduler
}

#[test]
fn who_holds_much_sits_out_while_another_begins() {
    let of = |client: u64, made: usize, runnable: Runnable| Runnable { client, made, ..runnable };
    let steps = |scheduler: &mut Scheduler, new: Runnable| -> Vec<usize> {
        let mut all: Vec<_> = (0..8).map(|id| of(1, 100, decoding(id, 0))).collect();
        all.extend([of(2, 100, decoding(8, 0)), new, of(4, 0, prompt(10, 0, 5000))]);
        (0..20).map(|_| scheduler.taking_part(all.clone(), 128).len()).collect()
    };
    let mut scheduler = with_running(&[8, 1, 1, 1]);
    let begun = steps(&mut scheduler, of(3, BEGINNING, decoding(9, 0)));
    assert!(begun.iter().all(|&len| len == 7), "half of the crowd: {begun:?}");
    // By now others may sit out as many as there may be; then every other step is everybody's.
    let begins = steps(&mut scheduler, of(3, 0, prompt(9, 0, 70)));
    assert_eq!(begins[..MOST_SAT_OUT], [2; MOST_SAT_OUT], "who decodes and who begins, not the long prompt");
    assert_eq!(begins[MOST_SAT_OUT..], [7, 2, 7, 2, 7, 2, 7, 2, 7, 2, 7, 2]);
    for (running, new) in [(&[8, 1, 1, 1], prompt(9, 0, 129)), (&[8, 1, 3, 1], prompt(9, 0, 70))] {
        let mut scheduler = with_running(running);
        steps(&mut scheduler, of(3, BEGINNING, decoding(9, 0)));
        let all = steps(&mut scheduler, of(3, 0, new));
        assert!(all.iter().all(|&len| len == 7), "a long prompt, or not few places: {all:?}");
    }
}

/// While one who holds few places comes and goes, half of those of one who holds many decode in a step, in turn.
#[test]
fn a_crowd_decodes_by_halves_while_others_come_and_go() {
    let of = |client: u64, runnable: Runnable| Runnable { client, ..runnable };
    let mut scheduler = with_running(&[9, 1]);
    let mut last = [0; 9];
    let mut step = |now: u64, guest: bool| -> Vec<u64> {
        let mut all: Vec<_> = (0..9).map(|id| of(1, decoding(id, last[id as usize]))).collect();
        all.extend(guest.then(|| of(2, decoding(9, 0))));
        let mut ids: Vec<_> = scheduler.taking_part(all, 128).iter().map(|s| s.id).collect();
        ids.iter().filter(|&&id| id < 9).for_each(|&id| last[id as usize] = now);
        ids.sort_unstable();
        ids
    };
    assert_eq!(step(1, false).len(), 9, "nobody else has been there");
    assert_eq!(step(2, true), [0, 1, 2, 3, 4, 9]);
    assert_eq!(step(3, true), [0, 5, 6, 7, 8, 9]);
    let after: Vec<usize> = (0..THOUGHT_OF as u64).map(|i| step(4 + i, false).len()).collect();
    assert_eq!(after[..THOUGHT_OF - 1], [5; THOUGHT_OF - 1], "he may come again");
    assert_eq!(after[THOUGHT_OF - 1], 9);
}
