//! Answers that company does not change, counts that are right, and what is refused.

use std::collections::HashSet;

use ossia_model::gpt_oss::config::Config;
use ossia_model::gpt_oss::synth;
use ossia_model::{Model, Options};
use ossia_text::harmony::Effort;
use ossia_text::{Harmony, RenderOptions, Tokenizer, byte_level_tokenizer_json};

use super::{
    Answer, Calls, Error, Item, MAX_TOKENS, Report, Rules, Set, Tally, answer, context, evaluate, evaluate_by, items,
};
use crate::generate::{Beyond, Expected, Family, Sample};

/// A model of random weights, and a tokenizer of its vocabulary.
fn synth_model(context: usize, sequences: usize, chunk: usize) -> (Model, Harmony) {
    let config = Config::preset("nano", None).unwrap();
    let checkpoint = synth::checkpoint(&config, 1).unwrap();
    let options = Options { context, sequences, chunk, logits_rows: sequences, threads: 2, ..Options::default() };
    let model = Model::load(&checkpoint, options, None, &mut |_, _| {}).unwrap();
    (model, harmony(config.vocab_size))
}

fn harmony(vocab: usize) -> Harmony {
    let tokenizer = Tokenizer::from_json(&byte_level_tokenizer_json(vocab).unwrap()).unwrap();
    Harmony::new(tokenizer.into()).unwrap()
}

/// One id in eight ends an answer: random weights stop by themselves too seldom.
fn rules(harmony: &Harmony, batch: usize) -> Rules {
    let forbidden = harmony.tokenizer().unsampleable_ids(harmony.tokenizer().vocab_size());
    Rules { batch, stops: (0..1000).filter(|id| id % 8 == 3).collect(), forbidden, draws: None, adapter: None }
}

fn some_items(harmony: &Harmony) -> Vec<Item> {
    let sets = [Family::Addition, Family::ToolCall, Family::Context1].map(Set::Family);
    let sets = [&sets[..], &[Set::Beyond(Beyond::Sorting7)]].concat();
    let items = items(harmony, &sets, None, 4, 12).unwrap();
    items.into_iter().map(|item| Item { max_tokens: 20, ..item }).collect()
}

#[test]
fn company_changes_no_answer() {
    let (mut model, harmony) = synth_model(2048, 32, 96);
    let items = some_items(&harmony);
    assert_eq!(items.len(), 48);
    let mut answers = |batch: usize, items: &[Item]| {
        let mut last = None;
        let report =
            evaluate_by(&rules(&harmony, batch), &mut model, &harmony, items, &mut |now| last = Some(now)).unwrap();
        let last = last.unwrap();
        assert_eq!((last.done, last.all, last.tokens), (48, 48, report.num_tokens()));
        report
    };
    let alone = answers(1, &items);
    assert_eq!(answers(32, &items), alone);
    assert_eq!(answers(7, &items), alone);
    let mut turned = answers(32, &items.iter().rev().cloned().collect::<Vec<_>>());
    turned.answers.reverse();
    assert_eq!(turned, alone);
    let lengths: HashSet<usize> = alone.answers.iter().map(|a| a.tokens.len()).collect();
    assert!(lengths.len() > 3 && lengths.contains(&20), "sequences must end at different times: {lengths:?}");
    assert!(alone.answers.iter().any(|a| a.stopped) && alone.answers.iter().any(|a| !a.stopped));
    // A model that was loaded for fewer, and that reads prompts in other pieces.
    let (mut small, _) = synth_model(2048, 3, 2);
    let report = evaluate_by(&rules(&harmony, 32), &mut small, &harmony, &items, &mut |_| {}).unwrap();
    assert_eq!(report, alone);
}

#[test]
fn items_without_room_are_refused() {
    let (mut model, harmony) = synth_model(300, 2, 16);
    let items = items(&harmony, &[Set::Family(Family::ToolCall)], Some(Effort::Low), 1, 3).unwrap();
    let error = evaluate(&mut model, &harmony, &items, 2, None, &mut |_| {}).unwrap_err();
    let Error::Context { needed, context: 300 } = error else { panic!("{error}") };
    assert_eq!(needed, context(&items));
    assert!(error.to_string().contains("--ctx"), "{error}");
}

