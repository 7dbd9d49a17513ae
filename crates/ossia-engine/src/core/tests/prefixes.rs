//! The prefix cache in conversations, with one client after the other.

use super::fake::{Fake, Heard, answer, request, shape};
use crate::core::{Core, EngineOptions};
use crate::request::Request;

const CONTEXT: usize = 4096;

fn core(tokens: usize) -> Core<Fake> {
    Core::new(Fake::new(shape(4, CONTEXT, tokens, 512)), EngineOptions::default())
}

fn text(seed: u32, len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 3 + i * seed + seed * 17) % 47).collect()
}

fn run(core: &mut Core<Fake>, id: u64, request: Request) -> Heard {
    let want = answer(&request, CONTEXT);
    let heard = core.add(id, request);
    core.run_out();
    assert_eq!((heard.tokens(), heard.finish()), (want.0, Some(want.1)));
    heard
}

/// Twenty turns of a tool-using agent: each prompt is the last one, the answer and a tool's result. Every fifth turn is a
/// new question, before which the thinking since the last question is dropped.
#[test]
fn an_agent_computes_its_history_once() {
    let mut core = core(16_384);
    let (mut prompt, mut question) = (text(1, 700), 0);
    let (mut replayed, mut cached, mut last) = (0, 0, Vec::new());
    for turn in 0..20u64 {
        let heard = run(&mut core, turn, request(prompt.clone(), 60));
        // What this prompt has in common with all that was computed before.
        let known = prompt.iter().zip(&last).take_while(|(a, b)| a == b).count();
        replayed += known;
        cached += heard.cached().min(known);
        last = [prompt.as_slice(), &heard.tokens()].concat();
        if turn % 5 == 4 {
            prompt.truncate(question.max(700));
            prompt.extend(text(turn as u32 + 50, 90));
            question = prompt.len();
        } else {
            prompt = last.clone();
            prompt.extend(text(turn as u32 + 100, 80));
        }
    }
    let share = cached as f64 / replayed as f64;
    println!("{replayed} tokens were replayed, {cached} of them were cached: {:.2} %", 100.0 * share);
    assert!(replayed > 15_000 && share >= 0.97, "{cached} of {replayed}");
    core.assert_whole();
}

/// The same prompt again, one token shorter, one longer, another last token: exact to the token.
#[test]
fn a_prefix_is_exact_to_the_token() {
    for len in [17, 63, 64, 65, 127, 128, 129, 200, 227, 228, 229, 355, 356, 500] {
        let mut core = core(8192);
        let prompt = text(5, len);
        run(&mut core, 0, request(prompt.clone(), 3));
        let again = run(&mut core, 1, request(prompt.clone(), 3));
        assert_eq!(again.cached(), if len > 16 { len - 1 } else { 0 }, "{len} tokens again");
        let mut other = prompt.clone();
        other[len - 1] = (other[len - 1] + 1) % 47;
        assert_eq!(run(&mut core, 2, request(other.clone(), 3)).cached(), if len > 16 { len - 1 } else { 0 });
        other.extend(text(6, 10));
        assert_eq!(run(&mut core, 3, request(other, 3)).cached(), len);
        core.assert_whole();
    }
}

/// Two at once go on from one point, in the middle of a page, and neither sees the other's tokens.
#[test]
fn two_go_on_from_one_point() {
    let mut core = core(8192);
    let prompt = text(3, 300);
    run(&mut core, 0, request(prompt.clone(), 1));
    let requests: Vec<Request> =
        (0..3).map(|i| request([prompt.clone(), text(20 + i, 50 + i as usize)].concat(), 100)).collect();
    let wants: Vec<_> = requests.iter().map(|r| answer(r, CONTEXT).0).collect();
    let heard: Vec<Heard> = (1..).zip(requests).map(|(id, r)| core.add(id, r)).collect();
    core.run_out();
    for (heard, want) in heard.iter().zip(wants) {
        assert_eq!((heard.cached(), heard.tokens()), (300, want));
    }
    core.assert_whole();
}

#[test]
fn another_salt_finds_nothing() {
    let mut core = core(8192);
    run(&mut core, 0, request(text(3, 300), 1));
    let other = Request { salt: 1, ..request(text(3, 300), 1) };
    assert_eq!(run(&mut core, 1, other).cached(), 0);
    assert_eq!(run(&mut core, 2, request(text(3, 300), 1)).cached(), 299);
}

/// One client floods the cache; what another left is still there.
#[test]
fn a_flood_evicts_itself() {
    let mut core = core(4096);
    run(&mut core, 0, Request { salt: 1, ..request(text(3, 900), 1) });
    for id in 1..40 {
        run(&mut core, id, Request { salt: 2, ..request(text(100 + id as u32, 800), 1) });
    }
    assert!(core.stats().evictions > 30);
    assert_eq!(run(&mut core, 99, Request { salt: 1, ..request(text(3, 900), 1) }).cached(), 899);
    core.assert_whole();
}

/// A prompt that parts from a known one in its middle uses the last point before.
#[test]
fn long_prompts_leave_points_on_their_way() {
    let mut core = core(8192);
    let prompt = text(9, 3000);
    run(&mut core, 0, request(prompt.clone(), 1));
    for parts in [2999, 2100, 1700, 1100, 600] {
        let fork = [&prompt[..parts], &text(77, 40)].concat();
        let cached = run(&mut core, parts as u64, request(fork, 1)).cached();
        assert!(cached <= parts && cached + 512 + 64 >= parts, "{cached} of {parts}");
    }
}

/// Conversations that begin with the same instructions: the third one finds them all, to the token.
#[test]
fn common_instructions_are_found() {
    for len in [40, 330, 1111] {
        let mut core = core(8192);
        let instructions = text(4, len);
        let cached = [1, 2, 3, 4].map(|i| {
            let prompt = [instructions.clone(), vec![i; 1], text(i + 30, 200)].concat();
            run(&mut core, u64::from(i), request(prompt, 2)).cached()
        });
        assert_eq!(cached[0], 0);
        assert_eq!(cached[2..], [len, len], "{cached:?}");
        core.assert_whole();
    }
}
