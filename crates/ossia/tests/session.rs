//! A session keeps its promises on random weights: what it reuses changes nothing, what fails leaves no trace.

use std::ops::ControlFlow;

use clap::Parser;
use ossia::error::Failure;
use ossia::generation::{Ended, SamplingArgs};
use ossia::session::{Said, Session, Start, Turn, beginning};
use ossia::source::ModelArgs;
use ossia_text::harmony::{Content, Effort, Role};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
}

fn session(more: &[&str]) -> Session {
    let args = Args::parse_from([&["test", "-m", "synth:nano", "--seed", "3"], more].concat());
    let conversation = beginning(Effort::Low, None);
    let start = Start { conversation, prompt: "", max_tokens: None, adapter: None, quiet: true };
    Session::open(&args.model, &args.sampling, start).expect("a small model loads")
}

fn say(session: &mut Session, text: &str, limit: usize) -> Result<Turn, Failure> {
    session.turn(text, limit, &mut |_| ControlFlow::Continue(()))
}

#[test]
fn what_is_still_held_is_not_read_again_and_changes_nothing() {
    let mut long = session(&[]);
    // The first token of an answer is not yet in the cache: it holds the prompt, from which the next one goes on.
    let first = say(&mut long, "one", 1).expect("an answer");
    assert_eq!((first.reused_tokens, first.tokens, first.kept), (0, 1, true));
    assert_eq!(long.held_tokens(), first.prompt_tokens);

    let mut fresh = session(&[]);
    fresh.replace(long.conversation().clone()).expect("it renders");
    let (second, anew) =
        (say(&mut long, "two", 20).expect("an answer"), say(&mut fresh, "two", 20).expect("an answer"));
    assert_eq!((second.reused_tokens, anew.reused_tokens), (first.prompt_tokens, 0));
    assert_eq!(second.prompt_tokens, anew.prompt_tokens);
    assert_eq!(second.messages, anew.messages);

    long.set_effort(Effort::High);
    assert_eq!(say(&mut long, "three", 4).expect("an answer").reused_tokens, 0, "the beginning is another");
}

#[test]
fn a_turn_broken_off_while_reading_leaves_no_trace() {
    for steps in [0, 2] {
        let mut session = session(&["--chunk", "7"]);
        let before = session.conversation().clone();
        let mut read = 0;
        let turn = session.turn("one", 20, &mut |said| {
            let Said::Reading { done, all } = said else { panic!("nothing was said") };
            assert!(done == 7 * read && done < all);
            read += 1;
            if read > steps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let turn = turn.expect("no failure");
        assert_eq!((turn.ended, turn.kept, turn.tokens), (Ended::Broken, false, 0));
        assert_eq!(session.conversation(), &before);
        let (after, whole) = (say(&mut session, "one", 20), say(&mut self::session(&[]), "one", 20));
        assert_eq!(after.expect("an answer").messages, whole.expect("an answer").messages);
    }
}

#[test]
fn an_answer_that_is_stopped_is_kept_as_far_as_it_came() {
    let mut session = session(&[]);
    let mut tokens = 0;
    let turn = session.turn("one", 100, &mut |said| {
        tokens += usize::from(matches!(said, Said::Token(_)));
        if tokens == 9 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let turn = turn.expect("no failure");
    assert_eq!((turn.ended, turn.tokens, turn.kept, turn.finish_reason()), (Ended::Broken, 9, true, "stopped"));
    let kept: Vec<Role> = session.conversation().messages.iter().map(|m| m.author.role).collect();
    // How many messages nine tokens are depends on what it said, and that on the day which it is told.
    assert_eq!(kept[..3], [Role::System, Role::User, Role::Assistant]);
    assert!(kept[3..].iter().all(|role| *role == Role::Assistant), "{kept:?}");
}

#[test]
fn a_turn_that_does_not_fit_leaves_no_trace_and_a_shorter_one_goes_on() {
    let mut session = session(&["--ctx", "300"]);
    let before = session.conversation().clone();
    let failure = say(&mut session, &"long ".repeat(200), 20).expect_err("it does not fit").to_string();
    assert!(failure.contains("the context is full") && failure.contains("/reset"), "{failure}");
    assert_eq!(session.conversation(), &before);
    let turn = say(&mut session, "short", usize::MAX).expect("an answer");
    assert!(turn.context_full && turn.ended == Ended::Length, "{turn:?}");
    assert_eq!(session.held_tokens(), session.context());
    session.reset();
    assert_eq!(session.conversation(), &before);
}

#[test]
fn effort_is_set_even_where_a_loaded_conversation_has_no_system_message() {
    let mut session = session(&[]);
    session.replace(Default::default()).expect("nothing renders too");
    session.set_effort(Effort::High);
    let Some(Content::SystemContent(system)) = session.conversation().messages[0].content.first() else {
        panic!("{:?}", session.conversation());
    };
    assert_eq!(system.reasoning_effort, Some(Effort::High));
}