/// What a perfect model says, cut off after `most` tokens.
fn perfect(harmony: &Harmony, set: Set, sample: Sample, most: usize) -> Answer {
    let whole = harmony.render_for_training(&sample.conversation, &RenderOptions::default()).unwrap();
    let item = &Item::new(harmony, set, sample).unwrap();
    let turn = &whole[item.prompt().len()..];
    let rules = Rules { batch: 1, stops: harmony.stop_ids(), forbidden: vec![], draws: None, adapter: None };
    answer(&rules, harmony, item, turn[..turn.len().min(most)].to_vec())
}

fn report(answers: Vec<Answer>) -> Report {
    Report { answers, prompt_tokens: 0 }
}

#[test]
fn perfect_answers_are_counted_as_such() {
    let harmony = Harmony::new(Tokenizer::o200k_harmony().into()).unwrap();
    let samples: Vec<(Set, Sample)> =
        Set::all().flat_map(|set| set.samples(None, 1, 20).into_iter().map(move |sample| (set, sample))).collect();
    let asked = samples.iter().filter(|(_, sample)| matches!(sample.expected, Expected::Call { .. })).count();
    let report = report(samples.into_iter().map(|(set, s)| perfect(&harmony, set, s, usize::MAX)).collect());
    assert_eq!(report.sets(), Set::all().collect::<Vec<_>>());
    for set in Set::all() {
        assert_eq!(Set::from_name(set.name()), Some(set));
        let tally = report.tally(set, None);
        assert_eq!(tally, Tally { num: 20, correct: 20, valid: 20, stopped: 20 }, "{}", set.name());
        let efforts = [Effort::Low, Effort::Medium, Effort::High].map(|e| report.tally(set, Some(e)).num);
        assert_eq!(efforts.iter().sum::<usize>(), 20);
    }
    assert_eq!((report.macro_average(None), report.stopped_share()), (Some(1.0), Some(1.0)));
    assert!(asked > 0);
    assert_eq!(report.calls(), Calls { asked, correct: asked, made: asked, valid: asked });
    let longest = report.answers.iter().filter(|a| a.set.is_family()).map(|a| a.tokens.len()).max();
    assert!(longest.unwrap() <= MAX_TOKENS, "a right answer must have room: {longest:?}");
    let [low, medium, high] = [Effort::Low, Effort::Medium, Effort::High].map(|e| report.mean_thinking_tokens(e));
    assert_eq!(low, Some(0.0));
    assert!(medium > low && high > medium, "{medium:?} {high:?}");
}

#[test]
fn broken_answers_and_longer_tasks_are_kept_apart() {
    let harmony = harmony(300);
    let [good, bad] = [Family::Addition, Family::Sorting].map(|f| (Set::Family(f), f));
    let sets = [good.0, bad.0, Set::Beyond(Beyond::Addition6)];
    let most = |set: Set| if set == good.0 { usize::MAX } else { 40 };
    let high = |set: Set| set.samples(Some(Effort::High), 1, 4).into_iter().map(move |sample| (set, sample));
    let answers = sets.into_iter().flat_map(high).map(|(set, sample)| perfect(&harmony, set, sample, most(set)));
    let report = report(answers.collect());
    assert_eq!(report.tally(bad.0, None), Tally { num: 4, ..Tally::default() });
    assert_eq!(report.tally(bad.0, Some(Effort::Low)), Tally::default());
    // The set beyond training, all wrong, counts in neither.
    assert_eq!((report.macro_average(None), report.stopped_share()), (Some(0.5), Some(0.5)));
    assert_eq!((report.macro_average(Some(Effort::High)), report.macro_average(Some(Effort::Low))), (Some(0.5), None));
    assert_eq!((report.calls(), report.mean_thinking_tokens(Effort::Low)), (Calls::default(), None));
}

#[test]
fn intervals_are_wilsons() {
    let interval = |correct, num| Tally { num, correct, ..Tally::default() }.interval();
    for (correct, num, low, high) in
        [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (250, 500, 0.4563, 0.5437)]
    {
        let (found_low, found_high) = interval(correct, num).unwrap();
        assert!((found_low - low).abs() < 1e-4 && (found_high - high).abs() < 1e-4, "{found_low} {found_high}");
    }
    assert_eq!(interval(0, 0), None);
}
