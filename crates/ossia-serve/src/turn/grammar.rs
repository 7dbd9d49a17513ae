//! The grammar as the engine asks for it. The engine's thread chooses tokens for everybody, so a grammar that was slow is
//! taken off it: from the moment that a token is chosen, a thread of our own works out what may follow, while the model
//! computes the next step. The masks are the same wherever they are made.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ossia_engine::{Constraint, TokenMask};
use ossia_text::constrain::Matcher;

/// A mask that took longer is made elsewhere the next time; a shorter one would not be worth the way there.
const SLOW: Duration = Duration::from_micros(150);
/// Threads that make masks.
const THREADS: usize = 4;

/// The threads. They end when the last handle is gone.
#[derive(Clone)]
pub(super) struct MaskThreads {
    jobs: Sender<Job>,
    slow: Duration,
}

/// Go on by this token, then make a mask of so many words.
struct Job {
    matcher: Matcher,
    token: u32,
    num_words: usize,
    answer: Sender<Answer>,
}

/// A matcher that has gone on, and its mask, or why there is none.
struct Answer {
    matcher: Matcher,
    mask: Result<Vec<u32>, String>,
    took: Duration,
}

impl MaskThreads {
    /// Starts them. Where the system has no threads to give, masks are made where they are asked for.
    pub fn start() -> Self {
        Self::with(THREADS, SLOW)
    }

    fn with(threads: usize, slow: Duration) -> Self {
        let (jobs, todo) = channel::<Job>();
        let todo = Arc::new(Mutex::new(todo));
        for _ in 0..threads {
            let todo = Arc::clone(&todo);
            let work = move || {
                while let Some(job) = next(&todo) {
                    job.run()
                }
            };
            if let Err(error) = std::thread::Builder::new().name("ossia-masks".into()).spawn(work) {
                tracing::warn!(%error, "no thread for masks");
            }
        }
        Self { jobs, slow }
    }
}

fn next(todo: &Mutex<Receiver<Job>>) -> Option<Job> {
    todo.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

impl Job {
    fn run(self) {
        let Self { mut matcher, token, num_words, answer } = self;
        let begun = Instant::now();
        // A panic loses the matcher, whose sender then says so; the thread goes on.
        let made = catch_unwind(AssertUnwindSafe(move || {
            let mut words = vec![u32::MAX; num_words];
            let mask = matcher.accept(token).and_then(|()| matcher.mask(&mut words)).map_err(|error| error.to_string());
            (matcher, mask.map(|()| words))
        }));
        if let Ok((matcher, mask)) = made {
            // Nobody waits where the request has ended.
            let _ = answer.send(Answer { matcher, mask, took: begun.elapsed() });
        }
    }
}

/// One generation's grammar.
pub(super) struct Grammar {
    place: Place,
    threads: MaskThreads,
    is_slow: bool,
    num_words: usize,
}

/// Where the matcher is.
enum Place {
    Here(Matcher),
    Away(Receiver<Answer>),
    /// It broke.
    Lost,
}

impl Grammar {
    pub fn new(matcher: Matcher, threads: &MaskThreads) -> Self {
        Self { place: Place::Here(matcher), threads: threads.clone(), is_slow: false, num_words: 0 }
    }
}

impl Constraint for Grammar {
    fn mask(&mut self, allowed: &mut TokenMask) -> Result<(), String> {
        let words = allowed.words();
        self.num_words = words.len();
        match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Here(mut matcher) => {
                let begun = Instant::now();
                let made = matcher.mask(words).map_err(|error| error.to_string());
                self.is_slow = begun.elapsed() > self.threads.slow;
                self.place = Place::Here(matcher);
                made
            }
            Place::Away(answer) => {
                let Answer { matcher, mask, took } = answer.recv().map_err(|_| broken())?;
                (self.place, self.is_slow) = (Place::Here(matcher), took > self.threads.slow);
                words.iter_mut().zip(mask?).for_each(|(word, may)| *word &= may);
                Ok(())
            }
            Place::Lost => Err(broken()),
        }
    }

    fn accept(&mut self, token: u32) -> Result<(), String> {
        match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Here(mut matcher) if !self.is_slow => {
                let taken = matcher.accept(token).map_err(|error| error.to_string());
                self.place = Place::Here(matcher);
                taken
            }
            Place::Here(matcher) => {
                let (answer, back) = channel();
                let job = Job { matcher, token, num_words: self.num_words, answer };
                match self.threads.jobs.send(job) {
                    Ok(()) => self.place = Place::Away(back),
                    Err(unsent) => {
                        let mut matcher = unsent.0.matcher;
                        let taken = matcher.accept(token).map_err(|error| error.to_string());
                        self.place = Place::Here(matcher);
                        return taken;
                    }
                }
                Ok(())
            }
            // The engine asks for a mask before every token.
            Place::Away(_) | Place::Lost => Err(broken()),
        }
    }
}

