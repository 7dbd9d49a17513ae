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
    Runnable { id, served, pending, decodes: false, all_logits: false, last_step: 0 }
}

fn decoding(id: u64, last_step: u64) -> Runnable {
    Runnable { decodes: true, last_step, ..prompt(id, 0, 1) }
}

const ROOM: Room = Room { tokens: 512, rows: 8, prompt_tokens: 128 };

fn sizes(shares: &[Share]) -> Vec<(u64, usize)> {
    shares.iter().map(|s| (s.id, s.tokens)).collect()
}

#[test]
fn prompts_fill_a_step_in_which_nobody_decodes() {
    let shares = plan(vec![prompt(1, 50, 300), prompt(2, 10, 300), prompt(3, 60, 9)], ROOM);
    assert_eq!(sizes(&shares), [(2, 300), (1, 212)]);
    assert_eq!(shares.iter().map(|s| s.logits).collect::<Vec<_>>(), [Logits::Last, Logits::None]);
}

#[test]
fn a_long_prompt_does_not_hold_up_those_who_decode() {
    let shares = plan(vec![prompt(1, 0, 5000), decoding(2, 0), decoding(3, 0)], ROOM);
    assert_eq!(sizes(&shares), [(2, 1), (3, 1), (1, 128)]);
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