fn broken() -> String {
    "the answer's grammar broke".to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ossia_engine::{Constraint, TokenMask};
    use ossia_text::constrain::{AnswerRules, Constrainer, Format};
    use ossia_text::{Harmony, Tokenizer};
    use serde_json::json;

    use super::{Grammar, MaskThreads};

    fn harmony() -> Harmony {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nano/tokenizer.json");
        Harmony::new(Tokenizer::from_json_file(&folder).unwrap().into()).unwrap()
    }

    /// The words of every mask of a turn of which a number chooses the tokens.
    fn masks(grammar: &mut Grammar, vocab: usize, seed: u64) -> Vec<Vec<u32>> {
        let (mut masks, mut state) = (Vec::new(), seed);
        for _ in 0..300 {
            let mut mask = TokenMask::new(vocab);
            if grammar.mask(&mut mask).is_err() {
                break;
            }
            let words = mask.words().to_vec();
            let may: Vec<u32> = (0..vocab as u32).filter(|id| words[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let token = may[(state >> 33) as usize % may.len()];
            masks.push(words);
            grammar.accept(token).unwrap();
        }
        masks
    }

    /// Whether a mask is made here, elsewhere, or now here and now there, it is the same.
    #[test]
    fn masks_are_the_same_wherever_they_are_made() {
        let harmony = harmony();
        let (vocab, constrainer) = (harmony.tokenizer().vocab_size(), Constrainer::new(&harmony).unwrap());
        let schema =
            json!({ "type": "array", "minItems": 8, "items": { "enum": ["ab", "abc", 12, null, { "a": [1] }] } });
        let format = Format::JsonSchema(schema);
        let rules = AnswerRules { format, thinking: false, ..AnswerRules::default() };
        let [never, always, often] =
            [Duration::MAX, Duration::ZERO, Duration::from_micros(5)].map(|slow| MaskThreads::with(2, slow));
        for seed in 0..20 {
            let [here, there, both] = [&never, &always, &often]
                .map(|threads| masks(&mut Grammar::new(constrainer.compile(&rules).unwrap(), threads), vocab, seed));
            assert!(here.len() > 20, "{}", here.len());
            assert!(here == there && here == both, "seed {seed}");
        }
    }

    #[test]
    fn without_threads_and_after_a_fault() {
        let harmony = harmony();
        let (vocab, constrainer) = (harmony.tokenizer().vocab_size(), Constrainer::new(&harmony).unwrap());
        let rules = AnswerRules { thinking: false, ..AnswerRules::default() };
        let grammar = |threads| Grammar::new(constrainer.compile(&rules).unwrap(), threads);
        // No thread listens: the channel is closed.
        let alone = MaskThreads::with(0, Duration::ZERO);
        let usual = MaskThreads::with(1, Duration::MAX);
        assert_eq!(masks(&mut grammar(&alone), vocab, 3), masks(&mut grammar(&usual), vocab, 3));
        // A token that may not come is an error, at once or with the next mask.
        let away = MaskThreads::with(1, Duration::ZERO);
        let mut wrong = grammar(&away);
        wrong.mask(&mut TokenMask::new(vocab)).unwrap();
        let text = harmony.tokenizer().encode_text("x").unwrap()[0];
        assert!(wrong.accept(text).is_err() || wrong.mask(&mut TokenMask::new(vocab)).is_err());
        let mut twice = grammar(&away);
        twice.mask(&mut TokenMask::new(vocab)).unwrap();
        let _ = twice.accept(text);
        assert!(twice.accept(text).is_err(), "a mask comes before every token");
    }
}
